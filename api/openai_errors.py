"""Errors in the shape that OpenAI's clients expect. Pure."""

from __future__ import annotations

from typing import Any

from hailo_clip.shared.errors import ClientError, FingerprintConflict, HailoClipError

PATHS = frozenset(("/v1/embeddings",))
"""Paths whose errors have this shape, whichever layer raises them."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {"unauthorized": "invalid_api_key"}


class InvalidParameter(ClientError):
    """400: one field of the body is wrong; `param` names it."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFound(InvalidParameter):
    """404: the model that is asked for is not the one that is served."""

    code = "model_not_found"
    http_status = 404


def retry_headers(error: HailoClipError) -> dict[str, str]:
    """What keeps OpenAI's clients from repeating `error` in vain: they take a 409 for a lock that opens."""
    return {"X-Should-Retry": "false"} if isinstance(error, FingerprintConflict) else {}


def openai_error(error: HailoClipError) -> dict[str, Any]:
    """`error` as OpenAI's JSON: a message, the type that follows from the status, the field and our code."""
    return openai_shape(
        error.message,
        error.http_status,
        code=_CODES.get(error.code, error.code),
        param=error.param if isinstance(error, InvalidParameter) else None,
    )


def openai_shape(
    message: str, status: int, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """OpenAI's JSON for an error with this HTTP status."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
