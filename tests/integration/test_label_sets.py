"""Label sets with real processes: two frontends, a broker that is killed, another model, a full store."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.running_service import RunningService, eventually, jpeg

pytestmark = pytest.mark.xdist_group("serve")

PPE = "/v1/label-sets/ppe"
DEFINITION = {
    "prompts": ["a helmet", "a vest"],
    "templates": ["a photo of {}"],
    "negative_prompts": ["nothing"],
}
CLASSIFY = {"image": jpeg(), "label_set": "ppe", "score_mode": "softmax", "top_k": 9}


class Second:
    """Another frontend, at another port, of the same broker."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        environ = {k: v for k, v in os.environ.items() if not k.startswith("HAILO_CLIP")} | {
            "HAILO_CLIP_CONFIG": str(directory / "empty.yaml"),
            "HAILO_CLIP__BROKER__RUN_DIR": str(directory / "run"),
            "HAILO_CLIP__SERVER__HOST": "127.0.0.1",
            "HAILO_CLIP__SERVER__PORT": str(self.port),
            "HAILO_CLIP__SERVER__PROCESSES": "1",
            "HAILO_CLIP__MODEL__NAME": "emulated-clip-resnet-50x4",
        }
        command = [sys.executable, "-m", "hailo_clip.ops.cli", "api"]
        with (directory / "second.log").open("w") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        return ask(self.port, method, path, body)

    def healthy(self) -> bool:
        try:
            return self.request("GET", "/health")[0] == 200
        except OSError:
            return False

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON (None where there is no body) of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if answer else None
    finally:
        connection.close()


def classifies(port: int) -> bool:
    return ask(port, "POST", "/v1/classify", CLASSIFY)[0] == 200


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[RunningService]]:
    running: list[RunningService] = []
    yield running
    for service in running:
        service.end()


def test_two_frontends_see_the_same_sets_and_a_killed_broker_forgets_none(
    services: list[RunningService], tmp_path: Path
) -> None:
    one = RunningService(tmp_path)
    services.append(one)
    one.wait_ready()
    two = Second(tmp_path)
    try:
        eventually(two.healthy)
        created = ask(one.port, "PUT", PPE, DEFINITION)
        assert created[0] == 201
        assert two.request("GET", PPE) == (200, created[1])
        assert two.request("POST", "/v1/classify", CLASSIFY)[0] == 200
        for number in range(10):  # at once means: in the very next request
            front, other = (one.port, two.port) if number % 2 else (two.port, one.port)
            prompts = ["a helmet", "a vest", f"a thing {number}"]
            status, replaced = ask(front, "PUT", PPE, DEFINITION | {"prompts": prompts})
            assert status == 200
            assert ask(other, "GET", PPE) == (200, replaced)
            answer = ask(other, "POST", "/v1/classify", CLASSIFY)[1]
            assert {c["text"] for c in answer["classifications"]} == set(prompts)

        status, last = two.request("PUT", PPE, DEFINITION)
        broker = one.children()["broker"]
        os.kill(broker, signal.SIGKILL)
        assert status == 200
        one.wait_replaced("broker", broker)
        for port in (one.port, two.port):  # which may not have noticed yet that the workers must come back
            eventually(partial(classifies, port))
            assert ask(port, "GET", PPE) == (200, last)

        assert ask(one.port, "DELETE", PPE) == (204, None)
        missing = {"error": "There is no label set 'ppe'"}
        assert two.request("GET", PPE) == (404, missing)
        assert two.request("POST", "/v1/classify", CLASSIFY) == (404, missing)
        broker = one.children()["broker"]
        os.kill(broker, signal.SIGKILL)
        one.wait_replaced("broker", broker)
        eventually(lambda: ask(one.port, "GET", "/v1/label-sets") == (200, {"label_sets": []}))
    finally:
        two.end()
    assert one.stop() == 0


def test_what_the_disk_does_not_take_is_refused_and_the_old_set_stays(
    services: list[RunningService], tmp_path: Path
) -> None:
    service = RunningService(tmp_path, STATE_DIRECTORY=str(tmp_path / "kept"))
    services.append(service)
    service.wait_ready()
    status, made = ask(service.port, "PUT", PPE, DEFINITION)
    assert status == 201
    files, aside = tmp_path / "kept" / "label-sets", tmp_path / "aside"
    files.rename(aside)
    files.write_text("nothing can be written here, even by root")
    other = DEFINITION | {"prompts": ["a glove"]}
    refusal = {"error": "label sets can't be stored: Not a directory"}
    for method, path, body in (
        ("PUT", PPE, other),
        ("DELETE", PPE, None),
        ("PUT", "/v1/label-sets/other", other),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=40)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (503, refusal)
        assert response.headers["Retry-After"] == "5"
        connection.close()
    assert ask(service.port, "GET", PPE) == (200, made)
    assert classifies(service.port)
    listed = {"label_sets": [{"name": "ppe", "prompts": 2, "negative_prompts": 1}]}
    assert ask(service.port, "GET", "/v1/label-sets") == (200, listed)
    with urllib.request.urlopen(f"{service.url}/metrics") as page:
        assert "\nhailo_clip_label_write_failures_total 3\n" in page.read().decode()

    files.unlink()
    aside.rename(files)
    status, replaced = ask(service.port, "PUT", PPE, other)
    assert (status, replaced["prompts"]) == (200, ["a glove"])
    broker = service.children()["broker"]
    os.kill(broker, signal.SIGKILL)
    service.wait_replaced("broker", broker)
    eventually(lambda: ask(service.port, "GET", PPE) == (200, replaced))
    assert service.stop() == 0


def test_a_service_with_another_model_embeds_the_definition_again(
    services: list[RunningService], tmp_path: Path
) -> None:
    state = {"STATE_DIRECTORY": str(tmp_path / "kept")}
    old = RunningService(tmp_path, **state)
    services.append(old)
    old.wait_ready()
    status, made = ask(old.port, "PUT", PPE, DEFINITION)
    assert (status, made["dimension"]) == (201, 640)
    assert old.stop() == 0

    (tmp_path / "new").mkdir()
    new = RunningService(
        tmp_path / "new", "emulated-clip-vit-b-32", HAILO_CLIP__LABELS__MAX_SETS="1", **state
    )
    services.append(new)
    new.wait_ready()
    assert ask(new.port, "GET", PPE) == (200, made)  # as it was made, until it is used
    status, answer = ask(new.port, "POST", "/v1/classify", CLASSIFY)
    assert status == 200, answer
    assert {c["text"] for c in answer["classifications"]} == {"a helmet", "a vest"}
    status, again = ask(new.port, "GET", PPE)
    assert (status, again["dimension"], again["model"]) == (200, 512, "emulated-clip-vit-b-32")
    assert again["model_fingerprint"] != made["model_fingerprint"]
    assert {k: again[k] for k in DEFINITION} == DEFINITION
    full = ask(new.port, "PUT", "/v1/label-sets/other", DEFINITION)
    assert full == (
        400,
        {"error": "There is no place for another label set: 1 of 1 are kept; delete one first"},
    )
    assert new.stop() == 0
    logged = [json.loads(entry) for entry in new.log.read_text().splitlines()]
    assert not [entry for entry in logged if entry["level"] in ("warning", "error")]
