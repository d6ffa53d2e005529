"""What happens to the items of a worker that is lost, of a batch that failed, and of a poison input.

An item gets at most two runs. When a batch dies or fails with it, its items run again alone, so that on
the second failure the culprit is known: only it fails (500) and goes into quarantine, with what waits of
the same input; its batchmates answer. Batches that were staged behind it never ran: they come back as
they were, a few times at most. A worker that says that its device was lost accuses no item: what it had
waits for another worker, or for the device, until its deadline.
"""

from __future__ import annotations

import logging

from hailo_clip.broker.dispatcher import Dispatcher
from hailo_clip.broker.ledger import Ledger
from hailo_clip.broker.pool import CRASH_PROOF_BATCHES, BatchRun, Pool, Worker
from hailo_clip.broker.quarantine import QUARANTINED, Quarantine, digest
from hailo_clip.broker.states import WorkerEvent, WorkerState
from hailo_clip.broker.work import Action, Job, Note, Send
from hailo_clip.shared.errors import InferenceFailed, Quarantined, ServiceError
from hailo_clip.shared.messages import Fence, WireError
from hailo_clip.shared.metrics import Metrics

MAX_RUNS = 2
MAX_LOSSES = 4
_KILLABLE = (WorkerEvent.SILENT, WorkerEvent.OVERDUE, WorkerEvent.FAULTY)
_FENCED = (*_KILLABLE, WorkerEvent.SUPERSEDED)
_FINAL = (WorkerEvent.OVERDUE, WorkerEvent.FAULTY, WorkerEvent.SUPERSEDED)
_LOST_KEPT_S = 60.0


class Recovery:
    """See the module docstring. `last_loss` says in words why the latest worker went."""

    def __init__(
        self,
        ledger: Ledger,
        pool: Pool,
        dispatcher: Dispatcher,
        quarantine: Quarantine,
        metrics: Metrics,
        outbox: list[Action],
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._dispatcher = dispatcher
        self._quarantine = quarantine
        self._metrics = metrics
        self._outbox = outbox
        self._lost: dict[tuple[str, int], float] = {}
        self.last_loss = ""

    def lose(
        self, now: float, worker: Worker, event: WorkerEvent, why: str, *, blameless: bool = False
    ) -> None:
        """`worker` is gone: fence it, and send what it had again, uncounted when that is `blameless`."""
        orderly = worker.state is WorkerState.STOPPING or event is WorkerEvent.LEFT
        runs = self._pool.remove(now, worker, event)
        if event in _FENCED:
            fence = Fence(worker.hello.epoch, why, event in _FINAL)
            self._outbox.append(Send("backend", worker.peer, fence))
        if event in _KILLABLE:
            self._lost[(worker.hello.worker, worker.hello.pid)] = now
        if not orderly:
            self._note(logging.WARNING, f"worker lost: {why}", worker, runs)
            self._metrics.count("worker_restarts_total", event.value)
            self.last_loss = f"worker {worker.hello.worker}: {why}"
            crash_looping = worker.batches < CRASH_PROOF_BATCHES and event is not WorkerEvent.SUPERSEDED
            if crash_looping and not blameless and worker.breaker.lost(now):
                self._metrics.count("breaker_opened_total")
                self._note(logging.ERROR, "worker keeps failing, suspended for a while", worker, [])
        again: list[Job] = []
        for position, run in enumerate(runs):
            # A batch whose turn came with the very event that ended its worker has not run.
            begun = run.running_since is not None and run.running_since < now
            if blameless:
                again += self._unharmed(run)
            else:
                again += self._lost_batch(now, worker, run, running=position == 0 and begun)
        self._dispatcher.again(again)

    def failed_items(
        self, now: float, worker: Worker, run: BatchRun, failed: list[tuple[Job, WireError]]
    ) -> None:
        """Some or all items of a batch came back with errors."""
        again = [
            job
            for job, error in failed
            if self._survives(now, worker, job, alone=len(run.jobs) == 1, ran=True, why=error[1])
        ]
        self._metrics.count("retries_total", "failed", by=len(again))
        self._dispatcher.again(again)

    def seen(self, worker: str, pid: int) -> None:
        """That process registered: it need not be killed."""
        self._lost.pop((worker, pid), None)

    def lost_workers(self, now: float) -> list[tuple[str, int]]:
        """Workers that were given up but may still run, for their supervisor to kill.

        By name and process id: an id alone may be that of any process on another machine.
        """
        self._lost = {lost: at for lost, at in self._lost.items() if at > now - _LOST_KEPT_S}
        return list(self._lost)

    def _note(self, level: int, text: str, worker: Worker, runs: list[BatchRun]) -> None:
        fields: dict[str, object] = {"worker": worker.hello.worker, "worker_pid": worker.hello.pid}
        if runs:
            fields["batches"] = [run.id for run in runs]
            fields["items"] = sum(len(run.jobs) for run in runs)
        self._outbox.append(Note(level, text, fields))

    def _unharmed(self, run: BatchRun) -> list[Job]:
        """The items of `run` that are to be sent again, as if they had not been sent."""
        again = [job for job in run.jobs if self._ledger.retry(job)]
        self._metrics.count("retries_total", "lost", by=len(again))
        return again

    def _lost_batch(self, now: float, worker: Worker, run: BatchRun, running: bool) -> list[Job]:
        """The items of `run` that are to be sent again."""
        alone = len(run.jobs) == 1
        why = "the worker was lost while it ran"
        again = [job for job in run.jobs if self._survives(now, worker, job, alone, running, why)]
        self._metrics.count("retries_total", "lost", by=len(again))
        return again

    def _survives(self, now: float, worker: Worker, job: Job, alone: bool, ran: bool, why: str) -> bool:
        """Count the loss; True when `job` is to be sent again, False when it is settled or unwanted."""
        job.losses += 1
        job.ran += ran
        job.avoid = worker.hello.worker
        culprit = digest(job.kind, job.payload)
        if job.ran < MAX_RUNS and job.losses < MAX_LOSSES:
            if not self._quarantine.holds(culprit):
                return self._ledger.retry(job)
            self._give_up(now, job, "it is in quarantine", Quarantined(QUARANTINED))
            return False
        if ran and alone:
            self._quarantine.add(now, culprit)
            self._metrics.count("quarantined_total")
            self._spare_twins(now, job)
        text = f"Failed to encode {job.kind.name.lower()}: {why} (tried {job.losses} times)"
        self._give_up(now, job, why, InferenceFailed(text))
        return False

    def _spare_twins(self, now: float, job: Job) -> None:
        """The same input may wait several times, from a client that tries again: nobody is to die of it."""
        for twin in self._ledger.twins(job):
            self._give_up(now, twin, "it is in quarantine", Quarantined(QUARANTINED))

    def _give_up(self, now: float, job: Job, why: str, error: ServiceError) -> None:
        traces = [request.trace for request, _ in job.waiters]
        self._outbox.append(Note(logging.ERROR, "item failed for good", {"traces": traces, "why": why}))
        self._ledger.spoil(now, job, error.to_wire())
