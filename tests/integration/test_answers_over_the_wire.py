"""What clients of every kind see of the whole service: timings that add up, every way in, real options."""

from __future__ import annotations

import base64
import http.client
import json
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.running_service import RunningService

pytestmark = pytest.mark.xdist_group("serve")

PHOTO = (Path(__file__).parents[2] / "examples/photos/cat.jpg").read_bytes()
EMULATED_DIMENSION = 640


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    running = RunningService(tmp_path_factory.mktemp("wire"))
    running.wait_ready()
    yield running
    running.end()


@pytest.fixture
def connection(service: RunningService) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    yield made
    made.close()


def post(connection: http.client.HTTPConnection, path: str, body: bytes, kind: str) -> Any:
    connection.request("POST", path, body, {"Content-Type": kind})
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200, answer
    return answer, response.headers


@pytest.mark.parametrize("kind", ["image/jpeg", "application/json"])
def test_server_timing_adds_up_to_the_time_that_a_client_sees(
    connection: http.client.HTTPConnection, kind: str
) -> None:
    body = PHOTO
    if kind == "application/json":
        body = json.dumps({"image": base64.b64encode(PHOTO).decode()}).encode()
    shares = []
    for _ in range(15):
        begun = time.perf_counter()
        _, headers = post(connection, "/v1/embed/image", body, kind)
        seen_ms = (time.perf_counter() - begun) * 1e3
        shares.append(sum(map(float, re.findall(r"dur=([\d.]+)", headers["Server-Timing"]))) / seen_ms)
    assert all(share <= 1 for share in shares)
    assert statistics.median(shares) >= 0.9


def test_an_image_of_the_default_models_size_of_answer(connection: http.client.HTTPConnection) -> None:
    answer, headers = post(connection, "/v1/embed/image", PHOTO, "image/jpeg")
    assert len(answer["embedding"]) == answer["dimension"] == EMULATED_DIMENSION
    assert sum(x * x for x in answer["embedding"]) == pytest.approx(1, abs=1e-5)
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Model-Fingerprint"])


def test_a_long_list_of_images_and_the_most_texts(connection: http.client.HTTPConnection) -> None:
    small = base64.b64encode(PHOTO).decode()
    body = json.dumps({"images": [small] * 64}).encode()
    answer, _ = post(connection, "/v1/embed/image", body, "application/json")
    assert len({str(result["embedding"]) for result in answer["results"]}) == 1
    assert len(answer["results"]) == 64
    body = json.dumps({"texts": [f"number {i}" for i in range(256)]}).encode()
    answer, _ = post(connection, "/v1/embed/text", body, "application/json")
    assert len({str(result["embedding"]) for result in answer["results"]}) == 256
