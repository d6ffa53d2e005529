"""A service whose processes die, stop and hang at random and whose wires break, and who mends it.

Everything random comes from one seeded generator, so a run's faults can be told from its seed; when
exactly they meet which request is up to the machine.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

from hailo_clip.ops.broker_link import BrokerLink
from tests.doubles.cut_wire import CutWire
from tests.doubles.processes import Child, Service

WORKERS = {"w0": "emu:0", "w1": "emu:0", "w2": "emu:1", "w3": "emu:1"}
TIME_SCALE = "time_scale=0.1"
RESTART_S = 0.1
LOST_S = 1.0  # a worker that the broker has given up for so long is killed
ASK_S = 0.25


class Monkey:
    """Breaks and mends the processes of `service` whenever `step` is called.

    Args:
        service: none of its processes are started yet.
        seed: of all that is random.
        every_s: mean time between faults.
        wire: from the frontend to the broker.

    Attributes:
        done: how often each fault was worked.
        broker: the broker of now.
    """

    def __init__(self, service: Service, seed: int, every_s: float, wire: CutWire) -> None:
        self._service = service
        self._random = random.Random(seed)
        self._every_s = every_s
        self._wire = wire
        self._link = BrokerLink(service.config)
        self._lost: dict[int, float] = {}
        self._continue: dict[Child, float] = {}
        self._due: dict[str, float] = {}
        self._next_fault = time.monotonic() + every_s
        self._next_ask = 0.0
        self.done: Counter[str] = Counter()
        self.broker = service.broker()
        self.workers = {name: self._start(name, healthy=True) for name in WORKERS}

    def step(self, *, faults: bool = True) -> None:
        """Start what has ended, kill what was given up, let go on what was stopped; maybe break something."""
        now = time.monotonic()
        for name, worker in self.workers.items():
            self._mend(now, name, worker)
        for child, until in list(self._continue.items()):
            if now >= until:
                child.signal(signal.SIGCONT)
                del self._continue[child]
        self._kill_lost(now)
        if faults and now >= self._next_fault:
            self._next_fault = now + self._random.expovariate(1 / self._every_s)
            self._break(now)

    def restart_broker(self) -> None:
        """Kill the broker outright, and start a new one."""
        self.done["broker killed"] += 1
        self.broker.kill()
        self.broker = self._service.broker()

    def pause_broker(self, seconds: float) -> None:
        """Stop the broker for a while, as a debugger or a swapping machine would."""
        self.done["broker stopped"] += 1
        self.broker.signal(signal.SIGSTOP)
        self._continue[self.broker] = time.monotonic() + seconds

    def cut(self) -> None:
        """Break the connection between frontend and broker; it is made anew at once."""
        self.done["connection cut"] += 1
        self._wire.cut()

    def close(self) -> None:
        """Let go of the broker's socket; the service ends its processes."""
        self._link.close()

    def _start(self, name: str, *, healthy: bool = False) -> Child:
        return self._service.worker(name, WORKERS[name], TIME_SCALE + ("" if healthy else self._fault()))

    def _fault(self) -> str:
        """A fault that a new worker carries with it, for most of them none."""
        calls = self._random.randint(3, 60)  # the first two are the canary's
        kind = self._random.random()
        if kind < 0.15:
            self.done["will hang"] += 1
            return f",hang_after={calls}"
        if kind < 0.35:
            self.done["will crash"] += 1
            return f",crash_after={calls},crash_with={self._random.choice(['kill', 'exit'])}"
        return ""

    def _mend(self, now: float, name: str, worker: Child) -> None:
        if worker.alive:
            return
        if now >= self._due.setdefault(name, now + RESTART_S):
            del self._due[name]
            self.done["worker started again"] += 1
            self._continue.pop(worker, None)
            self.workers[name] = self._start(name)

    def _kill_lost(self, now: float) -> None:
        """What the supervisor of the product does with the broker's list of workers that it gave up."""
        if now >= self._next_ask:
            self._next_ask = now + ASK_S
            self._link.ask("status")
        for status in self._link.answers():
            lost = {pid for _, pid in status.snapshot["lost_workers"]}
            self._lost = {pid: self._lost.get(pid, now) for pid in lost}
        for worker in self.workers.values():
            if worker.alive and now - self._lost.get(worker.pid, now) > LOST_S:
                self.done["given up, killed"] += 1
                worker.kill()

    def _break(self, now: float) -> None:
        running = [w for w in self.workers.values() if w.alive and w not in self._continue]
        if not running:
            return
        victim = self._random.choice(running)
        if self._random.random() < 0.6:
            self.done["worker killed"] += 1
            victim.signal(signal.SIGKILL)
        else:
            self.done["worker stopped"] += 1
            victim.signal(signal.SIGSTOP)
            self._continue[victim] = now + self._random.uniform(0.2, 5.0)
