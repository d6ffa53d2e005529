"""An input that makes its worker fail: it alone fails, its batchmates answer, and it is not run again."""

from __future__ import annotations

import pytest

from hailo_clip.workers.session import ExitCode
from tests.doubles.processes import Service, counter, image, poison_image

pytestmark = pytest.mark.xdist_group("broker-answers")


def test_poison_that_raises():
    with Service() as service, service.running(1, "time_scale=0,poison=raise") as running:
        ask, check = running.frontend.ask, running.frontend.check
        number = running.frontend.submit([image(1), poison_image(2), image(3)])
        running.frontend.until_settled()
        errors = check(number).errors
        assert [e and e.code for e in errors] == [None, "inference_failed", None]
        again = ask(poison_image(2), image(4)).errors
        assert [e and e.code for e in again] == ["quarantined", None]
        other = ask(poison_image(5)).errors
        assert [e and e.code for e in other] == ["inference_failed"]
        after = service.snapshot()
        assert running.workers[0].alive
    assert after["quarantine"] == 2
    assert counter(after, "worker_restarts_total") == 0


def test_poison_that_kills():
    with Service() as service, service.running(0) as running:
        workers = [service.worker(f"w{i}", "emu:0", "time_scale=0,poison=crash") for i in range(3)]
        running.frontend.until_workers(3)
        number = running.frontend.submit([image(1), poison_image(2), image(3)])
        running.frontend.until_settled()
        errors = running.frontend.check(number).errors
        assert [e and e.code for e in errors] == [None, "inference_failed", None]
        again = running.frontend.ask(poison_image(2)).errors
        assert [e and e.code for e in again] == ["quarantined"]
        after = service.snapshot()
        assert sum(w.alive for w in workers) == 1
    assert counter(after, "worker_restarts_total", "unreachable") == 2
    assert counter(after, "items_total", "image", "failed") == 1


def test_output_that_cannot_be_right_never_passes_the_canary():
    with Service() as service, service.running(0) as running:
        workers = [service.worker(f, "emu:0", f"time_scale=0,{f}") for f in ("nan", "wrong_dim")]
        assert [w.wait() for w in workers] == [ExitCode.UNFIT] * 2
        running.frontend.until(lambda: running.frontend.health.status == "unhealthy")
        assert counter(service.snapshot(), "worker_restarts_total", "failed") == 2
