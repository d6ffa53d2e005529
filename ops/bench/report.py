"""Results as a table for people and as plain values for JSON. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hailo_clip.ops.bench.run import Part, Result, Scenario
from hailo_clip.ops.bench.stats import Latency
from hailo_clip.ops.bench.tables import number, table

HEAD = ("load", "", "requests/s", "of limit", "p50 ms", "p90", "p99", "most", "answers", "cores", "MiB")


def result_table(results: Sequence[Result]) -> list[str]:
    """The results as lines of a Markdown table, readable as it is."""
    return table(HEAD, [_row(r) for r in results])


def part_table(parts: Sequence[Part]) -> list[str]:
    """Processes with their CPU and memory."""
    rows = [(p.name, f"{100 * p.cores:.1f} %", f"{p.rss_mib:.0f}", f"{p.pss_mib:.0f}") for p in parts]
    cores, pss = sum(p.cores for p in parts), sum(p.pss_mib for p in parts)
    rows.append(("all", f"{100 * cores:.1f} %", "", f"{pss:.0f}"))
    return table(("process", "CPU of a core", "resident MiB", "proportional MiB"), rows)


def load_of(scenario: Scenario) -> str:
    """The load in words."""
    return f"{scenario.clients} clients" if scenario.clients else f"{scenario.rate:.0f}/s"


def plain(value: Any) -> Any:
    """`value` as JSON has it: dataclasses as objects, figures that are not finite as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return made | ({"share": plain(value.share)} if isinstance(value, Result) else {})
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _row(result: Result) -> tuple[str, ...]:
    found, latency = result.summary, result.summary.latency
    return (
        result.scenario.name,
        load_of(result.scenario),
        number(found.throughput),
        number(result.share, 3),
        *_latency(latency),
        " ".join(f"{code or 'none'}:{n}" for code, n in found.codes.items()),
        number(sum(p.cores for p in result.parts), 2) if result.parts else "-",
        number(sum(p.pss_mib for p in result.parts), 0) if result.parts else "-",
    )


def _latency(latency: Latency) -> tuple[str, ...]:
    return tuple(number(v) for v in (latency.p50, latency.p90, latency.p99, latency.most))
