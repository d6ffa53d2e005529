"""What `hailo-clip top` shows: two of the broker's snapshots in, lines of text out. Pure.

Rates and means are of the time between the two snapshots; where there is only one (at the start, after a
restart of the broker) they are shown as "-".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from hailo_clip.shared.metrics import HISTOGRAMS

Snapshot = Mapping[str, Any]

_MIB = 1 << 20
_BAR = 10
_LEAST = 4  # lines for a table: an empty one, its head, a row, and how many more there are


@dataclass(frozen=True, slots=True)
class Sample:
    """The broker's status (broker/snapshot.py) and when it came, seconds of a monotonic clock."""

    at: float
    snapshot: Snapshot


class Change:
    """What happened between two samples of one broker; without the earlier one nothing is known."""

    def __init__(self, before: Sample | None, now: Sample) -> None:
        if before and before.snapshot["broker_epoch"] != now.snapshot["broker_epoch"]:
            before = None
        self._seconds = now.at - before.at if before else 0.0
        self._now = _Values(now.snapshot)
        self._before = _Values(before.snapshot) if before else None

    def count(self, name: str, **labels: str) -> float | None:
        """By how much the counter `name` grew, over all its labels but those given."""
        if self._before is None:
            return None
        return self._now.counter(name, labels.values()) - self._before.counter(name, labels.values())

    def rate(self, name: str, **labels: str) -> float | None:
        """`count` a second."""
        grown = self.count(name, **labels)
        return grown / self._seconds if grown is not None and self._seconds > 0 else None

    def mean(self, name: str, **labels: str) -> float | None:
        """Mean of what the histogram `name` observed; None when that is nothing."""
        cells = self._cells(name, labels)
        seen = sum(cells[:-1])
        return cells[-1] / seen if seen else None

    def quantile(self, name: str, q: float, **labels: str) -> float | None:
        """Upper bound of the bucket that holds quantile `q`, inf beyond the last; None without any."""
        cells = self._cells(name, labels)[:-1]
        if not sum(cells):
            return None
        bounds = (*HISTOGRAMS[name][1], float("inf"))
        return next(b for b, n in zip(bounds, accumulate(cells), strict=True) if n >= q * sum(cells))

    def _cells(self, name: str, labels: Mapping[str, str]) -> list[float]:
        now = self._now.histogram(name, labels.values())
        if self._before is None:
            return [0.0] * len(now)
        before = self._before.histogram(name, labels.values())
        return [a - b for a, b in zip(now, before, strict=True)]


class _Values:
    """A snapshot's metrics, summed over the labels that nobody asks for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._counters = snapshot["metrics"]["counters"]
        self._histograms = snapshot["metrics"]["histograms"]

    def counter(self, name: str, labels: Iterable[str]) -> float:
        wanted = set(labels)
        return float(sum(v for n, ls, v in self._counters if n == name and wanted <= set(ls)))

    def histogram(self, name: str, labels: Iterable[str]) -> list[float]:
        wanted = set(labels)
        sums = [0.0] * (len(HISTOGRAMS[name][1]) + 2)
        for n, ls, cells in self._histograms:
            if n == name and wanted <= set(ls):
                sums = [a + b for a, b in zip(sums, cells, strict=True)]
        return sums

    def by_label(self, name: str) -> dict[str, float]:
        return {str(ls[0]): v for n, ls, v in self._counters if n == name and v}


def frame(now: Sample, before: Sample | None, width: int, height: int, notice: str = "") -> list[str]:
    """The view as at most `height` lines of at most `width` characters, without escape sequences.

    Args:
        now: the newest sample.
        before: an earlier one, for rates.
        width: columns of the terminal.
        height: its lines.
        notice: shown in place of the broker's own reason, e.g. that it does not answer.
    """
    snapshot, change = now.snapshot, Change(before, now)
    lines = [_title(snapshot, width)]
    if why := notice or snapshot["reason"]:
        lines.append(f"!          {why}")
    lines += _summary(snapshot, change)
    tables = [_workers(snapshot), _devices(snapshot), _tenants(snapshot)]
    lines += _fitted([t for t in tables if len(t) > 1], height - len(lines))
    return [_clean(line)[:width].rstrip() for line in lines[:height]]


def _title(s: Snapshot, width: int) -> str:
    left = f"hailo-clip  {s['model']} on {s['encoder']}  {s['state'].upper()}"
    right = f"up {_age(s['uptime_s'])}"
    return f"{left}{right:>{max(len(right) + 2, width - len(left))}}"


def _summary(s: Snapshot, change: Change) -> list[str]:
    """One line for each thing that an operator looks at first."""
    return [
        f"requests   {_ended(change, 'answered')}/s answered  {_ended(change, 'failed')} failed  "
        f"{_ended(change, 'expired')} expired  {_number(change.rate('rejected_total'))} refused  "
        f"{s['in_flight']} in flight",
        f"queue      {_bar(s['waiting'], s['max_depth'])} {_waiting(s)}  "
        f"{s['waiting_bytes'] / _MIB:.1f}/{s['max_bytes'] / _MIB:.0f} MiB  "
        f"wait p50 {_upto(change.quantile('queue_wait_seconds', 0.5))} "
        f"p99 {_upto(change.quantile('queue_wait_seconds', 0.99))}",
        f"images     {_kind(change, 'image')}",
        f"prompts    {_kind(change, 'text')}",
        f"cache      {s['cache']['entries']}/{s['cache']['max_entries']} prompts  "
        f"{s['cache']['bytes'] / _MIB:.1f} MiB  hit rate {_hits(change)}  "
        f"{_number(change.rate('prompt_single_flight_total'))}/s shared in flight",
        f"trouble    {_trouble(s)}",
    ]


def _waiting(s: Snapshot) -> str:
    """Requests that wait and, where there are lists among them, the places that these take."""
    places = f" in {s['places']} places" if s["places"] > s["waiting"] else ""
    return f"{s['waiting']}/{s['max_depth']} requests{places}"


def _kind(change: Change, kind: str) -> str:
    """The line of one kind of item."""
    size = _number(change.mean("batch_size", kind=kind))
    took = change.mean("inference_seconds", kind=kind)
    return (
        f"{_number(change.rate('items_total', kind=kind, outcome='done'))}/s  "
        f"{_number(change.rate('batches_total', kind=kind))} batches/s  mean size {size}  "
        f"device {_seconds(took)} a batch"
    )


def _hits(change: Change) -> str:
    hits, misses = change.count("prompt_cache_hits_total"), change.count("prompt_cache_misses_total")
    asked = (hits or 0) + (misses or 0)
    return f"{100 * (hits or 0) / asked:.0f} %" if asked else "-"


def _trouble(s: Snapshot) -> str:
    """Everything since the broker's start that should not have happened; "none" where nothing did."""
    values = _Values(s)
    lost = values.by_label("worker_restarts_total")
    why = ", ".join(f"{reason} {n:.0f}" for reason, n in lost.items())
    counts = {
        "items run again": values.counter("retries_total", ()),
        "late results": values.counter("late_results_total", ()),
        "malformed messages": values.counter("protocol_errors_total", ()),
        "in quarantine": s["quarantine"],
    }
    parts = [f"workers lost {sum(lost.values()):.0f} ({why})"] if lost else []
    parts += [f"{name} {n:.0f}" for name, n in counts.items() if n]
    return "  ".join(parts) or "none"


def _workers(s: Snapshot) -> list[str]:
    rows = [f"{'WORKER':<18} {'STATE':<9} {'DEVICE':<18} {'PID':>7} {'ITEMS':>5} {'BATCHES':>8}  SILENT"]
    for w in sorted(s["workers"], key=lambda w: str(w["name"])):
        rows.append(
            f"{w['name'][:18]:<18} {w['state']:<9} {w['device'][-18:]:<18} {w['pid']:>7} "
            f"{w['in_flight']:>5} {w['batches']:>8} {w['silent_s']:>5.1f} s"
        )
    return rows


def _devices(s: Snapshot) -> list[str]:
    rows = [f"{'DEVICE':<29} {'WORKERS':>8} {'BATCHES IN FLIGHT':>18} {'BUSY FOR':>10}"]
    for d in sorted(s["devices"], key=lambda d: str(d["id"])):
        rows.append(f"{d['id'][:29]:<29} {d['workers']:>8} {d['in_flight']:>18} {_seconds(d['busy_s']):>10}")
    return rows


def _tenants(s: Snapshot) -> list[str]:
    rows = [f"{'TENANT':<29} {'WAITING':>8}"]
    for name, waiting in sorted(s["tenants"].items(), key=lambda t: (-t[1], t[0])):
        rows.append(f"{name[:29]:<29} {waiting:>8}  {_bar(waiting, s['max_depth'])}")
    return rows


def _fitted(tables: Sequence[Sequence[str]], room: int) -> list[str]:
    """The tables one below the other in `room` lines, each cut to its part and saying what it left out.

    Where there is little room the last ones are left out altogether.
    """
    shown = tables[: max(1, room // _LEAST)]
    lines: list[str] = []
    for i, table in enumerate(shown):
        left = room - len(lines)
        later = sum(len(t) + 1 for t in shown[i + 1 :])
        share = max(left // (len(shown) - i), left - later) - 1  # less the empty line above it
        if share < _LEAST - 1:
            break
        lines.append("")
        if len(table) <= share:
            lines += table
        else:
            lines += [*table[: share - 1], f"... and {len(table) - share + 1} more"]
    return lines


def _ended(change: Change, outcome: str) -> str:
    return _number(change.rate("finished_total", outcome=outcome))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.1f} ms" if value < 1 else f"{value:.1f} s"


def _upto(bound: float | None) -> str:
    """A quantile that is known by its bucket's upper bound."""
    if bound is None:
        return "-"
    if bound == float("inf"):
        return f">{HISTOGRAMS['queue_wait_seconds'][1][-1]:g} s"
    return f"<={1000 * bound:g} ms" if bound < 1 else f"<={bound:g} s"


def _age(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days} d {h} h" if days else f"{h} h {m} min" if h else f"{m} min {s} s" if m else f"{s} s"


def _bar(value: float, of: float) -> str:
    full = min(_BAR, round(_BAR * value / of)) if of else 0
    return "[" + "#" * full + "." * (_BAR - full) + "]"


def _clean(text: str) -> str:
    """`text` with what a terminal would act on made visible: names come from outside."""
    return "".join(c if c.isprintable() else "?" for c in text)
