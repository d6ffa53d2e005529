"""The books of accepted requests: who waits for what, since when, and the one answer each gets.

Every accepted request is in `requests` until `_close` takes it out and sends its answer; there is no
other way out, which is what makes answers exactly-once. Pure: time is an argument, answers go to `outbox`.
"""

from __future__ import annotations

import heapq
import logging

from hailo_clip.broker.fairqueue import FairQueue
from hailo_clip.broker.promptcache import PromptCache
from hailo_clip.broker.states import JobEvent, JobState, RequestEvent, RequestState
from hailo_clip.broker.tenants import Tenants
from hailo_clip.broker.work import Action, Job, Note, Request, RequestKey, Send
from hailo_clip.shared.errors import DeadlineExceeded, QueueFull
from hailo_clip.shared.messages import Buffer, Kind, Refused, WireError
from hailo_clip.shared.metrics import Metrics

_COMPACT_ABOVE = 64
_LABELS = tuple(kind.name.lower() for kind in Kind)  # of the metrics, by kind


class Ledger:
    """See the module docstring. `departures` counts the requests that left the queue for a device."""

    def __init__(
        self,
        queue: FairQueue[Job],
        cache: PromptCache,
        metrics: Metrics,
        outbox: list[Action],
        note_endings: bool = False,
    ) -> None:
        self.queue = queue
        self.cache = cache
        self.metrics = metrics
        self.outbox = outbox
        self.requests: dict[RequestKey, Request] = {}
        self.flights: dict[bytes, Job] = {}
        self.tenants = Tenants(queue.tail)
        self.departures = 0
        self.waiting_jobs = {Kind.IMAGE: 0, Kind.TEXT: 0}
        self._deadlines: list[tuple[float, RequestKey]] = []
        self._note_endings = note_endings

    @property
    def waiting(self) -> int:
        """Requests not yet wholly dispatched: what `queue.max_depth` limits."""
        return self.tenants.requests

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes of those requests: what `queue.max_bytes_mib` limits."""
        return self.tenants.bytes

    def open(self, request: Request) -> None:
        """Take `request` in, before its items are placed."""
        self.requests[request.key] = request
        self.metrics.count("accepted_total")
        heapq.heappush(self._deadlines, (request.deadline, request.key))
        if len(self._deadlines) > _COMPACT_ABOVE + 2 * len(self.requests):
            self._deadlines = [(r.deadline, key) for key, r in self.requests.items()]
            heapq.heapify(self._deadlines)

    def cached(self, request: Request, index: int, embedding: bytes) -> None:
        """Item `index` is answered from the prompt cache."""
        request.results[index] = embedding
        request.cached += 1
        request.unsettled -= 1

    def refused(self, request: Request, index: int, error: WireError) -> None:
        """Item `index` fails without being run."""
        request.errors[index] = error
        request.unsettled -= 1

    def place(self, request: Request, index: int, kind: Kind, payload: Buffer) -> None:
        """Item `index` needs a device: make its job, or join the one that an equal prompt has.

        Args:
            request: whose item it is.
            index: of the item in the request.
            kind: what it is.
            payload: a prompt's as `bytes`, which are its key.
        """
        key = payload if kind is Kind.TEXT else None
        job = self.flights.get(key) if key is not None else None
        if job is not None:
            self._join(request, index, job)
            return
        job = Job(kind, payload, len(payload), key)
        if key is not None:
            self.flights[key] = job
        self.waiting_jobs[kind] += 1
        job.waiters.append((request, index))
        job.entries.append(self.queue.push(request.flow, request.weight, kind, job))
        request.jobs.append(job)
        request.undispatched += 1
        request.nbytes += job.nbytes

    def _join(self, request: Request, index: int, job: Job) -> None:
        """Wait for `job`, which an equal prompt has, of this request or of another."""
        self.metrics.count("prompt_single_flight_total")
        joined = any(waiter is request for waiter, _ in job.waiters)
        job.waiters.append((request, index))
        if not joined:
            request.jobs.append(job)
        if job.dispatches:
            return
        request.undispatched += 1
        if not joined:
            request.nbytes += job.nbytes
            if not job.stands_in(request.flow):
                job.entries.append(self.queue.push(request.flow, request.weight, job.kind, job))

    def opened(self, now: float, request: Request) -> None:
        """Every item of `request` is placed: it waits, or runs, or is answered at once."""
        if not request.unsettled:
            self._complete(now, request)
        elif request.undispatched:
            self.tenants.add(request)
        else:
            self._all_dispatched(now, request)

    def give_up_late(self, now: float, kind: Kind, done: float) -> bool:
        """Answer those who wait for the next job of this kind if it, done at `done`, came too late for them.

        Returns:
            Whether there were any; then another job may be the next.
        """
        job = self.queue.peek(kind)
        late = {r.key: r for r, _ in job.waiters if r.deadline < done} if job is not None else {}
        for request in late.values():
            text = (
                f"the deadline comes in {request.deadline - now:.3g} s, "
                f"an answer would take another {done - now:.3g} s"
            )
            self._close(request, RequestEvent.DEADLINE, DeadlineExceeded(text).to_wire())
        return bool(late)

    def take(self, kind: Kind) -> Job | None:
        """The job of this kind whose turn it is; it leaves every other line too, lest it be taken twice."""
        job = self.queue.take(kind)
        if job is not None:
            self._leave_queue(job)
        return job

    def dispatch(self, now: float, job: Job) -> None:
        """`job`, taken or to be sent again, goes to a worker."""
        job.advance(JobEvent.DISPATCH)
        self.waiting_jobs[job.kind] -= 1
        if not job.dispatches:
            for request, _ in job.waiters:
                request.dispatched += 1
            self._not_awaited(now, job)
        job.dispatches += 1

    def succeed(self, now: float, job: Job, embedding: Buffer, device_s: float, mark: int = 0) -> None:
        """`job` has its embedding (float32 bytes); `mark` says of whom, to the prompt cache."""
        job.advance(JobEvent.SUCCEED)
        if job.key is not None:
            self._land(job)
            if self.cache.max_entries:
                embedding = bytes(embedding)
                self.cache.put(job.key, embedding, mark)
        self.metrics.count("items_total", _LABELS[job.kind], "done")
        self._settle(now, job, embedding, None, device_s)

    def twins(self, job: Job) -> list[Job]:
        """Waiting jobs with the same input; prompts have none, since equal ones are one job."""
        return [
            other
            for request in self.requests.values()
            for other in request.jobs
            if other.state is JobState.WAITING
            and (other.kind, other.nbytes) == (job.kind, job.nbytes)
            and memoryview(other.payload) == memoryview(job.payload)
        ]

    def spoil(self, now: float, job: Job, error: WireError) -> None:
        """`job` failed for good, running or waiting."""
        if job.state is JobState.WAITING:
            self.waiting_jobs[job.kind] -= 1
            self._leave_queue(job)
            if not job.dispatches:
                self._not_awaited(now, job)
        job.advance(JobEvent.SPOIL)
        self._land(job)
        self.metrics.count("items_total", _LABELS[job.kind], "failed")
        self._settle(now, job, None, error, 0.0)

    def retry(self, job: Job) -> bool:
        """`job` waits again after its batch was lost; False when nobody wants it any more."""
        if not job.waiters:
            job.advance(JobEvent.ABANDON)
            self._land(job)
            return False
        job.advance(JobEvent.RETRY)
        self.waiting_jobs[job.kind] += 1
        return True

    def cancel(self, key: RequestKey) -> None:
        """The client of `key` went away; unknown keys are fine (the answer crossed the cancellation)."""
        request = self.requests.get(key)
        if request is not None:
            self._close(request, RequestEvent.CANCEL)

    def push_out(self, request: Request, error: QueueFull) -> None:
        """`request` makes room for a tenant that has less than its share."""
        self.metrics.count("rejected_total", "pushed_out")
        self._close(request, RequestEvent.PUSH_OUT, error.to_wire())

    def expire(self, now: float) -> None:
        """Answer every request whose deadline has come."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, key = heapq.heappop(self._deadlines)
            request = self.requests.get(key)
            if request is not None and request.deadline == deadline:
                waited = "waiting in the queue" if request.state is RequestState.WAITING else "running"
                text = f"the deadline passed after {now - request.arrived:.1f} s, while {waited}"
                self._close(request, RequestEvent.DEADLINE, DeadlineExceeded(text).to_wire())

    def next_deadline(self) -> float | None:
        """When `expire` has something to do, at the earliest."""
        return self._deadlines[0][0] if self._deadlines else None

    def of_frontend(self, frontend: bytes) -> list[RequestKey]:
        """The requests of one frontend."""
        return [key for key in self.requests if key[0] == frontend]

    def _all_dispatched(self, now: float, request: Request) -> None:
        request.advance(RequestEvent.DISPATCHED)
        self.departures += 1
        self.metrics.observe("queue_wait_seconds", now - request.arrived)
        self.tenants.discard(request)

    def _not_awaited(self, now: float, job: Job) -> None:
        """Nobody waits for the first dispatch of `job` any more."""
        for request, _ in job.waiters:
            request.undispatched -= 1
            if not request.undispatched:
                self._all_dispatched(now, request)

    def _settle(
        self, now: float, job: Job, embedding: Buffer | None, error: WireError | None, device_s: float
    ) -> None:
        """Hand the outcome to everyone who waits for `job`, and drop its payload."""
        waiters, job.waiters, job.payload = job.waiters, [], b""
        for request, index in waiters:
            request.results[index] = embedding
            request.errors[index] = error
            request.device_s = max(request.device_s, device_s)
            request.unsettled -= 1
            if not request.unsettled:
                self._complete(now, request)

    def _complete(self, now: float, request: Request) -> None:
        """Every item of `request` has its outcome; what was not device time was waiting."""
        request.queue_s = max(0.0, now - request.arrived - request.device_s)
        self._close(request, RequestEvent.COMPLETED if None in request.errors else RequestEvent.ALL_FAILED)

    def _close(self, request: Request, event: RequestEvent, refusal: WireError | None = None) -> None:
        """The only way out of the books: one terminal state, one answer (none to a client that left)."""
        request.advance(event)
        del self.requests[request.key]
        self.tenants.discard(request)
        self._detach(request)
        outcome = request.state.value
        self.metrics.count("finished_total", outcome)
        if self._note_endings:
            fields: dict[str, object] = {"trace": request.trace, "outcome": outcome}
            self.outbox.append(Note(logging.DEBUG, "request ended", fields))
        frontend, number = request.key
        if refusal is not None:
            self.outbox.append(Send("frontend", frontend, Refused(number, refusal)))
        elif event is not RequestEvent.CANCEL:
            self.outbox.append(Send("frontend", frontend, request.reply()))

    def _detach(self, request: Request) -> None:
        """Stop waiting for jobs; those that nobody else waits for leave the queue."""
        jobs, request.jobs = request.jobs, []
        for job in jobs:
            if not job.waiters:
                continue
            job.waiters = [(r, i) for r, i in job.waiters if r is not request]
            if job.state is JobState.WAITING:
                self._leave_flow(job, request)
                if not job.waiters:
                    self._drop(job)

    def _leave_flow(self, job: Job, request: Request) -> None:
        """Kill the place that `request` had for `job`, unless another waiter stands in the same flow."""
        if any(r.flow == request.flow for r, _ in job.waiters):
            return
        for entry in job.entries:
            if entry.flow.key == request.flow:
                self.queue.kill(entry)

    def _drop(self, job: Job) -> None:
        job.advance(JobEvent.ABANDON)
        self.waiting_jobs[job.kind] -= 1
        self._leave_queue(job)
        self._land(job)
        job.payload = b""

    def _leave_queue(self, job: Job) -> None:
        for entry in job.entries:
            self.queue.kill(entry)
        job.entries.clear()

    def _land(self, job: Job) -> None:
        if job.key is not None and self.flights.get(job.key) is job:
            del self.flights[job.key]

    def check_invariants(self) -> None:
        """Raise AssertionError unless the books agree. For tests."""
        open_states = (RequestState.WAITING, RequestState.RUNNING)
        for request in self.requests.values():
            assert request.state in open_states
            items = zip(request.results, request.errors, strict=True)
            settled = sum(r is not None or e is not None for r, e in items)
            assert request.unsettled == len(request.results) - settled > 0
            assert (request.undispatched > 0) == (request.state is RequestState.WAITING)
            assert all(any(r is request for r, _ in j.waiters) for j in request.jobs if j.waiters)
        for key, job in self.flights.items():
            assert job.key == key and job.state in (JobState.WAITING, JobState.RUNNING)
        assert self.waiting == sum(r.state is RequestState.WAITING for r in self.requests.values())
        ended = sum(self.metrics.value("finished_total", s.value) for s in RequestState)
        assert self.metrics.value("accepted_total") == ended + len(self.requests)
        self.tenants.check_invariants()
        self.queue.check_invariants()
