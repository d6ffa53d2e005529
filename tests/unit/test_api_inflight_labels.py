"""Requests about label sets in the frontend's state machine: they need a broker, and no worker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hailo_clip.api.inflight import LIVENESS_S, MARGIN_S, Settle
from hailo_clip.api.waiting import MAX_SENDS
from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.errors import DeadlineExceeded, Draining, LimitReached, QueueFull, Unavailable
from hailo_clip.shared.label_messages import (
    DropLabels,
    GetLabels,
    LabelRequest,
    Labels,
    ListLabels,
    PutLabels,
)
from hailo_clip.shared.messages import Cancel, Refused, Submit
from tests.unit.test_api_inflight import READY, WANTED, machine, ready, sent, settled, silence

PUT = PutLabels(0, "acme", "ppe", ("a helmet",), ("a {}",), ("no",), "m", "print-onnx", "", (b"x" * 20,))
GET = GetLabels(0, "acme", "ppe", "v1")
REQUESTS = [PUT, GET, DropLabels(0, "acme", "ppe"), ListLabels(0, "acme")]


def by_kind(request: LabelRequest) -> str:
    return type(request).__name__


@pytest.mark.parametrize("request_", REQUESTS, ids=by_kind)
def test_it_is_sent_with_an_id_of_its_own_and_settled_by_its_answer(request_: LabelRequest) -> None:
    inflight = ready()
    embeds, _ = inflight.submit(1.0, 30.0, WANTED)
    asks, actions = inflight.submit(1.0, 30.0, request_)
    assert asks != embeds
    assert sent(actions, type(request_)) == [replace(request_, request_id=asks)]
    answer = Labels(asks, lm.MISSING)
    assert settled(inflight.received(2.0, answer)) == {asks: answer}
    assert inflight.received(2.0, answer) == [] and inflight.dropped == 1
    inflight.validate()


@pytest.mark.parametrize("state", ["starting", "unhealthy", "draining"])
def test_it_is_taken_and_sent_again_whatever_the_broker_says_of_its_workers(state: str) -> None:
    inflight = ready()
    inflight.received(1.0, replace(READY, state=state))
    asks, actions = inflight.submit(1.0, 30.0, GET)
    assert sent(actions, GetLabels)
    actions = inflight.received(2.0, replace(READY, state=state, session="epoch-2"))
    assert sent(actions, GetLabels) == [replace(GET, request_id=asks)]


def test_a_broker_with_another_model_is_asked_too() -> None:
    inflight = ready()
    inflight.received(1.0, replace(READY, fingerprint="other"))
    inflight.submit(1.0, 30.0, GET)


def test_without_a_broker_it_is_a_503() -> None:
    inflight = machine()
    inflight.start(0.0)
    with pytest.raises(Unavailable, match="the broker has not answered yet"):
        inflight.submit(0.0, 30.0, GET)
    inflight.received(1.0, READY)
    now = silence(inflight, 1.0)
    with pytest.raises(Unavailable, match="the broker does not answer"):
        inflight.submit(now, 30.0, GET)


def test_a_broker_that_is_lost_again_and_again_is_not_asked_for_ever() -> None:
    inflight = ready()
    asks, _ = inflight.submit(1.0, 30.0, GET)
    for epoch in range(2, MAX_SENDS + 1):
        assert sent(inflight.received(2.0, replace(READY, session=f"epoch-{epoch}")), GetLabels)
    actions = inflight.received(2.0, replace(READY, session="last"))
    (outcome,) = settled(actions).values()
    assert isinstance(outcome, Unavailable)
    assert outcome.message == "the broker, or the connection to it, was lost 3 times"
    assert len(inflight) == 0 and asks


def test_a_broker_that_is_lost_while_it_drains_ends_only_what_needs_workers() -> None:
    inflight = ready()
    embeds, _ = inflight.submit(1.0, 30.0, WANTED)
    asks, _ = inflight.submit(1.0, 30.0, GET)
    actions = inflight.received(2.0, replace(READY, state="draining", session="epoch-2"))
    assert isinstance(settled(actions)[embeds], Draining)
    assert sent(actions, GetLabels) == [replace(GET, request_id=asks)]
    assert sent(actions, Submit) == []


def test_it_is_given_up_at_its_deadline() -> None:
    inflight = ready()
    asks, _ = inflight.submit(1.0, 1.0, GET)
    inflight.received(1.5, READY)
    outcome = settled(inflight.tick(2.0 + MARGIN_S))[asks]
    assert isinstance(outcome, DeadlineExceeded)
    assert outcome.message == "no answer within 1 s"
    with pytest.raises(DeadlineExceeded):
        inflight.submit(3.0, 0.0, GET)


def test_its_bytes_count() -> None:
    inflight = ready(size=40)
    inflight.submit(1.0, 30.0, PUT)  # 20 of the matrix, 14 of texts
    with pytest.raises(QueueFull):
        inflight.submit(1.0, 30.0, PUT)
    inflight.submit(1.0, 30.0, GET)
    inflight.validate()


def test_a_refusal_becomes_its_error() -> None:
    inflight = ready()
    asks, _ = inflight.submit(1.0, 30.0, PUT)
    outcome = settled(inflight.received(2.0, Refused(asks, ("limit", "full", None))))[asks]
    assert isinstance(outcome, LimitReached)
    assert (outcome.message, outcome.http_status) == ("full", 400)


def test_it_can_be_cancelled_and_found_unsendable() -> None:
    inflight = ready()
    asks, _ = inflight.submit(1.0, 30.0, PUT)
    assert sent(inflight.cancel(asks), Cancel) == [Cancel(asks)]
    again, _ = inflight.submit(1.0, 30.0, PUT)
    (action,) = inflight.unsendable(again)
    assert isinstance(action, Settle) and isinstance(action.outcome, Unavailable)
    assert len(inflight) == 0
    assert inflight.next_wake() <= 1.0 + LIVENESS_S
