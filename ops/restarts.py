"""When a child that died is started again: at once the first time, then ever later while it keeps dying.

Pure: time is an argument, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Exponential back-off.

    Attributes:
        first_s: delay of the first restart. factor: each further delay is this times longer.
        longest_s: no delay is longer.
        stable_s: a child that lived this long counts as sound, and its next death as a first one.
    """

    first_s: float = 0.2
    factor: float = 2.0
    longest_s: float = 30.0
    stable_s: float = 30.0

    def delay(self, failures: int) -> float:
        """Seconds until the restart after `failures` deaths in a row, 1 or more."""
        steps = min(failures - 1, 64)  # factor ** 64 is beyond any longest_s and still a float
        return min(self.longest_s, self.first_s * self.factor**steps)


@dataclass(slots=True)
class Restarts:
    """One child's history: how often in a row it died young, and when it started last."""

    policy: Policy
    failures: int = 0
    started_at: float = 0.0

    def started(self, now: float) -> None:
        """The child was started."""
        self.started_at = now

    def died(self, now: float) -> float:
        """The child died; seconds to wait before it is started again."""
        if now - self.started_at >= self.policy.stable_s:
            self.failures = 0
        self.failures += 1
        return self.policy.delay(self.failures)
