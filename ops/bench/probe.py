"""Measurements of several loads: the highest rate within a bound, overload, latency against rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hailo_clip.ops.bench.run import Bench, Result, Scenario
from hailo_clip.ops.bench.search import RateSearch

Say = Callable[[Result], None]


@dataclass(frozen=True, slots=True)
class Highest:
    """The highest Poisson rate whose 99th percentile stayed under the bound.

    Attributes:
        rate: requests a second, 0 when none did. bound_ms: the bound. limit: of the devices.
        tries: all that was measured.
    """

    rate: float
    bound_ms: float
    limit: float | None
    tries: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Overload:
    """What happens at several times the capacity.

    Attributes:
        peak: requests a second answered at the best. times: how many times that was offered.
        goodput: requests a second answered then. refused_ms: median time of a refusal, None without any.
    """

    peak: float
    times: float
    goodput: float
    refused_ms: float | None
    result: Result

    @property
    def kept(self) -> float:
        """Goodput as a part of the peak."""
        return self.goodput / self.peak


def highest_rate(bench: Bench, scenario: Scenario, bound_ms: float, limit: float | None, say: Say) -> Highest:
    """Search it, beginning at `scenario.rate`. A refused request counts as over the bound."""
    search = RateSearch(scenario.rate)
    tries: list[Result] = []
    while (rate := search.rate) is not None:
        wanted = replace(scenario, name=f"p99 < {bound_ms:g} ms?", rate=rate, seed=scenario.seed + len(tries))
        result = bench.measure(wanted, limit)
        search.tried(result.summary.latency.p99 < bound_ms)
        tries.append(result)
        say(result)
    return Highest(search.held, bound_ms, limit, tuple(tries))


def overload(
    bench: Bench, scenario: Scenario, peak: float, times: float, limit: float | None, say: Say
) -> Overload:
    """Offer `times` the `peak` in an open loop."""
    wanted = replace(scenario, name=f"overload {times:g}x", clients=0, rate=times * peak)
    result = bench.measure(wanted, limit)
    say(result)
    refused = result.summary.refused
    return Overload(peak, times, result.summary.throughput, refused.p50 if refused else None, result)


def sweep(
    bench: Bench, scenario: Scenario, rates: Sequence[float], limit: float | None, say: Say
) -> tuple[Result, ...]:
    """The same open loop at each of `rates`."""
    results = []
    for rate in rates:
        result = bench.measure(replace(scenario, name="sweep", clients=0, rate=rate), limit)
        say(result)
        results.append(result)
    return tuple(results)
