"""What a batch costs: device seconds as a + b*n per kind, learned from measured batches.

The model is the launch cost plus the cost of each item that a Hailo-10H shows (docs/broker.md); the fit
is least squares with exponential forgetting, held near its seed by a few pseudo-observations. Most of
their weight fades like that of real ones, a little stays, so that an endless stream of equal batch sizes,
which says nothing about the slope, cannot make it swing. Where a canary shows that the encoder is no Hailo at
all, but a processor that takes ten times longer or more, that is the seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hailo_clip.shared.messages import Kind

FORGET = 0.98  # weight of the past at each new batch: a memory of about 50 batches
FORGET_STALE = 0.8  # the same at the first batch after a while without any
PRIOR = 2.0  # batches that the seed counts for at first, at each end of its line
PRIOR_LEFT = 0.05  # and in the long run
SEEDS = {Kind.IMAGE: (0.0108, 0.00502), Kind.TEXT: (0.0154, 0.0117)}
"""(a, b) in seconds: CLIP ResNet-50x4 on a Hailo-10H, from its published rates at batch 1 and 8."""

OTHER = 10.0  # times slower than the seed: less may be a device that others used meanwhile
LONGEST_S = 600.0  # of a canary's batch that is believed
TRUST_S = 1.0  # an estimate that was not measured for so long may be out of date


@dataclass(slots=True)
class _Line:
    """Weighted sums of one kind's observations (n, t); `prior` is the seed's part of `weight`, per end."""

    seed: tuple[float, float]
    observed: bool = False
    a: float = 0.0
    b: float = 0.0
    prior: float = 0.0
    weight: float = 0.0
    n: float = 0.0
    t: float = 0.0
    nn: float = 0.0
    nt: float = 0.0

    def observe(self, n: float, t: float, weight: float) -> None:
        self.weight += weight
        self.n += weight * n
        self.t += weight * t
        self.nn += weight * n * n
        self.nt += weight * n * t

    def recall(self, weight: float) -> None:
        """Count the seed for `weight` more batches at each end of its line."""
        a, b = self.seed
        self.prior += weight
        self.observe(1, a + b, weight)
        self.observe(8, a + 8 * b, weight)

    def forget(self, part: float) -> None:
        self.prior *= part
        self.weight *= part
        self.n *= part
        self.t *= part
        self.nn *= part
        self.nt *= part
        if self.prior < PRIOR_LEFT:
            self.recall(PRIOR_LEFT - self.prior)

    def fit(self) -> None:
        """Solve for a and b: a >= 0 and b > 0, since a batch takes time and a larger one more."""
        spread = self.weight * self.nn - self.n * self.n  # > 0: the seed stands at two sizes
        b = max(1e-6, (self.weight * self.nt - self.n * self.t) / spread)
        a = (self.t - b * self.n) / self.weight
        if a < 0:
            a, b = 0.0, max(1e-6, self.nt / self.nn)
        self.a, self.b = a, b


@dataclass(slots=True)
class CostModel:
    """Estimates of device time; `max_batch` is the batch size that per-item costs refer to."""

    max_batch: int = 8
    _lines: dict[Kind, _Line] = field(default_factory=dict)
    _items: dict[Kind, float] = field(default_factory=dict)  # asked several times a request, so kept
    _trusted: dict[Kind, float] = field(default_factory=lambda: dict.fromkeys(SEEDS, -math.inf))
    _stale: set[Kind] = field(default_factory=set)  # the next measurement is the first after a while

    def __post_init__(self) -> None:
        for kind, seed in SEEDS.items():
            self._plant(kind, seed)

    def batch(self, kind: Kind, n: int) -> float:
        """Estimated device seconds of a batch of n items."""
        line = self._lines[kind]
        return line.a + line.b * n

    def item(self, kind: Kind) -> float:
        """Estimated device seconds of one item in a full batch."""
        return self._items[kind]

    def sent(self, now: float, kind: Kind, n: int) -> None:
        """A batch of n items was sent: it will prove the estimate."""
        if self._lines[kind].observed and self.doubtful(now, kind):
            self._stale.add(kind)
        self._trusted[kind] = now + self.batch(kind, n) + TRUST_S

    def back(self, now: float, kind: Kind) -> None:
        """A batch came back, and was observed."""
        self._trusted[kind] = now + TRUST_S

    def doubtful(self, now: float, kind: Kind) -> bool:
        """True when none ran of late: nothing is to be refused for good on the word of this estimate.

        Where all clients are in a hurry, one that is too high would else never be corrected.
        """
        return now >= self._trusted[kind]

    def observe(self, kind: Kind, n: int, seconds: float) -> None:
        """A batch of n items took `seconds` of device time."""
        line = self._lines[kind]
        line.observed = True
        line.forget(FORGET_STALE if kind in self._stale else FORGET)
        self._stale.discard(kind)
        line.observe(n, seconds, 1.0)
        self._fit(kind, line)

    def measured(self, kind: Kind, n: int, seconds: float) -> None:
        """A worker's canary took `seconds` for n items; the latest counts, until there is a real batch."""
        if self._lines[kind].observed:
            return
        a, b = SEEDS[kind]
        each_s = min(seconds, LONGEST_S) / n  # a processor has no launch cost to speak of
        self._plant(kind, (0.0, each_s) if each_s * n >= OTHER * (a + b * n) else (a, b))

    def _plant(self, kind: Kind, seed: tuple[float, float]) -> None:
        line = self._lines[kind] = _Line(seed)
        line.recall(PRIOR)
        self._fit(kind, line)

    def _fit(self, kind: Kind, line: _Line) -> None:
        line.fit()
        self._items[kind] = self.batch(kind, self.max_batch) / self.max_batch
