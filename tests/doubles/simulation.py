"""A discrete-event simulation around the real scheduler: virtual time, simulated devices, no sleeping.

A simulated device runs its batches one after another and takes ``a + b*n`` for n items, as a Hailo-10H
does. Everything else (admission, order, batching, staging) is the product's own code.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hailo_clip.broker.policy import Policy
from hailo_clip.broker.scheduler import Scheduler
from hailo_clip.broker.work import Note
from hailo_clip.shared import messages as m

IMAGE_S = (0.01083, 0.005016)
TEXT_S = (0.01536, 0.01167)
IMAGE = bytes(12)
UNIT = np.array([1, 0, 0, 0], np.float32).tobytes()

Ended = Callable[[float, "Client", int, bool], None]


def policy(**changes: object) -> Policy:
    """A policy with a queue deep enough for closed-loop floods."""
    settings: dict[str, object] = {"max_depth": 1000, "cache_entries": 0}
    fixed = ("broker", "sim", "fp", "emulated", 4, len(IMAGE), 77)
    return Policy(*fixed, **{**settings, **changes})  # type: ignore[arg-type]


@dataclass(eq=False)
class Client:
    """One tenant and what became of its requests."""

    tenant: str
    weight: float = 1.0
    bulk: bool = False
    latencies: list[float] = field(default_factory=list)
    refused: list[m.Refused] = field(default_factory=list)
    items: int = 0


class Simulation:
    """`devices` devices with `workers` workers each; drive it with `at`, `submit` and `run`."""

    def __init__(self, devices: int = 1, workers: int = 1, **changes: object) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(policy(**changes), 0.0)
        self.decisions = 0
        self.served = 0
        self.busy = defaultdict(float)  # type: ignore[var-annotated]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._requests: dict[int, tuple[Client, float, int]] = {}
        self._numbers = itertools.count()
        self._device_free: dict[str, float] = defaultdict(float)
        self._alarms: set[float] = set()
        self._on_end: Callable[[Client, bool], None] = lambda client, answered: None
        for d, w in itertools.product(range(devices), range(workers)):
            self._join(f"dev{d}", f"w{d}.{w}")
        self._act()
        self.at(0.25, self._tick)

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Call `what` at virtual time `when`."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def on_end(self, what: Callable[[Client, bool], None]) -> None:
        """Call `what(client, answered)` whenever a request ends: for closed loops."""
        self._on_end = what

    def submit(self, client: Client, images: int = 1, ttl_s: float = 1e6) -> None:
        """One request of `client` arrives now."""
        number = next(self._numbers)
        self._requests[number] = (client, self.now, images)
        message = m.Submit(
            number,
            f"r{number}",
            client.tenant,
            client.weight,
            client.bulk,
            ttl_s,
            "fp",
            (0,) * images,
            (IMAGE,) * images,
        )
        self.scheduler.from_frontend(self.now, b"frontend", message)

    def run(self, until: float) -> None:
        """Let virtual time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
            self._act()
        self.now = until

    def _join(self, device: str, name: str) -> None:
        hello = m.Hello(name, name, 1, device, "emulated", "sim", "fp", 4, 64, 1e9)
        self.scheduler.from_worker(0.0, name.encode(), hello)
        self.scheduler.from_worker(0.0, name.encode(), m.Ready(name, 1.0))

    def _tick(self) -> None:
        for worker in list(self.scheduler.pool.workers.values()):
            self.scheduler.from_worker(self.now, worker.peer, m.Beat(worker.hello.epoch))
        self.scheduler.from_frontend(self.now, b"frontend", m.Ping(0))
        self.at(self.now + 0.25, self._tick)

    def _act(self) -> None:
        while actions := self.scheduler.flush(self.now):
            self.decisions += 1
            for action in actions:
                if not isinstance(action, Note):
                    self._carry_out(action.peer, action.message)
        stage_at = self.scheduler.dispatcher.stage_at
        if stage_at is not None and stage_at not in self._alarms:
            self._alarms.add(stage_at)
            self.at(max(stage_at, self.now), lambda: self._alarms.discard(stage_at))

    def _carry_out(self, peer: bytes, message: m.Message) -> None:
        match message:
            case m.Batch():
                self._start(peer, message)
            case m.Reply():
                client, arrived, items = self._requests.pop(message.request_id)
                client.latencies.append(self.now - arrived)
                client.items += items
                self._on_end(client, True)
            case m.Refused():
                client, _, _ = self._requests.pop(message.request_id)
                client.refused.append(message)
                self._on_end(client, False)

    def _start(self, peer: bytes, batch: m.Batch) -> None:
        device = self.scheduler.pool.workers[batch.epoch].device.id
        a, b = IMAGE_S if batch.kind == m.Kind.IMAGE else TEXT_S
        took = a + b * len(batch.frames)
        done = max(self.now, self._device_free[device]) + took
        self._device_free[device] = done
        self.busy[device] += took

        def finish() -> None:
            self.served += len(batch.frames)
            frames = (UNIT * len(batch.frames),)
            self.scheduler.from_worker(
                self.now, peer, m.Result(batch.epoch, batch.batch_id, took, (), frames)
            )

        self.at(done, finish)


def closed_loop(sim: Simulation, clients: dict[Client, int], images: dict[Client, int] | None = None) -> None:
    """Each client always has its number of requests outstanding."""
    sizes = images or {}

    def again(client: Client, answered: bool) -> None:
        if client in clients:
            delay = 0.0 if answered else 0.05
            sim.at(sim.now + delay, lambda: sim.submit(client, sizes.get(client, 1)))

    sim.on_end(again)
    for client, outstanding in clients.items():
        for _ in range(outstanding):
            sim.at(0.0, lambda c=client: sim.submit(c, sizes.get(c, 1)))  # type: ignore[misc]


def jain(values: list[float]) -> float:
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything (Jain, Chiu, Hawe 1984)."""
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values))


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return float(np.percentile(values, 99))
