"""The wire protocol between frontends, broker and workers.

Every message is one ZeroMQ multipart message::

    +---------------------------------------+----------+-----+----------+
    | header: msgpack array                 | payload  | ... | payload  |
    | [VERSION, TYPE, field, field, ...]    | frame 1  |     | frame n  |
    +---------------------------------------+----------+-----+----------+

The broker sends what it has for one frontend at a time together: type 0, then each message as an array that
begins with the number of its payload frames, ``[VERSION, 0, [frames, TYPE, field, ...], ...]``.

(A ROUTER socket puts the peer's routing id before it.) The fields of each type stand in the order of
its dataclass below, without `frames`. Payload frames are raw little-endian tensors and are never copied
into the header:

- image item: uint8 ``[H, W, 3]``, C order, the model's own height and width
- text item:  int32 ``[n]`` token ids, start and end token included, no padding
- embeddings: float32 ``[n, D]``, one frame for all items that succeeded, in item order

=================  =====================  =========================================================
from -> to         message                why
=================  =====================  =========================================================
frontend -> broker `Submit`, `Cancel`     one HTTP request; the client went away
frontend -> broker `Ping`                 liveness and HTTP counters, answered by `Pong`
frontend -> broker `PutLabels` and others label sets, answered by `Labels`: see label_messages.py
any -> broker      `Control`              "status" or "drain", answered by `Status`
broker -> frontend `Reply`, `Refused`     the one answer to a `Submit`
worker -> broker   `Hello`                here I am, loading (again after every fence or broker restart)
worker -> broker   `Ready`, `Failed`      the canary passed; or the encoder is unusable
worker -> broker   `Beat`, `Result`       heartbeat; the answer to a `Batch`
worker -> broker   `Leave`, `Bye`         send no more work; gone, with nothing unanswered
broker -> worker   `Welcome`, `Reject`    registered; or why not (the worker then exits)
broker -> worker   `Batch`                encode these items
broker -> worker   `BeatAck`, `Fence`     broker liveness; you were given up, register anew
broker -> worker   `Stop`                 the answer to `Leave`: no batch comes after this
=================  =====================  =========================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar, dataclass_transform

from hailo_clip.shared.label_messages import LabelRequest, Labels

M = TypeVar("M")


@dataclass_transform(frozen_default=True)
def message(cls: type[M]) -> type[M]:
    """A frozen, slotted dataclass; that it is frozen only mypy sees to, since at run time it costs too much.

    Python makes a frozen one in five times the time (0.7 us instead of 0.15 for a `Submit`), and the broker
    makes two a request.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


Buffer = Any  # bytes, memoryview or zmq.Frame: whatever holds a payload without copying it
WireError = tuple[str, str, float | None]  # see errors.to_wire
Timings = tuple[tuple[int, float], ...]
"""What the canary took: for each `Kind`, the items and seconds of its slowest batch. Empty: not measured."""


class Kind(IntEnum):
    """What an item is; a batch holds items of one kind."""

    IMAGE = 0
    TEXT = 1


@message
class Submit:
    """One HTTP request for the broker: items to embed.

    Attributes:
        request_id: unique within the frontend; a repeated id is ignored while the first is in flight.
        trace: the request id that logs carry (X-Request-Id).
        tenant: API key's tenant, else the client address.
        weight: the tenant's share of device time relative to others, > 0.
        bulk: True for class bulk, False for interactive.
        ttl_s: seconds from now until the deadline (clocks of two hosts are not comparable).
        fingerprint: of the model the inputs were prepared for.
        kinds: one `Kind` an item.
        frames: one payload an item.
    """

    request_id: int
    trace: str
    tenant: str
    weight: float
    bulk: bool
    ttl_s: float
    fingerprint: str
    kinds: tuple[int, ...]
    frames: tuple[Buffer, ...] = ()


@message
class Cancel:
    """The client of `request_id` went away; no answer is wanted."""

    request_id: int


@message
class Ping:
    """A frontend is alive.

    Attributes:
        seq: counts up.
        http: its (endpoint, code, count) since its last ping.
        session: what the last `Pong` named, empty before the first: who the frontend was, if the broker
            does not know its present connection.
    """

    seq: int
    http: tuple[tuple[str, int, int], ...] = ()
    session: str = ""


@message
class Pong:
    """The broker is alive and this is the pool's state.

    Attributes:
        seq: of the `Ping`.
        session: changes when the broker does not know this frontend from before, and so nothing that it
            has in flight: the broker restarted, the connection broke, or the frontend was silent too long.
        state: "starting", "ready", "unhealthy" or "draining".
        reason: why the state is not "ready", empty otherwise.
        ready_workers: workers whose canary passed and that are not given up.
        model: the model's name. fingerprint: the model's fingerprint. encoder: what the workers run.
    """

    seq: int
    session: str
    state: str
    reason: str
    ready_workers: int
    model: str
    fingerprint: str
    encoder: str


@message
class Control:
    """An operator's wish: verb "status" or "drain"."""

    seq: int
    verb: str


@message
class Status:
    """The answer to `Control`: a snapshot of plain msgpack values (see broker/snapshot.py)."""

    seq: int
    snapshot: dict[str, Any]


@message
class Reply:
    """The answer to an accepted `Submit`.

    Attributes:
        request_id: of the `Submit`.
        errors: one entry an item: None, or why that item has no embedding.
        queue_s: seconds in the broker that were not device time.
        device_s: seconds of device time of the slowest batch that served it; 0 for cache hits alone.
        cached: items answered from the prompt cache.
        frames: one frame, float32 [items without error, D]; none when every item failed.
    """

    request_id: int
    errors: tuple[WireError | None, ...]
    queue_s: float
    device_s: float
    cached: int
    frames: tuple[Buffer, ...] = ()


@message
class Refused:
    """The answer to what was not accepted: a `LabelRequest`, or a `Submit`, also one pushed out later."""

    request_id: int
    error: WireError


@message
class Hello:
    """A worker registers and starts to load its model.

    Attributes:
        worker: its name; a new epoch under the same name fences the old one at once.
        epoch: random, new at each registration; everything it sends carries it.
        pid: its process id, for operators.
        device_id: the physical device ("cpu:0", "hailo:0000:01:00.0"), host name before it where it matters.
        encoder: "hailo", "onnx" or "emulated".
        model: the model's name. fingerprint: the model's fingerprint.
        dimension: D of its embeddings.
        max_batch: most items it takes in one batch.
        grace_s: seconds it may stay silent while it loads.
    """

    worker: str
    epoch: str
    pid: int
    device_id: str
    encoder: str
    model: str
    fingerprint: str
    dimension: int
    max_batch: int
    grace_s: float


@message
class Ready:
    """The worker's canary passed (again); `cosine` is the lowest over the golden items."""

    epoch: str
    cosine: float
    batches: Timings = ()


@message
class Failed:
    """The worker can't serve and will exit; `reason` is for operators and /health.

    `device_fault`: its device was lost, is held by others or does not fit: no item is to blame.
    """

    epoch: str
    reason: str
    device_fault: bool = False


@message
class Beat:
    """The worker is alive."""

    epoch: str


@message
class Result:
    """The answer to a `Batch`.

    Attributes:
        epoch: the sender's. batch_id: of the `Batch`.
        device_s: seconds the encoder took.
        errors: empty when every item succeeded, else one entry an item (None or the error).
        frames: one frame, float32 [items without error, D]; none when every item failed.
    """

    epoch: str
    batch_id: int
    device_s: float
    errors: tuple[WireError | None, ...]
    frames: tuple[Buffer, ...] = ()


@message
class Leave:
    """The worker wants to go: no more batches, please. Answered by `Stop`."""

    epoch: str


@message
class Bye:
    """The worker is gone in good order, with nothing unanswered."""

    epoch: str


@message
class Welcome:
    """The broker took the registration of `epoch`; beat every `heartbeat_s` seconds."""

    broker_epoch: str
    epoch: str
    heartbeat_s: float


@message
class Reject:
    """The broker won't have this worker; it must exit with `reason`."""

    epoch: str
    reason: str


@message
class Batch:
    """Encode these items of one kind; `traces` are the request ids they came from, for the logs."""

    epoch: str
    batch_id: int
    kind: int
    traces: tuple[str, ...]
    frames: tuple[Buffer, ...] = ()


@message
class BeatAck:
    """The broker is alive; an epoch the worker does not know means that it restarted."""

    broker_epoch: str
    epoch: str


@message
class Fence:
    """The broker gave `epoch` up: its late results are dropped.

    The worker registers anew, or exits when its encoder is stuck or `final` says that another process
    took its name.
    """

    epoch: str
    reason: str
    final: bool


@message
class Stop:
    """No batch comes after this: finish what is in flight, say `Bye`, exit 0."""

    epoch: str


FromFrontend = Submit | Cancel | Ping | Control | LabelRequest
ToFrontend = Reply | Refused | Pong | Status | Labels
FromWorker = Hello | Ready | Failed | Beat | Result | Leave | Bye
ToWorker = Welcome | Reject | Batch | BeatAck | Fence | Stop
Message = FromFrontend | ToFrontend | FromWorker | ToWorker
