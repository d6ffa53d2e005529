"""`hailo-clip serve`, whole and real, with the emulated model: answers, deaths, an orderly stop."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.doubles.running_service import EMULATED, Load, RunningService, eventually, jpeg

pytestmark = pytest.mark.xdist_group("serve")  # five processes each: not several at a time

Start = Callable[..., RunningService]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[RunningService] = []

    def started(**settings: str) -> RunningService:
        service = RunningService(tmp_path, **settings)
        running.append(service)
        service.wait_ready()
        return service

    yield started
    for service in running:
        service.end()


def test_it_says_that_it_is_ready_answers_and_ends_with_0_leaving_nothing(
    start: Start, tmp_path: Path
) -> None:
    service = start(HAILO_CLIP__WORKERS__COUNT="2")
    line = rf"ready: {service.url} model={EMULATED} encoder=emulated workers=(2|1/2)\n"
    assert re.fullmatch(line, service.out.read_text())
    assert service.request("GET", "/health")[0] == 200
    classify = {"image": jpeg(), "prompts": ["a cat", "a dog"], "top_k": 1}
    status, answer = service.request("POST", "/v1/classify", classify)
    assert (status, answer["model"], len(answer["classifications"])) == (200, EMULATED, 1)
    (tmp_path / "photo.jpg").write_bytes(base64.b64decode(jpeg()))
    asked = [
        sys.executable,
        "-m",
        "hailo_clip.ops.cli",
        "classify",
        str(tmp_path / "photo.jpg"),
        "a cat",
        "a dog",
    ]
    shown = subprocess.run([*asked, "--url", service.url], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 3
    everyone = psutil.Process(service.process.pid).children(recursive=True)
    assert len(everyone) >= 5
    assert service.stop() == 0
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in everyone)
    logged = [json.loads(entry) for entry in service.log.read_text().splitlines()]
    assert {"serve", "broker", "worker-0", "worker-1", "api"} <= {entry["process"] for entry in logged}
    assert not [entry for entry in logged if entry["level"] in ("warning", "error")]


def test_a_worker_killed_under_load_loses_no_request(start: Start) -> None:
    service = start(HAILO_CLIP__WORKERS__COUNT="2")
    load = Load(service, clients=4)
    for answered in (20, 60):
        load.wait_for(answered)
        victim = service.children()["worker-0"]
        os.kill(victim, signal.SIGKILL)
        service.wait_replaced("worker-0", victim)
    load.wait_for(120)
    answers = load.finish()
    assert [a for a in answers if a[1] != 200] == []
    first = {text: body["embedding"] for text, _, body in answers}
    assert len(first) == len(answers)
    for text in list(first)[::40]:
        assert service.embed(text)[1]["embedding"] == first[text]
    assert service.stop() == 0


def test_a_broker_killed_under_load_gives_503_at_worst_and_everything_recovers(start: Start) -> None:
    service = start(HAILO_CLIP__WORKERS__COUNT="2")
    before = service.children()
    load = Load(service, clients=3)
    load.wait_for(20)
    os.kill(before["broker"], signal.SIGKILL)
    service.wait_replaced("broker", before["broker"])
    eventually(service.healthy)
    load.wait_for(len(load.answers) + 30)
    answers = load.finish()
    assert {status for _, status, _ in answers} <= {200, 503}
    assert all(body["error"] for _, status, body in answers if status == 503)
    after = service.children()
    assert after["broker"] != before["broker"]
    assert {k: v for k, v in after.items() if k != "broker"} == {
        k: v for k, v in before.items() if k != "broker"
    }
    assert service.stop() == 0


def test_a_stop_answers_what_was_accepted_and_refuses_the_rest(start: Start) -> None:
    # One worker, a second and a half a prompt: five accepted ones are under way for seven seconds.
    service = start(
        HAILO_CLIP__WORKERS__COUNT="1",
        HAILO_CLIP__WORKERS__MAX_BATCH="1",
        HAILO_CLIP_EMULATED_FAULTS="slow=50",
    )
    accepted: list[int] = []
    threads = [
        threading.Thread(target=lambda i=i: accepted.append(service.embed(f"prompt {i}")[0]))
        for i in range(5)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: accepted)  # the first is answered, four are waiting
    service.process.send_signal(signal.SIGTERM)
    eventually(lambda: service.request("GET", "/health")[0] == 503)
    status, body = service.embed("too late")
    assert status == 503
    assert "shutting down" in body["error"]
    assert len(accepted) < 5  # still at it
    for thread in threads:
        thread.join()
    assert accepted == [200] * 5
    assert service.process.wait(40) == 0
    assert "drained: every accepted request is answered" in service.log.read_text()


def test_a_hung_worker_is_killed_and_its_request_answered(start: Start) -> None:
    service = start(HAILO_CLIP__WORKERS__COUNT="2")
    stopped = service.children()["worker-0"]
    os.kill(stopped, signal.SIGSTOP)
    answers = [service.embed(f"prompt {i}")[0] for i in range(6)]
    assert answers == [200] * 6
    service.wait_replaced("worker-0", stopped)
    assert service.healthy()
    assert service.stop() == 0


def test_nothing_outlives_a_supervisor_that_is_killed(start: Start) -> None:
    service = start()
    everyone = psutil.Process(service.process.pid).children(recursive=True)
    service.process.kill()
    service.process.wait()
    eventually(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in everyone))
