"""The highest rate that a service holds, found by trying. Pure: it says what to try and is told the outcome.

A rate is held when most of its tries were good (two of three), since one hiccup of a busy machine is no
verdict. From the first rate on it goes up or down by `_STEP` until it has one rate that is held and one that
is not, then halves the gap between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_STEP = 1.15


@dataclass(slots=True)
class RateSearch:
    """See the module docstring.

    Args:
        start: the first rate to try.
        tolerance: how near the two ends must come, as a part of the rate.
        least: below this rate it gives up.
    """

    start: float
    tolerance: float = 0.02
    least: float = 1.0
    held: float = 0.0
    """The highest rate that was held; 0: none."""
    lost: float = float("inf")
    """The lowest rate that was not."""
    _good: int = field(default=0, init=False)
    _bad: int = field(default=0, init=False)

    @property
    def rate(self) -> float | None:
        """The rate to try next; None: it is found."""
        if self.held == 0.0 and self.lost == float("inf"):
            return self.start
        if self.held == 0.0:
            return self.lost / _STEP if self.lost / _STEP >= self.least else None
        if self.lost == float("inf"):
            return self.held * _STEP
        if self.lost / self.held - 1 <= self.tolerance:
            return None
        return math.sqrt(self.held * self.lost)

    def tried(self, good: bool) -> None:
        """The outcome of one try of `rate`."""
        rate = self.rate
        assert rate is not None, "the search is over"
        self._good += good
        self._bad += not good
        if self._good == 2:
            self.held = rate
        elif self._bad == 2:
            self.lost = rate
        else:
            return
        self._good = self._bad = 0
