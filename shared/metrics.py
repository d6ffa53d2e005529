"""Counters and histograms without I/O, and their Prometheus text; the names are the contract with ops.

The broker owns the one `Metrics` of a service and sends it in its status; frontends render that
(`render`), so /metrics says the same whichever frontend answers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
PREFIX = "hailo_clip_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "requests_total": (("endpoint", "code"), "HTTP requests answered"),
    "accepted_total": ((), "Requests taken into the queue"),
    "finished_total": (("outcome",), "Accepted requests that ended, by how"),
    "rejected_total": (("reason",), "Requests refused at arrival, or pushed out of the queue"),
    "items_total": (("kind", "outcome"), "Images and prompts settled by workers"),
    "batches_total": (("kind",), "Batches sent to workers"),
    "retries_total": (("reason",), "Items sent again after a batch was lost or failed"),
    "worker_restarts_total": (("reason",), "Workers given up, by why"),
    "worker_registrations_total": ((), "Workers that registered"),
    "late_results_total": ((), "Results of workers already given up, dropped"),
    "quarantined_total": ((), "Inputs put in quarantine after they killed workers"),
    "breaker_opened_total": ((), "Times a crash-looping worker was suspended"),
    "prompt_cache_hits_total": ((), "Prompts answered from the cache"),
    "prompt_cache_misses_total": ((), "Prompts that had to be encoded"),
    "prompt_single_flight_total": ((), "Prompts that joined an equal one in flight"),
    "label_write_failures_total": ((), "Changes of label sets refused because the disk did not take them"),
    "protocol_errors_total": (("from",), "Malformed messages dropped"),
    "undeliverable_total": (("to",), "Messages whose receiver was gone"),
    "illegal_events_total": ((), "Events refused because their state does not allow them"),
}
HISTOGRAMS: dict[str, tuple[tuple[str, ...], tuple[float, ...], str]] = {
    "queue_wait_seconds": ((), LATENCY, "Seconds from acceptance to the dispatch of a request's last item"),
    "inference_seconds": (("encoder", "kind"), LATENCY, "Seconds of device time a batch took"),
    "batch_size": (("kind",), BATCHES, "Items a batch held"),
}
GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "up": ((), "1 while the broker answers"),
    "ready": ((), "1 while a worker whose canary passed can take work"),
    "model_info": (("model", "encoder", "fingerprint"), "1; what is served"),
    "uptime_seconds": ((), "Seconds since the broker started"),
    "queue_depth": ((), "Requests waiting to be dispatched"),
    "queue_places": ((), "Places that they take, one for every `workers.max_batch` items"),
    "queue_limit": ((), "Requests that may wait"),
    "queue_bytes": ((), "Payload bytes of the waiting requests"),
    "queue_limit_bytes": ((), "Payload bytes that may wait"),
    "in_flight": ((), "Accepted requests without an answer"),
    "tenants_waiting": ((), "Tenants with waiting requests"),
    "workers": (("state",), "Registered workers by state"),
    "devices": ((), "Devices with at least one ready worker"),
    "prompt_cache_entries": ((), "Prompts held in the cache"),
    "prompt_cache_bytes": ((), "Memory the prompt cache takes"),
    "label_sets": ((), "Label sets kept"),
    "label_sets_bytes": ((), "Memory the label sets take"),
}

Labels = tuple[str, ...]


@dataclass(slots=True)
class Metrics:
    """Counter values and histogram buckets by (name, label values)."""

    counters: dict[tuple[str, Labels], float] = field(default_factory=dict)
    histograms: dict[tuple[str, Labels], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (labels, _) in COUNTERS.items():
            if not labels:
                self.counters[name, ()] = 0

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter of `COUNTERS`."""
        key = (name, labels)
        self.counters[key] = self.counters.get(key, 0) + by

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add a value to a histogram of `HISTOGRAMS`."""
        bounds = HISTOGRAMS[name][1]
        cells = self.histograms.get((name, labels))
        if cells is None:
            cells = self.histograms[name, labels] = [0.0] * (len(bounds) + 2)
        cells[bisect_left(bounds, value)] += 1
        cells[-1] += value

    def value(self, name: str, *labels: str) -> float:
        """A counter's value, 0 when it never counted."""
        return self.counters.get((name, labels), 0)

    def snapshot(self) -> dict[str, Any]:
        """Plain values for the wire: lists of [name, labels, value] and [name, labels, cells]."""
        return {
            "counters": [[n, list(ls), v] for (n, ls), v in self.counters.items()],
            "histograms": [[n, list(ls), list(cells)] for (n, ls), cells in self.histograms.items()],
        }


def render(snapshot: Mapping[str, Any], gauges: Iterable[tuple[str, Labels, float]]) -> str:
    """Prometheus text exposition format 0.0.4 of a `Metrics.snapshot()` and gauge values."""
    samples: dict[str, list[str]] = {}
    for name, labels, value in snapshot.get("counters", ()):
        if name in COUNTERS:
            samples.setdefault(name, []).append(_sample(name, COUNTERS[name][0], labels, value))
    for name, labels, cells in snapshot.get("histograms", ()):
        if name in HISTOGRAMS:
            samples.setdefault(name, []).extend(_histogram(name, labels, cells))
    for name, labels, value in gauges:
        if name in GAUGES:
            samples.setdefault(name, []).append(_sample(name, GAUGES[name][0], labels, value))
    lines: list[str] = []
    for name, kind, _, text in _contract():
        if name in samples:
            lines += [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}", *samples[name]]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """A Markdown table of all metrics."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, text in _contract():
        rows.append(f"| `{PREFIX}{name}` | {kind} | {', '.join(labels) or '-'} | {text} |")
    return "\n".join(rows) + "\n"


def _contract() -> Iterator[tuple[str, str, Labels, str]]:
    """Name, type, labels and meaning of every metric."""
    for kind, table in (("counter", COUNTERS), ("histogram", HISTOGRAMS), ("gauge", GAUGES)):
        for name, spec in table.items():
            yield name, kind, spec[0], spec[-1]


def _histogram(name: str, labels: Iterable[str], cells: list[float]) -> list[str]:
    names, bounds, _ = HISTOGRAMS[name]
    labels = tuple(labels)
    lines, total = [], 0.0
    for bound, cell in zip((*bounds, float("inf")), cells[:-1], strict=True):
        total += cell
        le = "+Inf" if bound == float("inf") else f"{bound:g}"
        lines.append(_sample(f"{name}_bucket", (*names, "le"), (*labels, le), total))
    lines.append(_sample(f"{name}_sum", names, labels, cells[-1]))
    lines.append(_sample(f"{name}_count", names, labels, total))
    return lines


def _sample(name: str, names: Iterable[str], values: Iterable[str], value: float) -> str:
    pairs = ",".join(f'{n}="{_escape(str(v))}"' for n, v in zip(names, values, strict=True))
    return f"{PREFIX}{name}{{{pairs}}} {value:.10g}" if pairs else f"{PREFIX}{name} {value:.10g}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
