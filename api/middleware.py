"""What surrounds every HTTP request: its id, early refusals, headers, the access log and the counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import falcon.asgi

from hailo_clip.api.body import BodyFeed
from hailo_clip.api.call import SCOPE_KEY, Call, Networks, call_of, networks, open_call
from hailo_clip.api.problems import JSON, problem_body
from hailo_clip.api.service import Service
from hailo_clip.shared.errors import ClientError, HailoClipError

log = logging.getLogger("hailo_clip.api.access")

CLIENT_GONE = 499
"""The code under which a request is logged and counted whose client went away before its answer."""

PROBES = frozenset(("/health", "/livez", "/readyz", "/metrics"))
"""Endpoints that monitoring asks all the time; their access lines are for debugging."""

_BODY_HEADERS = frozenset((b"content-length", b"transfer-encoding"))

Scope = dict[str, Any]
Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Lifespan:
    """Opens and closes the service with the ASGI server's process."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def process_startup(self, scope: Scope, event: Event) -> None:
        """The process serves from now on."""
        await self._service.start()

    async def process_shutdown(self, scope: Scope, event: Event) -> None:
        """The process has answered its last request."""
        await self._service.close()

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
    """

    def __init__(self, app: Asgi, service: Service) -> None:
        self._app, self._service = app, service
        self._trusted: Networks = networks(service.config.server.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # ASGI allows any iterables here, so also such as can be read only once.
        pairs = [(name, value) for name, value in scope["headers"]]
        headers = dict(pairs)
        scope = {**scope, "headers": pairs}
        call = scope[SCOPE_KEY] = open_call(scope, self._trusted)
        feed = BodyFeed(receive)
        outlet = _Outlet(call, send)
        try:
            try:
                if not scope["query_string"].isascii():
                    raise ClientError("The query must be percent-encoded")
                await self._app(scope, feed, outlet)
            except HailoClipError as error:
                await outlet.problem(error)
        except asyncio.CancelledError:
            call.code = call.code or CLIENT_GONE
            raise
        except Exception:
            call.code = call.code or 500
            raise
        finally:
            self._service.budget.give(call.body_bytes)
            self._service.gateway.count(call.endpoint, call.code)
            _log(call)
        # A client that sends its body before it reads would miss the refusal if the connection broke now;
        # one that asked for leave (Expect) was refused before it sent anything.
        if not feed.finished and headers.keys() & _BODY_HEADERS and b"expect" not in headers:
            await feed.drain()


class _Outlet:
    """An ASGI send callable that adds our headers and remembers what was sent."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call, self._send = call, send

    async def __call__(self, event: Event) -> None:
        call = self._call
        if event["type"] == "http.response.start":
            call.code = event["status"]
            headers = [*event["headers"], (b"x-request-id", call.request_id.encode())]
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
        body = problem_body(error.message)
        headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
        await self({"type": "http.response.start", "status": error.http_status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


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
    if call.items:
        facts["items"] = call.items
    facts |= {f"{stage}_s": round(seconds, 6) for stage, seconds in call.timings.items()}
    log.log(level, "%s %s", call.method, call.path[:200], extra=facts)
