"""`hailo-clip bench`: how fast the service is, and what that costs."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from hailo_clip.ops.cli_options import Commands, add_command
from hailo_clip.shared.errors import ConfigError

if TYPE_CHECKING:
    from hailo_clip.ops.bench.run import Bench, Result, Scenario

T = TypeVar("T")

MODEL = "emulated-clip-resnet-50x4"
CLIENTS = 32

_ABOUT = """
Starts a service of its own (the emulated Hailo-10H unless told otherwise) on a free port, or takes the one
at --url, and loads it from a process of its own. Latency counts from the moment a request was due; a request
that was refused counts as never answered.
"""
_EXAMPLES = """
  hailo-clip bench                                  32 clients that wait for their answers
  hailo-clip bench --rate 120 --size 640x480        Poisson arrivals, 120 a second
  hailo-clip bench --mix image=8,classify=1 --tenants 8
  hailo-clip bench --highest-under 150              highest rate with 99 % under 150 ms
  hailo-clip bench --highest-under 150 --deadline 150   the same, and clients say so
  hailo-clip bench --overload 5                     five times of what it can do
  hailo-clip bench --suite --json bench.json --plots .   all of it, about 15 minutes
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "bench",
        "measure throughput, latency, CPU and memory under load",
        run,
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    _add_target(parser)
    _add_load(parser)
    _add_requests(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("service")
    group.add_argument("--url", help="a running service to measure, http only (default: start one)")
    group.add_argument("--model", default=MODEL, help=f"the model of the service (default: {MODEL})")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=_setting,
        help="a setting of the service that it starts, e.g. workers.count=1",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    shape = group.add_mutually_exclusive_group()
    group.add_argument(
        "--clients",
        type=_count,
        metavar="N",
        help="of a closed loop, also of the one that finds the peak (default: 32)",
    )
    shape.add_argument("--rate", type=_positive, metavar="R", help="open loop: Poisson arrivals a second")
    shape.add_argument("--highest-under", type=_positive, metavar="MS", help="search the highest rate")
    shape.add_argument("--overload", type=_positive, metavar="TIMES", help="offer this many times the peak")
    shape.add_argument("--suite", action="store_true", help="all loads of docs/performance.md")
    group.add_argument("--seconds", type=_positive, default=10.0, help="measured, after 2 s (default: 10)")
    group.add_argument("--plots", type=Path, metavar="DIR", help="with --suite: draw SVG files there")


def _add_requests(parser: argparse.ArgumentParser) -> None:
    from hailo_clip.ops.bench.workload import parse_mix, parse_size

    group = parser.add_argument_group("requests")
    group.add_argument(
        "--mix", type=_checked(parse_mix), default={"image": 1.0}, help="e.g. image=8,text=1,classify=1"
    )
    group.add_argument(
        "--size", type=_checked(parse_size), default=(320, 320), help="of the images (default: 320x320)"
    )
    group.add_argument("--raw", action="store_true", help="images as files in the body, not base64 in JSON")
    group.add_argument("--prompts", type=_count, default=4, help="of a classify request (default: 4)")
    group.add_argument("--uncached", action="store_true", help="every prompt is new")
    group.add_argument(
        "--deadline",
        type=_count,
        default=0,
        metavar="MS",
        help="tell the service for how long answers are of use",
    )
    group.add_argument("--tenants", type=_count, default=0, help="client addresses (default: one)")


def run(args: argparse.Namespace) -> int:
    """Measure and report; 1 when a load got no good answer at all."""
    from hailo_clip.ops.bench.machine import machine, machine_line
    from hailo_clip.ops.bench.report import plain

    print(machine_line())
    before = machine()
    lines, found, good = _suite(args) if args.suite else _single(args)
    print("\n".join(["", *lines]))
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": before, **plain(found)}, indent=1) + "\n")
    return 0 if good else 1


def _suite(args: argparse.Namespace) -> tuple[list[str], dict[str, object], bool]:
    import dataclasses

    from hailo_clip.ops.bench.suite import run_suite, suite_report, write_plots

    if args.url is not None:
        raise ConfigError("--suite measures services that it starts itself; leave --url out")
    found = run_suite(args.model, dict(args.set), args.seconds, _progress)
    lines = suite_report(found)
    if args.plots is not None:
        lines += ["", *(f"drawn: {file}" for file in write_plots(found, args.plots))]
    figures: dict[str, object] = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    return lines, figures, all(r.summary.throughput for r in found.closed)


def _single(args: argparse.Namespace) -> tuple[list[str], dict[str, object], bool]:
    from hailo_clip.ops.bench.limit import device_limit
    from hailo_clip.ops.bench.report import part_table, result_table
    from hailo_clip.ops.bench.run import Scenario
    from hailo_clip.ops.bench.workload import Mix

    mix = Mix(args.mix, args.size, args.raw, args.prompts, not args.uncached, args.tenants, args.deadline)
    settings = dict(args.set)
    limit = None if args.url else device_limit(args.model, mix, int(settings.get("workers.max_batch", 8)), 1)
    if args.rate is not None and args.clients is not None:
        raise ConfigError("--rate is an open loop, --clients a closed one; leave one out")
    clients = 0 if args.rate else args.clients or CLIENTS
    scenario = Scenario("load", mix, clients, args.rate or 0.0, args.seconds)
    with _bench(args, settings) as (bench, ready_s):
        found, extra = _measured(args, bench, scenario, limit)
    lines = result_table(found)
    if found[-1].parts:
        lines += ["", *part_table(found[-1].parts), "", f"start to ready: {ready_s:.2f} s"]
    lines += [f"load generator: {100 * found[-1].generator_cores:.1f} % of a core", *extra[0]]
    return lines, {"results": found, "ready_s": ready_s, **extra[1]}, bool(found[-1].summary.throughput)


def _measured(
    args: argparse.Namespace, bench: Bench, scenario: Scenario, limit: float | None
) -> tuple[list[Result], tuple[list[str], dict[str, object]]]:
    """All results, and what more there is to say and to write."""
    from dataclasses import replace

    from hailo_clip.ops.bench import probe
    from hailo_clip.ops.bench.report import result_table
    from hailo_clip.ops.bench.tables import number

    def say(result: Result) -> None:
        _progress(result_table([result])[2])

    if args.highest_under is None and args.overload is None:
        return [bench.measure(scenario, limit)], ([], {})
    peak = bench.measure(replace(scenario, name="peak"), limit)
    say(peak)
    top = peak.summary.throughput
    if args.overload is not None:
        over = probe.overload(bench, scenario, top, args.overload, limit, say)
        told = f"goodput {over.kept:.3f} of the peak, refusals in {number(over.refused_ms)} ms (median)"
        return [peak, over.result], ([told], {"overload": over})
    wanted = replace(scenario, clients=0, rate=0.9 * top)
    best = probe.highest_rate(bench, wanted, args.highest_under, limit, say)
    share = f", {best.rate / limit:.3f} of the limit" if limit else ""
    told = f"highest rate with p99 under {best.bound_ms:g} ms: {best.rate:.1f}/s{share}"
    return [peak, *best.tries], ([told], {"highest": best})


@contextlib.contextmanager
def _bench(args: argparse.Namespace, settings: Mapping[str, str]) -> Iterator[tuple[Bench, float]]:
    """A load generator and its target, which is started unless it has a URL; seconds until that was ready."""
    from hailo_clip.ops.bench.load import LoadProcess
    from hailo_clip.ops.bench.run import Bench, Target
    from hailo_clip.ops.bench.service import our_service

    with LoadProcess() as loader:
        if args.url is not None:
            parts = urlsplit(args.url)
            if parts.scheme != "http" or not parts.hostname:
                raise ConfigError(f"--url: {args.url!r} is not a URL such as http://127.0.0.1:5000")
            yield Bench(loader, Target(parts.hostname, parts.port or 80)), 0.0
            return
        depth = {"queue.max_depth": str(max(10, 2 * (args.clients or CLIENTS)))}
        proxies = {"server.trusted_proxies": '["127.0.0.1"]'} if args.tenants else {}
        with our_service(args.model, depth | proxies | dict(settings)) as served:
            served.wait(b"ready: ")
            yield Bench(loader, Target(served.host, served.port, served.pid)), served.ready_s


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or "." not in key:
        raise argparse.ArgumentTypeError(f"{text!r} is not a setting such as workers.count=1")
    return key, value


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return read


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 2000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 2000")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0, at most 100000")
    return value
