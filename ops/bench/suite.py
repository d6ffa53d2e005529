"""The whole benchmark: start-up, idle, closed loops, latency against rate, overload, two devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hailo_clip.ops.bench.ideal import ideal_rate
from hailo_clip.ops.bench.limit import device_limit
from hailo_clip.ops.bench.load import LoadProcess
from hailo_clip.ops.bench.plot import Line, Mark, Plot
from hailo_clip.ops.bench.probe import Highest, Overload, highest_rate, overload, sweep
from hailo_clip.ops.bench.report import part_table, result_table
from hailo_clip.ops.bench.run import Bench, Part, Result, Scenario, Target
from hailo_clip.ops.bench.service import our_service
from hailo_clip.ops.bench.stages import Stages, stage_table
from hailo_clip.ops.bench.tables import number
from hailo_clip.ops.bench.workload import Mix
from hailo_clip.shared.messages import Kind
from hailo_clip.shared.models import EMULATED_PREFIX
from hailo_clip.workers.timing import service_time

BATCH = 8
BOUND_MS = 150.0
WAY_MS = 5.0
"""What of the bound a client leaves for the way to the service and back, when it tells a deadline."""
TIMES = 5.0
IDLE_S = 10.0
SEARCH_TIMES = 3
"""How many times longer each try of the search is: near the limit a 99th percentile needs many requests."""
QUEUE = {"queue.max_depth": "64"}
"""A closed loop of 32 clients must fit, whoever is measured: a refusal is not what it is about."""

STAGES = (
    ("320x320", Mix()),
    ("320x320, file as body", Mix(raw=True)),
    ("640x480", Mix(size=(640, 480))),
    ("1920x1080", Mix(size=(1920, 1080))),
    ("4000x3000", Mix(size=(4000, 3000))),
    ("classify, 4 cached prompts", Mix({"classify": 1.0})),
    ("cached prompt", Mix({"text": 1.0})),
)
_FULL_HD, _TWELVE_MP = (1920, 1080), (4000, 3000)
CLOSED = (
    ("320x320", Mix(), 32),
    ("320x320, file as body", Mix(raw=True), 32),
    ("640x480", Mix(size=(640, 480)), 32),
    ("1920x1080", Mix(size=_FULL_HD), 16),
    ("4000x3000", Mix(size=_TWELVE_MP), 8),
    ("320x320", Mix(), 1),
    ("1920x1080", Mix(size=_FULL_HD), 1),
    ("classify, 4 cached prompts", Mix({"classify": 1.0}), 32),
    ("classify, 4 new prompts", Mix({"classify": 1.0}, cached=False), 32),
    ("cached prompt", Mix({"text": 1.0}), 32),
    ("new prompt", Mix({"text": 1.0}, cached=False), 32),
    (
        "8 image : 1 text : 1 classify, 8 tenants",
        Mix({"image": 8.0, "text": 1.0, "classify": 1.0}, tenants=8),
        32,
    ),
)
_SWEEP = (0.1, 0.3, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95, 1.0, 1.25, 1.6, 2.0)
"""Offered rates as parts of the limit."""


@dataclass(slots=True)
class Suite:
    """All results of one run."""

    model: str
    ready_s: list[float] = field(default_factory=list)
    idle: tuple[Part, ...] = ()
    stages: list[Stages] = field(default_factory=list)
    closed: list[Result] = field(default_factory=list)
    swept: tuple[Result, ...] = ()
    highest: Highest | None = None
    highest_told: Highest | None = None
    """The same where clients say for how long answers are of use."""
    overload: Overload | None = None
    devices: list[Result] = field(default_factory=list)
    """The same load on one and on two devices."""


def run_suite(model: str, settings: Mapping[str, str], seconds: float, say: Callable[[str], None]) -> Suite:
    """Measure everything with services of `model` that this starts; `say` gets a line of progress.

    Raises:
        LoadFailed, ServiceFailed.
    """
    found = Suite(model)

    def told(result: Result) -> None:
        say(f"{result.scenario.name}: {result_table([result])[2]}")

    with LoadProcess() as loader:
        proxies = {"server.trusted_proxies": '["127.0.0.1"]'}
        with our_service(model, QUEUE | proxies | dict(settings)) as served:
            served.wait(b"ready: ")
            found.ready_s.append(served.ready_s)
            bench = Bench(loader, Target(served.host, served.port, served.pid))
            found.idle = bench.idle(IDLE_S)
            for name, mix in STAGES:
                found.stages.append(bench.stages(name, mix))
            for name, mix, clients in CLOSED:
                scenario = Scenario(name, mix, clients, seconds=seconds)
                found.closed.append(bench.measure(scenario, device_limit(model, mix, BATCH, 1)))
                told(found.closed[-1])
            _open_loops(bench, found, seconds, told)
        for devices in (1, 2):
            found.devices.append(_devices(loader, found, settings, devices, seconds))
            told(found.devices[-1])
    return found


def _open_loops(bench: Bench, found: Suite, seconds: float, told: Callable[[Result], None]) -> None:
    mix = Mix()
    limit = device_limit(found.model, mix, BATCH, 1)
    peak = found.closed[0].summary.throughput
    top = limit or peak
    scenario = Scenario("", mix, rate=0.9 * top, seconds=seconds)
    found.swept = sweep(bench, scenario, [part * top for part in _SWEEP], limit, told)
    longer = replace(scenario, seconds=SEARCH_TIMES * seconds)
    found.highest = highest_rate(bench, longer, BOUND_MS, limit, told)
    hurried = replace(longer, mix=replace(mix, deadline_ms=int(BOUND_MS - WAY_MS)))
    found.highest_told = highest_rate(bench, hurried, BOUND_MS, limit, told)
    found.overload = overload(bench, scenario, peak, TIMES, limit, told)


def _devices(
    loader: LoadProcess, found: Suite, settings: Mapping[str, str], devices: int, seconds: float
) -> Result:
    """Small files as bodies on `devices` emulated devices."""
    given = {
        **QUEUE,
        **settings,
        "workers.count": "2",
        "workers.devices": "[" + ", ".join(f'"emu:{i}"' for i in range(devices)) + "]",
    }
    mix = Mix(raw=True)
    with our_service(found.model, given) as served:
        served.wait(b"ready: ")
        found.ready_s.append(served.ready_s)
        bench = Bench(loader, Target(served.host, served.port, served.pid))
        name = f"320x320, file as body, {devices} device{'s' * (devices > 1)}"
        scenario = Scenario(name, mix, 48, seconds=seconds)
        return bench.measure(scenario, device_limit(found.model, mix, BATCH, devices))


def suite_report(found: Suite) -> list[str]:
    """The results as Markdown."""
    lines = [f"Start to ready: {', '.join(f'{s:.2f} s' for s in found.ready_s)}", "", "Idle:", ""]
    lines += part_table(found.idle)
    lines += ["", *stage_table(found.stages), "", *result_table([*found.closed, *found.devices])]
    if len(found.devices) == 2:
        ratio = found.devices[1].summary.throughput / found.devices[0].summary.throughput
        lines += ["", f"Two devices over one: {ratio:.2f}"]
    lines += ["", "Open loop (Poisson):", "", *result_table(found.swept)]
    lines += _highest_lines(found)
    if found.overload is not None:
        o = found.overload
        lines += ["", f"At {o.times:g} times the peak of {o.peak:.1f}/s: {o.goodput:.1f}/s answered"]
        lines[-1] += f" ({o.kept:.3f} of the peak), refusals in {number(o.refused_ms)} ms (median)"
    return lines


def _highest_lines(found: Suite) -> list[str]:
    """The highest rates, and what the device alone could do."""
    lines = []
    for highest, how in ((found.highest, ""), (found.highest_told, ", when clients say so (X-Deadline-Ms)")):
        if highest is None:
            continue
        share = highest.rate / highest.limit if highest.limit else None
        text = f"Highest rate with p99 under {highest.bound_ms:g} ms{how}: {highest.rate:.1f}/s"
        lines += ["", f"{text}, {number(share, 3)} of the limit ({len(highest.tries)} tries)"]
        if highest.limit and not how:
            time = service_time(found.model.removeprefix(EMULATED_PREFIX), Kind.IMAGE)
            ideal = ideal_rate(highest.bound_ms, time, BATCH)
            lines[-1] += f"; the device alone, first come, first served: {ideal / highest.limit:.3f}"
    return lines


def write_plots(found: Suite, directory: Path) -> list[Path]:
    """Draw the open loop's results into `directory`; the files."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {"latency": _latency_plot(found), "goodput": _goodput_plot(found)}
    files = []
    for name, plot in drawn.items():
        files.append(directory / f"performance-{name}.svg")
        files[-1].write_text(plot.svg())
    return files


def _latency_plot(found: Suite) -> Plot:
    limit = found.swept[0].limit
    below = [r for r in found.swept if limit is None or r.scenario.rate <= 1.01 * limit]
    lines = [
        Line(name, [(r.scenario.rate, getattr(r.summary.latency, name)) for r in below])
        for name in ("p50", "p90", "p99")
    ]
    marks = [Mark("y", BOUND_MS, f"{BOUND_MS:g} ms")]
    marks += [Mark("x", limit, "limit of the device")] if limit else []
    title = "Latency against offered rate, 320x320 images, one emulated device"
    return Plot(title, "offered requests a second (Poisson)", "ms", lines, marks, 3 * BOUND_MS)


def _goodput_plot(found: Suite) -> Plot:
    limit = found.swept[0].limit or found.swept[0].scenario.rate
    results = [*found.swept, *([found.overload.result] if found.overload else [])]
    answered = [(r.scenario.rate / limit, r.summary.throughput / limit) for r in results]
    title = "Share of the device's limit against what is offered"
    return Plot(
        title,
        "offered, as a multiple of the limit",
        "answered, as a part of the limit",
        [Line("answered 200", answered)],
        [Mark("y", 1.0, "limit of the device")],
    )
