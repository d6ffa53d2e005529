"""What came of a load: rates, latencies, codes. Pure.

Latency counts from the moment a request was due, not from when the generator got round to sending it; and
a request that got no answer of 200 counts as infinitely late. So neither a stall nor a refusal can make a
percentile look better (no coordinated omission).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

OK = 200
UNANSWERED = 0
"""In place of a status: the connection ended or nothing came in time."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request; times are seconds from the start of the load.

    Attributes:
        due: when it was to be sent. sent: when it was. ended: when its answer was complete.
        code: HTTP status, or `UNANSWERED`.
    """

    due: float
    sent: float
    ended: float
    code: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds; infinite where that many requests were not answered 200."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of one window of a load.

    Attributes:
        seconds: length of the window. offered: requests due in it, a second.
        throughput: answers of 200 that ended in it, a second.
        latency: of the requests due in it. refused: of those refused, None without any.
        codes: how many requests due in it got each status.
        lag_ms: 99th percentile of how late the generator sent.
    """

    seconds: float
    offered: float
    throughput: float
    latency: Latency
    refused: Latency | None
    codes: dict[int, int]
    lag_ms: float

    @property
    def failed(self) -> int:
        """Requests that got something else than 200."""
        return sum(n for code, n in self.codes.items() if code != OK)


def percentile(ordered: Sequence[float], q: float) -> float:
    """The smallest of the ascending values `ordered` that at least `q` percent do not exceed."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)]


def latency_of(seconds: Sequence[float]) -> Latency:
    """The latencies `seconds` in figures."""
    ordered = sorted(1000 * s for s in seconds)
    mean = sum(ordered) / len(ordered) if ordered else math.nan
    p50, p90, p95, p99, most = (percentile(ordered, q) for q in (50.0, 90.0, 95.0, 99.0, 100.0))
    return Latency(mean, p50, p90, p95, p99, most)


def summary(records: Sequence[Record], begin: float, end: float) -> Summary:
    """What came of the window from `begin` to `end`."""
    due = [r for r in records if begin <= r.due < end]
    ended = sum(r.code == OK and begin <= r.ended < end for r in records)
    refused = [r.ended - r.due for r in due if r.code not in (OK, UNANSWERED)]
    late = sorted(1000 * (r.sent - r.due) for r in due)
    return Summary(
        seconds=end - begin,
        offered=len(due) / (end - begin),
        throughput=ended / (end - begin),
        latency=latency_of([r.ended - r.due if r.code == OK else math.inf for r in due]),
        refused=latency_of(refused) if refused else None,
        codes=dict(sorted(Counter(r.code for r in due).items())),
        lag_ms=percentile(late, 99.0),
    )
