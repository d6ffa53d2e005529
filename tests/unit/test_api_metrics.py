"""/metrics as a scraper sees it, and that docs/metrics.md tells the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hailo_clip.broker.snapshot import snapshot
from hailo_clip.broker.states import REQUEST, RequestState, WorkerEvent, WorkerState
from hailo_clip.shared import messages as m
from hailo_clip.shared.metrics import COUNTERS, GAUGES, HISTOGRAMS, Metrics, reference, render
from tests.doubles.broker_world import World, image, prompt
from tests.doubles.frontend import Frontend, configured, until

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

Families = dict[str, tuple[str, str, list[tuple[str, dict[str, str], float]]]]


@pytest.fixture(scope="module")
def shared() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as frontend:
        yield frontend


@pytest.fixture
def frontend(shared: Frontend) -> Iterator[Frontend]:
    yield shared
    shared.broker.snapshot, shared.broker.answers_pings = None, True
    shared.mend()


def families(text: str) -> Families:
    """Type, help and samples by family, as Prometheus' own library reads them."""
    return {
        family.name: (
            family.type,
            family.documentation,
            [(sample.name, sample.labels, sample.value) for sample in family.samples],
        )
        for family in text_string_to_metric_families(text)
    }


def busy() -> dict[str, Any]:
    """The snapshot of a broker that works and refuses."""
    world = World(max_depth=3)
    worker = world.worker()
    world.submit(prompt(1, 2))
    world.answer(worker)
    for i in range(6):
        world.submit(image(i))
    world.scheduler.from_frontend(world.now, b"f", m.Ping(1, (("/v1/classify", 200, 7),)))
    return snapshot(world.scheduler, world.now)


def test_a_scrape_is_the_brokers_view(frontend: Frontend) -> None:
    frontend.broker.snapshot = busy()
    result = frontend.request("GET", "/metrics")
    assert result.status_code == 200
    assert result.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert result.headers["cache-control"] == "no-store"
    found = families(result.text)
    assert found["hailo_clip_up"] == (
        "gauge",
        "1 while the broker answers",
        [("hailo_clip_up", {}, 1.0)],
    )
    labels = {"endpoint": "/v1/classify", "code": "200"}
    kind, _, samples = found["hailo_clip_requests"]  # the parser drops a counter's _total
    assert (kind, samples) == ("counter", [("hailo_clip_requests_total", labels, 7.0)])
    assert found["hailo_clip_queue_depth"][2] == [("hailo_clip_queue_depth", {}, 3.0)]
    assert found["hailo_clip_queue_limit"][2] == [("hailo_clip_queue_limit", {}, 3.0)]
    assert found["hailo_clip_rejected"][2] == [("hailo_clip_rejected_total", {"reason": "queue_full"}, 2.0)]
    assert found["hailo_clip_queue_wait_seconds"][0] == "histogram"
    assert {f"hailo_clip_{name}" for name in GAUGES} <= set(found)


def test_every_metric_is_read_as_what_it_is() -> None:
    metrics = Metrics()
    for name, (labels, _) in COUNTERS.items():
        metrics.count(name, *['"\\\n'] * len(labels), by=12345678)
    for name, (labels, _, _) in HISTOGRAMS.items():
        metrics.observe(name, 0.3, *["x"] * len(labels))
    gauges = [(name, ("x",) * len(labels), 1.5) for name, (labels, _) in GAUGES.items()]
    found = families(render(metrics.snapshot(), gauges))
    for kind, table in (("counter", COUNTERS), ("histogram", HISTOGRAMS), ("gauge", GAUGES)):
        for name, spec in table.items():
            family = found[f"hailo_clip_{name.removesuffix('_total')}"]
            assert (family[0], family[1]) == (kind, spec[-1])
            if kind == "counter":
                assert set(family[2][0][1].values()) <= {'"\\\n'}
                assert family[2][0][2] == 12345678
    assert len(found) == len(COUNTERS) + len(HISTOGRAMS) + len(GAUGES)
    assert all(name.endswith("_total") for name in COUNTERS)  # Prometheus' rule for counters


DOWN: Families = {
    "hailo_clip_up": ("gauge", "1 while the broker answers", [("hailo_clip_up", {}, 0.0)]),
    "hailo_clip_ready": (
        "gauge",
        "1 while a worker whose canary passed can take work",
        [("hailo_clip_ready", {}, 0.0)],
    ),
}


def test_a_broker_that_does_not_answer_is_a_fact_not_a_failed_scrape(
    frontend: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hailo_clip.api.enquiry.STATUS_S", 0.05)
    frontend.broker.snapshot = None
    result = frontend.request("GET", "/metrics")
    assert (result.status_code, families(result.text)) == (200, DOWN)


def test_a_broker_that_is_known_to_be_gone_is_not_asked(frontend: Frontend) -> None:
    frontend.broker.snapshot = busy()
    frontend.broker.answers_pings = False
    until(lambda: not frontend.app.service.gateway.health.ready)
    before = len(frontend.broker.controls)
    result = frontend.request("GET", "/metrics")
    assert (result.status_code, families(result.text)) == (200, DOWN)
    assert len(frontend.broker.controls) == before


def test_names_of_a_newer_broker_are_left_out() -> None:
    text = render({}, [("from_the_future", ("x",), 1.0), ("up", (), 1.0)])
    assert list(families(text)) == ["hailo_clip_up"]


def test_head_has_no_body(frontend: Frontend) -> None:
    frontend.broker.snapshot = busy()
    result = frontend.request("HEAD", "/metrics")
    assert (result.status_code, result.content) == (200, b"")


# The page


def test_the_page_lists_what_the_code_has() -> None:
    shown = PAGE.read_text().partition("<!-- metrics -->")[2]
    command = 'python -c "from hailo_clip.shared.metrics import reference; print(reference())"'
    assert shown.strip() == reference().strip(), f"replace the table by the output of {command}"


def test_the_page_names_every_value_of_the_labels_that_are_states() -> None:
    text = PAGE.read_text()
    finals = {state.value for state in RequestState if not REQUEST[state]}
    lost = {event.value for event in WorkerEvent} - {"canary passed", "told to stop", "left"}
    states = {s.value for s in (WorkerState.LOADING, WorkerState.READY, WorkerState.STOPPING)}
    rows = {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in re.findall(r"\| (`.*) \| (.*) \|", text)}
    assert rows["`outcome` of `finished_total`"] == finals
    assert rows["`reason` of `worker_restarts_total`"] == lost
    assert rows["`state`"] == states
    assert rows["`kind`"] == {kind.name.lower() for kind in m.Kind}
