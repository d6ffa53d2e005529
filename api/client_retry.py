"""Whether and when a call that failed is sent again. Pure: time and chance are arguments.

Every call may be repeated: the same request gives the same answer. So what failed on the way or was refused
for now (429, 503) is sent again, and nothing else. The pause is what the service asked for (Retry-After) and
on top of it a random part of a bound that doubles with each attempt ("full jitter"), so that clients that
were refused together do not come back together. A pause that would not end before the deadline is not begun.
"""

from __future__ import annotations

from dataclasses import dataclass

from hailo_clip.api.client_errors import Overloaded, RequestFailed, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a client is.

    Attributes:
        attempts: most times a call is sent, the first one counted; 1: never again.
        base_s: bound of the random pause after the first attempt, in seconds.
        cap_s: the bound doubles no further than this.
    """

    attempts: int = 4
    base_s: float = 0.25
    cap_s: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.base_s <= self.cap_s:
            raise ValueError(f"a retry policy needs attempts >= 1 and 0 <= base_s <= cap_s: {self}")


DEFAULT_RETRY = RetryPolicy()


def pause_s(
    policy: RetryPolicy, error: RequestFailed, attempt: int, now: float, deadline: float, luck: float
) -> float | None:
    """The seconds to wait before the next attempt, None where there is none.

    Args:
        policy: how often, how long.
        error: why the last attempt failed.
        attempt: its number, from 1.
        now: when it failed.
        deadline: when an answer is of no use any more, by the same clock as `now`.
        luck: a random number in [0, 1).
    """
    if not isinstance(error, (Overloaded, Unavailable)) or attempt >= policy.attempts:
        return None
    bound = min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, 60))
    pause = (error.retry_after_s or 0.0) + luck * bound
    return pause if now + pause < deadline else None
