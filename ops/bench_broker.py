"""Throughput of the broker's shell alone, beside a bare ZeroMQ echo: ``make bench-broker``.

Both are asked by the same clients, which do what a frontend does for a request (encode it, send it, receive
and decode the answer), and both have as many workers, which answer at once with a constant embedding. So
what differs is what the broker does: admission, fair queueing, batching, books, metrics. The echo is a
naive loop, from one ROUTER to another and back, one message a request. Rounds alternate and medians are
compared, since the machine may do other work too. The CPU time that a request costs the process in the
middle depends less on that.

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
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from hailo_clip.shared import messages as m
from hailo_clip.shared.codec import decode_to_frontend, decode_to_worker, encode
from hailo_clip.shared.config import Config, load_config
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import models_dir, open_model
from hailo_clip.shared.sockets import backend_dealer, backend_router, frontend_dealer, frontend_router

MODEL = "emulated-clip-resnet-50x4"
AIM = 0.8
_TENANTS = 8
_SPAWN = multiprocessing.get_context("spawn")
_WARM_UP = 0.1  # part of the requests that come before the measured ones


@dataclass(frozen=True, slots=True)
class Load:
    """What each client sends: `count` requests of one item, `window` of them unanswered at a time."""

    name: str
    kind: m.Kind
    count: int
    window: int = 32


@dataclass(frozen=True, slots=True)
class Round:
    """Requests a second, and seconds of CPU that each cost the process in the middle."""

    rate: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rounds of one load, the broker's and the echo's."""

    load: str
    broker: list[Round]
    echo: list[Round]

    @property
    def ratio(self) -> float:
        """The broker's median rate over the echo's."""
        return _median(self.broker, "rate") / _median(self.echo, "rate")


LOADS = (Load("200 B", m.Kind.TEXT, 6000), Load("249 KB", m.Kind.IMAGE, 1500))


def settings(run_dir: Path) -> dict[str, object]:
    """The configuration of a service for this: no cache, and no refusals as the window bounds the load."""
    return {
        "model.name": MODEL,
        "broker.run_dir": str(run_dir),
        "queue.max_depth": 1000,
        "queue.max_bytes_mib": 1024,
        "cache.max_entries": 0,
        "cache.persist": False,
        "log.level": "error",
    }


def measure(load: Load, rounds: int, clients: int, workers: int) -> Outcome:
    """`rounds` alternating rounds of the broker and of the echo."""
    found: dict[str, list[Round]] = {"broker": [], "echo": []}
    for _ in range(rounds):
        for subject, done in found.items():
            with tempfile.TemporaryDirectory(prefix="hcbench-") as directory:
                done.append(_round(subject, settings(Path(directory) / "run"), load, clients, workers))
    return Outcome(load.name, found["broker"], found["echo"])


def _round(subject: str, given: dict[str, object], load: Load, clients: int, workers: int) -> Round:
    """One round with processes of its own."""
    serve, work = (_broker, _worker) if subject == "broker" else (_echo, _echo_worker)
    with ExitStack() as stack:
        middle = stack.enter_context(_process(serve, given, workers))
        for i in range(workers):
            stack.enter_context(_process(work, given, i))
        pipes = [_SPAWN.Pipe() for _ in range(clients)]
        for i, (_, theirs) in enumerate(pipes):
            stack.enter_context(_process(_client, given, load, i, workers, theirs))
        ours = [pipe for pipe, _ in pipes]
        _all(ours)  # warm
        before, began = _cpu_s(middle.pid), time.monotonic()
        for pipe in ours:
            pipe.send("go")
        requests = sum(_all(ours))
        seconds = time.monotonic() - began
        return Round(requests / seconds, (_cpu_s(middle.pid) - before) / requests)


def _all(pipes: Sequence[Connection]) -> list[int]:
    """The next word of every client. Raises `RuntimeError` when one has nothing to say for a minute."""
    if not all(pipe.poll(60) for pipe in pipes):
        raise RuntimeError("a client is stuck or has ended")
    return [pipe.recv() for pipe in pipes]


def _cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _median(rounds: Sequence[Round], field: str) -> float:
    return float(statistics.median(getattr(r, field) for r in rounds))


@contextmanager
def _process(target: Any, *args: Any) -> Iterator[Any]:
    process = _SPAWN.Process(target=target, args=args, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _load(given: dict[str, object]) -> tuple[Config, Manifest]:
    config = load_config(None, {}, given)
    return config, open_model(config.model.name, models_dir(config.model.dir))


# What is measured, and what it is compared with


def _broker(given: dict[str, object], _: int) -> None:
    from hailo_clip.broker.shell import run_broker
    from hailo_clip.shared.logs import setup_logs

    config, _manifest = _load(given)
    setup_logs(config.log, "broker")
    run_broker(config)


def _echo(given: dict[str, object], workers: int) -> None:
    """Requests to the workers in turn, their answers back; nothing else."""
    config, _ = _load(given)
    with zmq.Context() as context:
        frontend, backend = frontend_router(context, config), backend_router(context, config)
        turn = cycle([backend.recv_multipart()[0] for _ in range(workers)])
        poller = zmq.Poller()
        poller.register(frontend, zmq.POLLIN)
        poller.register(backend, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if frontend in ready:
                backend.send_multipart([next(turn), *frontend.recv_multipart()])
            if backend in ready:
                frontend.send_multipart(backend.recv_multipart()[1:])


# Workers that answer at once


def _worker(given: dict[str, object], number: int) -> None:
    config, manifest = _load(given)
    epoch = f"e{number}"
    fingerprint = manifest.fingerprint("emulated")
    hello = m.Hello(
        worker=f"w{number}",
        epoch=epoch,
        pid=os.getpid(),
        device_id=f"d{number}",
        encoder="emulated",
        model=manifest.name,
        fingerprint=fingerprint,
        dimension=manifest.dimension,
        max_batch=config.workers.max_batch,
        grace_s=60.0,
    )
    rows = [_rows(n, manifest.dimension) for n in range(config.workers.max_batch + 1)]
    beat_at = 0.0
    with zmq.Context() as context, backend_dealer(context, config) as socket:
        socket.send_multipart(encode(hello))
        while True:
            if time.monotonic() > beat_at:
                beat_at = time.monotonic() + 1.0
                socket.send_multipart(encode(m.Beat(epoch)))
            if not socket.poll(200):
                continue
            message = decode_to_worker(socket.recv_multipart(copy=False))
            if isinstance(message, m.Welcome):
                socket.send_multipart(encode(m.Ready(epoch, 1.0)))
            elif isinstance(message, m.Batch):
                frames = (rows[len(message.frames)],)
                socket.send_multipart(encode(m.Result(epoch, message.batch_id, 0.0, (), frames)))


def _echo_worker(given: dict[str, object], number: int) -> None:
    config, manifest = _load(given)
    reply = encode(m.Reply(1, (None,), 0.0, 0.0, 0, (_rows(1, manifest.dimension),)))
    with zmq.Context() as context, backend_dealer(context, config) as socket:
        socket.send(b"here")
        while True:
            client, *_request = socket.recv_multipart(copy=False)
            socket.send_multipart([client, *reply], copy=False)


def _rows(count: int, dimension: int) -> bytes:
    """`count` equal embeddings of length 1."""
    return np.eye(1, dimension, dtype=np.float32).tobytes() * count


# The client


def _client(given: dict[str, object], load: Load, number: int, workers: int, pipe: Connection) -> None:
    """Warm up, say 0, wait for the word, send everything, say how many requests that were."""
    config, manifest = _load(given)
    with zmq.Context() as context, frontend_dealer(context, config) as socket:
        _wait_until_ready(socket, workers)
        warm = int(load.count * _WARM_UP)
        requests = _requests(load, number, manifest)
        _drive(socket, requests[:warm], load.window)
        pipe.send(0)
        pipe.recv()
        _drive(socket, requests[warm:], load.window)
        pipe.send(load.count - warm)


def _requests(load: Load, client: int, manifest: Manifest) -> list[m.Submit]:
    """The requests of one client. Prompts differ, as equal ones would be run once."""
    fingerprint = manifest.fingerprint("emulated")
    size = manifest.image.size
    image = bytes(size * size * 3)
    found = []
    for i in range(load.count):
        ids = np.full(50, i, np.int32)
        ids[0] = client
        payload = image if load.kind is m.Kind.IMAGE else ids.tobytes()
        tenant = f"tenant-{i % _TENANTS}"
        kinds = (int(load.kind),)
        found.append(m.Submit(i, "request-id", tenant, 1.0, False, 60.0, fingerprint, kinds, (payload,)))
    return found


def _wait_until_ready(socket: zmq.Socket[bytes], workers: int) -> None:
    """Until the broker has its workers; the echo answers anything."""
    for seq in range(300):
        socket.send_multipart(encode(m.Ping(seq)))
        if not socket.poll(10_000):
            break
        answer = decode_to_frontend(socket.recv_multipart())
        if not isinstance(answer, m.Pong) or answer.ready_workers == workers:
            return
        time.sleep(0.05)
    raise RuntimeError("what is to be measured did not start")


def _drive(socket: zmq.Socket[bytes], requests: Sequence[m.Submit], window: int) -> None:
    """Send and receive as `hailo_clip.api.gateway` does, without its event loop."""
    sent = answered = 0
    while answered < len(requests):
        while sent < len(requests) and sent - answered < window:
            socket.send_multipart(encode(requests[sent]))
            sent += 1
        reply = decode_to_frontend(socket.recv_multipart())
        if not isinstance(reply, m.Reply) or not reply.frames:
            raise RuntimeError(f"a request was not answered: {reply}")
        answered += 1


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 when a ratio misses the aim."""
    parser = argparse.ArgumentParser(prog="bench_broker", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each (default: 5)")
    parser.add_argument("--clients", type=int, default=2, help="client processes (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of requests")
    parser.add_argument("--json", action="store_true", help="print the rates as JSON")
    args = parser.parse_args(argv)
    outcomes = []
    for load in LOADS:
        scaled = replace(load, count=max(100, int(load.count * args.scale)))
        outcomes.append(measure(scaled, args.rounds, args.clients, args.workers))
    if args.json:
        print(json.dumps([{**asdict(o), "ratio": o.ratio} for o in outcomes], indent=2))
    else:
        _print(outcomes)
    return 0 if all(o.ratio >= AIM for o in outcomes) else 1


def _print(outcomes: Sequence[Outcome]) -> None:
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians")
    print(f"{'':<8} {'requests/s':^23} {'CPU us/request':^15}")
    print(f"{'payload':<8} {'broker':>8} {'echo':>8} {'ratio':>5} {'broker':>8} {'echo':>6}   rounds")
    for o in outcomes:
        pairs = "  ".join(f"{b.rate:.0f}/{e.rate:.0f}" for b, e in zip(o.broker, o.echo, strict=True))
        print(
            f"{o.load:<8} {_median(o.broker, 'rate'):>8.0f} {_median(o.echo, 'rate'):>8.0f} {o.ratio:>5.2f} "
            f"{1e6 * _median(o.broker, 'cpu_s'):>8.0f} {1e6 * _median(o.echo, 'cpu_s'):>6.0f}   {pairs}"
        )
    print(f"the aim is a ratio of {AIM} or more")


if __name__ == "__main__":
    sys.exit(main())
