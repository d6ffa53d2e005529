"""Compare hailo-clip with mosec, LitServe and Flask: ``make bench-peers``.

In each round every server is started anew, loaded and stopped, one after another, so that what else the
machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import statistics
import sys
from pathlib import Path

from hailo_clip.ops.bench.limit import device_time
from hailo_clip.ops.bench.load import LoadProcess
from hailo_clip.ops.bench.machine import machine, machine_line
from hailo_clip.ops.bench.peers import compare
from hailo_clip.ops.bench.peers import subjects as s
from hailo_clip.ops.bench.peers.job import MODEL
from hailo_clip.ops.bench.photos import photo_files
from hailo_clip.ops.bench.report import plain
from hailo_clip.ops.bench.run import Bench, Result, Scenario, Target
from hailo_clip.ops.bench.service import Served
from hailo_clip.ops.bench.workload import Mix, requests
from hailo_clip.shared.messages import Kind

TARGETS = (
    compare.Target(s.SMALL.name, "mosec", 1.10),
    compare.Target(s.SMALL.name, "LitServe", 1.5),
    compare.Target(s.SMALL.name, "Flask", 2.6),
    compare.Target(s.MEDIUM.name, "mosec", 1.10),
    compare.Target(s.LARGE.name, "mosec", 2.2),
    compare.Target(s.LARGE.name, "mosec with our decoder", 1.0),
    compare.Target(s.ALONE.name, "mosec", 1.0, lower=True),
    compare.Target(s.ALONE.name, "LitServe", 1.0, lower=True),
    compare.Target(s.ALONE.name, "Flask", 1.0, lower=True),
    compare.Target(s.CLASSIFY.name, "Flask", 15.0),
)
_LOWER = (s.ALONE.name,)
_PACKAGES = ("mosec", "litserve", "flask", "gunicorn", "pillow", "numpy")


def main(argv: list[str] | None = None) -> int:
    """Run all rounds, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, default=6.0, help="measured of each load (default: 6)")
    parser.add_argument("--only", default="", help="servers whose name has this")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args(argv)
    before = machine_line()
    chosen = [x for x in s.SUBJECTS if args.only in x.name or x.name == s.OURS]
    results: dict[str, dict[str, list[Result]]] = {x.name: {} for x in chosen}
    ready: dict[str, list[float]] = {x.name: [] for x in chosen}
    with LoadProcess() as loader:
        for round_ in range(args.rounds):
            for subject in chosen:
                ready[subject.name].append(_measure(loader, subject, args.seconds, results[subject.name]))
                print(f"round {round_ + 1}: {_line(subject.name, results)}", file=sys.stderr, flush=True)
    lines = [before, _versions(), "", *_report(chosen, results)]
    print("\n".join(lines))
    if args.json is not None:
        found = {"machine": machine(), "ready_s": ready, "results": results}
        args.json.write_text(json.dumps(plain(found), indent=1) + "\n")
    return 0


def _measure(
    loader: LoadProcess, subject: s.Subject, seconds: float, results: dict[str, list[Result]]
) -> float:
    """One round of one server: add its results; seconds until it was ready."""
    with subject.served() as served:
        served.wait_answer(requests(Mix(), "localhost", photo_files((320, 320), 1))["image"][0].render(0))
        _prove(served)
        bench = Bench(loader, Target(served.host, served.port, served.pid))
        for load in subject.loads:
            scenario = Scenario(load.name, load.mix, load.clients, seconds=seconds)
            results.setdefault(load.name, []).append(bench.measure(scenario))
        return served.ready_s


def _prove(served: Served) -> None:
    """Ask for one embedding and look at it: what answers fast and wrong is not compared with."""
    request = requests(Mix(), "localhost", photo_files((320, 320), 1))["image"][0].render(0)
    connection = http.client.HTTPConnection(served.host, served.port, timeout=30)
    body = request.partition(b"\r\n\r\n")[2]
    connection.request("POST", "/v1/embed/image", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    length = sum(x * x for x in answer["embedding"])
    if len(answer["embedding"]) != 640 or abs(length - 1) > 1e-3:
        raise SystemExit(f"{served.name} answers no embedding: {str(answer)[:200]}")


def _figures(results: dict[str, dict[str, list[Result]]]) -> compare.Figures:
    return {
        name: {
            load: [r.summary.latency.p50 if load in _LOWER else r.summary.throughput for r in rounds]
            for load, rounds in found.items()
        }
        for name, found in results.items()
    }


def _report(chosen: list[s.Subject], results: dict[str, dict[str, list[Result]]]) -> list[str]:
    figures = _figures(results)
    loads = [load.name for load in s.LOADS]
    lines = [*compare.figure_table(loads, figures, _LOWER), ""]
    lines += compare.verdict_table(
        [
            compare.verdict(target, s.OURS, x.name, figures)
            for target in TARGETS
            for x in chosen
            if x.family == target.family
        ]
    )
    device = device_time(MODEL, Kind.IMAGE, 1)
    assert device is not None
    alone = statistics.median(figures[s.OURS][s.ALONE.name])
    lines += ["", f"One client: {alone - 1000 * device:.1f} ms over the device's {1000 * device:.2f} ms"]
    codes = {
        f"{name}, {load}: {r.summary.codes}"
        for name, found in results.items()
        for load, rounds in found.items()
        for r in rounds
        if r.summary.failed
    }
    return [*lines, "", *(f"answers other than 200: {c}" for c in sorted(codes))]


def _line(name: str, results: dict[str, dict[str, list[Result]]]) -> str:
    latest = {load: rounds[-1].summary for load, rounds in results[name].items()}
    parts = (f"{x.throughput:.0f}/s {x.latency.p50:.1f} ms" for x in latest.values())
    return f"{name}: {', '.join(parts)}"


def _versions() -> str:
    return ", ".join(f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
