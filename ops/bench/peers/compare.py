"""Rounds of several servers to medians, ratios and verdicts. Pure.

A ratio is of one round, where both ran within minutes of each other; what is shown is the median of the
rounds' ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hailo_clip.ops.bench.tables import number, table

Figures = Mapping[str, Mapping[str, Sequence[float]]]
"""By server and load: one figure a round, requests a second or, where lower is better, milliseconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio to reach on one load: our rate over theirs, or with `lower` their time over ours."""

    load: str
    family: str
    ratio: float
    lower: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target with what was measured.

    Attributes:
        theirs: the peer's configuration. ratio: the median of the rounds'. spread: its lowest and highest.
    """

    target: Target
    theirs: str
    ratio: float
    spread: tuple[float, float]

    @property
    def met(self) -> bool:
        """Whether the ratio is reached."""
        return self.ratio >= self.target.ratio


def verdict(target: Target, ours: str, theirs: str, figures: Figures) -> Verdict:
    """Judge one target against one configuration of the peer.

    Args:
        target: what is to be reached.
        ours: name of our service.
        theirs: name of the peer's configuration.
        figures: everything that was measured.
    """
    pairs = zip(figures[ours][target.load], figures[theirs][target.load], strict=True)
    ratios = [t / m if target.lower else m / t for m, t in pairs]
    return Verdict(target, theirs, statistics.median(ratios), (min(ratios), max(ratios)))


def figure_table(loads: Sequence[str], figures: Figures, lower: Sequence[str]) -> list[str]:
    """Medians by server and load; loads in `lower` are milliseconds."""
    head = ["", *(f"{load}{' (ms)' if load in lower else ''}" for load in loads)]
    rows = []
    for name, found in figures.items():
        medians = [statistics.median(found[load]) if load in found else None for load in loads]
        rows.append([name, *(number(m) for m in medians)])
    return table(head, rows)


def verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    """The targets, one a row."""
    rows = [
        [
            v.target.load,
            v.theirs,
            f"{v.ratio:.2f}",
            f"{v.spread[0]:.2f} to {v.spread[1]:.2f}",
            f"{v.target.ratio:.2f}",
            "met" if v.met else "missed",
        ]
        for v in verdicts
    ]
    return table(["load", "against", "ratio", "rounds", "aim", ""], rows)
