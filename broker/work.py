"""What the broker holds of a request: its items as jobs, and who waits for which."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from hailo_clip.broker.fairqueue import Entry
from hailo_clip.broker.states import JOB, REQUEST, JobEvent, JobState, RequestEvent, RequestState, step
from hailo_clip.shared.messages import Buffer, Kind, Message, Reply, WireError

RequestKey = tuple[bytes, int]  # (frontend's routing id, request id)


class Send(NamedTuple):
    """An action: give `message` to `peer` on the "frontend" or "backend" socket."""

    plane: str
    peer: bytes
    message: Message


class Note(NamedTuple):
    """An action: write a log line."""

    level: int
    text: str
    fields: dict[str, object]


Action = Send | Note


@dataclass(slots=True, eq=False)
class Request:
    """One accepted HTTP request.

    Attributes:
        deadline: on the broker's clock, seconds.
        places: it takes in the queue while it waits.
        nbytes: payload bytes of the items that need a device.
        results: one embedding (float32 bytes) an item, None until it is there.
        errors: one error an item, None unless it failed.
        unsettled: items with neither. undispatched: items not yet sent to a worker for the first time.
    """

    key: RequestKey
    trace: str
    tenant: str
    flow: Hashable
    weight: float
    arrived: float
    deadline: float
    results: list[Buffer | None]
    errors: list[WireError | None]
    state: RequestState = RequestState.WAITING
    places: int = 1
    nbytes: int = 0
    unsettled: int = 0
    undispatched: int = 0
    dispatched: int = 0
    queue_s: float = 0.0
    device_s: float = 0.0
    cached: int = 0
    jobs: list[Job] = field(default_factory=list)

    def advance(self, event: RequestEvent) -> None:
        """Move to the next state. Raises `IllegalTransition`."""
        self.state = step(REQUEST, self.state, event)

    def reply(self) -> Reply:
        """The answer, once every item has its outcome."""
        held = [r for r in self.results if r is not None]
        frames = (held[0] if len(held) == 1 else b"".join(held),) if held else ()
        return Reply(self.key[1], tuple(self.errors), self.queue_s, self.device_s, self.cached, frames)


@dataclass(slots=True, eq=False)
class Job:
    """One item on its way through a device, shared by all who wait for it.

    Attributes:
        key: a prompt's token ids, the key of cache and single flight; None for an image.
        waiters: (request, item index) of each item that this job settles.
        entries: its places in the fair queue, one in each flow that waits for it.
        ran: batches that were lost or failed while this job was running in them.
        losses: batches that were lost with this job in them, running or staged.
        avoid: name of the worker that lost it last.
    """

    kind: Kind
    payload: Buffer
    nbytes: int
    key: bytes | None
    state: JobState = JobState.WAITING
    waiters: list[tuple[Request, int]] = field(default_factory=list)
    entries: list[Entry[Job]] = field(default_factory=list)
    dispatches: int = 0
    ran: int = 0
    losses: int = 0
    avoid: str = ""

    def advance(self, event: JobEvent) -> None:
        """Move to the next state. Raises `IllegalTransition`."""
        self.state = step(JOB, self.state, event)

    def stands_in(self, flow: Hashable) -> bool:
        """True when it has a place in the line of `flow`."""
        return any(entry.live and entry.flow.key == flow for entry in self.entries)

    @property
    def suspect(self) -> bool:
        """True when a batch died or failed with this job running in it: it must run alone."""
        return self.ran > 0
