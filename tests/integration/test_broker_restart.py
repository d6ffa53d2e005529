"""The broker dies or restarts: workers and frontends find the next one, and the prompt cache its file."""

from __future__ import annotations

import signal

import pytest

from hailo_clip.shared.errors import Unavailable
from hailo_clip.workers.session import ExitCode
from tests.doubles.processes import Child, Frontend, Service, counter, image, poison_image, text

pytestmark = pytest.mark.xdist_group("broker-losses")


def test_killed_with_requests_waiting_and_started_again():
    with Service() as service, service.running(2, "time_scale=10") as running:
        frontend = running.frontend
        numbers = [frontend.submit([image(i), text(i)]) for i in range(8)]
        frontend.until(lambda: service.snapshot()["in_flight"] > 4)
        running.broker.kill()
        service.broker()
        frontend.until_settled()
        for number in numbers:
            assert frontend.check(number).errors == (None, None)
            assert frontend.replies[number] == 1
        after = service.snapshot()
        assert all(w.alive for w in running.workers)
    assert {w["pid"] for w in after["workers"]} == {w.pid for w in running.workers}
    assert counter(after, "worker_restarts_total") == 0


def test_a_second_broker_is_refused_and_the_first_one_serves_on():
    with Service() as service, service.running(1) as running:
        second = service.broker()
        assert second.wait() == 1
        assert "another broker serves in" in second.logged()
        frontend = running.frontend
        service.worker("w1")  # finds the first one at the sockets' places
        frontend.until_workers(2)
        assert frontend.ask(image(1)).errors == (None,)


def test_gone_for_a_while_is_a_503_until_it_is_back():
    with Service() as service, service.running(1) as running:
        frontend = running.frontend
        running.broker.kill()
        waiting = frontend.submit([image(1)])
        frontend.until(lambda: frontend.health.status == "unhealthy", 5.0)
        with pytest.raises(Unavailable, match="the broker does not answer"):
            frontend.submit([image(2)])
        service.broker()
        frontend.until_workers(1)
        frontend.until_settled()
        refused_or_right(frontend, waiting)
        assert frontend.ask(image(3)).errors == (None,)


def refused_or_right(frontend: Frontend, number: int) -> None:
    """The request lay in the socket, so it may have met the new broker before any worker had."""
    if not isinstance(frontend.outcomes[number], Unavailable):
        frontend.check(number)


def test_an_encoder_that_hangs_is_not_ready_for_the_next_broker():
    with Service() as service, service.running(1, "time_scale=0,poison=hang") as running:
        frontend, (worker,) = running.frontend, running.workers
        frontend.submit([poison_image(1)], ttl_s=1.0)
        frontend.until(lambda: service.snapshot()["in_flight"] == 1)
        running.broker.kill()
        service.broker()
        frontend.until(lambda: not frontend.health.ready_workers)
        while worker.alive:
            frontend.pump()
            assert not frontend.health.ready_workers
        assert worker.wait() == ExitCode.STUCK.value
        service.worker("w0")
        frontend.until_workers(1)
        assert frontend.ask(image(2)).errors == (None,)
    assert "the encoder is stuck: its canary did not end" in worker.logged()


def test_prompts_stay_cached_across_a_restart_unless_the_file_is_damaged():
    with Service({"cache.persist": True}) as service, service.running(1) as running:
        frontend = running.frontend
        assert frontend.ask(text(1), text(2)).cached == 0
        broker = restarted(service, running.broker, frontend)
        assert frontend.ask(text(1), text(2), text(3)).cached == 2
        broker.signal(signal.SIGTERM)
        assert broker.wait() == 0
        (file,) = (service.directory / "state").rglob("*.cache")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        broker = restarted(service, broker, frontend)
        number = frontend.submit([text(1), text(2), text(3)])
        frontend.until_settled()
        assert frontend.check(number).cached == 0
    assert "the checksum does not match" in broker.logged()


def restarted(service: Service, broker: Child, frontend: Frontend) -> Child:
    """A new broker in place of `broker`, with its worker back."""
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0
    new = service.broker()
    frontend.until(lambda: bool(service.snapshot()["workers"]))
    frontend.until_workers(1)
    return new
