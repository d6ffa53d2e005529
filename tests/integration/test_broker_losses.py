"""Worker processes that are killed, stopped or hang: no request is lost, and it is noticed quickly."""

from __future__ import annotations

import signal

import pytest

from hailo_clip.workers.session import ExitCode
from tests.doubles.processes import Running, Service, counter, image, poison_image

SLOW = "time_scale=15"  # an image takes 0.2 s


def in_flight(running: Running, name: str) -> int | None:
    """Items that the broker has in flight at worker `name`; None when it does not know that worker."""
    workers = running.service.snapshot()["workers"]
    return next((w["in_flight"] for w in workers if w["name"] == name), None)


def ready(running: Running, name: str) -> bool:
    """True when the broker calls worker `name` ready."""
    workers = running.service.snapshot()["workers"]
    return any(w["name"] == name and w["state"] == "ready" for w in workers)


def busy(running: Running, name: str, requests: int) -> list[int]:
    """Send `requests` images, wait until worker `name` has some of them; their ids."""
    numbers = [running.frontend.submit([image(i)]) for i in range(requests)]
    running.frontend.until(lambda: bool(in_flight(running, name)))
    return numbers


def all_right(running: Running, numbers: list[int]) -> None:
    running.frontend.until_settled()
    for number in numbers:
        assert running.frontend.check(number).errors == (None,)
        assert running.frontend.replies[number] == 1


@pytest.mark.xdist_group("broker-losses")
def test_killed_in_a_batch():
    with Service() as service, service.running(2, SLOW) as running:
        numbers = busy(running, "w0", 8)
        running.workers[0].kill()
        noticed = running.frontend.until(lambda: in_flight(running, "w0") is None)
        all_right(running, numbers)
        after = service.snapshot()
    assert noticed < 0.5
    assert counter(after, "worker_restarts_total", "unreachable") == 1
    assert counter(after, "retries_total", "lost") >= 1
    assert counter(after, "accepted_total") == counter(after, "finished_total", "answered") == 8


@pytest.mark.xdist_group("broker-losses")
def test_stopped_for_longer_than_its_liveness():
    with Service() as service, service.running(2, SLOW) as running:
        numbers = busy(running, "w0", 6)
        zombie = running.workers[0]
        zombie.signal(signal.SIGSTOP)
        noticed = running.frontend.until(lambda: in_flight(running, "w0") is None)
        assert ("w0", zombie.pid) in service.snapshot()["lost_workers"]
        all_right(running, numbers)
        zombie.signal(signal.SIGCONT)
        running.frontend.until(lambda: ready(running, "w0"))  # its canary passed once more
        numbers += busy(running, "w0", 4)
        all_right(running, numbers)  # whatever the zombie still had to say, nobody got it as an answer
        after = service.snapshot()
        assert zombie.alive
    assert 2.0 < noticed < 4.0
    assert counter(after, "worker_restarts_total", "silent") == 1
    assert counter(after, "worker_registrations_total") == 3
    assert ("w0", zombie.pid) not in after["lost_workers"]


@pytest.mark.xdist_group("broker-answers")
def test_hung_in_a_native_call():
    with Service() as service, service.running(0) as running:
        hung = service.worker("w0", "emu:0", "time_scale=0,poison=hang")
        running.frontend.until_workers(1)
        stuck = running.frontend.submit([poison_image(1)])
        running.frontend.until(lambda: in_flight(running, "w0") == 1)
        service.worker("w1", "emu:1")
        running.frontend.until_workers(2)
        for i in range(4):
            assert running.frontend.ask(image(i)).errors == (None,)
        assert stuck not in running.frontend.outcomes
        all_right(running, [stuck])  # overdue, fenced, and run again by the other worker
        assert hung.wait(3.0) == ExitCode.STUCK.value
        after = service.snapshot()
    assert "given up by the broker: a batch of 1 has run for" in hung.logged()
    assert counter(after, "worker_restarts_total", "overdue") == 1
    assert [w["name"] for w in after["workers"]] == ["w1"]


@pytest.mark.xdist_group("broker-losses")
def test_gone_before_and_after_a_batch():
    with Service() as service, service.running(2) as running:
        for worker in running.workers:
            worker.kill()  # idle: before a batch
        running.frontend.until(lambda: not running.frontend.health.ready, 3.0)
        assert "worker w" in running.frontend.health.reason
        service.worker(
            "w2", "emu:2", "time_scale=0,crash_after=3,crash_with=exit"
        )  # the canary takes 2 calls
        running.frontend.until_workers(1)
        first = running.frontend.submit([image(1)])
        running.frontend.until_settled()
        second = running.frontend.submit([image(2)])
        running.frontend.until(lambda: in_flight(running, "w2") is None)
        service.worker("w3", "emu:3")
        all_right(running, [first, second])
