"""How a connection ends that is refused below HTTP: with a JSON answer that the peer gets to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import orjson

LINGER_S = 2.0
"""Most seconds for which what the peer still sends is thrown away."""

MESSAGE_LENGTH = 200


class Farewell(asyncio.Protocol):
    """The last protocol of a connection to which everything has been written.

    Closing while bytes of the peer lie unread makes the kernel reset the connection, and the peer may lose
    what it was told. So first only our side is closed; the rest follows when the peer closes its own.

    Args:
        transport: the connection. loop: the event loop.
        lost: is called when it is closed.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[[Exception | None], None],
    ) -> None:
        self._lost = lost
        self._timer = loop.call_later(LINGER_S, transport.abort)
        transport.set_protocol(self)
        if transport.can_write_eof():
            transport.write_eof()
        if not transport.is_reading():
            transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._timer.cancel()
        self._lost(exc)


def last_words(status: int, message: str, trace: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """A whole HTTP answer that ends the connection; `trace` is the id that it has in the log."""
    body = orjson.dumps({"error": message})
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Request-Id", trace),
        *extra,
        ("Connection", "close"),
    ]
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def words_for(status: int, message: str, limits: Any) -> str:
    """What gunicorn means.

    Args:
        status: of its answer.
        message: its words, which may quote the request.
        limits: its settings.
    """
    shown = message[:MESSAGE_LENGTH]
    match status:
        case 400:
            return f"Malformed HTTP request: {shown}"
        case 414:
            return f"The request line is longer than {limits.limit_request_line} bytes"
        case 431:
            size, count = limits.limit_request_field_size, limits.limit_request_fields
            return f"A header is longer than {size} bytes, or there are more than {count}"
        case 501:
            return f"The transfer coding {shown!r} is not supported, only chunked"
        case _:
            return shown
