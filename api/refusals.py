"""Refusals that still hold: while the queue is full, further images are not worth reading or decoding. Pure.

Under overload most requests are refused, and decoding each of them first would cost the host more than the
requests that are answered do. So for `HOLD_S` after a tenant's request found no place, its further ones get
the same answer by their headers alone. That is far less than what is queued and running then lasts (a batch
of 8 takes 51 ms on a Hailo-10H, and two are in flight besides the queue), so no device runs dry.
"""

from __future__ import annotations

from hailo_clip.shared.errors import QueueFull

HOLD_S = 0.02

MAX_TENANTS = 1024
"""Refusals remembered; beyond that the old ones are forgotten, which costs no more than a decoding."""


class Refusals:
    """The last refusal of each tenant."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, QueueFull]] = {}

    def note(self, tenant: str, now: float, refusal: QueueFull) -> None:
        """A request of `tenant` was refused, at `now` seconds of a clock that never goes back."""
        if len(self._last) >= MAX_TENANTS:
            self._last.clear()
        self._last[tenant] = (now, refusal)

    def check(self, tenant: str, now: float) -> None:
        """Raise `QueueFull` while the last refusal of `tenant` holds."""
        if tenant not in self._last:
            return
        since, refusal = self._last[tenant]
        if now - since < HOLD_S:
            raise QueueFull(refusal.message, retry_after_s=refusal.retry_after_s)
        del self._last[tenant]
