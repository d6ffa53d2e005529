"""Throughput of the broker's shell alone, beside a bare ZeroMQ echo: ``make bench-broker``.

Both are asked by the same clients, which do what a frontend does for a request (encode it, send it, receive
and decode the answer), and both have as many workers, which answer at once with a constant embedding. So
what differs is what the broker does: admission, fair queueing, batching, cache, books, metrics. The echo
is a naive loop, from one ROUTER to another and back, one message a request. Rounds alternate, and a ratio
is taken within each, since the machine may do other work too; of the ratios the median counts.

    +--------+ Submit  +------------------+ Batch   +--------+
    | client | ------> | broker, or a     | ------> | worker |
    |        | <------ | bare echo loop   | <------ |        |
    +--------+  Reply  +------------------+ Result  +--------+
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hailo_clip.ops import bench_broker_procs as procs
from hailo_clip.ops.bench_broker_procs import Given, Load
from hailo_clip.shared.messages import Kind

MODEL = "emulated-clip-resnet-50x4"
AIM = 0.8
LOADS = (Load("200 B", Kind.TEXT, 6000), Load("249 KB", Kind.IMAGE, 1500))
_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    """Requests a second, and seconds of CPU that each cost the process in the middle."""

    rate: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rounds of one load, the broker's and the echo's, in order."""

    load: str
    broker: list[Round]
    echo: list[Round]

    @property
    def ratio(self) -> float:
        """The broker's rate over the echo's: the median over the rounds."""
        return statistics.median(b.rate / e.rate for b, e in zip(self.broker, self.echo, strict=True))


def settings(run_dir: Path) -> Given:
    """The service's configuration: the defaults, but a queue that holds what the clients' windows let in."""
    return {
        "model.name": MODEL,
        "broker.run_dir": str(run_dir),
        "queue.max_depth": 1000,
        "queue.max_bytes_mib": 1024,
        "cache.persist": False,
        "log.level": "error",
    }


def measure(load: Load, rounds: int, clients: int, workers: int, changes: Given | None = None) -> Outcome:
    """`rounds` alternating rounds of the broker and of the echo.

    Raises:
        RuntimeError: a request was refused, lost or answered twice, or a process did not start.
    """
    found: dict[str, list[Round]] = {"broker": [], "echo": []}
    for _ in range(rounds):
        for subject, done in found.items():
            with tempfile.TemporaryDirectory(prefix="hcbench-") as directory:
                given = {**settings(Path(directory) / "run"), **(changes or {})}
                done.append(_round(subject, given, load, clients, workers))
    return Outcome(load.name, found["broker"], found["echo"])


def _round(subject: str, given: Given, load: Load, clients: int, workers: int) -> Round:
    """One round with processes of its own."""
    ours = subject == "broker"
    serve, work = (procs.broker, procs.worker) if ours else (procs.echo, procs.echo_worker)
    with ExitStack() as stack:
        middle = stack.enter_context(_process(serve, given, workers))
        for i in range(workers):
            stack.enter_context(_process(work, given, i))
        pipes = []
        for i in range(clients):
            pipe, theirs = _SPAWN.Pipe()
            stack.enter_context(_process(procs.client, given, load, i, workers, theirs))
            theirs.close()  # so that a client's end shows
            pipes.append(stack.enter_context(pipe))
        _hear(pipes)  # warm
        before, began = _cpu_s(middle.pid), time.monotonic()
        for pipe in pipes:
            pipe.send("go")
        told = _hear(pipes)
        seconds, cpu_s = time.monotonic() - began, _cpu_s(middle.pid) - before
        if ours and any(answers != different for answers, different in told):
            raise RuntimeError("the broker answered a request twice")
        requests = sum(answers for answers, _ in told)
        return Round(requests / seconds, cpu_s / requests)


def _hear(pipes: Sequence[Connection]) -> list[tuple[int, int]]:
    """The next word of every client. Raises `RuntimeError` when one ends, or is silent for a minute."""
    if not all(pipe.poll(_PATIENCE_S) for pipe in pipes):
        raise RuntimeError("a client is stuck")
    try:
        return [pipe.recv() for pipe in pipes]
    except EOFError:
        raise RuntimeError("a client ended before it was done; it said why above") from None


def _cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _process(target: Any, *args: Any) -> Iterator[Any]:
    process = _SPAWN.Process(target=target, args=args, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 when a ratio misses the aim."""
    parser = argparse.ArgumentParser(prog="bench_broker", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="alternating rounds of each (default: 9)")
    parser.add_argument("--clients", type=int, default=2, help="client processes (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of requests")
    parser.add_argument("--json", action="store_true", help="print every round as JSON")
    args = parser.parse_args(argv)
    outcomes = []
    for load in LOADS:
        scaled = replace(load, count=max(100, int(load.count * args.scale)))
        outcomes.append(measure(scaled, args.rounds, args.clients, args.workers))
    print(as_json(outcomes) if args.json else as_text(outcomes))
    return 0 if all(o.ratio >= AIM for o in outcomes) else 1


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Every round of every load, and the ratios."""
    return json.dumps([{**asdict(o), "ratio": o.ratio} for o in outcomes], indent=2)


def as_text(outcomes: Sequence[Outcome]) -> str:
    """A table for people; rates and CPU times are medians over the rounds."""
    lines = [
        f"medians of {len(outcomes[0].broker)} rounds; load average {os.getloadavg()[0]:.1f} "
        f"on {os.cpu_count()} cores",
        f"{'':<8} {'requests/s':^23} {'CPU us/request':^15}",
        f"{'payload':<8} {'broker':>8} {'echo':>8} {'ratio':>5} {'broker':>8} {'echo':>6}   each ratio",
    ]
    for o in outcomes:
        each = " ".join(f"{b.rate / e.rate:.2f}" for b, e in zip(o.broker, o.echo, strict=True))
        lines.append(
            f"{o.load:<8} {_median(o.broker, 'rate'):>8.0f} {_median(o.echo, 'rate'):>8.0f} {o.ratio:>5.2f} "
            f"{1e6 * _median(o.broker, 'cpu_s'):>8.0f} {1e6 * _median(o.echo, 'cpu_s'):>6.0f}   {each}"
        )
    lines.append(f"the aim is a ratio of {AIM} or more")
    return "\n".join(lines)


def _median(rounds: Sequence[Round], field: str) -> float:
    return float(statistics.median(getattr(r, field) for r in rounds))


if __name__ == "__main__":
    sys.exit(main())
