"""A broker and its workers as real processes: right answers, full queues, and a drain in good order."""

from __future__ import annotations

import signal

import pytest

from hailo_clip.shared.errors import Draining, QueueFull
from tests.doubles.processes import Service, counter, image, text

pytestmark = pytest.mark.xdist_group("broker-answers")


def test_every_item_gets_its_own_embedding():
    with Service() as service, service.running(2) as running:
        frontend = running.frontend
        requests = [[image(i), text(i), text(i + 1000), text(1)] for i in range(40)]
        numbers: list[int] = []
        for items in requests:
            numbers.append(frontend.submit(items, tenant=f"t{len(numbers) % 3}"))
            frontend.until(lambda: frontend.in_flight < 8)
        frontend.until_settled()
        for number in numbers:
            assert frontend.check(number).errors == (None,) * 4
        again = frontend.ask(*requests[0])
        after = service.snapshot()
    assert again.cached == 3
    assert set(frontend.replies.values()) == {1}
    assert counter(after, "accepted_total") == counter(after, "finished_total", "answered") == 41
    assert counter(after, "items_total", "image", "done") == 41
    assert (
        counter(after, "items_total", "text", "done") == 80
    )  # 2 * 40 and the shared one, which is one of them
    assert after["in_flight"] == after["waiting"] == 0
    assert [w["state"] for w in after["workers"]] == ["ready", "ready"]


def test_a_full_queue_refuses_with_a_time_to_come_back():
    with Service({"queue.max_depth": 2}) as service, service.running(1, "time_scale=20") as running:
        numbers = [running.frontend.submit([image(i)]) for i in range(24)]
        running.frontend.until_settled()
        outcomes = [running.frontend.outcomes[n] for n in numbers]
        after = service.snapshot()
    refused = [o for o in outcomes if isinstance(o, QueueFull)]
    assert 1 <= len(refused) <= 22
    assert all(o.retry_after_s is not None and o.retry_after_s >= 1 for o in refused)
    assert counter(after, "rejected_total", "queue_full") == len(refused)
    assert counter(after, "finished_total", "answered") == len(numbers) - len(refused)


def test_sigterm_answers_what_was_accepted_and_refuses_the_rest():
    with Service() as service, service.running(1, "time_scale=20") as running:
        frontend = running.frontend
        accepted = [frontend.submit([image(i)]) for i in range(3)]
        frontend.until(lambda: service.snapshot()["in_flight"] == 3)
        running.broker.signal(signal.SIGTERM)
        frontend.until(lambda: service.snapshot()["state"] == "draining", 1.0)
        late = frontend.submit([image(9)])
        frontend.until(lambda: late in frontend.outcomes, 1.0)
        frontend.until(lambda: not frontend.in_flight)
        assert running.broker.wait(2.0) == 0
        for number in accepted:
            assert frontend.check(number).errors == (None,)
        assert isinstance(frontend.outcomes[late], Draining)
        assert running.workers[0].alive  # it waits for the next broker


def test_a_worker_told_to_stop_finishes_its_batches():
    with Service() as service, service.running(2, "time_scale=10") as running:
        frontend = running.frontend
        numbers = [frontend.submit([image(i)]) for i in range(8)]
        frontend.until(lambda: all(w["in_flight"] for w in service.snapshot()["workers"]))
        running.workers[0].signal(signal.SIGTERM)
        assert running.workers[0].wait(5.0) == 0
        frontend.until_settled()
        for number in numbers:
            assert frontend.check(number).errors == (None,)
        after = service.snapshot()
    assert counter(after, "retries_total") == counter(after, "worker_restarts_total") == 0
