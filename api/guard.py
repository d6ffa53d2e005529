"""gunicorn's ASGI worker with bounds on connections: how many, how slow, and how they end.

What gunicorn 27 leaves open, and what happens here:

- Any number of connections is accepted. Here `server.max_connections` a process; when they are all taken, the
  one that has waited longest for a request makes room, else the new one gets a 503.
- A connection may wait for its first request, or send its head byte by byte, for ever, and holds up a stop
  meanwhile. Here a head has `HEAD_S` seconds; a stop closes at once whatever has no request under way.
- A client that does not read its answer holds the connection for ever. Here it has `WRITE_S` seconds to
  make room for more, and `CLOSE_S` to take the end.
- Malformed requests are answered as text, and the connection is closed with their bytes unread, which may
  reset it before the answer is read. Here they get JSON, and the connection is closed when that was read.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.asgi.parser import InvalidHeader, UnsupportedTransferCoding
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from hailo_clip.api.call import UNMATCHED, new_request_id
from hailo_clip.api.farewell import Farewell, last_words, words_for

log = logging.getLogger("hailo_clip.api.guard")

HEAD_S = 10.0
"""Most seconds from a connection to the end of its first request's head; later ones have the keep-alive's."""

WRITE_S = 60.0
"""Most seconds for which a client may leave a full buffer of its answer unread."""

CLOSE_S = 10.0
"""Most seconds for which a client may leave the end of its answer unread."""

SPARE_S = 1.0
"""Waiting connections younger than this do not make room for new ones."""

MAX_TURNED_AWAY = 64
"""Connections that are being told that there is no room; more are closed without a word."""

SPARE_FILES = 256
"""File descriptors of a process that are no connections."""

QUIET_S = 10.0
"""Seconds between two warnings that there is no room."""


class GuardedWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn has no type information
    """One frontend process.

    Attributes:
        waiting: connections without a request under way, the one that has waited longest first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[GuardedProtocol, None] = {}
        self._turned_away = 0
        self._next_warning = 0.0

    def init_process(self) -> None:
        """Set the process up, and serve."""
        # There is no setting for the protocol: the worker makes whatever has this name.
        gasgi.ASGIProtocol = GuardedProtocol
        allow_files(self.worker_connections + SPARE_FILES)
        super().init_process()

    def full(self) -> bool:
        """True when a new connection can't be had, not even in the place of one that waits."""
        if self.nr_conns < self.worker_connections:
            return False
        oldest = next(iter(self.waiting), None)
        if oldest is None or self.loop.time() - oldest.waits_since < SPARE_S:
            return True
        oldest.drop()
        return False

    def turn_away(self, transport: asyncio.Transport, reason: str) -> None:
        """Refuse a new connection."""
        now, trace = self.loop.time(), new_request_id()
        if now >= self._next_warning:
            self._next_warning = now + QUIET_S
            facts = {"trace": trace, "reason": reason, "connections": self.nr_conns}
            log.warning("connections are refused", extra=facts)
        if self._turned_away >= MAX_TURNED_AWAY:
            transport.abort()
            return
        self._turned_away += 1
        transport.write(last_words(503, reason, trace, [("Retry-After", "1")]))
        Farewell(transport, self.loop, self._turned)

    def _turned(self, e: Exception | None) -> None:
        self._turned_away -= 1

    async def _shutdown(self) -> None:
        """Stop accepting, answer what was accepted, end."""
        for connection in list(self.waiting):
            connection.dismiss()
        self.asgi.service.gateway.end()
        await super()._shutdown()


class GuardedProtocol(ASGIProtocol):  # type: ignore[misc]  # gunicorn has no type information
    """One connection.

    Attributes:
        waits_since: the loop's time since when it has no request under way.
    """

    def __init__(self, worker: GuardedWorker) -> None:
        super().__init__(worker)
        self.waits_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._answering = False
        self._said_goodbye = False
        self._closed: bool = False

    # From a connection to a request

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The peer connected."""
        if not self.worker.alive:
            self.worker.turn_away(transport, "the service is shutting down")
        elif self.worker.full():
            self.worker.turn_away(transport, "too many connections")
        else:
            super().connection_made(transport)
            self._waits()
            self._within(HEAD_S, self._keepalive_timeout)

    def _waits(self) -> None:
        self.worker.waiting.pop(self, None)  # to the end of the line
        self.worker.waiting[self] = None
        self.waits_since = self.worker.loop.time()

    def _arm_keepalive_timer(self) -> None:
        super()._arm_keepalive_timer()
        self._waits()

    def _on_headers_complete(self) -> Any:
        parser: Any = self._callback_parser
        if parser.http_version >= (1, 1) and not any(name == b"host" for name, _ in parser.headers):
            raise InvalidHeader("Host is missing")  # RFC 9112 section 3.2
        for name, value in parser.headers:
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise UnsupportedTransferCoding(value.decode("latin-1"))  # gunicorn would pass it on as it is
        skip_body = super()._on_headers_complete()
        self.worker.waiting.pop(self, None)
        self._at_leisure()
        return skip_body

    def _is_websocket_upgrade(self, request: Any) -> bool:
        """There are no websockets here; a server may ignore the wish and answer the request (RFC 9110)."""
        return False

    def _keepalive_timeout(self) -> None:
        """The wait for a head is over."""
        parser: Any = self._callback_parser
        if parser is not None and (parser.method is not None or parser._buffer):
            self._send_error_response(408, "The request's head did not arrive in time")
        super()._keepalive_timeout()

    # Faults

    def _feed_callback_parser(self, data: bytes) -> bool:
        try:
            return bool(super()._feed_callback_parser(data))
        except ValueError:  # such as a Content-Length of thousands of digits
            self._send_error_response(400, "a number is too long")
            self._close_transport()
            return False

    def _send_error_response(
        self, status: int, message: str, extra_headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """What gunicorn says itself, because the app can't."""
        if self._closed or self._said_goodbye:
            return
        self._said_goodbye = True
        peer = self.transport.get_extra_info("peername")
        words, trace = words_for(status, message, self.cfg), new_request_id()
        tenant = str(peer[0]) if peer else "local"
        facts = {"trace": trace, "code": status, "reason": words, "tenant": tenant}
        log.info("request refused unread", extra=facts)
        self.app.service.gateway.count(UNMATCHED, status)
        if not self._answering:  # else this would stand in the middle of an answer
            self._safe_write(last_words(status, words, trace, extra_headers))

    async def _serve_http_request(self, *args: Any) -> Any:
        try:
            return await super()._serve_http_request(*args)
        finally:
            self._answering = False

    def _send_response_start(self, *args: Any, **kwargs: Any) -> None:
        self._answering = True
        super()._send_response_start(*args, **kwargs)

    # The end

    def pause_writing(self) -> None:
        """The peer does not read what it was sent."""
        super().pause_writing()
        if not self._closed:
            self._within(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if not self._closed:
            self._at_leisure()

    def dismiss(self) -> None:
        """Close a connection that waits for a request."""
        self.worker.waiting.pop(self, None)
        self._close_transport()

    def drop(self) -> None:
        """Close it at once, also when the peer has not read all of an earlier answer."""
        self.worker.waiting.pop(self, None)
        self.transport.abort()

    def _close_transport(self) -> None:
        if self._closed or self.transport is None:
            return
        if not self._said_goodbye:
            super()._close_transport()
            self._within(CLOSE_S, self.transport.abort)
            return
        self._closed = True
        if self._body_receiver is not None:
            self._body_receiver.signal_disconnect()
        Farewell(self.transport, self.worker.loop, self.connection_lost)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self.worker.waiting.pop(self, None)
        self._at_leisure()
        super().connection_lost(exc)

    # The one timer

    def _within(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self._at_leisure()
        self._timer = self.worker.loop.call_later(seconds, otherwise)

    def _at_leisure(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def allow_files(wanted: int) -> None:
    """Have this process open `wanted` files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("fewer files may be open than connections need", extra={"may": most, "needed": wanted})
