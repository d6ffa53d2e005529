"""Request bodies: how much is read, how long that may take, and what they must be.

A request is checked in the order of cost: path and method, announced size and media type, whether the
service can answer at all (503), and only then is the body read and judged. So a service that is starting
or draining answers 503 even to a request whose body it would refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, Literal

import falcon
import orjson

from hailo_clip.api.call import Call
from hailo_clip.shared.errors import (
    BodyTooLarge,
    ClientError,
    QueueFull,
    RequestTimeout,
    UnsupportedMediaType,
)

READ_TIMEOUT_S = 120.0
"""Most seconds a client may take to send a body."""

DRAIN_BYTES = 64 << 20
DRAIN_S = 5.0
"""What is read and thrown away of a body that was refused unread, so that its sender reads the refusal."""

Event = Mapping[str, Any]

MediaKind = Literal["json", "form", "file"]
"""A JSON object, multipart/form-data, or an image file alone."""


class ByteBudget:
    """Bounds the bytes of all request bodies held at once by this process.

    One tenant may have half of them, so that one that sends many large bodies slowly leaves room for others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes held."""
        return sum(self._held.values())

    def take(self, tenant: str, count: int) -> None:
        """Account for `count` more bytes of `tenant`. Raises `QueueFull` when they would be too many."""
        for whose, held, limit in (
            ("", self.held, self.limit),
            ("your ", self._held[tenant], self.limit // 2),
        ):
            if held + count > limit:
                text = f"{whose}request bodies hold {held} bytes, at most {limit} may"
                raise QueueFull(text, retry_after_s=1.0)
        self._held[tenant] += count

    def give(self, tenant: str, count: int) -> None:
        """`count` bytes of `tenant` are no longer held."""
        self._held[tenant] -= count
        if not self._held[tenant]:
            del self._held[tenant]


class BodyFeed:
    """An ASGI receive callable that knows whether the body is complete.

    A body that stops before its end is an error here, not a shorter body. The first event is made up:
    Falcon asks for one before it routes, and asking the server would tell a client that waits for leave
    (``Expect: 100-continue``) to send a body that may be refused by its headers alone.
    """

    def __init__(self, receive: Callable[[], Awaitable[Event]]) -> None:
        self._receive = receive
        self._asked = False
        self.finished = False

    async def __call__(self) -> Event:
        """The next event. Raises `RequestTimeout` when the body stopped before its end."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": True}
        event = await self._receive()
        cut_off = event["type"] == "http.disconnect" and not self.finished
        self.finished = self.finished or not event.get("more_body")
        if cut_off:
            raise RequestTimeout("The body stopped before its end")
        return event

    async def drain(self) -> None:
        """Throw the rest of the body away, within limits."""
        left = DRAIN_BYTES
        with contextlib.suppress(TimeoutError, RequestTimeout):
            async with asyncio.timeout(DRAIN_S):
                while not self.finished and left > 0:
                    left -= len((await self()).get("body", b""))


def check_length(announced: int | None, limit: int) -> None:
    """Refuse a body by what its Content-Length says. Raises `BodyTooLarge`."""
    if announced is not None and announced > limit:
        raise _too_large(limit)


async def read_body(stream: AsyncIterable[bytes], call: Call, limit: int, budget: ByteBudget) -> bytes:
    """The whole body. `budget` holds `call.body_bytes` bytes afterwards, also when this fails.

    Raises:
        BodyTooLarge: it is over `limit` bytes.
        RequestTimeout: it did not arrive in `READ_TIMEOUT_S`, or was cut off.
        QueueFull: too many bodies are held already.
    """
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in stream:
                if call.body_bytes + len(chunk) > limit:
                    raise _too_large(limit)
                budget.take(call.tenant, len(chunk))
                call.body_bytes += len(chunk)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout(f"The body did not arrive within {READ_TIMEOUT_S:g} s") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def media_kind(content_type: str | None, content_encoding: str | None, files: bool = False) -> MediaKind:
    """What a body is by its headers; one whose media type is not named is taken for JSON.

    Args:
        content_type: the header.
        content_encoding: the header; bodies can't be compressed.
        files: whether this endpoint takes files, in forms or alone, too.

    Raises:
        UnsupportedMediaType: it is nothing that this endpoint takes.
    """
    if content_encoding is not None and content_encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType(f"Content-Encoding {content_encoding[:100]!r} is not supported; send none")
    if not content_type or content_type == "application/json":
        return "json"
    kind, parameters = falcon.parse_header(content_type)
    kind = kind.strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        charset = parameters.get("charset", "utf-8")
        if charset.lower() not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType(f"The charset of JSON must be utf-8, is {charset[:100]!r}")
        return "json"
    if files and kind == "multipart/form-data":
        return "form"
    if files and (kind.startswith("image/") or kind == "application/octet-stream"):
        return "file"
    allowed = "application/json, multipart/form-data or image/*" if files else "application/json"
    raise UnsupportedMediaType(f"Content-Type must be {allowed}, is {content_type[:100]!r}")


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; of equal keys the last one counts.

    Raises:
        ClientError: it is not JSON (the message says where) or not an object.
    """
    if not data:
        raise ClientError("The body is empty; it must be a JSON object")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise ClientError(
            f"The body is not valid JSON: {e.msg} (line {e.lineno}, column {e.colno})"
        ) from None
    if not isinstance(value, dict):
        raise ClientError(f"The body must be a JSON object, is {shown(value)}")
    return value


def shown(value: object) -> str:
    """A field's value for an error message, never longer than a few words."""
    match value:
        case dict():
            return "an object"
        case list():
            return f"an array of {len(value)}"
        case str():
            return orjson.dumps(value if len(value) <= 40 else f"{value[:40]}...").decode()
        case bytes():
            return f"a file of {len(value)} bytes"
        case bool() | None:
            return orjson.dumps(value).decode()
        case _:
            text = str(value)
            return text if len(text) <= 40 else f"{text[:40]}..."


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than the limit of {limit >> 20} MiB")
