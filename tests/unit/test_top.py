"""What `hailo-clip top` draws, from snapshots that the real scheduler makes."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from hailo_clip.broker.policy import Policy
from hailo_clip.broker.scheduler import Scheduler
from hailo_clip.broker.snapshot import snapshot
from hailo_clip.broker.work import Send
from hailo_clip.ops.top import Change, Sample, frame
from hailo_clip.shared import messages as m

UNIT = np.eye(1, 4, dtype=np.float32).tobytes()


class Bench:
    """A scheduler with workers, driven by hand."""

    def __init__(self, workers: int = 2, epoch: str = "b1") -> None:
        policy = Policy(epoch, "demo", "fp", "onnx", 4, 12, 77, max_depth=10)
        self.scheduler = Scheduler(policy, 0.0)
        self.sent = 0
        for i in range(workers):
            self.say(0.0, i, m.Hello(f"w{i}", f"e{i}", 100 + i, f"dev{i}", "onnx", "demo", "fp", 4, 8, 60.0))
            self.say(0.0, i, m.Ready(f"e{i}", 1.0))

    def say(self, now: float, worker: int, message: m.FromWorker) -> None:
        self.scheduler.from_worker(now, b"%d" % worker, message)

    def submit(self, now: float, tenant: str, payload: bytes = b"123456789012", count: int = 1) -> None:
        self.sent += 1
        kind = m.Kind.IMAGE if len(payload) == 12 else m.Kind.TEXT
        wanted = m.Submit(
            self.sent, "r", tenant, 1.0, False, 9.0, "fp", (int(kind),) * count, (payload,) * count
        )
        self.scheduler.from_frontend(now, b"f", wanted)

    def answer(self, now: float) -> int:
        """Workers answer every batch that they get; how many those were."""
        batches = [
            a.message
            for a in self.scheduler.flush(now)
            if isinstance(a, Send) and isinstance(a.message, m.Batch)
        ]
        for batch in batches:
            rows = UNIT * len(batch.frames)
            self.say(
                now + 0.02, int(batch.epoch[1:]), m.Result(batch.epoch, batch.batch_id, 0.02, (), (rows,))
            )
        return len(batches)

    def sample(self, now: float) -> Sample:
        """The snapshot as it arrives over the wire."""
        return Sample(now, msgpack.unpackb(msgpack.packb(snapshot(self.scheduler, now)), use_list=False))


def test_rates_are_of_the_time_between_two_samples():
    bench = Bench()
    before = bench.sample(1.0)
    for i in range(6):
        bench.submit(1.1, "t")
        bench.submit(1.1, "t", bytes([i]) * 4)
    while bench.answer(1.2):
        pass
    bench.submit(1.3, "t", bytes(4))  # cached
    now = bench.sample(3.0)
    change = Change(before, now)
    assert change.rate("finished_total", outcome="answered") == 13 / 2
    assert change.rate("items_total", kind="image", outcome="done") == 6 / 2
    batches = change.count("batches_total", kind="text")
    assert batches and change.mean("batch_size", kind="text") == pytest.approx(6 / batches)
    assert change.quantile("queue_wait_seconds", 0.99) is not None
    text = "\n".join(frame(now, before, 80, 24))
    assert "6.5/s answered" in text
    assert "images     3.0/s" in text
    assert "hit rate 14 %" in text  # 1 of 7
    assert "6/10000 prompts" in text
    assert "trouble    none" in text


def test_without_an_earlier_sample_of_this_broker_rates_are_unknown():
    bench, other = Bench(), Bench(epoch="b2")
    for before in (None, other.sample(0.5)):
        lines = frame(bench.sample(1.0), before, 80, 24)
        assert lines[1].startswith("requests   -/s answered  - failed")


def test_waiting_tenants_workers_and_devices_are_listed():
    bench = Bench(workers=1)
    bench.submit(1.0, "first")
    bench.scheduler.flush(1.0)
    for tenant in ("loud", "loud", "loud", "quiet"):
        bench.submit(1.0, tenant)
    lines = frame(bench.sample(1.5), None, 80, 24)
    assert lines[0].split() == ["hailo-clip", "demo", "on", "onnx", "READY", "up", "1", "s"]
    assert any(line.startswith("queue      [####......] 4/10 requests") for line in lines)
    assert [line.split()[:2] for line in lines[-2:]] == [["loud", "3"], ["quiet", "1"]]
    bench.submit(1.5, "quiet", count=64)
    lines = frame(bench.sample(1.5), None, 80, 24)
    assert any(line.startswith("queue      [#####.....] 5/10 requests in 12 places ") for line in lines)
    (worker,) = [line for line in lines if line.startswith("w0")]
    assert worker.split()[1:6] == ["ready", "dev0", "100", "1", "0"]
    (device,) = [line for line in lines if line.startswith("dev0")]
    assert device.split()[1:3] == ["1", "1"]


def test_trouble_is_named_with_its_causes():
    bench = Bench()
    bench.submit(1.0, "t")
    bench.scheduler.flush(1.0)
    bench.scheduler.unreachable(1.1, "backend", b"0")
    bench.scheduler.unreachable(1.2, "backend", b"1")
    bench.scheduler.malformed("frontend")
    lines = frame(bench.sample(1.5), None, 120, 24)
    assert lines[0].split()[4] == "UNHEALTHY"
    assert lines[1] == "!          worker w1: its connection is gone"
    (trouble,) = [line for line in lines if line.startswith("trouble")]
    assert "workers lost 2 (unreachable 2)" in trouble and "malformed messages 1" in trouble


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 12), (40, 6), (20, 3), (1, 1), (300, 100)])
def test_it_fits_the_terminal(width, height):
    bench = Bench(workers=30)
    for i in range(60):
        bench.submit(1.0, f"tenant-{i}")
        bench.scheduler.flush(1.0)
    lines = frame(bench.sample(2.0), None, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    if (width, height) == (80, 24):
        assert sum(line.startswith("... and ") for line in lines) >= 2


def test_names_from_outside_cannot_move_the_cursor():
    bench = Bench(workers=0)
    bench.say(0.0, 5, m.Hello("w\x1b[2J", "e5", 1, "d\r\n", "onnx", "demo", "fp", 4, 8, 60.0))
    bench.say(0.0, 5, m.Ready("e5", 1.0))
    for _ in range(9):
        bench.submit(1.0, "t\x1b]0;x\x07")
        bench.scheduler.flush(1.0)
    text = "".join(frame(bench.sample(1.0), None, 80, 24))
    assert text.isprintable()
    assert "w?[2J" in text
