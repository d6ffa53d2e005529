"""What a call of the client may raise: one class for each thing that a program may want to do about it.

All are `RequestFailed`. Whether a call is worth repeating is decided in client_retry.py; what is raised here
was given up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from hailo_clip.shared.errors import HailoClipError


class RequestFailed(HailoClipError):
    """The call has no answer; `str` says why.

    Attributes:
        status: the HTTP status, None where no answer came.
        reason: the service's own words, or what went wrong on the way.
        retry_after_s: the seconds after which the service asks to be asked again, None where it said nothing.
        request_id: under which the service logged the request.
    """

    code = "request_failed"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        reason: str = "",
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status
        self.reason = reason or message
        self.request_id = request_id


class BadRequest(RequestFailed):
    """400, or another 4xx without a class of its own: the request is wrong."""


class Unauthorized(RequestFailed):
    """401: an API key is needed, and none or a wrong one was sent."""


class NotFound(RequestFailed):
    """404: there is no such label set or model."""


class ModelChanged(RequestFailed):
    """409: the service runs another model than the pinned one, so its embeddings must not be mixed in."""


class TooLarge(RequestFailed):
    """413: the body is over the service's limit."""


class UnsupportedMediaType(RequestFailed):
    """415: the service does not take such bodies here."""


class Overloaded(RequestFailed):
    """429: the queue is full, or too long for the deadline."""


class Unavailable(RequestFailed):
    """503: starting, draining, or no worker is there."""


class Unreachable(Unavailable):
    """No answer came: nobody listens at the URL, or the connection broke."""


class DeadlineExceeded(RequestFailed):
    """504, or the call's deadline passed here."""


class ServerFault(RequestFailed):
    """500, or another 5xx without a class of its own: the service failed this very request."""


class UnexpectedAnswer(RequestFailed):
    """What answers at the URL does not speak like this service."""


class ItemFailed(RequestFailed):
    """One item of a list failed, asked for through `Embeddings.whole`."""


_BY_STATUS: dict[int, type[RequestFailed]] = {
    401: Unauthorized,
    404: NotFound,
    409: ModelChanged,
    413: TooLarge,
    415: UnsupportedMediaType,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> RequestFailed:
    """The error that an HTTP answer is.

    Args:
        status: any but a success.
        headers: by lower-case name.
        body: as it came, of whatever kind.
        now: with its time zone; for a Retry-After that is a date.
    """
    if status < 400:
        found: type[RequestFailed] = UnexpectedAnswer
    else:
        found = _BY_STATUS.get(status, BadRequest if status < 500 else ServerFault)
    reason = _words(body) or _phrase(status)
    after = retry_after_s(headers.get("retry-after", ""), now)
    wait = "" if after is None else f" (try again in {after:g} s)"
    return found(
        f"the service answered {status}: {reason}{wait}",
        status=status,
        reason=reason,
        retry_after_s=after,
        request_id=headers.get("x-request-id", ""),
    )


def retry_after_s(value: str, now: datetime) -> float | None:
    """The seconds that a Retry-After header asks for, at least 0; None where it asks for nothing sensible."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def _words(body: bytes) -> str:
    """The message of ``{"error": "..."}`` or of OpenAI's ``{"error": {"message": "..."}}``; empty if none."""
    try:
        error = json.loads(body)["error"]
        words = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return words if isinstance(words, str) else ""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"
