"""One measurement: a load against a target, while the CPU and memory of its processes are watched."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from hailo_clip.ops.bench.load import LoadProcess, Plan
from hailo_clip.ops.bench.photos import photo_files
from hailo_clip.ops.bench.procs import Usage, cpu_shares, usages
from hailo_clip.ops.bench.schedule import picks, poisson
from hailo_clip.ops.bench.stages import Stages, ask
from hailo_clip.ops.bench.stats import Summary, summary
from hailo_clip.ops.bench.workload import Mix, Request, requests

WARM_UP_S = 2.0
IMAGES = 24
"""Different images of a load; fewer where they are large."""

_ORDER = 5000
_BYTES = 48_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load.

    Attributes:
        name: for the report. mix: what is asked for.
        clients: of a closed loop. rate: requests a second of an open loop. One of both is given.
        seconds: how long is measured, after `WARM_UP_S`.
        seed: of all that is random.
    """

    name: str
    mix: Mix
    clients: int = 0
    rate: float = 0.0
    seconds: float = 10.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where the service is, and its first process if that is on this machine."""

    host: str
    port: int
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One process during a measurement: cores used (mean), resident and proportional MiB at its end."""

    name: str
    cores: float
    rss_mib: float
    pss_mib: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario.

    Attributes:
        parts: processes of the service, empty where they are not on this machine.
        generator_cores: what the load generator used.
        limit: requests a second that the devices could do at most; None where that is not known.
    """

    scenario: Scenario
    summary: Summary
    parts: tuple[Part, ...]
    generator_cores: float
    limit: float | None = None

    @property
    def share(self) -> float | None:
        """Throughput as a part of the limit."""
        return self.summary.throughput / self.limit if self.limit else None


@dataclass(slots=True)
class Bench:
    """Measures scenarios one after another with one load generator.

    Args:
        loader: a running generator.
        target: the service.
    """

    loader: LoadProcess
    target: Target
    _bodies: dict[tuple[tuple[int, int], int], list[bytes]] = field(default_factory=dict)

    def measure(self, scenario: Scenario, limit: float | None = None) -> Result:
        """Carry out `scenario`. Raises `LoadFailed`."""
        plan = self.plan(scenario)
        self.loader.start(plan)
        begun = time.perf_counter()
        time.sleep(WARM_UP_S)
        before, ours = self._usages(), usages(self.loader.pid)
        at = time.perf_counter()
        time.sleep(max(0.0, begun + plan.seconds - at))
        seconds = time.perf_counter() - at
        after, ours_after = self._usages(), usages(self.loader.pid)
        records = self.loader.finish(plan)
        shares = cpu_shares(before, after, seconds)
        return Result(
            scenario,
            summary(records, WARM_UP_S, plan.seconds),
            tuple(Part(u.name, shares[u.name], u.rss_mib, u.pss_mib) for u in after.values()),
            sum(cpu_shares(ours, ours_after, seconds).values()),
            limit,
        )

    def idle(self, seconds: float) -> tuple[Part, ...]:
        """The processes of the service while nobody asks it anything."""
        before = self._usages()
        time.sleep(seconds)
        after = self._usages()
        shares = cpu_shares(before, after, seconds)
        return tuple(Part(u.name, shares[u.name], u.rss_mib, u.pss_mib) for u in after.values())

    def stages(self, name: str, mix: Mix) -> Stages:
        """Where the time of single requests of `mix`, which is of one kind, goes."""
        ((kind, made),) = self._requests(mix).items()
        return ask(self.target.host, self.target.port, name, kind, made)

    def plan(self, scenario: Scenario) -> Plan:
        """What the generator is to do."""
        seconds = WARM_UP_S + scenario.seconds
        pool, order = _ordered(self._requests(scenario.mix), scenario.mix.weights, scenario.seed)
        arrivals = poisson(scenario.rate, seconds, scenario.seed) if scenario.rate else []
        return Plan(self.target.host, self.target.port, pool, order, seconds, scenario.clients, arrivals)

    def _usages(self) -> dict[int, Usage]:
        return usages(self.target.pid) if self.target.pid is not None else {}

    def _requests(self, mix: Mix) -> dict[str, list[Request]]:
        width, height = mix.size
        count = max(2, min(IMAGES, _BYTES // (width * height)))
        key = (mix.size, count)
        if key not in self._bodies:
            self._bodies[key] = photo_files(mix.size, count)
        return requests(mix, f"{self.target.host}:{self.target.port}", self._bodies[key])


def _ordered(
    kinds: Mapping[str, list[Request]], weights: Mapping[str, float], seed: int
) -> tuple[list[Request], list[int]]:
    """All requests in one list, and an order of them: kinds at random, those of a kind in turn."""
    pool: list[Request] = []
    first = {}
    for kind, made in kinds.items():
        first[kind] = len(pool)
        pool += made
    names = list(kinds)
    turns = dict.fromkeys(names, 0)
    order = []
    for pick in picks([weights[name] for name in names], _ORDER, seed):
        kind = names[pick]
        order.append(first[kind] + turns[kind] % len(kinds[kind]))
        turns[kind] += 1
    return pool, order
