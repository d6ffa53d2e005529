"""Errors as HTTP answers: JSON, ``{"error": "<what was wrong>"}`` everywhere but on OpenAI's endpoint."""

from __future__ import annotations

import logging
import math
from typing import Any

import falcon
import falcon.asgi
import orjson

from hailo_clip.api import openai_errors
from hailo_clip.api.call import call_of
from hailo_clip.shared.errors import ClientError, HailoClipError, ServiceError

log = logging.getLogger(__name__)

JSON = "application/json"
Params = dict[str, Any]


def problem_body(error: HailoClipError, path: str) -> bytes:
    """The JSON body of `error`, in the shape that clients of `path` know."""
    openai = path in openai_errors.PATHS
    return orjson.dumps(openai_errors.openai_error(error) if openai else {"error": error.message})


def problem_headers(error: HailoClipError, path: str) -> dict[str, str]:
    """The headers that say whether and when a retry is of use."""
    found = openai_errors.retry_headers(error) if path in openai_errors.PATHS else {}
    after = retry_after(error)
    return found if after is None else {**found, "Retry-After": after}


def plain_body(message: str, status: int, path: str = "") -> bytes:
    """The JSON body of an error that is none of ours."""
    openai = path in openai_errors.PATHS
    return orjson.dumps(openai_errors.openai_shape(message, status) if openai else {"error": message})


def retry_after(error: HailoClipError) -> str | None:
    """The Retry-After header of `error`: whole seconds, at least 1; None where a retry is no help."""
    if error.retry_after_s is None:
        return None
    return str(max(1, math.ceil(min(error.retry_after_s, 3600.0))))


def install(app: falcon.asgi.App[Any, Any]) -> None:
    """Make `app` answer every error as this module says."""
    app.add_error_handler(Exception, _on_unexpected)
    app.add_error_handler(falcon.HTTPError, _on_falcon)
    app.add_error_handler(HailoClipError, _on_ours)


async def _on_ours(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: HailoClipError, params: Params
) -> None:
    if not isinstance(error, (ClientError, ServiceError)):
        await _on_unexpected(req, resp, error, params)
        return
    resp.status = error.http_status
    resp.content_type, resp.data = JSON, problem_body(error, req.path)
    resp.set_headers(problem_headers(error, req.path))
    if error.http_status == ServiceError.http_status:
        log.error(error.message, extra={"trace": call_of(req.scope).request_id, "code": error.code})


async def _on_falcon(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: Params
) -> None:
    resp.status = error.status
    if error.headers is not None:
        resp.set_headers(error.headers)
    resp.content_type, resp.data = JSON, plain_body(_words(req, error), error.status_code, req.path)


async def _on_unexpected(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: Params
) -> None:
    trace = call_of(req.scope).request_id
    log.error("a request failed unexpectedly", extra={"trace": trace}, exc_info=error)
    resp.status = falcon.HTTP_500
    resp.content_type, resp.data = JSON, plain_body(f"Internal error, request id {trace}", 500, req.path)


def _words(req: falcon.asgi.Request, error: falcon.HTTPError) -> str:
    """What a framework's own error means for the client."""
    path = req.path[:200]
    if isinstance(error, falcon.HTTPNotFound):
        return f"There is no {path}"
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = dict(error.headers or {}).get("Allow", "")
        return f"{req.method} is not allowed on {path}; allowed: {allowed}"
    return error.description or error.title or "Bad request"
