"""The benchmark's decisions: schedules, statistics, search, requests, limits, on known inputs."""

from __future__ import annotations

import base64
import itertools
import json
import math
import statistics
from collections.abc import Collection

import pytest

from hailo_clip.ops.bench.ideal import ideal_p99_ms, ideal_rate
from hailo_clip.ops.bench.limit import device_limit
from hailo_clip.ops.bench.photos import photo_files
from hailo_clip.ops.bench.procs import Usage, cpu_shares, part, usages
from hailo_clip.ops.bench.schedule import picks, poisson
from hailo_clip.ops.bench.search import RateSearch
from hailo_clip.ops.bench.stats import Record, latency_of, percentile, summary
from hailo_clip.ops.bench.workload import Mix, parse_mix, parse_size, requests
from hailo_clip.shared.messages import Kind
from hailo_clip.workers.timing import service_time
from tests.test_architecture import IMPURE, ROOT, imported

MODEL = "emulated-clip-resnet-50x4"


# Schedules


def test_poisson_arrivals_have_exponential_gaps():
    arrivals = poisson(200.0, 500.0, seed=7)
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] > 0
    assert arrivals[-1] < 500.0
    assert len(arrivals) == pytest.approx(100_000, rel=0.01)
    # Of an exponential distribution mean and standard deviation are equal, and e**-1 exceed the mean.
    assert statistics.stdev(gaps) == pytest.approx(1 / 200, rel=0.02)
    assert sum(gap > 1 / 200 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), rel=0.02)


def test_a_seed_is_a_load():
    assert poisson(50.0, 10.0, 3) == poisson(50.0, 10.0, 3) != poisson(50.0, 10.0, 4)


def test_a_rate_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        poisson(0.0, 1.0, 1)


def test_picks_keep_the_weights():
    found = picks([8.0, 1.0, 1.0], 20_000, seed=1)
    assert found.count(0) / len(found) == pytest.approx(0.8, rel=0.03)
    assert found.count(1) / len(found) == pytest.approx(0.1, rel=0.1)


# Statistics


@pytest.mark.parametrize(
    ("q", "expected"), [(50, 50), (90, 90), (99, 99), (99.1, 100), (100, 100), (0, 1), (1, 1)]
)
def test_percentiles_are_values_that_occurred(q: float, expected: int):
    assert percentile([float(v) for v in range(1, 101)], q) == expected


def test_no_values_no_percentile():
    assert math.isnan(percentile([], 50))
    assert math.isnan(latency_of([]).mean)


def test_latency_counts_from_the_intended_start():
    """A generator that stalls for a second sends late: what was due meanwhile waited."""
    stalled = [Record(due, max(due, 1.0), max(due, 1.0) + 0.01, 200) for due in (0.1 * i for i in range(10))]
    found = summary(stalled, 0.0, 1.0)
    assert found.latency.most == pytest.approx(1010)
    assert found.latency.p50 == pytest.approx(510)
    assert found.lag_ms == pytest.approx(1000)


def test_refusals_count_as_never_answered():
    good = [Record(0.01 * i, 0.01 * i, 0.01 * i + 0.02, 200) for i in range(98)]
    refused = [Record(0.98, 0.98, 0.983, 429), Record(0.99, 0.99, 0.995, 429)]
    found = summary(good + refused, 0.0, 1.0)
    assert found.codes == {200: 98, 429: 2}
    assert found.failed == 2
    assert found.latency.p95 == pytest.approx(20)
    assert found.latency.p99 == math.inf
    assert found.refused is not None
    assert found.refused.p50 == pytest.approx(3)


def test_no_answer_is_no_quick_refusal():
    found = summary([Record(0.5, 0.5, 0.501, 0)], 0.0, 1.0)
    assert found.refused is None
    assert found.codes == {0: 1}


def test_throughput_counts_answers_in_the_window():
    """Ten clients, each answer takes 0.5 s: 20 a second, also when the load began before the window."""
    records = [Record(0.5 * i, 0.5 * i, 0.5 * i + 0.5, 200) for i in range(20) for _ in range(10)]
    found = summary(records, 2.25, 7.25)
    assert found.throughput == pytest.approx(20)
    assert found.offered == pytest.approx(20)


# The search


def searched(capacity: float, start: float, noise: Collection[int] = ()) -> tuple[RateSearch, int]:
    """A search where rates up to `capacity` are held, but for the tries in `noise`, which fail."""
    search, tries = RateSearch(start), 0
    while (rate := search.rate) is not None:
        search.tried(rate <= capacity and tries not in noise)
        tries += 1
        assert tries < 100
    return search, tries


@pytest.mark.parametrize("start", [5.0, 60.0, 133.0, 140.0, 900.0])
def test_the_search_ends_just_below_the_capacity(start: float):
    search, tries = searched(137.0, start)
    assert 137.0 / 1.02 <= search.held <= 137.0
    assert tries <= 70


def test_one_hiccup_is_no_verdict():
    assert searched(137.0, 130.0, {0})[0].held == pytest.approx(searched(137.0, 130.0)[0].held)


def test_a_service_that_holds_nothing():
    search, _ = searched(0.0, 50.0)
    assert search.held == 0.0


# Requests


def body(data: bytes) -> bytes:
    head, _, rest = data.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(rest)}".encode() in head
    return rest


def test_a_deadline_is_told_only_where_there_is_one() -> None:
    told = requests(Mix(deadline_ms=150), "h", [b"x"])["image"][0].render(1)
    assert b"\r\nX-Deadline-Ms: 150\r\n" in told
    assert b"X-Deadline-Ms" not in requests(Mix(), "h", [b"x"])["image"][0].render(1)


def test_an_image_request():
    made = requests(Mix(), "host:1", [b"one", b"two"])
    assert list(made) == ["image"]
    first = made["image"][0].render(5)
    assert first.startswith(b"POST /v1/embed/image HTTP/1.1\r\nHost: host:1\r\n")
    assert base64.b64decode(json.loads(body(first))["image"]) == b"one"
    assert made["image"][0].render(6) == first


def test_a_file_as_the_body():
    made = requests(Mix(raw=True), "h", [b"JPEG"])["image"][0].render(1)
    assert b"Content-Type: image/jpeg\r\n" in made
    assert body(made) == b"JPEG"


def test_cached_prompts_repeat_and_new_ones_never():
    cached = requests(Mix({"classify": 1.0}, prompts=3), "h", [b"x"])["classify"][0]
    fresh = requests(Mix({"classify": 1.0}, prompts=3, cached=False), "h", [b"x"])["classify"][0]
    assert json.loads(body(cached.render(1))) == json.loads(body(cached.render(2)))
    prompts = [p for n in range(50) for p in json.loads(body(fresh.render(n)))["prompts"]]
    assert len(set(prompts)) == 150


def test_every_tenant_sends_every_image():
    made = requests(Mix(tenants=4), "h", [b"a", b"b"])["image"]
    pairs = set()
    for request in made:
        data = request.render(0)
        address = data.partition(b"X-Forwarded-For: ")[2].partition(b"\r\n")[0]
        pairs.add((address, body(data)))
    assert len(pairs) == len(made) == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image", {"image": 1}),
        ("image=8,text=1", {"image": 8, "text": 1}),
        ("classify=0.5", {"classify": 0.5}),
    ],
)
def test_mixes(text: str, expected: dict[str, float]):
    assert parse_mix(text) == expected


@pytest.mark.parametrize("text", ["", "video=1", "image=x", "image=0", "image=-1", "image=inf", "image=nan"])
def test_bad_mixes(text: str):
    with pytest.raises(ValueError, match=r"one of|number"):
        parse_mix(text)


@pytest.mark.parametrize("text", ["640", "x", "0x5", "5x0", "-1x5", "20000x10", "ax5", "640x480x3"])
def test_bad_sizes(text: str):
    with pytest.raises(ValueError, match="size such as"):
        parse_size(text)


def test_photos_have_the_size_and_differ():
    from io import BytesIO

    from PIL import Image

    files = photo_files((800, 600), 3)
    assert [Image.open(BytesIO(f)).size for f in files] == [(800, 600)] * 3
    assert len(set(files)) == 3
    # With the detail of a photo: a plain surface would take a tenth.
    assert min(map(len, files)) > 40_000


# The limit


def test_the_limit_of_the_published_rates():
    assert device_limit(MODEL, Mix(), 8, 1) == pytest.approx(157.0)
    assert device_limit(MODEL, Mix(), 8, 2) == pytest.approx(314.0)
    assert device_limit(MODEL, Mix({"text": 1.0}, cached=False), 8, 1) == pytest.approx(73.6)
    assert device_limit(MODEL, Mix({"text": 1.0}), 8, 1) is None
    both = device_limit(MODEL, Mix({"image": 1.0, "classify": 1.0}, prompts=2, cached=False), 8, 1)
    assert both == pytest.approx(1 / (1 / 157 + 1 / 73.6))
    assert device_limit("demo", Mix(), 8, 1) is None


def test_an_ideal_device_alone():
    """So rare that none meets another, each takes its own time; the rates bound what can be held."""
    time = service_time("clip-resnet-50x4", Kind.IMAGE)
    assert ideal_p99_ms(0.05, time, 8) == pytest.approx(1000 * time.of(1))
    assert 0.84 < ideal_rate(150.0, time, 8) / 157.0 < 0.87
    assert ideal_rate(10.0, time, 8) == pytest.approx(0.0, abs=0.1)


# Processes


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["python", "-m", "hailo_clip.ops.cli", "serve", "--model", "demo"], "serve"),
        (["python", "-m", "hailo_clip.ops.cli", "worker", "--name", "worker-1", "--config", "x"], "worker-1"),
        (["python", "/venv/bin/hailo-clip", "serve"], "serve"),
        (["python", "/somewhere/flask_app.py", "--port", "1"], "flask_app.py"),
        (["python", "-c", "from multiprocessing.spawn import spawn_main"], "spawned"),
        (["mosec"], "mosec"),
    ],
)
def test_parts_have_names(argv: list[str], name: str):
    assert part(argv) == name


def test_this_process_is_seen_to_work():
    import os

    before = usages(os.getpid())
    sum(i * i for i in range(3_000_000))
    after = usages(os.getpid())
    mine = after[os.getpid()]
    assert mine.rss_mib >= mine.pss_mib > 5
    assert cpu_shares(before, after, 1.0)[mine.name] > 0


def test_a_new_process_counts_from_its_start():
    assert cpu_shares({}, {7: Usage("new", 3.0, 1, 1)}, 2.0) == {"new": 1.5}


@pytest.mark.parametrize(
    "name",
    [
        "schedule",
        "stats",
        "search",
        "workload",
        "limit",
        "ideal",
        "report",
        "tables",
        "plot",
        "peers/compare",
    ],
)
def test_decisions_do_no_io(name: str):
    assert not imported(ROOT / "ops" / "bench" / f"{name}.py") & IMPURE
