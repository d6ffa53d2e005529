"""Thousands of requests while workers and the broker are killed, stopped, hung and cut off at random.

Each request has one answer, the right one, or is refused because no worker is there; none is lost until its
deadline. And the broker's memory and file descriptors stay flat.

``make chaos`` runs it at full length, the normal suite a short version.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from dataclasses import dataclass

import psutil
import pytest

from hailo_clip.api.waiting import MAX_SENDS
from hailo_clip.shared.errors import HailoClipError, Unavailable
from hailo_clip.shared.messages import Reply
from tests.chaos.monkey import WORKERS, Monkey
from tests.doubles.processes import Frontend, Item, Service, counter, image, text

REQUESTS = int(os.environ.get("HAILO_CLIP_CHAOS_REQUESTS", "800"))
SEED = int(os.environ.get("HAILO_CLIP_CHAOS_SEED", "1"))
RATE = 110.0  # requests a second
FAULT_EVERY_S = 0.6
WINDOW = 48
LIMIT_S = 60 + REQUESTS / 25
NO_WORKER = "no worker is ready"
LOST = f"the broker, or the connection to it, was lost {MAX_SENDS} times"
GROWTH_BYTES = 12 << 20


@dataclass(frozen=True)
class Usage:
    """What the broker's process holds."""

    rss: int
    descriptors: int


def usage(pid: int, descriptors: int = 0) -> Usage:
    """What it holds, once it has no more than `descriptors` or has had some seconds to close connections."""
    process = psutil.Process(pid)
    give_up = time.monotonic() + 5
    while process.num_fds() > descriptors and time.monotonic() < give_up:
        time.sleep(0.1)
    return Usage(process.memory_info().rss, process.num_fds())


def request(rng: random.Random, nonce: int) -> list[Item]:
    """The items of request `nonce`: no two requests have the same, but for a few prompts."""
    kind = rng.random()
    if kind < 0.6:
        return [text(nonce)]
    if kind < 0.85:
        return [image(nonce)]
    shared = text(10_000_000 + rng.randrange(50))
    return [image(nonce), text(nonce), shared, shared]


class Run:
    """The load: `send` as the clock says, then `finish`."""

    def __init__(self, frontend: Frontend, monkey: Monkey) -> None:
        self.frontend = frontend
        self.monkey = monkey
        self.numbers: list[int] = []
        self._rng = random.Random(SEED)
        self._give_up = time.monotonic() + LIMIT_S

    def send(self, count: int) -> None:
        """Send `count` more requests under faults, at `RATE`, while the service takes them."""
        due = time.monotonic()
        for _ in range(count):
            while time.monotonic() < due or not self._takes():
                self._step(faults=True)
            items = request(self._rng, len(self.numbers))
            tenant = f"tenant-{self._rng.randrange(5)}"
            bulk = self._rng.random() < 0.2
            self.numbers.append(self.frontend.submit(items, tenant=tenant, bulk=bulk, ttl_s=30.0))
            due = max(due, time.monotonic() - 1.0) + self._rng.expovariate(RATE)

    def finish(self) -> None:
        """No more faults: wait until every request has its outcome and every worker is back."""
        while self.frontend.in_flight or self.frontend.health.ready_workers < len(WORKERS):
            self._step(faults=False)

    def _takes(self) -> bool:
        return self.frontend.health.ready and self.frontend.in_flight < WINDOW

    def _step(self, *, faults: bool) -> None:
        assert time.monotonic() < self._give_up, f"not done after {LIMIT_S} s; {self.frontend.health}"
        assert self.monkey.broker.alive, "the broker ended by itself"
        self.monkey.step(faults=faults)
        self.frontend.pump(0.005)


def judged(frontend: Frontend, number: int) -> str:
    """What became of a request; a wrong embedding or an error that was not to be is an AssertionError."""
    outcome = frontend.outcomes[number]
    if isinstance(outcome, HailoClipError):
        assert isinstance(outcome, Unavailable) and outcome.message in (NO_WORKER, LOST), repr(outcome)
        return outcome.message
    assert isinstance(outcome, Reply)
    errors = [e for e in frontend.check(number).errors if e is not None]
    for code, message, _ in (e for e in outcome.errors if e is not None):
        assert code == "inference_failed"
        assert re.search(r"the worker was lost while it ran \(tried [2-4] times\)", message), message
    return "lost twice" if errors else "answered"


@pytest.mark.xdist_group("chaos")
def test_every_request_has_one_answer_whatever_dies():
    # Two windows: for a second after a cut the broker holds what was sent on both connections.
    settings = {"queue.max_depth": 2 * WINDOW, "cache.max_entries": 500}
    with Service(settings) as service, service.wired_frontend() as (frontend, wire):
        monkey = Monkey(service, SEED, FAULT_EVERY_S, wire)
        run = Run(frontend, monkey)
        frontend.until_workers(len(WORKERS))
        run.send(REQUESTS // 4)
        monkey.restart_broker()
        run.send(REQUESTS // 8)
        monkey.pause_broker(2.0)
        run.send(REQUESTS // 8)
        monkey.restart_broker()
        run.send(REQUESTS // 8)
        run.finish()
        warm = usage(monkey.broker.pid)
        for _ in range(2):  # one more may meet a request that was sent MAX_SENDS times
            run.send(REQUESTS // 8)
            monkey.cut()
        run.send(REQUESTS - len(run.numbers))
        run.finish()
        after = usage(monkey.broker.pid, warm.descriptors)
        snapshot = service.snapshot()
        monkey.close()

    outcomes = Counter(judged(frontend, n) for n in run.numbers)
    print(f"{outcomes=}\n{monkey.done=}\n{warm=}\n{after=}")
    assert len(frontend.outcomes) == len(run.numbers) == REQUESTS
    assert all(frontend.replies[n] <= frontend.sent[n] <= MAX_SENDS for n in run.numbers)
    # Nothing is a 504 or a 429: `judged` allows neither.
    # What was sent while the broker was gone (at most a window) meets the next one before any worker does;
    # now and then no worker is left for a moment.
    assert outcomes["answered"] >= 0.9 * REQUESTS - 2 * WINDOW
    assert outcomes["lost twice"] <= 0.01 * REQUESTS
    assert outcomes[LOST] <= 0.01 * REQUESTS
    accepted, ended = counter(snapshot, "accepted_total"), counter(snapshot, "finished_total")
    assert accepted == ended and snapshot["in_flight"] == 0
    assert counter(snapshot, "illegal_events_total") == 0
    assert after.rss - warm.rss < GROWTH_BYTES
    assert after.descriptors <= warm.descriptors + 1
