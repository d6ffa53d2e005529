"""The broker's small parts: the quarantine, the crash-loop breaker, metrics and their text."""

from __future__ import annotations

import re

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.broker.breaker import CRASH_LIMIT, CRASH_WINDOW_S, NAMES_KEPT, SUSPEND_S, Breaker
from hailo_clip.broker.quarantine import Quarantine
from hailo_clip.broker.snapshot import snapshot
from hailo_clip.shared import messages as m
from hailo_clip.shared.metrics import COUNTERS, GAUGES, HISTOGRAMS, Metrics, render
from tests.doubles.broker_world import World, image, prompt

# Quarantine


def test_quarantine_holds_for_its_time():
    q = Quarantine(60.0)
    q.add(100.0, b"bad")
    q.expire(159.9)
    assert q.holds(b"bad") and not q.holds(b"good") and len(q) == 1
    q.expire(160.0)
    assert not q.holds(b"bad") and len(q) == 0


def test_quarantine_starts_again_when_added_again():
    q = Quarantine(60.0)
    q.add(100.0, b"bad")
    q.add(120.0, b"other")
    q.add(150.0, b"bad")
    q.expire(185.0)
    assert q.holds(b"bad") and not q.holds(b"other")


def test_quarantine_is_bounded_and_lets_the_oldest_go():
    q = Quarantine(60.0, limit=3)
    for i in range(5):
        q.add(100.0 + i, b"%d" % i)
    assert [q.holds(b"%d" % i) for i in range(5)] == [False, False, True, True, True]


# The crash-loop breaker


def test_three_losses_within_a_minute_open_it():
    breaker = Breaker()
    assert [breaker.lost(t) for t in (0.0, 1.0, 2.0)] == [False, False, True]
    assert breaker.suspended_until == 2.0 + SUSPEND_S[0]


def test_rare_losses_do_not():
    breaker = Breaker()
    assert not any(breaker.lost(i * (CRASH_WINDOW_S / 2 + 1)) for i in range(50))


def test_suspensions_double_up_to_a_minute_and_a_success_ends_them():
    breaker, now = Breaker(), 0.0
    for _ in range(CRASH_LIMIT - 1):
        breaker.lost(now)
    spans = []
    for _ in range(8):
        assert breaker.lost(now)
        spans.append(breaker.suspended_until - now)
        now = breaker.suspended_until
    assert spans == [2, 4, 8, 16, 32, 60, 60, 60]
    breaker.proved()
    assert [breaker.lost(now) for _ in range(3)] == [False, False, True]
    assert breaker.suspended_until == now + SUSPEND_S[0]


def test_a_crash_loop_may_go_on_for_days():
    breaker = Breaker()
    for i in range(20_000):
        breaker.lost(10.0 * i)
    assert breaker.suspended_until == 10.0 * 19_999 + SUSPEND_S[1]


def test_breakers_of_names_that_never_come_back_are_forgotten():
    """A worker without --name has its process id in its name, so each restart is another one."""
    world = World()
    staying = world.worker("stays", "d0")
    for i in range(NAMES_KEPT + 50):
        for name in (f"host-{i}", "returns"):
            world.die(world.worker(name, "d1"))
    breakers = world.scheduler.pool.breakers
    assert len(breakers) == NAMES_KEPT
    assert "host-0" not in breakers and f"host-{NAMES_KEPT + 49}" in breakers
    assert "stays" in breakers and world.known(staying).breaker is breakers.of("stays", ())
    assert breakers.of("returns", ()).openings > 10


# Metrics and their text

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9.e+-]+|\+Inf|-Inf|NaN)$")
PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> tuple[dict[str, str], Samples]:
    """Types and samples of a Prometheus text; AssertionError where it is not one (format 0.0.4)."""
    types: dict[str, str] = {}
    samples: Samples = {}
    family = ""
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in types, f"{family} stands in two places"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            types[name] = kind
        else:
            found = SAMPLE.match(line)
            assert found, line
            name, inside, value = found.groups()
            labels = tuple((k, unescape(v)) for k, v in PAIR.findall(inside or ""))
            assert "".join(p.group(0) for p in PAIR.finditer(inside or "")) == (inside or "")
            ends = ("_bucket", "_sum", "_count") if types[family] == "histogram" else ("",)
            assert name in [family + e for e in ends], line
            assert (name, labels) not in samples
            samples[name, labels] = float(value)
    return types, samples


def unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found.group(1), found.group(1)), value)


def test_every_metric_of_the_contract_is_rendered():
    metrics = Metrics()
    for name, (labels, _) in COUNTERS.items():
        metrics.count(name, *["x"] * len(labels), by=3)
    for name, (labels, _, _) in HISTOGRAMS.items():
        metrics.observe(name, 0.3, *["x"] * len(labels))
    gauges = [(name, ("x",) * len(labels), 1.5) for name, (labels, _) in GAUGES.items()]
    types, samples = parse(render(metrics.snapshot(), gauges))
    expected = dict.fromkeys(COUNTERS, "counter") | dict.fromkeys(HISTOGRAMS, "histogram")
    expected |= dict.fromkeys(GAUGES, "gauge")
    assert types == {f"hailo_clip_{name}": kind for name, kind in expected.items()}
    assert samples["hailo_clip_requests_total", (("endpoint", "x"), ("code", "x"))] == 3
    assert samples["hailo_clip_workers", (("state", "x"),)] == 1.5


@given(
    st.dictionaries(st.tuples(st.text(), st.text()), st.integers(0, 10**9), max_size=5),
    st.lists(st.floats(0, 100), max_size=30),
)
def test_what_is_counted_can_be_read_back(counts, waits):
    metrics = Metrics()
    for labels, n in counts.items():
        metrics.count("requests_total", *labels, by=n)
    for seconds in waits:
        metrics.observe("queue_wait_seconds", seconds)
    wire = msgpack.unpackb(msgpack.packb(metrics.snapshot()))
    _, samples = parse(render(wire, []))
    name = "hailo_clip_requests_total"
    assert {tuple(v for _, v in labels): n for (k, labels), n in samples.items() if k == name} == counts
    if not waits:
        return
    name = "hailo_clip_queue_wait_seconds"
    assert samples[f"{name}_count", ()] == len(waits)
    assert samples[f"{name}_sum", ()] == pytest.approx(sum(waits), abs=1e-6)
    buckets = [(float(ls[0][1]), n) for (k, ls), n in samples.items() if k == f"{name}_bucket"]
    assert buckets == [(bound, sum(s <= bound for s in waits)) for bound, _ in buckets]
    assert buckets[-1] == (float("inf"), len(waits))
    assert [b for b, _ in buckets] == sorted({b for b, _ in buckets})


def test_a_value_on_a_bound_belongs_to_that_bucket():
    metrics = Metrics()
    metrics.observe("batch_size", 8, "image")
    _, samples = parse(render(metrics.snapshot(), []))
    assert samples["hailo_clip_batch_size_bucket", (("kind", "image"), ("le", "8"))] == 1
    assert samples["hailo_clip_batch_size_bucket", (("kind", "image"), ("le", "6"))] == 0


def test_counters_without_labels_are_there_from_the_start():
    _, samples = parse(render(Metrics().snapshot(), []))
    assert samples["hailo_clip_accepted_total", ()] == 0


def test_names_that_this_version_does_not_know_are_left_out():
    wire = {"counters": [["from_the_future_total", [], 1]], "histograms": [["also_new", [], [1.0]]]}
    assert "future" not in render(wire, []) and "also_new" not in render(wire, [])


def test_the_snapshot_of_a_busy_broker_is_plain_and_its_metrics_render():
    world = World(max_depth=3)
    worker = world.worker()
    world.hello("w1", "d1")
    world.submit(prompt(1, 2))
    world.answer(worker)
    for i in range(6):
        world.submit(image(i))
    world.scheduler.from_frontend(world.now, b"f", m.Ping(1, (("/v1/classify", 200, 7),)))
    status = snapshot(world.scheduler, world.now)
    wire = msgpack.unpackb(msgpack.packb(status))
    assert wire == msgpack.unpackb(msgpack.packb(wire))
    assert (wire["state"], wire["waiting"], wire["in_flight"]) == ("ready", 3, 4)
    assert {w["name"]: w["state"] for w in wire["workers"]} == {"w0": "ready", "w1": "loading"}
    assert wire["cache"]["entries"] == 1 and wire["tenants"] == {"anna": 3}
    types, samples = parse(render(wire["metrics"], [(n, tuple(ls), v) for n, ls, v in wire["gauges"]]))
    assert samples["hailo_clip_queue_depth", ()] == samples["hailo_clip_queue_places", ()] == 3
    assert samples["hailo_clip_requests_total", (("endpoint", "/v1/classify"), ("code", "200"))] == 7
    assert samples["hailo_clip_rejected_total", (("reason", "queue_full"),)] == 2
    assert {f"hailo_clip_{name}" for name in GAUGES} <= set(types)
