"""What monitoring and OpenAI's client see of a whole service: true numbers, and a broker that hangs."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.doubles.running_service import EMULATED, RunningService, eventually, jpeg

pytestmark = pytest.mark.xdist_group("serve")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    directory: Path = tmp_path_factory.mktemp("metrics")
    running = RunningService(directory, HAILO_CLIP__WORKERS__COUNT="2", HAILO_CLIP__SERVER__PROCESSES="2")
    running.wait_ready()
    yield running
    running.end()


def scrape(service: RunningService) -> Samples:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=10) as response:
        assert response.status == 200
        text = response.read().decode()
    return {
        (sample.name.removeprefix("hailo_clip_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_the_numbers_are_those_of_what_happened(service: RunningService) -> None:
    before = scrape(service)
    for i in range(3):
        body = {"image": jpeg((i, 2, 3)), "prompts": ["a cat", f"cup {i}"]}
        assert service.request("POST", "/v1/classify", body)[0] == 200
    assert service.request("POST", "/v1/classify", {"image": "no"})[0] == 400

    def grown(name: str, **labels: str) -> float:
        return value(now, name, **labels) - value(before, name, **labels)

    now = scrape(service)
    assert grown("accepted_total") == grown("finished_total", outcome="answered") == 3
    assert grown("items_total", kind="image", outcome="done") == 3
    assert grown("items_total", kind="text", outcome="done") == 4  # "a cat" once
    assert grown("prompt_cache_hits_total") == 2
    assert grown("inference_seconds_count", kind="image", encoder="emulated") == 3
    assert value(now, "up") == value(now, "ready") == 1
    assert value(now, "queue_limit") == 10
    fingerprint = service.request("GET", f"/v1/models/{EMULATED}")[1]["fingerprint"]
    assert value(now, "model_info", model=EMULATED, encoder="emulated", fingerprint=fingerprint) == 1

    def counted() -> bool:  # frontends report their HTTP answers once a second
        nonlocal now
        now = scrape(service)
        ok = grown("requests_total", endpoint="/v1/classify", code="200")
        return (ok, grown("requests_total", endpoint="/v1/classify", code="400")) == (3, 1)

    eventually(counted)


def test_a_broker_that_hangs_is_seen_as_down(service: RunningService) -> None:
    broker = service.children()["broker"]
    os.kill(broker, signal.SIGSTOP)
    try:
        hung = scrape(service)
    finally:
        os.kill(broker, signal.SIGCONT)
    assert hung == {("up", frozenset()): 0.0, ("ready", frozenset()): 0.0}
    eventually(lambda: value(scrape(service), "up") == 1)
    code, shown = service.request("GET", "/readyz?verbose")
    assert (code, [check["ok"] for check in shown["checks"]]) == (200, [True] * 4)


def test_openais_client_reads_the_whole_service(service: RunningService) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        (model,) = client.models.list().data
        answer = client.embeddings.create(model=model.id, input=["person wearing red shirt"])
    code, ours = service.embed("person wearing red shirt")
    assert code == 200
    assert answer.data[0].embedding == pytest.approx(ours["embedding"], rel=1e-6)
