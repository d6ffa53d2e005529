"""The frontend's state machine: every request is settled once, whatever the broker does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from hailo_clip.api.inflight import (
    LIVENESS_S,
    MARGIN_S,
    PING_S,
    PING_SOON_S,
    REOPEN_S,
    Action,
    Inflight,
    Outcome,
    Reopen,
    Send,
    Settle,
)
from hailo_clip.api.waiting import MAX_SENDS
from hailo_clip.shared.errors import (
    DeadlineExceeded,
    Draining,
    ModelMismatch,
    QueueFull,
    Unavailable,
)
from hailo_clip.shared.messages import Cancel, Ping, Pong, Refused, Reply, Status, Submit

WANTED = Submit(0, "r-1", "10.0.0.1", 1.0, False, 0.0, "", (1,), (b"ids!",))
READY = Pong(1, "epoch-1.1", "ready", "", 2, "m", "print-onnx", "onnx")


def machine(requests: int = 4, size: int = 100) -> Inflight:
    return Inflight(lambda encoder: f"print-{encoder}", requests, size)


def ready(now: float = 0.0, **limits: int) -> Inflight:
    made = machine(**limits)
    made.start(now)
    made.received(now, READY)
    return made


def sent(actions: Iterable[Action], kind: type) -> list:  # type: ignore[type-arg]
    return [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, kind)]


def settled(actions: Iterable[Action]) -> dict[int, Outcome]:
    return {a.request_id: a.outcome for a in actions if isinstance(a, Settle)}


def reply(request_id: int) -> Reply:
    return Reply(request_id, (None,), 0.0, 0.0, 0, (b"\0" * 4,))


def silence(inflight: Inflight, since: float) -> float:
    """Tick until the link is down; returns when that was."""
    now = since
    while inflight.health.status != "unhealthy":
        now = max(now, inflight.next_wake())
        assert now < since + 2 * LIVENESS_S
        inflight.tick(now)
    return now


def test_asks_the_broker_first_and_refuses_until_it_answers() -> None:
    inflight = machine()
    assert sent(inflight.start(0.0), Ping) == [Ping(1)]
    assert inflight.health.status == "starting"
    with pytest.raises(Unavailable, match="starting: the broker has not answered yet") as refused:
        inflight.submit(0.0, 30.0, WANTED)
    assert refused.value.retry_after_s
    assert len(inflight) == 0


def test_a_request_is_sent_with_an_id_a_deadline_and_the_fingerprint_and_settled_by_its_reply() -> None:
    inflight = ready()
    first, actions = inflight.submit(1.0, 30.0, WANTED)
    assert sent(actions, Submit) == [replace(WANTED, request_id=first, ttl_s=30.0, fingerprint="print-onnx")]
    second, _ = inflight.submit(1.0, 30.0, WANTED)
    assert first != second
    assert settled(inflight.received(2.0, reply(first))) == {first: reply(first)}
    assert len(inflight) == 1


def test_a_refusal_becomes_its_error() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(1.0, 30.0, WANTED)
    outcome = settled(inflight.received(2.0, Refused(request_id, ("queue_full", "10 wait", 2.5))))[request_id]
    assert isinstance(outcome, QueueFull)
    assert (outcome.message, outcome.retry_after_s) == ("10 wait", 2.5)


@pytest.mark.parametrize("message", [reply(1), reply(99), Refused(1, ("internal", "x", None)), Status(1, {})])
def test_what_answers_nothing_that_waits_is_dropped_and_counted(message: Reply | Refused | Status) -> None:
    inflight = ready()
    request_id, _ = inflight.submit(1.0, 30.0, WANTED)
    inflight.received(2.0, reply(request_id))
    assert inflight.received(3.0, message) == []
    assert inflight.dropped == 1


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        ("starting", Unavailable, "the service is starting: loading"),
        ("unhealthy", Unavailable, "the service cannot answer now: loading"),
        ("draining", Draining, "the service is shutting down"),
    ],
)
def test_requests_are_taken_only_while_the_broker_is_ready(
    state: str, error: type[Unavailable], text: str
) -> None:
    inflight = ready()
    inflight.received(1.0, replace(READY, state=state, reason="loading"))
    with pytest.raises(error) as refused:
        inflight.submit(1.0, 30.0, WANTED)
    assert type(refused.value) is error
    assert refused.value.message == text
    inflight.received(2.0, READY)
    inflight.submit(2.0, 30.0, WANTED)


def test_a_broker_with_another_model_is_not_sent_anything() -> None:
    inflight = ready()
    inflight.received(1.0, replace(READY, fingerprint="other"))
    with pytest.raises(ModelMismatch, match="this frontend's model is print-onnx, the broker's m is other"):
        inflight.submit(1.0, 30.0, WANTED)


def test_bounds() -> None:
    inflight = ready(requests=2, size=10)
    inflight.submit(1.0, 30.0, WANTED)
    inflight.submit(1.0, 30.0, WANTED)
    full = r"^2 requests of 8 bytes wait here already, at most 2 of 10 bytes may$"
    with pytest.raises(QueueFull, match=full):
        inflight.submit(1.0, 30.0, WANTED)
    inflight.received(2.0, reply(1))
    with pytest.raises(QueueFull):
        inflight.submit(2.0, 30.0, replace(WANTED, frames=(b"1234567",)))
    inflight.submit(2.0, 30.0, replace(WANTED, frames=(b"123456",)))


def test_a_deadline_that_passed_while_inputs_were_prepared() -> None:
    with pytest.raises(DeadlineExceeded):
        ready().submit(1.0, 0.0, WANTED)


def test_a_silent_broker_that_answers_pings_still_means_504_by_the_deadline() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 2.0, WANTED)
    assert inflight.next_wake() <= 2.0 + MARGIN_S
    inflight.received(1.5, READY)
    assert settled(inflight.tick(2.0 + MARGIN_S - 0.01)) == {}
    outcome = settled(inflight.tick(2.0 + MARGIN_S))[request_id]
    assert isinstance(outcome, DeadlineExceeded)
    assert outcome.message == "no answer within 2 s"


def test_cancel_tells_the_broker_once_and_its_answer_is_dropped() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 2.0, WANTED)
    assert sent(inflight.cancel(request_id), Cancel) == [Cancel(request_id)]
    assert inflight.cancel(request_id) == []
    assert inflight.received(1.0, reply(request_id)) == []
    assert inflight.dropped == 1


def test_a_full_socket_is_a_503() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 2.0, WANTED)
    assert isinstance(settled(inflight.unsendable(request_id))[request_id], Unavailable)
    assert inflight.unsendable(request_id) == []


def test_pings_every_second_and_sooner_while_not_ready() -> None:
    inflight = ready(now=0.0)
    assert inflight.next_wake() == pytest.approx(PING_SOON_S)  # planned before the first Pong
    inflight.tick(PING_SOON_S)
    assert inflight.next_wake() == pytest.approx(PING_SOON_S + PING_S)
    inflight.received(0.3, replace(READY, state="unhealthy"))
    assert inflight.next_wake() == pytest.approx(0.3 + PING_SOON_S)


def test_silence_makes_the_link_down_and_an_answer_brings_it_up() -> None:
    inflight = ready()
    down = silence(inflight, 0.0)
    assert LIVENESS_S <= down <= LIVENESS_S + PING_S
    with pytest.raises(Unavailable, match="the broker does not answer"):
        inflight.submit(down, 30.0, WANTED)
    inflight.received(down + 1, READY)
    assert inflight.health.status == "ready"


def test_a_process_that_was_stopped_itself_does_not_blame_the_broker() -> None:
    inflight = ready()
    inflight.tick(1.0)
    inflight.received(1.0, READY)
    inflight.tick(60.0)  # nothing ran in between, so no ping is unanswered
    assert inflight.health.status == "ready"


def test_a_restarted_broker_gets_what_is_unanswered_once_with_the_time_that_is_left() -> None:
    inflight = ready()
    request_id, actions = inflight.submit(0.0, 30.0, WANTED)
    restarted = replace(READY, session="epoch-2")
    again = sent(inflight.received(10.0, restarted), Submit)
    assert again == [replace(sent(actions, Submit)[0], ttl_s=20.0)]
    assert inflight.received(11.0, restarted) == []
    assert settled(inflight.received(12.0, reply(request_id))) == {request_id: reply(request_id)}


def test_a_broker_that_does_not_know_this_frontend_any_more_gets_what_is_unanswered() -> None:
    """Its connection broke, or it was frozen: the link was never down, and the broker is the same."""
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    (ping,) = sent(inflight.tick(PING_S), Ping)
    assert ping.session == READY.session
    assert inflight.received(1.1, replace(READY, seq=ping.seq)) == []
    anew = replace(READY, session="epoch-1.2")
    (again,) = sent(inflight.received(2.0, anew), Submit)
    assert (again.request_id, again.ttl_s) == (request_id, 28.0)
    (ping,) = sent(inflight.tick(inflight.next_wake()), Ping)
    assert ping.session == "epoch-1.2"
    assert inflight.received(3.0, anew) == []
    assert settled(inflight.received(4.0, reply(request_id))) == {request_id: reply(request_id)}
    inflight.received(4.1, reply(request_id))  # of the connection of before
    assert inflight.dropped == 1


def test_a_restarted_broker_is_sent_nothing_before_it_is_ready() -> None:
    inflight = ready()
    inflight.submit(0.0, 30.0, WANTED)
    restarted = replace(READY, session="epoch-2")
    assert inflight.received(1.0, replace(restarted, state="starting", reason="no worker yet")) == []
    assert len(sent(inflight.received(2.0, restarted), Submit)) == 1


def test_a_broker_that_comes_back_after_silence_gets_what_is_unanswered() -> None:
    inflight = ready()
    inflight.submit(0.0, 30.0, WANTED)
    down = silence(inflight, 0.0)
    assert len(sent(inflight.received(down + 1, READY), Submit)) == 1
    assert inflight.received(down + 2, READY) == []


def test_a_broker_that_never_comes_back_means_503_by_the_deadline() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 5.0, WANTED)
    silence(inflight, 0.0)
    outcome = settled(inflight.tick(5.0 + MARGIN_S))[request_id]
    assert isinstance(outcome, Unavailable)
    assert outcome.message == "the broker stopped answering before the deadline"
    assert outcome.retry_after_s


def test_a_broker_that_restarts_and_stays_unready_means_503_by_the_deadline() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 5.0, WANTED)
    inflight.received(4.0, Pong(5, "epoch-2.1", "starting", "no worker yet", 0, "m", "", ""))
    outcome = settled(inflight.tick(5.0 + MARGIN_S))[request_id]
    assert isinstance(outcome, Unavailable)
    expected = "the broker was lost and was not ready again before the deadline: no worker yet"
    assert outcome.message == expected


@pytest.mark.parametrize(
    ("pong", "error"),
    [(replace(READY, state="draining"), Draining), (replace(READY, fingerprint="other"), ModelMismatch)],
)
def test_a_restarted_broker_that_will_not_serve_it_means_503_at_once(
    pong: Pong, error: type[Unavailable]
) -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    assert isinstance(settled(inflight.received(1.0, replace(pong, session="e-2")))[request_id], error)


def test_a_request_that_brokers_do_not_survive_is_not_sent_to_them_for_ever() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    for epoch in range(2, MAX_SENDS + 1):
        assert sent(inflight.received(float(epoch), replace(READY, session=f"e-{epoch}.1")), Submit)
    actions = inflight.received(10.0, replace(READY, session="e-last"))
    assert sent(actions, Submit) == []
    outcome = settled(actions)[request_id]
    assert isinstance(outcome, Unavailable)
    assert outcome.message == "the broker, or the connection to it, was lost 3 times"


def test_draining_lets_accepted_requests_be() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    assert inflight.received(1.0, replace(READY, state="draining")) == []
    assert settled(inflight.received(2.0, reply(request_id))) == {request_id: reply(request_id)}


def test_the_socket_is_opened_anew_while_nobody_answers() -> None:
    inflight = machine()
    inflight.start(0.0)
    reopened, now = [], 0.0
    while now < 3 * REOPEN_S:
        now = inflight.next_wake()
        reopened += [now for a in inflight.tick(now) if isinstance(a, Reopen)]
    assert reopened == [REOPEN_S, 2 * REOPEN_S, 3 * REOPEN_S]


GONE = "the broker is gone, and this frontend is shutting down"


def test_a_frontend_that_ends_awaits_answers_of_a_broker_that_lives() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    assert inflight.end() == []
    assert settled(inflight.received(1.0, reply(request_id))) == {request_id: reply(request_id)}


def test_a_frontend_that_ends_does_not_wait_for_another_broker() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    inflight.end()
    actions: list[Action] = []
    while inflight.health.status != "unhealthy":
        actions = inflight.tick(inflight.next_wake())
    outcome = settled(actions)[request_id]
    assert isinstance(outcome, Unavailable)
    assert outcome.message == GONE
    inflight.validate()


def test_a_frontend_without_a_broker_that_is_told_to_end_settles_at_once() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    silence(inflight, 0.0)
    outcome = settled(inflight.end())[request_id]
    assert isinstance(outcome, Unavailable)
    assert outcome.message == GONE


def test_stop_settles_everything() -> None:
    inflight = ready()
    request_id, _ = inflight.submit(0.0, 30.0, WANTED)
    assert isinstance(settled(inflight.stop())[request_id], Draining)
    assert inflight.stop() == []


def test_http_counts_arrive_once_although_a_broker_dies() -> None:
    inflight = ready()
    inflight.counts.add("/v1/classify", 200)
    inflight.counts.add("/v1/classify", 200)
    (ping,) = sent(inflight.tick(1.0), Ping)
    assert ping.http == (("/v1/classify", 200, 2),)
    inflight.counts.add("/health", 503)
    (unanswered,) = sent(inflight.tick(2.0), Ping)
    assert unanswered.http == ()  # the first report is still open
    inflight.received(2.5, replace(READY, session="epoch-2", seq=unanswered.seq))
    (again,) = sent(inflight.tick(inflight.next_wake()), Ping)
    assert again.http == (("/health", 503, 1), ("/v1/classify", 200, 2))
    inflight.received(4.0, replace(READY, session="epoch-2", seq=again.seq))
    assert inflight.counts.total() == 0


def test_a_report_that_the_new_session_itself_answers_is_not_made_again() -> None:
    inflight = ready()
    inflight.counts.add("/v1/classify", 200)
    (ping,) = sent(inflight.tick(1.0), Ping)
    inflight.received(1.1, replace(READY, session="epoch-1.2", seq=ping.seq))
    assert inflight.counts.total() == 0
