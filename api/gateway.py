"""The client of the broker: one DEALER socket in the event loop, around the state machine of inflight.py.

The socket is plain ZeroMQ, not the asyncio flavour: its file descriptor signals edges, not levels, so
after every signal it is read until it is empty, and after every send it is looked at again, because
sending may swallow the signal of what arrived meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import zmq

from hailo_clip.api.answer import Answer, read_reply
from hailo_clip.api.enquiry import Enquiry, Snapshot
from hailo_clip.api.health import Health, refusal_of
from hailo_clip.api.inflight import CLOSING, Action, Inflight, Outcome, Reopen, Send, Settle
from hailo_clip.api.readiness import Check
from hailo_clip.api.waiting import Request
from hailo_clip.shared.codec import ProtocolError, decode_to_frontend, encode
from hailo_clip.shared.config import Config
from hailo_clip.shared.errors import Draining, HailoClipError, ServiceError
from hailo_clip.shared.label_messages import LabelRequest, Labels
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Buffer, Cancel, Control, Kind, Ping, Reply, Status, Submit
from hailo_clip.shared.sockets import frontend_dealer, has_more, receive, send

log = logging.getLogger(__name__)

READS_AT_ONCE = 64
"""Messages read before other work of the event loop gets its turn."""

MIN_REQUESTS = 256
"""Requests one frontend may have at the broker, unless the queue is deeper."""

Connect = Callable[[zmq.Context[zmq.Socket[bytes]], Config], zmq.Socket[bytes]]


class Gateway:
    """Sends requests to the broker and awaits their answers.

    Nothing is opened before `start`, so it may be made before a fork.

    Args:
        config: where the broker is, and the limits.
        manifest: the model that inputs are prepared for.
        connect: makes the socket.
    """

    def __init__(self, config: Config, manifest: Manifest, connect: Connect = frontend_dealer) -> None:
        self._config, self._manifest, self._connect = config, manifest, connect
        requests = max(MIN_REQUESTS, 2 * config.queue.max_depth)
        self._machine = Inflight(manifest.fingerprint, requests, config.queue.max_bytes_mib << 20)
        self._futures: dict[int, asyncio.Future[Outcome]] = {}
        self._enquiry = Enquiry(self._send)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._malformed = 0
        self._closed = True

    @property
    def health(self) -> Health:
        """The service's state as far as this frontend knows."""
        return self._machine.health

    def checks(self) -> tuple[Check, ...]:
        """What `health` comes from, one condition at a time."""
        return self._machine.checks()

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return len(self._machine)

    @property
    def dropped(self) -> int:
        """Messages that were malformed or answered nothing that waited."""
        return self._machine.dropped + self._malformed

    def count(self, endpoint: str, code: int) -> None:
        """Count one HTTP answer for the broker's metrics."""
        self._machine.counts.add(endpoint, code)

    def require_ready(self) -> None:
        """Raise the 503 that a request gets now, if it would get one."""
        refusal = refusal_of(self._machine.health)
        if refusal is not None:
            raise refusal

    async def start(self) -> None:
        """Connect, in the process and the running event loop that will use it."""
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._closed = False
        self._open()
        self._perform(self._machine.start(self._loop.time()))

    def end(self) -> None:
        """This process was told to end: answers are awaited, but no other broker."""
        self._perform(self._machine.end())

    async def close(self) -> None:
        """Answer what waits with a 503 and disconnect. Safe to call twice and before `start`."""
        if self._closed:
            return
        self._perform(self._machine.stop())
        self._enquiry.give_up()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.FD)
        self._socket.close(linger=0)
        self._context.term()

    async def submit(
        self,
        items: Sequence[tuple[Kind, Buffer]],
        *,
        tenant: str,
        deadline_s: float,
        trace: str,
        weight: float = 1.0,
        bulk: bool = False,
    ) -> Answer:
        """The embeddings of `items`.

        Args:
            items: at least one; payloads as messages.py describes them, one-dimensional buffers of bytes.
            tenant: whose share of device time it takes.
            deadline_s: seconds from now until the answer is of no use.
            trace: the request id for the logs.
            weight: the tenant's share relative to others.
            bulk: yields to interactive requests.

        Raises:
            ServiceError: 429, 500, 503 or 504. Cancelling the task cancels the request.
        """
        kinds = tuple(int(kind) for kind, _ in items)
        frames = tuple(frame for _, frame in items)
        wanted = Submit(0, trace, tenant, weight, bulk, deadline_s, "", kinds, frames)
        outcome = await self._ask(wanted, deadline_s)
        if not isinstance(outcome, Reply):
            raise ServiceError("the broker answered another question")
        return read_reply(outcome, kinds, self._manifest.dimension)

    async def labels(self, wanted: LabelRequest, deadline_s: float) -> Labels:
        """What the broker answers about label sets; no worker is needed for that.

        Args:
            wanted: needs no request_id. It may be carried out twice, when the broker restarts meanwhile.
            deadline_s: seconds from now until the answer is of no use. The set may be changed all the same.

        Raises:
            ClientError: 400, there is no place for it.
            ServiceError: 429, 503 or 504.
        """
        outcome = await self._ask(wanted, deadline_s)
        if not isinstance(outcome, Labels):
            raise ServiceError("the broker answered another question")
        return outcome

    async def _ask(self, wanted: Request, deadline_s: float) -> Reply | Labels:
        if self._closed:
            raise Draining(CLOSING, retry_after_s=1.0)
        request_id, actions = self._machine.submit(self._loop.time(), deadline_s, wanted)
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._futures[request_id] = future
        self._perform(actions)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self._perform(self._machine.cancel(request_id))
            raise
        finally:
            self._futures.pop(request_id, None)
        if isinstance(outcome, HailoClipError):
            raise outcome
        return outcome

    async def status(self) -> Snapshot | None:
        """The broker's snapshot (broker/snapshot.py); None when the broker does not answer."""
        return await self._enquiry.ask() if self._machine.linked and not self._closed else None

    # The socket and the clock

    def _open(self) -> None:
        self._socket = self._connect(self._context, self._config)
        self._loop.add_reader(self._socket.FD, self._read)
        self._loop.call_soon(self._read)

    def _reopen(self) -> None:
        self._loop.remove_reader(self._socket.FD)
        self._socket.close(linger=0)
        self._open()

    def _read(self) -> None:
        """Read until the socket is empty; give way to others now and then."""
        if self._closed:
            return
        for _ in range(READS_AT_ONCE):
            if not has_more(self._socket):
                return
            try:
                frames = receive(self._socket)
            except zmq.Again:  # its connection ended in between; the timer must be set all the same
                return
            self._received(frames)
        self._loop.call_soon(self._read)

    def _received(self, frames: list[zmq.Frame]) -> None:
        try:
            messages = decode_to_frontend(frames)
        except ProtocolError as e:
            self._malformed += 1
            log.warning("a message of the broker was dropped", extra={"reason": str(e)})
            return
        actions: list[Action] = []
        for message in messages:
            if not (isinstance(message, Status) and self._enquiry.answered(message)):
                actions += self._machine.received(self._loop.time(), message)
        self._perform(actions)

    def _wake(self) -> None:
        self._timer = None
        self._read()  # a Pong that waits in the socket must count before silence is judged
        self._perform(self._machine.tick(self._loop.time()))

    def _perform(self, actions: Sequence[Action]) -> None:
        if self._closed:
            return
        for action in actions:
            match action:
                case Send():
                    self._send(action.message)
                case Settle():
                    future = self._futures.get(action.request_id)
                    if future is not None and not future.done():
                        future.set_result(action.outcome)
                case Reopen():
                    log.info("connecting to the broker anew")
                    self._reopen()
        self._set_timer()

    def _send(self, message: Request | Cancel | Ping | Control) -> None:
        try:
            send(self._socket, encode(message))
        except zmq.Again:
            if not isinstance(message, Cancel | Ping | Control):
                self._perform(self._machine.unsendable(message.request_id))
            return
        if has_more(self._socket):
            self._loop.call_soon(self._read)

    def _set_timer(self) -> None:
        due = self._machine.next_wake()
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        # uvloop's handles of timers that are due already know no time, so it is kept here.
        self._due = due
        self._timer = self._loop.call_at(due, self._wake)
