"""What surrounds every HTTP request: its id, early refusals, headers, the access log and the counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import falcon.asgi

from hailo_clip.api.auth import CHALLENGE, Door
from hailo_clip.api.auth_file import KeyFile
from hailo_clip.api.body import BodyFeed
from hailo_clip.api.call import SCOPE_KEY, Call, Networks, call_of, networks, open_call
from hailo_clip.api.cors import PREFLIGHT, Cors, HeaderList
from hailo_clip.api.problems import JSON, problem_body, problem_headers
from hailo_clip.api.service import Service
from hailo_clip.shared.errors import ClientError, HailoClipError, Unauthorized

log = logging.getLogger("hailo_clip.api.access")

CLIENT_GONE = 499
"""The code under which a request is logged and counted whose client went away before its answer."""

PROBES = frozenset(("/health", "/livez", "/readyz", "/metrics"))
"""Endpoints that monitoring asks all the time; their access lines are for debugging."""

NOSNIFF = (b"x-content-type-options", b"nosniff")
"""Browsers must not take an answer for anything else than what its media type says."""

_BODY_HEADERS = frozenset((b"content-length", b"transfer-encoding"))

Scope = dict[str, Any]
Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Lifespan:
    """Opens and closes the service with the ASGI server's process.

    Args:
        service: what serves. keys: the file to watch, if there is one.
    """

    def __init__(self, service: Service, keys: KeyFile | None) -> None:
        self._service, self._keys = service, keys

    async def process_startup(self, scope: Scope, event: Event) -> None:
        """The process serves from now on."""
        if self._keys is not None:
            await self._keys.start()
        await self._service.start()

    async def process_shutdown(self, scope: Scope, event: Event) -> None:
        """The process has answered its last request."""
        await self._service.close()
        if self._keys is not None:
            await self._keys.stop()

    async def process_resource(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, resource: object, params: dict[str, Any]
    ) -> None:
        """Note the route for log and metrics."""
        call_of(req.scope).endpoint = req.uri_template or ""


class Edge:
    """The outermost ASGI layer for HTTP requests.

    Args:
        app: what answers them.
        service: limits, counts.
        door: who may come in.
    """

    def __init__(self, app: Asgi, service: Service, door: Door) -> None:
        self._app, self._service, self._door = app, service, door
        self._trusted: Networks = networks(service.config.server.trusted_proxies)
        self._cors = Cors(service.config.server.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # ASGI allows any iterables here, so also such as can be read only once.
        pairs = [(name, value) for name, value in scope["headers"]]
        headers = dict(pairs)
        scope = {**scope, **_origin_form(scope), "headers": pairs}
        call = scope[SCOPE_KEY] = open_call(scope, self._trusted)
        feed = BodyFeed(receive)
        outlet = _Outlet(call, send, self._cors.headers(headers))
        try:
            try:
                await self._serve(call, headers, (scope, feed, outlet))
            except HailoClipError as error:
                await outlet.problem(error)
        except asyncio.CancelledError:
            call.code = call.code or CLIENT_GONE
            raise
        except Exception:
            call.code = call.code or 500
            raise
        finally:
            self._service.budget.give(call.tenant, call.body_bytes)
            self._service.gateway.count(call.endpoint, call.code)
            _log(call)
        # A client that sends its body before it reads would miss the refusal if the connection broke now;
        # one that asked for leave (Expect) was refused before it sent anything.
        if not feed.finished and headers.keys() & _BODY_HEADERS and b"expect" not in headers:
            await feed.drain()

    async def _serve(
        self, call: Call, headers: Mapping[bytes, bytes], asgi: tuple[Scope, BodyFeed, _Outlet]
    ) -> None:
        scope, feed, outlet = asgi
        if self._cors.is_preflight(call.method, headers):  # browsers send these without a key
            await outlet.answer(204, PREFLIGHT)
            return
        self._door.admit(call, scope["headers"])
        if not scope["query_string"].isascii():
            raise ClientError("The query must be percent-encoded")
        await self._app(scope, feed, outlet)


class _Outlet:
    """An ASGI send callable that adds our headers and remembers what was sent."""

    def __init__(self, call: Call, send: Send, extra: HeaderList) -> None:
        self._call, self._send, self._extra = call, send, extra

    async def __call__(self, event: Event) -> None:
        call = self._call
        if event["type"] == "http.response.start":
            call.code = event["status"]
            headers = [*event["headers"], *self._extra, NOSNIFF, (b"x-request-id", call.request_id.encode())]
            if call.fingerprint:
                headers.append((b"x-model-fingerprint", call.fingerprint.encode()))
            if call.timings:
                headers.append((b"server-timing", call.server_timing().encode()))
            event = {**event, "headers": headers}
        else:
            call.sent_bytes += len(event.get("body", b""))
        await self._send(event)

    async def problem(self, error: HailoClipError) -> None:
        """Answer with `error`, unless the answer has begun."""
        if self._call.code:
            return
        body = problem_body(error, self._call.path)
        headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
        for name, value in problem_headers(error, self._call.path).items():
            headers.append((name.lower().encode(), value.encode()))
        if isinstance(error, Unauthorized):
            headers.append((b"www-authenticate", CHALLENGE.encode()))
        await self.answer(error.http_status, headers, body)

    async def answer(self, status: int, headers: HeaderList, body: bytes = b"") -> None:
        """A whole answer."""
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def _origin_form(scope: Scope) -> Scope:
    """Path without scheme and host, which a client may name in the request line (RFC 9112, section 3.2.2)."""
    if not scope["path"].startswith(("http://", "https://")):
        return {}
    path, raw = (scope[key].partition(sep)[2] for key, sep in (("path", "://"), ("raw_path", b"://")))
    return {"path": "/" + path.partition("/")[2], "raw_path": b"/" + raw.partition(b"/")[2]}


def _log(call: Call) -> None:
    """The access line."""
    level = logging.DEBUG if call.endpoint in PROBES else logging.INFO
    if call.code >= 500:
        level = max(level, logging.WARNING) if call.endpoint not in PROBES else level
    if not log.isEnabledFor(level):
        return
    facts: dict[str, Any] = {
        "trace": call.request_id,
        "tenant": call.tenant,
        "code": call.code,
        "body_bytes": call.body_bytes,
        "sent_bytes": call.sent_bytes,
        "total_s": round(call.elapsed(), 6),
    }
    if call.key:
        facts["key"] = call.key
    if call.items:
        facts["items"] = call.items
    facts |= {f"{stage}_s": round(seconds, 6) for stage, seconds in call.timings.items()}
    log.log(level, "%s %s", call.method, call.path[:200], extra=facts)
