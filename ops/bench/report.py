"""Results as a table for people and as plain values for JSON. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hailo_clip.ops.bench.run import Part, Result, Scenario
from hailo_clip.ops.bench.stats import Latency

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


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table with aligned columns; all but the first are flush right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(2, *(len(row[i]) for row in cells)) for i in range(len(head))]
    rule = ["-" * w if i < 1 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for number, row in enumerate(cells):
        padded = [
            c.ljust(w) if i < 1 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(padded) + " |")
        if number == 0:
            lines.append("|" + "|".join(f" {r} " for r in rule) + "|")
    return lines


def number(value: float | None, digits: int = 1) -> str:
    """A figure for a table."""
    if value is None or math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"{value:.{digits}f}"


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
