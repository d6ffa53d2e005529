"""Where the time of a request goes: the service's own Server-Timing header, and what that leaves."""

from __future__ import annotations

import http.client
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from hailo_clip.ops.bench.tables import table
from hailo_clip.ops.bench.workload import PATHS, Request

_STAGE = re.compile(r"([a-z]+);dur=([0-9.]+)")
_WARM_UP = 10
TOTAL, REST = "total", "rest"


@dataclass(frozen=True, slots=True)
class Stages:
    """Medians in milliseconds of one kind of request: by stage, `REST` and `TOTAL` as the client saw it."""

    name: str
    ms: Mapping[str, float]


def timings(header: str) -> dict[str, float]:
    """Milliseconds by stage from a Server-Timing header."""
    return {name: float(ms) for name, ms in _STAGE.findall(header)}


def medians(name: str, seen: Sequence[Mapping[str, float]]) -> Stages:
    """The medians of what each request told; `REST` is what no stage accounts for."""
    told = [{**one, REST: one[TOTAL] - sum(ms for s, ms in one.items() if s != TOTAL)} for one in seen]
    names = dict.fromkeys(stage for one in told for stage in one)
    return Stages(name, {stage: statistics.median(one.get(stage, 0.0) for one in told) for stage in names})


def ask(host: str, port: int, name: str, kind: str, requests: Sequence[Request], count: int = 100) -> Stages:
    """Send `count` requests of one `kind`, one after another."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    seen: list[dict[str, float]] = []
    for number in range(_WARM_UP + count):
        head, _, body = requests[number % len(requests)].render(number).partition(b"\r\n\r\n")
        media_type = head.partition(b"Content-Type: ")[2].partition(b"\r\n")[0].decode()
        begun = perf_counter()
        connection.request("POST", PATHS[kind], body, {"Content-Type": media_type})
        answer = connection.getresponse()
        answer.read()
        total = 1000 * (perf_counter() - begun)
        seen.append({**timings(answer.getheader("Server-Timing", "")), TOTAL: total})
    connection.close()
    return medians(name, seen[_WARM_UP:])


def stage_table(found: Sequence[Stages]) -> list[str]:
    """One row a kind of request, one column a stage, the total last."""
    names = list(dict.fromkeys(stage for one in found for stage in one.ms if stage not in (REST, TOTAL)))
    columns = [*names, REST, TOTAL]
    rows = [[one.name, *(f"{one.ms.get(c, 0.0):.2f}" for c in columns)] for one in found]
    return table(["one request at a time, ms", *columns], rows)
