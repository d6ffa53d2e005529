"""What both clients share around httpx: requests made of attempts, and faults in words."""

from __future__ import annotations

import httpx

from hailo_clip.api.client_exchange import Attempt


def request_of(attempt: Attempt) -> httpx.Request:
    """`attempt` for httpx. The time that is left bounds each of its steps; the whole is the caller's care."""
    return httpx.Request(
        attempt.method,
        attempt.url,
        headers=dict(attempt.headers),
        content=attempt.body or None,
        extensions={"timeout": httpx.Timeout(attempt.timeout_s).as_dict()},
    )


def why(error: BaseException) -> str:
    """What went wrong on the way, in the operating system's words where it has any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
