"""One call of the client from its first attempt to its end, without I/O. Pure but for chance and the date.

A client asks for the next `attempt`, sends it, and tells how that ended (`answered`, `lost`). It is told to
wait some seconds and try again, or that the `result` is there; what can't be mended is raised.
"""

from __future__ import annotations

import math
import random
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from hailo_clip import __version__
from hailo_clip.api.client_calls import Call, Terms
from hailo_clip.api.client_errors import (
    DeadlineExceeded,
    ModelChanged,
    RequestFailed,
    Unreachable,
    error_of,
)
from hailo_clip.api.client_read import Reply
from hailo_clip.api.client_retry import DEFAULT_RETRY, RetryPolicy, pause_s

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:5000"
DEFAULT_DEADLINE_S = 60.0
MAX_DEADLINE_S = 86_400.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Settings:
    """What all calls of a client have in common; see `Client`.

    Raises:
        ValueError: one of them can't be; the text says which.
    """

    url: str = DEFAULT_URL
    api_key: str | None = None
    model_fingerprint: str | None = None
    deadline_s: float = DEFAULT_DEADLINE_S
    retry: RetryPolicy = DEFAULT_RETRY

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        sound = self.url.isprintable() and parts.scheme in ("http", "https") and parts.hostname
        if not sound or parts.query or parts.fragment:
            raise ValueError(f"{self.url!r} is not a URL such as {DEFAULT_URL}")
        for name in ("api_key", "model_fingerprint"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[!-~]+", value):
                raise ValueError(f"{name} must be printable ASCII without blanks")
        _check_deadline(self.deadline_s)

    @property
    def base_url(self) -> str:
        """`url` without a slash at its end."""
        return self.url.rstrip("/")

    @property
    def takes_proxies(self) -> bool:
        """Whether proxies of the environment are taken; never to this very machine."""
        return urlsplit(self.url).hostname not in _LOOPBACK


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request. `timeout_s`: the seconds that are left for it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout_s: float


class Exchange(Generic[T]):
    """A call under way.

    Args:
        call: what is asked.
        settings: of the client.
        terms: of this call.
        now: when it began; every `now` is by the same clock.

    Attributes:
        result: the answer, once `answered` returned None.
    """

    result: T

    def __init__(self, call: Call[T], settings: Settings, terms: Terms, now: float) -> None:
        self._call, self._settings = call, settings
        given = terms.get("deadline_s")
        self._wait_s = settings.deadline_s if given is None else _check_deadline(given)
        self.deadline = now + self._wait_s
        request_id = terms.get("request_id")
        self._request_id = secrets.token_hex(8) if request_id is None else _check_request_id(request_id)
        self._attempts = 0

    def attempt(self, now: float) -> Attempt:
        """The next request. Raises `DeadlineExceeded` when no time is left for it."""
        left = self.deadline - now
        if left <= 0:
            raise self._late()
        self._attempts += 1
        call, settings = self._call, self._settings
        headers = {
            "Accept": "application/json",
            "User-Agent": f"hailo-clip-client/{__version__}",
            "X-Request-Id": self._request_id,
            "X-Deadline-Ms": str(max(1, math.floor(left * 1e3))),
        }
        if call.content_type:
            headers["Content-Type"] = call.content_type
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        if call.pinned and settings.model_fingerprint is not None:
            headers["X-Require-Model-Fingerprint"] = settings.model_fingerprint
        return Attempt(call.method, settings.base_url + call.path, headers, call.body, left)

    def answered(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> float | None:
        """An answer came; `headers` by lower-case name.

        Returns:
            None when `result` is there, else the seconds to wait before the next attempt.

        Raises:
            RequestFailed: the answer is an error that is not worth another attempt.
        """
        if status not in self._call.answers:
            return self._pause(error_of(status, headers, body, datetime.now(UTC)), now)
        self._check_model(status, headers)
        self.result = self._call.read(Reply(self._settings.base_url, status, headers, body))
        return None

    def lost(self, why: str, now: float) -> float:
        """No answer came, or not all of it.

        Returns:
            The seconds to wait before the next attempt.

        Raises:
            Unreachable: there is none.
            DeadlineExceeded: it is too late for one.
        """
        if now >= self.deadline:
            raise self._late()
        url = self._settings.base_url
        return self._pause(
            Unreachable(f"no service answers at {url}: {why}", reason=why, request_id=self._request_id), now
        )

    def _pause(self, error: RequestFailed, now: float) -> float:
        # Chance spreads clients out; nobody gains by guessing it.
        luck = random.random()  # noqa: S311
        pause = None
        if self._call.patient:
            pause = pause_s(self._settings.retry, error, self._attempts, now, self.deadline, luck)
        if pause is None:
            raise error
        return pause

    def _check_model(self, status: int, headers: Mapping[str, str]) -> None:
        """Something between here and the service may have dropped the header that asks for the model."""
        wanted, served = self._settings.model_fingerprint, headers.get("x-model-fingerprint")
        if self._call.pinned and wanted is not None and served is not None and served != wanted.lower():
            raise ModelChanged(
                f"the pinned model is {wanted}, the answer is from {served}",
                status=status,
                request_id=self._request_id,
            )

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the service at {self._settings.base_url} did not answer within {self._wait_s:g} s",
            request_id=self._request_id,
        )


def _check_deadline(seconds: float) -> float:
    if not 0 < seconds <= MAX_DEADLINE_S:
        raise ValueError(f"deadline_s must be above 0 and at most {MAX_DEADLINE_S:g} seconds, is {seconds}")
    return seconds


def _check_request_id(request_id: str) -> str:
    if not _REQUEST_ID.fullmatch(request_id):
        raise ValueError("request_id must be 1 to 128 letters, digits or any of ._~:/+=@-")
    return request_id
