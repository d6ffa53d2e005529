"""The three state machines of the broker, as tables. Nothing else decides what may follow what.

Rules that the tables keep:

- A request that was accepted ends in exactly one of ANSWERED, FAILED, EXPIRED, CANCELLED, PUSHED_OUT, and
  no event leaves these. Only a request of which nothing was dispatched can be pushed out.
- A job (one item, shared by every request that waits for the same prompt) goes back from RUNNING to
  WAITING only by RETRY, and ends DONE (it has an embedding), SPOILED (it has an error) or DROPPED
  (nobody waits for it any more).
- A worker gets work only while READY. GONE is final: a worker that comes back is a new one, with a new
  epoch, so that no late answer of the old one can be taken for the new one's.

An event that the table does not list for a state is refused: `step` raises and nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar


class _Member(Enum):
    """An `Enum` that tables look up by identity; `Enum` itself would hash the name each time, in Python."""

    __hash__ = object.__hash__


class RequestState(_Member):
    """Where a request is; the names are the `outcome` labels of the metrics."""

    WAITING = "waiting"
    RUNNING = "running"
    ANSWERED = "answered"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    PUSHED_OUT = "pushed_out"


class RequestEvent(_Member):
    """What can happen to a request."""

    DISPATCHED = "every item dispatched"
    COMPLETED = "every item settled"
    ALL_FAILED = "every item failed"
    DEADLINE = "deadline passed"
    CANCEL = "client gone"
    PUSH_OUT = "made room for another tenant"


class JobState(_Member):
    """Where one item is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SPOILED = "spoiled"
    DROPPED = "dropped"


class JobEvent(_Member):
    """What can happen to one item."""

    DISPATCH = "sent to a worker"
    SUCCEED = "embedding arrived"
    SPOIL = "failed for good"
    RETRY = "batch lost, try again"
    ABANDON = "nobody waits for it"


class WorkerState(_Member):
    """Where a registered worker is."""

    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    GONE = "gone"


class WorkerEvent(_Member):
    """What can happen to a worker; the values are the `reason` labels of the metrics."""

    PASSED = "canary passed"
    STOP = "told to stop"
    LEFT = "left"
    FAILED = "failed"
    SILENT = "silent"
    OVERDUE = "overdue"
    FAULTY = "faulty"
    UNREACHABLE = "unreachable"
    SUPERSEDED = "superseded"


S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)
Table = Mapping[S, Mapping[E, S]]

REQUEST: Table[RequestState, RequestEvent] = {
    RequestState.WAITING: {
        RequestEvent.DISPATCHED: RequestState.RUNNING,
        RequestEvent.COMPLETED: RequestState.ANSWERED,
        RequestEvent.ALL_FAILED: RequestState.FAILED,
        RequestEvent.DEADLINE: RequestState.EXPIRED,
        RequestEvent.CANCEL: RequestState.CANCELLED,
        RequestEvent.PUSH_OUT: RequestState.PUSHED_OUT,
    },
    RequestState.RUNNING: {
        RequestEvent.COMPLETED: RequestState.ANSWERED,
        RequestEvent.ALL_FAILED: RequestState.FAILED,
        RequestEvent.DEADLINE: RequestState.EXPIRED,
        RequestEvent.CANCEL: RequestState.CANCELLED,
    },
    RequestState.ANSWERED: {},
    RequestState.FAILED: {},
    RequestState.EXPIRED: {},
    RequestState.CANCELLED: {},
    RequestState.PUSHED_OUT: {},
}

JOB: Table[JobState, JobEvent] = {
    JobState.WAITING: {
        JobEvent.DISPATCH: JobState.RUNNING,
        JobEvent.SPOIL: JobState.SPOILED,
        JobEvent.ABANDON: JobState.DROPPED,
    },
    JobState.RUNNING: {
        JobEvent.SUCCEED: JobState.DONE,
        JobEvent.SPOIL: JobState.SPOILED,
        JobEvent.RETRY: JobState.WAITING,
        JobEvent.ABANDON: JobState.DROPPED,
    },
    JobState.DONE: {},
    JobState.SPOILED: {},
    JobState.DROPPED: {},
}

_ENDINGS = dict.fromkeys(
    (
        WorkerEvent.LEFT,
        WorkerEvent.FAILED,
        WorkerEvent.SILENT,
        WorkerEvent.OVERDUE,
        WorkerEvent.FAULTY,
        WorkerEvent.UNREACHABLE,
        WorkerEvent.SUPERSEDED,
    ),
    WorkerState.GONE,
)

WORKER: Table[WorkerState, WorkerEvent] = {
    WorkerState.LOADING: {
        WorkerEvent.PASSED: WorkerState.READY,
        WorkerEvent.STOP: WorkerState.STOPPING,
        **_ENDINGS,
    },
    WorkerState.READY: {
        WorkerEvent.PASSED: WorkerState.READY,
        WorkerEvent.STOP: WorkerState.STOPPING,
        **_ENDINGS,
    },
    WorkerState.STOPPING: {WorkerEvent.STOP: WorkerState.STOPPING, **_ENDINGS},
    WorkerState.GONE: {},
}


class IllegalTransition(Exception):
    """An event that its state does not allow; nothing changed."""


def step(table: Table[S, E], state: S, event: E) -> S:
    """The state after `event`. Raises `IllegalTransition`."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalTransition(f"{type(state).__name__}.{state.name} does not allow {event.name}") from None
