"""The load generator: a process of its own that sends prebuilt requests over keep-alive connections.

It is lean, so that it does not bound what it measures: bytes made beforehand, one uvloop protocol a
connection, answers read for their status and length only. What it costs is measured beside the service, and
each request's `sent` tells how late the generator was itself.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter
from typing import cast

from hailo_clip.ops.bench.stats import OK, UNANSWERED, Record
from hailo_clip.ops.bench.workload import Request

MOST_CONNECTIONS = 2000
REFUSED_PAUSE_S = 0.05
"""How long a client of a closed loop waits after an answer other than 200."""
PATIENCE_S = 40.0
"""After the last request was sent: how long answers are waited for."""
_TICK_S = 0.001  # what uvloop rounds its timers to; a request may be sent late, never early

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Plan:
    """One load.

    Attributes:
        host: address of the service. port: of it.
        requests: to choose from. order: indices of them, in the order of sending, repeated as needed.
        seconds: how long requests are sent.
        clients: of a closed loop: each sends its next request when the last is answered.
        arrivals: of an open loop: when each request is due. Exactly one of both is given.
    """

    host: str
    port: int
    requests: Sequence[Request]
    order: Sequence[int]
    seconds: float
    clients: int = 0
    arrivals: Sequence[float] = ()


class LoadFailed(RuntimeError):
    """The generator itself could not do its work; the message says why."""


class LoadProcess:
    """A process that carries out plans one after another; a context manager.

    Attributes:
        pid: of the process, to measure what it costs.
    """

    def __init__(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_main, args=(theirs,), daemon=True)

    def __enter__(self) -> LoadProcess:
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def start(self, plan: Plan) -> None:
        """Begin to carry out `plan`; returns when its clock has started."""
        self._pipe.send(plan)
        self._receive(PATIENCE_S)

    def finish(self, plan: Plan) -> list[Record]:
        """Wait for the end of `plan`, and for the last answers. Raises `LoadFailed`."""
        records = self._receive(plan.seconds + 2 * PATIENCE_S)
        assert isinstance(records, list)
        return records

    def _receive(self, timeout_s: float) -> object:
        if not self._pipe.poll(timeout_s):
            raise LoadFailed("the load generator is stuck")
        try:
            said = self._pipe.recv()
        except EOFError:
            raise LoadFailed("the load generator has ended") from None
        if isinstance(said, Exception):
            raise LoadFailed(str(said))
        return said


def _main(pipe: Connection) -> None:
    import uvloop

    while True:
        try:
            plan = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            found: object = uvloop.run(_Load(plan).run(pipe))
        except Exception as e:  # noqa: BLE001  (whatever it is, the other process tells it)
            found = e
        pipe.send(found)


class _Load:
    """One plan being carried out.

    Attributes:
        failure: why the load is worth nothing, if it is.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.failure: LoadFailed | None = None
        self._records: list[Record] = []
        self._alive: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._late: deque[float] = deque()  # due and without a connection
        self._sent = self._open = self._under_way = 0
        self._begin = self._over = 0.0

    async def run(self, pipe: Connection) -> list[Record]:
        """Carry it out."""
        self._loop = asyncio.get_running_loop()
        self._quiet = asyncio.Event()
        connections = [await self._connect() for _ in range(self._plan.clients or 1)]
        pipe.send("begun")
        self._begin = perf_counter()
        self._over = self._begin + self._plan.seconds
        if self._plan.clients:
            for connection in connections:
                self._send(connection, 0.0)
        else:
            self._idle = connections
            await self._arrive()
        await asyncio.sleep(max(0.0, self._over - perf_counter()))
        self._over = 0.0
        try:
            await self._settle()
        finally:
            for connection in list(self._alive):
                connection.close()
        return self._records

    async def _arrive(self) -> None:
        """Send each request as soon as it is due."""
        for due in self._plan.arrivals:
            while (wait := self._begin + due - perf_counter()) > 0:
                await asyncio.sleep(wait + _TICK_S / 2)
            if self._idle:
                self._send(self._idle.pop(), due)
            else:
                self._late.append(due)
                if self._open < MOST_CONNECTIONS:
                    self._loop.create_task(self._another())

    async def _settle(self) -> None:
        """Wait for the last answers; what does not come is a record, too."""
        until = perf_counter() + PATIENCE_S
        while (self._under_way or self._late) and perf_counter() < until:
            self._quiet.clear()
            try:
                await asyncio.wait_for(self._quiet.wait(), 1.0)
            except TimeoutError:
                if self.failure is not None:
                    break
        if self.failure is not None:
            raise self.failure
        now = perf_counter() - self._begin
        self._records += [Record(due, now, now, UNANSWERED) for due in self._late]
        missing = self._under_way
        if missing:
            raise LoadFailed(f"{missing} requests had no answer {PATIENCE_S:g} s after the last was sent")

    async def _connect(self) -> _Connection:
        self._open += 1
        try:
            _, connection = await self._loop.create_connection(
                lambda: _Connection(self), self._plan.host, self._plan.port
            )
        except OSError as e:
            self._open -= 1
            raise LoadFailed(f"cannot connect to {self._plan.host}:{self._plan.port}: {e}") from e
        self._alive.add(connection)
        return connection

    async def _another(self) -> None:
        self.free(await self._connect())

    def _send(self, connection: _Connection, due: float) -> None:
        plan = self._plan
        request = plan.requests[plan.order[self._sent % len(plan.order)]]
        self._sent += 1
        self._under_way += 1
        connection.send(request.render(self._sent), due, perf_counter() - self._begin)

    def answered(self, connection: _Connection, due: float, sent: float, code: int) -> None:
        """An answer is complete, or its connection has ended (`UNANSWERED`)."""
        now = perf_counter()
        self._records.append(Record(due, sent, now - self._begin, code))
        self._under_way -= 1
        if code == UNANSWERED:
            if self._plan.clients and now < self._over:
                self._loop.create_task(self._renew())
        elif self._plan.clients and code != OK:
            self._loop.call_later(REFUSED_PAUSE_S, self.free, connection)
        else:
            self.free(connection)
        if not self._under_way:
            self._quiet.set()

    async def _renew(self) -> None:
        """A closed loop's client whose connection has ended comes back."""
        await asyncio.sleep(REFUSED_PAUSE_S)
        self.free(await self._connect())

    def free(self, connection: _Connection) -> None:
        """`connection` may have the next request."""
        now = perf_counter()
        if self._plan.clients:
            if now < self._over:
                self._send(connection, now - self._begin)
        elif self._late:
            self._send(connection, self._late.popleft())
        else:
            self._idle.append(connection)

    def ended(self, connection: _Connection) -> None:
        """A connection is no more."""
        self._alive.discard(connection)
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._busy = False
        self._due = self._sent = 0.0
        self._missing = -1  # bytes of the answer that have not come; -1: its head is not complete
        self._head = b""
        self._code = UNANSWERED

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's transports do not say that they are asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes, due: float, sent: float) -> None:
        """Send a request."""
        self._busy, self._due, self._sent = True, due, sent
        self._missing, self._head = -1, b""
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._missing >= 0:
            self._missing -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._code = int(self._head[9:12])
            length = _LENGTH.search(self._head, 0, end)
            if length is None:
                self._load.failure = LoadFailed("an answer has no Content-Length")
                return
            self._missing = int(length[1]) - (len(self._head) - end - 4)
        if self._missing <= 0:
            self._busy = False
            self._load.answered(self, self._due, self._sent, self._code)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._busy:
            self._busy = False
            self._load.answered(self, self._due, self._sent, UNANSWERED)
        self._load.ended(self)

    def close(self) -> None:
        """End it."""
        self._transport.close()
