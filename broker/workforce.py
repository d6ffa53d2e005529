"""The workers' side of the broker: registration, results, heartbeats, and giving up on those that fail."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np

from hailo_clip.broker.costs import CostModel
from hailo_clip.broker.ledger import Ledger
from hailo_clip.broker.makers import Makers
from hailo_clip.broker.patience import Patience
from hailo_clip.broker.policy import Policy
from hailo_clip.broker.pool import BatchRun, Pool, Worker
from hailo_clip.broker.recovery import Recovery
from hailo_clip.broker.states import IllegalTransition, WorkerEvent
from hailo_clip.broker.work import Action, Job, Note, Send
from hailo_clip.shared import messages as m
from hailo_clip.shared.metrics import Metrics

FAULTY_IN_A_ROW = 3
_SHORTEST, _LONGEST = 0.99, 1.01  # the square of an embedding's length


class _Result(NamedTuple):
    """A batch that came back at `at` and took `seconds` of device time."""

    at: float
    hello: m.Hello
    kind: m.Kind
    items: int
    seconds: float


class Workforce:
    """See the module docstring. `ever_ready` is True once any worker's canary passed."""

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        pool: Pool,
        costs: CostModel,
        recovery: Recovery,
        metrics: Metrics,
        outbox: list[Action],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._pool = pool
        self._costs = costs
        self._recovery = recovery
        self._metrics = metrics
        self._outbox = outbox
        self._makers = Makers()
        self.ever_ready = False
        self._silence_s = policy.heartbeat_s * policy.liveness
        self._patience = Patience(policy)
        self._results: list[_Result] = []  # that nothing was learned from yet

    def message(self, now: float, peer: bytes, message: m.FromWorker) -> None:
        """A worker's message."""
        if isinstance(message, m.Hello):
            self._hello(now, peer, message)
            return
        worker = self._pool.find(message.epoch, peer)
        if worker is None:
            self._stranger(peer, message)
            return
        worker.last_seen = now
        worker.silent_after = max(worker.silent_after, now + self._silence_s)
        try:
            self._known_worker(now, worker, message)
        except IllegalTransition:
            self._metrics.count("illegal_events_total")

    def _known_worker(self, now: float, worker: Worker, message: m.FromWorker) -> None:
        match message:
            case m.Ready():
                worker.advance(WorkerEvent.PASSED)
                worker.cosine = message.cosine
                worker.silent_after = now + self._silence_s
                self.ever_ready = True
                self._makers.passed(worker.hello)
                self._measured(worker, message)
                self._pool.refile(worker.device)
                self._note(logging.INFO, f"worker ready, canary cosine {message.cosine:.6f}", worker.hello)
            case m.Beat():
                ack = m.BeatAck(self._policy.broker_epoch, message.epoch)
                self._outbox.append(Send("backend", worker.peer, ack))
            case m.Result():
                self._result(now, worker, message)
            case m.Leave():
                worker.advance(WorkerEvent.STOP)
                self._pool.refile(worker.device)
                self._outbox.append(Send("backend", worker.peer, m.Stop(message.epoch)))
            case m.Bye():
                self._makers.gone(worker.hello)
                self._recovery.lose(now, worker, WorkerEvent.LEFT, "left")
            case m.Failed():
                self._disown(worker)
                blameless = message.device_fault
                self._recovery.lose(now, worker, WorkerEvent.FAILED, message.reason, blameless=blameless)

    def _hello(self, now: float, peer: bytes, hello: m.Hello) -> None:
        welcome = m.Welcome(self._policy.broker_epoch, hello.epoch, self._policy.heartbeat_s)
        if self._pool.find(hello.epoch, peer) is None:
            refusal = self._misfit(hello)
            if refusal:
                self._outbox.append(Send("backend", peer, m.Reject(hello.epoch, refusal)))
                self._note(logging.ERROR, f"worker rejected: {refusal}", hello)
                return
            self._replace(now, peer, hello)
            self._pool.add(now, peer, hello, max(hello.grace_s, self._silence_s))
            self._recovery.seen(hello.worker, hello.pid)
            self._metrics.count("worker_registrations_total")
            self._note(logging.INFO, "worker registered", hello)
        self._outbox.append(Send("backend", peer, welcome))

    def _note(self, level: int, text: str, hello: m.Hello) -> None:
        fields = {
            "worker": hello.worker,
            "worker_pid": hello.pid,
            "device": hello.device_id,
            "encoder": hello.encoder,
        }
        self._outbox.append(Note(level, text, {**fields}))

    def _replace(self, now: float, peer: bytes, hello: m.Hello) -> None:
        """Give up the registration that this one takes the place of: same process, epoch or name."""
        own = self._pool.at(peer)
        if own is not None:
            self._recovery.lose(now, own, WorkerEvent.UNREACHABLE, "registered anew")
        for old in (self._pool.workers.get(hello.epoch), self._pool.named(hello.worker)):
            if old is not None and self._pool.find(old.hello.epoch, old.peer) is old:
                why = f"process {hello.pid} registered under the same name, {hello.worker}"
                self._recovery.lose(now, old, WorkerEvent.SUPERSEDED, why)

    def _misfit(self, hello: m.Hello) -> str:
        """Why this worker can't serve here, empty when it can."""
        ours = self._policy
        if hello.fingerprint != ours.fingerprint:
            return (
                f"the worker has {hello.model} on {hello.encoder} (fingerprint {hello.fingerprint}), "
                f"the broker serves {ours.model} on {ours.encoder} (fingerprint {ours.fingerprint})"
            )
        if hello.dimension != ours.dimension or hello.max_batch < 1:
            return f"dimension {hello.dimension} is not {ours.dimension}, or max_batch {hello.max_batch} < 1"
        return ""

    def _stranger(self, peer: bytes, message: m.FromWorker) -> None:
        """A message of an epoch that was given up, or that an earlier broker knew."""
        if isinstance(message, m.Result):
            self._metrics.count("late_results_total")
        if isinstance(message, m.Leave):
            self._outbox.append(Send("backend", peer, m.Stop(message.epoch)))
        elif isinstance(message, (m.Beat, m.Result, m.Ready)):
            fence = m.Fence(message.epoch, "the broker does not know this registration", False)
            self._outbox.append(Send("backend", peer, fence))

    def _result(self, now: float, worker: Worker, result: m.Result) -> None:
        run = next((r for r in worker.inflight if r.id == result.batch_id), None)
        if run is None:
            self._metrics.count("late_results_total")
            return
        rows = _rows(result, len(run.jobs), self._policy.dimension)
        if rows is None:
            why = "gave embeddings of the wrong size, not finite or not of length 1"
            self._disown(worker)
            self._recovery.lose(now, worker, WorkerEvent.FAULTY, why)
            return
        began = max(run.dispatched, worker.device.last_done)
        took = max(0.0, min(result.device_s, now - began))  # without its wait for the device's other batch
        self._pool.finish(now, worker, run.id)
        self._settle(now, worker, run, result, rows, took)

    def _settle(
        self,
        now: float,
        worker: Worker,
        run: BatchRun,
        result: m.Result,
        rows: list[m.Buffer],
        took: float,
    ) -> None:
        """A well-formed result: embeddings to those who wait, failed items to recovery."""
        errors = result.errors or (None,) * len(run.jobs)
        kind = run.kind.name.lower()
        self._metrics.observe("inference_seconds", took, worker.hello.encoder, kind)
        good = iter(rows)
        failed: list[tuple[Job, m.WireError]] = []
        mark = self._makers.number(worker.hello)
        for job, error in zip(run.jobs, errors, strict=True):
            if error is None:
                self._ledger.succeed(now, job, next(good), took, mark)
            else:
                failed.append((job, error))
        if rows:
            self._results.append(_Result(now, worker.hello, run.kind, len(run.jobs), took))
            worker.failed_in_a_row = 0
            worker.breaker.proved()
        if failed:
            self._recovery.failed_items(now, worker, run, failed)
        if not rows:
            worker.failed_in_a_row += 1
            if worker.failed_in_a_row >= FAULTY_IN_A_ROW:
                why = f"{FAULTY_IN_A_ROW} batches in a row failed: {failed[0][1][1]}"
                self._recovery.lose(now, worker, WorkerEvent.FAULTY, why)

    def learn(self) -> None:
        """Learn what batches take from the results since the last call: before anything else is decided."""
        for result in self._results:
            self._costs.observe(result.kind, result.items, result.seconds)
            self._costs.back(result.at, result.kind)
            self._patience.done(result.hello, result.kind, result.items, result.seconds)
        self._results.clear()

    def _disown(self, worker: Worker) -> None:
        """The worker is not to be believed any more: what it put into the cache is as doubtful.

        Its canary, which passed before, speaks for what it made until then.
        """
        dropped = self._ledger.cache.drop_marked(self._makers.gone(worker.hello))
        if dropped:
            text = f"prompts dropped from the cache, made by a worker that failed since: {dropped}"
            self._note(logging.WARNING, text, worker.hello)

    def unreachable(self, now: float, peer: bytes) -> None:
        """A message to the worker behind `peer` could not be delivered."""
        worker = self._pool.at(peer)
        if worker is not None:
            self._recovery.lose(now, worker, WorkerEvent.UNREACHABLE, "its connection is gone")

    def tick(self, now: float) -> None:
        """Give up who has been silent, or whose batch has run, for too long."""
        for worker in list(self._pool.workers.values()):
            self._check(now, worker)

    def probe(self) -> None:
        """Say something to every worker, so that those whose connection is gone show."""
        for worker in self._pool.workers.values():
            ack = m.BeatAck(self._policy.broker_epoch, worker.hello.epoch)
            self._outbox.append(Send("backend", worker.peer, ack))

    def forgive(self, now: float, gap: float) -> None:
        """The broker was paused for `gap` seconds until now: nobody else was silent or slow in that time."""
        for worker in self._pool.workers.values():
            worker.silent_after += gap
            for run in worker.inflight:
                if run.running_since is not None:
                    run.running_since = min(now, run.running_since + gap)

    def _check(self, now: float, worker: Worker) -> None:
        """Give `worker` up when it has been silent, or its batch has run, for too long."""
        if now > worker.silent_after:
            silence = now - worker.last_seen
            self._recovery.lose(now, worker, WorkerEvent.SILENT, f"silent for {silence:.1f} s")
            return
        run = worker.inflight[0] if worker.inflight else None
        if run is not None and run.running_since is not None:
            took = now - run.running_since
            # others of its device may run before it
            before = max(1, worker.device.inflight)
            bound = self._patience.bound(worker.hello, run.kind, len(run.jobs), run.estimate, before)
            if took > bound:
                self._patience.gave_up(worker.hello, run.kind)
                why = f"a batch of {len(run.jobs)} has run for {took:.1f} s, expected {run.estimate:.3f} s"
                self._recovery.lose(now, worker, WorkerEvent.OVERDUE, why)

    def _measured(self, worker: Worker, ready: m.Ready) -> None:
        """What its canary took is the best guess until there are results."""
        self._patience.measured(worker.hello, ready.batches)
        for kind, (items, seconds) in zip(m.Kind, ready.batches, strict=False):
            self._costs.measured(kind, items, seconds)


def _rows(result: m.Result, items: int, dimension: int) -> list[m.Buffer] | None:
    """One embedding (bytes) an item without error, or None when the result is not what it should be."""
    if result.errors and len(result.errors) != items:
        return None
    count = sum(e is None for e in result.errors) if result.errors else items
    if not count:
        return None if result.frames else []
    size = 4 * dimension
    if not result.frames or len(result.frames[0]) != count * size:
        return None
    data = bytes(result.frames[0])
    rows = np.frombuffer(data, np.float32).reshape(count, dimension)
    if not all(_SHORTEST < square < _LONGEST for square in np.einsum("ij,ij->i", rows, rows).tolist()):
        return None  # NaN and infinity are not between them either
    return [data[i * size : (i + 1) * size] for i in range(count)] if count > 1 else [data]
