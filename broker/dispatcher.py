"""Which items go to which worker, and when: work-conserving, greedy batches in fair order.

A device with nothing in flight gets whatever waits, at once. A device whose batch is running gets the next
one staged behind it shortly before the running one should end (`Policy.stage_lead_s`): soon enough that
the device never runs dry, late enough that items which arrive meanwhile can still join, and that the
batch is made in the fair order of that moment. So a device never waits for company, and under load its
batches are full. When several devices are idle, what waits is split between them.

No device time goes to what can't be answered in time: items whose deadline comes before the batch to be
staged should be done are answered 504 when it is their turn. They are the last of a burst, and would make
those behind them late as well. `docs/broker.md` has numbers.

Items of a lost batch go first. Those that were running when their worker was lost (suspects) run alone, also
in time: on an idle device, and nothing else goes to the worker meanwhile. A worker may die of a batch before
it has reported the one before, so of two in flight nobody could say which killed it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from hailo_clip.broker.costs import CostModel
from hailo_clip.broker.ledger import Ledger
from hailo_clip.broker.policy import Policy
from hailo_clip.broker.pool import BatchRun, Device, Pool, Worker
from hailo_clip.broker.states import JobState
from hailo_clip.broker.work import Action, Job, Send
from hailo_clip.shared.messages import Batch, Kind
from hailo_clip.shared.metrics import Metrics


class Dispatcher:
    """See the module docstring."""

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        pool: Pool,
        costs: CostModel,
        metrics: Metrics,
        outbox: list[Action],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._pool = pool
        self._costs = costs
        self._metrics = metrics
        self._outbox = outbox
        self._again: deque[Job] = deque()
        self._batch_id = 0
        self.stage_at: float | None = None
        """When a partial batch is to be staged, None when nothing waits for that."""

    def again(self, jobs: Iterable[Job]) -> None:
        """Items to be sent again, before all others, in this order."""
        self._again.extendleft(reversed(list(jobs)))

    def run(self, now: float) -> None:
        """Send all that may be sent now."""
        self.stage_at = None
        while (kind := self._next_kind()) is not None:
            target = self._target(now, kind)
            if target is None:
                return
            worker, size = target
            jobs = self._gather(now, worker, kind, size)
            if jobs:
                self._send(now, worker, kind, jobs)

    def _next_kind(self) -> Kind | None:
        while self._again:
            if self._again[0].state is JobState.WAITING:
                return self._again[0].kind
            self._again.popleft()
        return self._ledger.queue.head()

    def _target(self, now: float, kind: Kind) -> tuple[Worker, int] | None:
        """The worker to send the next batch to and the batch's size; None: not now."""
        waiting = self._ledger.waiting_jobs[kind]
        avoid = self._again[0].avoid if self._again else ""
        idle = self._idle(now, avoid, waiting + 1)
        if idle:
            worker = next((w for w in idle if w.hello.worker != avoid), idle[0])
            return worker, self._limit(worker, -(-waiting // len(idle)))
        return self._staged(now, kind, waiting, avoid)

    def _idle(self, now: float, avoid: str, most: int) -> list[Worker]:
        """One worker for each device that is idle and not suspended; looks for no more than `most`."""
        workers = (device.candidate(now, avoid) for device in self._pool.idle_devices().values())
        return list(islice((w for w in workers if w is not None), most))

    def _staged(self, now: float, kind: Kind, waiting: int, avoid: str) -> tuple[Worker, int] | None:
        """A worker whose device is busy but should have its next batch now."""
        if self._again and self._again[0].suspect:
            return None
        device = self._pool.soonest(now)
        if device is None:
            return None
        worker = device.candidate(now, avoid)
        assert worker is not None
        if self._again or now >= self._due(device):
            return worker, self._limit(worker, waiting)
        self.stage_at = self._due(device)
        return None

    def _due(self, device: Device) -> float:
        return device.busy_until - self._policy.stage_lead_s

    def _limit(self, worker: Worker, wanted: int) -> int:
        return max(1, min(wanted, self._policy.max_batch, worker.hello.max_batch))

    def _gather(self, now: float, worker: Worker, kind: Kind, size: int) -> list[Job]:
        """Up to `size` items of `kind`: those to be sent again first, then in fair order.

        None at all when whatever waited is given up, as its deadline is out of reach.
        """
        if self._again and self._again[0].suspect:
            return [self._again.popleft()]
        jobs: list[Job] = []
        while self._again and len(jobs) < size:
            job = self._again[0]
            if job.state is JobState.WAITING and (job.kind is not kind or job.suspect):
                break
            self._again.popleft()
            if job.state is JobState.WAITING:
                jobs.append(job)
        choosy = self._choosy(now, worker, kind, size)
        while len(jobs) < size:
            if choosy and self._ledger.give_up_late(now, kind, self._done(worker, kind, size)):
                continue
            taken = self._ledger.take(kind)
            if taken is None:
                break
            jobs.append(taken)
        # What was to be sent again may belong to a request that was given up just now.
        return [job for job in jobs if job.state is JobState.WAITING]

    def _choosy(self, now: float, worker: Worker, kind: Kind, size: int) -> bool:
        """Whether what comes too late is to be kept out of the next batch.

        Not on an idle device, nor when no batch of this kind ran of late: that one proves the estimate.
        """
        if not worker.device.inflight or self._costs.doubtful(now, kind):
            return False
        first = self._ledger.next_deadline()
        return first is not None and first < self._done(worker, kind, size)

    def _done(self, worker: Worker, kind: Kind, size: int) -> float:
        """When a batch of up to `size` of what waits should be done, behind what its device has already."""
        items = min(size, self._ledger.waiting_jobs[kind])
        return worker.device.busy_until + self._costs.batch(kind, items)

    def _send(self, now: float, worker: Worker, kind: Kind, jobs: list[Job]) -> None:
        self._batch_id += 1
        for job in jobs:
            self._ledger.dispatch(now, job)
        estimate = self._costs.batch(kind, len(jobs))
        self._costs.sent(now, kind, len(jobs))
        self._pool.assign(now, worker, BatchRun(self._batch_id, kind, jobs, now, estimate))
        traces = tuple(job.waiters[0][0].trace for job in jobs)
        payloads = tuple(job.payload for job in jobs)
        batch = Batch(worker.hello.epoch, self._batch_id, int(kind), traces, payloads)
        self._outbox.append(Send("backend", worker.peer, batch))
        self._metrics.count("batches_total", kind.name.lower())
        self._metrics.observe("batch_size", len(jobs), kind.name.lower())
