"""The workers and devices that are there, what each has in flight, and who may take more.

A device is what workers contend for: its batches run one after another whatever the number of workers on
it, so room is counted per device. A crash-looping worker is suspended by its circuit breaker.
Pure: time is an argument.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from hailo_clip.broker.breaker import Breaker, Breakers
from hailo_clip.broker.states import WORKER, WorkerEvent, WorkerState, step
from hailo_clip.broker.work import Job
from hailo_clip.shared.messages import Hello, Kind

WORKER_INFLIGHT = 2  # one batch running, one staged
CRASH_PROOF_BATCHES = 10  # a worker that did this many batches was not crash-looping


@dataclass(slots=True, eq=False)
class BatchRun:
    """One batch in flight; `running_since` is when its turn on the worker began, None while staged."""

    id: int
    kind: Kind
    jobs: list[Job]
    dispatched: float
    estimate: float
    running_since: float | None = None


@dataclass(slots=True, eq=False)
class Worker:
    """One registration of one worker process; a new epoch is a new Worker."""

    hello: Hello
    peer: bytes
    last_seen: float
    silent_after: float
    breaker: Breaker
    device: Device
    state: WorkerState = WorkerState.LOADING
    inflight: deque[BatchRun] = field(default_factory=deque)
    batches: int = 0
    failed_in_a_row: int = 0
    cosine: float = 0.0

    def advance(self, event: WorkerEvent) -> None:
        """Move to the next state. Raises `IllegalTransition`."""
        self.state = step(WORKER, self.state, event)

    def can_work(self, now: float) -> bool:
        """True when its canary passed and it is not suspended."""
        return self.state is WorkerState.READY and now >= self.breaker.suspended_until

    def has_room(self, now: float) -> bool:
        """True when it may take a batch now."""
        if not self.can_work(now):
            return False
        alone = self.breaker.openings or any(run.jobs[0].suspect for run in self.inflight)
        return len(self.inflight) < (1 if alone else WORKER_INFLIGHT)


@dataclass(slots=True, eq=False)
class Device:
    """What workers contend for. `busy_until`: when its batches in flight should be done."""

    id: str
    workers: list[Worker] = field(default_factory=list)
    inflight: int = 0
    busy_until: float = 0.0
    last_done: float = 0.0

    def candidate(self, now: float, avoid: str = "") -> Worker | None:
        """Its worker with the least in flight that has room, if possible not the one named `avoid`."""
        rooms = [w for w in self.workers if w.has_room(now)]
        if len(rooms) < 2:
            return rooms[0] if rooms else None
        return min(rooms, key=lambda w: (w.hello.worker == avoid, len(w.inflight)))

    def estimate(self, now: float) -> None:
        """Work out `busy_until` anew from what is in flight."""
        runs = [run for w in self.workers for run in w.inflight]
        begun = [run.running_since for run in runs if run.running_since is not None]
        start = max(min(begun, default=now), self.last_done)
        self.busy_until = max(now, start + sum(run.estimate for run in runs))


class Pool:
    """Registered workers by epoch, name and peer, and devices by how much they have in flight."""

    def __init__(self, inflight_per_device: int) -> None:
        self.limit = inflight_per_device
        self.workers: dict[str, Worker] = {}
        self.devices: dict[str, Device] = {}
        self._by_name: dict[str, Worker] = {}
        self._by_peer: dict[bytes, Worker] = {}
        self.breakers = Breakers()
        self._rooms: list[dict[str, Device]] = [{} for _ in range(inflight_per_device + 1)]
        self._able: set[str] = set()  # ids of the devices with a worker whose canary passed
        self._busy: list[tuple[float, int, Device]] = []
        self._order = 0
        self._suspended_until = 0.0  # the latest end of a suspension

    def named(self, name: str) -> Worker | None:
        """The current worker of that name."""
        return self._by_name.get(name)

    def at(self, peer: bytes) -> Worker | None:
        """The current worker behind a routing id."""
        return self._by_peer.get(peer)

    def find(self, epoch: str, peer: bytes) -> Worker | None:
        """The worker of `epoch`, if it is still current and it is the sender."""
        worker = self.workers.get(epoch)
        return worker if worker is not None and worker.peer == peer else None

    def add(self, now: float, peer: bytes, hello: Hello, grace_s: float) -> Worker:
        """Register; the name, epoch and peer must be free."""
        device = self.devices.setdefault(hello.device_id, Device(hello.device_id))
        breaker = self.breakers.of(hello.worker, self._by_name)
        self._suspended_until = max(self._suspended_until, breaker.suspended_until)
        worker = Worker(hello, peer, now, now + grace_s, breaker, device)
        device.workers.append(worker)
        self.workers[hello.epoch] = worker
        self._by_name[hello.worker] = worker
        self._by_peer[peer] = worker
        self.refile(device)
        return worker

    def remove(self, now: float, worker: Worker, event: WorkerEvent) -> list[BatchRun]:
        """The worker is gone; returns what it had in flight, oldest first. Raises `IllegalTransition`."""
        worker.advance(event)
        del self.workers[worker.hello.epoch]
        if self._by_name.get(worker.hello.worker) is worker:
            del self._by_name[worker.hello.worker]
        if self._by_peer.get(worker.peer) is worker:
            del self._by_peer[worker.peer]
        if event is WorkerEvent.LEFT:
            self.breakers.clear(worker.hello.worker)
        runs = list(worker.inflight)
        worker.inflight.clear()
        device = worker.device
        device.workers.remove(worker)
        device.inflight -= len(runs)
        self.refile(device)
        self._reestimate(now, device)
        if not device.workers:
            del self.devices[device.id]
        return runs

    def assign(self, now: float, worker: Worker, run: BatchRun) -> None:
        """`run` was sent to `worker`."""
        if not worker.inflight:
            run.running_since = now
        worker.inflight.append(run)
        worker.device.inflight += 1
        self.refile(worker.device)
        self._reestimate(now, worker.device)

    def finish(self, now: float, worker: Worker, batch_id: int) -> BatchRun | None:
        """Take batch `batch_id` out of the worker's flight; None when it is not there."""
        run = next((r for r in worker.inflight if r.id == batch_id), None)
        if run is None:
            return None
        worker.inflight.remove(run)
        if worker.inflight and worker.inflight[0].running_since is None:
            worker.inflight[0].running_since = now
        worker.device.inflight -= 1
        worker.device.last_done = now
        worker.batches += 1
        self.refile(worker.device)
        self._reestimate(now, worker.device)
        return run

    def _reestimate(self, now: float, device: Device) -> None:
        device.estimate(now)
        if device.inflight:
            self._order += 1
            heapq.heappush(self._busy, (device.busy_until, self._order, device))
            if len(self._busy) > 64 + 4 * len(self.devices):
                self._busy = [(d.busy_until, i, d) for i, d in enumerate(self.devices.values()) if d.inflight]
                heapq.heapify(self._busy)

    def refile(self, device: Device) -> None:
        """Put `device` where its count of batches in flight says, if a worker of it is ready."""
        for room in self._rooms:
            room.pop(device.id, None)
        self._able.discard(device.id)
        if any(w.state is WorkerState.READY for w in device.workers):
            self._able.add(device.id)
            if device.inflight < self.limit:
                self._rooms[device.inflight][device.id] = device

    def idle_devices(self) -> dict[str, Device]:
        """Devices with a ready worker and nothing in flight."""
        return self._rooms[0]

    def soonest(self, now: float) -> Device | None:
        """Of the busy devices with room for a batch, the one that should be done first."""
        skipped = []
        found = None
        while self._busy and found is None:
            top = self._busy[0]
            until, _, device = top
            if until != device.busy_until or not 0 < device.inflight < self.limit:
                heapq.heappop(self._busy)
            elif device.candidate(now) is None:
                skipped.append(heapq.heappop(self._busy))
            else:
                found = device
        for entry in skipped:
            heapq.heappush(self._busy, entry)
        return found

    def free_in(self, now: float) -> float:
        """Seconds until some device should be through with what it has."""
        if any(device.candidate(now) for device in self._rooms[0].values()):
            return 0.0
        device = self.soonest(now)
        devices = [device] if device else self._working(now)
        return max(0.0, min((d.busy_until for d in devices), default=now) - now)

    def able_devices(self, now: float) -> int:
        """Devices with a worker that can take work; 1 where there is none, since one divides by it."""
        return max(1, len(self._able) if now >= self._suspended_until else len(self._working(now)))

    def _working(self, now: float) -> list[Device]:
        """Devices with a worker whose canary passed and that is not suspended."""
        devices = [self.devices[i] for i in self._able]
        if now >= self._suspended_until:
            return devices
        return [d for d in devices if any(w.can_work(now) for w in d.workers)]

    def any_ready(self, now: float) -> bool:
        """True when some worker can take work: canary passed, not suspended."""
        return any(w.can_work(now) for w in self.workers.values())

    def ready(self, now: float) -> list[Worker]:
        """Workers that can take work: canary passed, not suspended."""
        return [w for w in self.workers.values() if w.can_work(now)]

    def count(self, state: WorkerState) -> int:
        """Workers in `state`."""
        return sum(w.state is state for w in self.workers.values())

    def check_invariants(self) -> None:
        """Raise AssertionError unless the books agree. For tests."""
        for device in self.devices.values():
            assert device.workers, device.id
            assert device.inflight == sum(len(w.inflight) for w in device.workers)
            assert device.inflight <= self.limit
            able = any(w.state is WorkerState.READY for w in device.workers)
            assert (device.id in self._able) == able
            filed = [n for n, room in enumerate(self._rooms) if device.id in room]
            assert filed == ([device.inflight] if able and device.inflight < self.limit else [])
        assert all(room.keys() <= self.devices.keys() for room in self._rooms)
        assert set(self._able) <= set(self.devices)
        for worker in self.workers.values():
            assert worker.state is not WorkerState.GONE
            assert len(worker.inflight) <= WORKER_INFLIGHT
            jobs = [job for run in worker.inflight for job in run.jobs]
            assert len(jobs) == 1 or not any(job.suspect for job in jobs)
            assert all(run.running_since is not None for run in list(worker.inflight)[:1])
            assert self._by_peer[worker.peer] is worker
            assert self._by_name[worker.hello.worker] is worker
