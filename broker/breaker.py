"""The circuit breaker that suspends a worker which dies again and again. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field

CRASH_WINDOW_S = 60.0
CRASH_LIMIT = 3  # losses within the window that open the breaker
SUSPEND_S = (2.0, 60.0)  # first and longest suspension; it doubles in between
NAMES_KEPT = 1000


@dataclass(slots=True, eq=False)
class Breaker:
    """Losses of one worker name: three within a minute suspend it, then one batch at a time is a probe."""

    losses: deque[float] = field(default_factory=deque)
    suspended_until: float = 0.0
    openings: int = 0

    def lost(self, now: float) -> bool:
        """Count a loss; True when it opened the breaker."""
        self.losses.append(now)
        while self.losses[0] < now - CRASH_WINDOW_S:
            self.losses.popleft()
        if len(self.losses) < CRASH_LIMIT and not self.openings:
            return False
        self.suspended_until = now + min(SUSPEND_S[1], SUSPEND_S[0] * 2 ** min(self.openings, 16))
        self.openings += 1
        return True

    def proved(self) -> None:
        """A probe succeeded: closed again."""
        self.losses.clear()
        self.openings = 0


class Breakers:
    """The breaker of each worker name, across its registrations.

    A worker that was given no name has its process id in it, and so a new one at each start: at most
    `NAMES_KEPT` are remembered, and those that registered least lately are forgotten.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Breaker] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def of(self, name: str, registered: Container[str]) -> Breaker:
        """The breaker of `name`, which registers now; those of names in `registered` are not forgotten."""
        breaker = self._by_name.pop(name, None) or Breaker()
        if len(self._by_name) >= NAMES_KEPT:
            oldest = next((n for n in self._by_name if n not in registered), None)
            if oldest is not None:
                del self._by_name[oldest]
        self._by_name[name] = breaker
        return breaker

    def clear(self, name: str) -> None:
        """It left in good order: what it lost before is forgotten."""
        self._by_name.pop(name, None)
