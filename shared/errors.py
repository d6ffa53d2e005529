"""One error tree for all processes: each class knows its wire code and its HTTP status.

Three families, so that nobody mistakes whose fault it was:

- `ClientError`: the request is wrong; it never reaches a worker.
- `ServiceError`: the request is fine, the service can't answer it (now).
- `SetupError`: the machine, the configuration or the model package is wrong; the process stops.

An error crosses a process boundary as ``[code, message, retry_after_s]`` (`to_wire`, `from_wire`).
"""

from __future__ import annotations

from typing import ClassVar


class HailoClipError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        message: what was wrong, in words a user can act on.
        retry_after_s: seconds after which a retry may succeed, None where a retry is no help.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def to_wire(self) -> tuple[str, str, float | None]:
        """This error as ``(code, message, retry_after_s)``."""
        return (self.code, self.message, self.retry_after_s)


class ClientError(HailoClipError):
    """400: the request is malformed; the message names the field, the fault and the limit."""

    code = "bad_request"
    http_status = 400


class Unauthorized(ClientError):
    """401: an API key is needed, and none or a wrong one came along."""

    code = "unauthorized"
    http_status = 401


class LimitReached(ClientError):
    """400: as much is kept for clients as may be kept; something must be deleted first."""

    code = "limit"


class NotFound(ClientError):
    """404: no such path or resource."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(ClientError):
    """405: the path exists, the method does not."""

    code = "method_not_allowed"
    http_status = 405


class RequestTimeout(ClientError):
    """408: the body did not arrive in time, or stopped before its end."""

    code = "request_timeout"
    http_status = 408


class FingerprintConflict(ClientError):
    """409: the client asked for embeddings of another model than is served."""

    code = "fingerprint_conflict"
    http_status = 409


class BodyTooLarge(ClientError):
    """413: the body is over the limit."""

    code = "body_too_large"
    http_status = 413


class UnsupportedMediaType(ClientError):
    """415: the body's media type is not one this endpoint takes."""

    code = "unsupported_media_type"
    http_status = 415


class ServiceError(HailoClipError):
    """500: the request was fine and the service failed it."""

    code = "internal"


class InferenceFailed(ServiceError):
    """500: the encoder failed on this item, alone and twice over."""

    code = "inference_failed"


class Quarantined(ServiceError):
    """500: this very input killed a worker a short while ago and is not run again yet."""

    code = "quarantined"


class QueueFull(ServiceError):
    """429: as many requests or bytes wait as may wait."""

    code = "queue_full"
    http_status = 429


class DeadlineUnreachable(ServiceError):
    """429: the queue is so long that the request could not be answered by its deadline."""

    code = "deadline_unreachable"
    http_status = 429


class Unavailable(ServiceError):
    """503: nothing can answer now (starting, no live worker, broker unreachable)."""

    code = "unavailable"
    http_status = 503


class Draining(Unavailable):
    """503: the service is shutting down; accepted requests are still answered."""

    code = "draining"


class ModelMismatch(Unavailable):
    """503: the frontend prepared its inputs for another model than the broker serves."""

    code = "model_mismatch"


class DeadlineExceeded(ServiceError):
    """504: the deadline passed before the answer was there."""

    code = "deadline_exceeded"
    http_status = 504


class SetupError(HailoClipError):
    """The machine or its set-up is at fault; commands exit 1 with this message."""

    code = "setup"


class ConfigError(SetupError):
    """A configuration key or value is wrong; commands exit 2 with this message."""

    code = "config"


class ModelError(SetupError):
    """A model package is missing, damaged or does not fit; the message says what to type."""

    code = "model"


class EncoderError(HailoClipError):
    """An encoder could not load, or failed a batch.

    Args:
        fatal: True when this encoder can't be used again and its process must end.
    """

    code = "encoder"

    def __init__(self, message: str, *, fatal: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.fatal = fatal


def _leaves(cls: type[HailoClipError]) -> dict[str, type[HailoClipError]]:
    """Every class of the tree below and including `cls` that has a wire code of its own."""
    found: dict[str, type[HailoClipError]] = {cls.code: cls}
    for sub in cls.__subclasses__():
        for code, leaf in _leaves(sub).items():
            found.setdefault(code, leaf)
    return found


_BY_CODE = _leaves(ServiceError) | {"internal": ServiceError, LimitReached.code: LimitReached}


def from_wire(code: str, message: str, retry_after_s: float | None) -> HailoClipError:
    """The error that `to_wire` gave; an unknown code becomes a plain `ServiceError` (500)."""
    return _BY_CODE.get(code, ServiceError)(message, retry_after_s=retry_after_s)
