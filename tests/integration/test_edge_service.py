"""The whole service at its edge: keys that change while it serves, requests given up, one id in every log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hailo_clip.ops import keys as editing
from hailo_clip.ops.broker_link import BrokerLink
from hailo_clip.shared.config import load_config
from hailo_clip.shared.keys import new_key
from tests.doubles.running_service import EMULATED, RunningService, eventually, jpeg
from tests.doubles.served import Peer

pytestmark = pytest.mark.xdist_group("serve")  # several processes each: not several at a time

Start = Callable[..., RunningService]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[RunningService] = []

    def started(**settings: str) -> RunningService:
        service = RunningService(tmp_path, **{"HAILO_CLIP__WORKERS__COUNT": "1", **settings})
        running.append(service)
        service.wait_ready()
        return service

    yield started
    for service in running:
        service.end()


def code(peer: Peer, key: str) -> int:
    """The status of a request with this key, on a connection that stays."""
    peer.post({"text": "a cat"}, X_API_Key=key)
    return peer.answer().code


def logged(service: RunningService) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.read_text().splitlines()]


def test_who_waits_when_the_service_is_killed_outright_hears_of_it_soon(start: Start) -> None:
    service = start()
    os.kill(service.children()["worker-0"], signal.SIGSTOP)
    with Peer(service.port) as peer:
        peer.post({"text": "a cat"})
        time.sleep(0.3)
        began = time.monotonic()
        service.process.kill()
        answer = peer.answer()
    assert answer.code == 503
    assert time.monotonic() - began < 12


def test_keys_come_and_go_while_connections_stay(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    door, _ = editing.create(file, "door", "cameras", None, False)
    service = start(HAILO_CLIP__AUTH__KEYS_FILE=str(file), HAILO_CLIP__SERVER__PROCESSES="2")
    api = psutil.Process(service.children()["api"])
    eventually(lambda: len(api.children()) == 2)
    frontends = {child.pid for child in api.children()}
    with Peer(service.port) as kept:
        assert (code(kept, door), code(kept, "hc_x")) == (200, 401)
        new, _ = editing.create(file, "new", None, None, False)
        service.process.send_signal(signal.SIGHUP)
        api.send_signal(signal.SIGHUP)
        eventually(lambda: code(kept, new) == 200)
        editing.revoke(file, "door")
        eventually(lambda: code(kept, door) == 401)
        with Peer(service.port) as other:  # perhaps the other process
            eventually(lambda: code(other, door) == 401)
        eventually(lambda: sum("SIGHUP: API keys" in line["message"] for line in logged(service)) == 2)
        assert code(kept, new) == 200
    assert {child.pid for child in api.children()} == frontends
    assert service.request("GET", "/health")[0] == 200
    assert service.request("GET", "/v1/nothing")[0] == 401
    assert service.stop() == 0
    text = service.log.read_text()
    assert door not in text
    assert new not in text
    tenants = {line.get("key"): line["tenant"] for line in logged(service) if "tenant" in line}
    assert (tenants["door"], tenants["new"], tenants[None]) == ("cameras", "new", "127.0.0.1")


def test_a_service_whose_keys_file_is_missing_does_not_start(tmp_path: Path) -> None:
    service = RunningService(tmp_path, HAILO_CLIP__AUTH__KEYS_FILE=str(tmp_path / "none.yaml"))
    try:
        assert service.process.wait(40) == 2
        assert "auth.keys_file: there is no keys file" in service.log.read_text()
        assert "hailo-clip keys create NAME --file" in service.log.read_text()
    finally:
        service.end()


def test_a_client_that_goes_away_leaves_the_queue_and_its_work_is_not_done(
    start: Start, tmp_path: Path
) -> None:
    # One item at a time, 0.6 s a prompt.
    service = start(
        HAILO_CLIP__WORKERS__MAX_BATCH="1",
        HAILO_CLIP__LOG__LEVEL="debug",
        HAILO_CLIP_EMULATED_FAULTS="slow=20",
    )
    config = load_config(
        tmp_path / "empty.yaml", {}, {"model.name": EMULATED, "broker.run_dir": tmp_path / "run"}
    )
    with BrokerLink(config) as link, contextlib.ExitStack() as stack:

        def status() -> dict[str, Any]:
            found = link.wait(link.ask("status"), 5.0)
            assert found is not None
            return found

        def ask(number: int, path: str, body: object) -> Peer:
            peer = stack.enter_context(Peer(service.port))
            peer.post(body, path, X_Request_Id=f"request-{number}")
            return peer

        busy = [ask(i, "/v1/embed/text", {"text": f"text {i}"}) for i in range(3)]
        eventually(lambda: status()["in_flight"] == 3)
        leaving = ask(3, "/v1/classify", {"image": jpeg(), "prompts": ["one", "two"]})
        staying = ask(4, "/v1/embed/text", {"text": "two"})  # shares a prompt with the one that leaves
        eventually(lambda: status()["in_flight"] == 5)
        before = status()["waiting"]
        leaving.close()
        eventually(lambda: status()["in_flight"] < 5)
        assert status()["waiting"] < before
        assert [peer.answer().code for peer in (*busy, staying)] == [200] * 4
        assert status()["in_flight"] == 0
        outcomes = {
            tuple(ls): n for name, ls, n in status()["metrics"]["counters"] if name == "finished_total"
        }
        assert outcomes[("cancelled",)] == 1
    assert service.stop() == 0
    lines = logged(service)
    ended = {line["trace"]: line["outcome"] for line in lines if line["message"] == "request ended"}
    assert ended == {f"request-{i}": "answered" for i in (0, 1, 2, 4)} | {"request-3": "cancelled"}
    run = [trace for line in lines if line["message"] == "batch done" for trace in line["traces"]]
    assert sorted(run) == ["request-0", "request-1", "request-2", "request-4"]  # not the image, nor "one"
    access = {line["trace"]: line["code"] for line in lines if line["logger"] == "hailo_clip.api.access"}
    assert access["request-3"] == 499


SECRETS = ("a very private prompt", "hc_", jpeg()[:40])


@pytest.mark.parametrize("level", ["info", "debug"])
def test_one_id_in_every_log_and_nothing_that_was_sent(start: Start, tmp_path: Path, level: str) -> None:
    file = tmp_path / "keys.yaml"
    key, _ = editing.create(file, "door", None, None, False)
    service = start(HAILO_CLIP__AUTH__KEYS_FILE=str(file), HAILO_CLIP__LOG__LEVEL=level)
    with Peer(service.port) as peer:
        good = {"image": jpeg(), "prompts": [SECRETS[0], "b"]}
        peer.post(good, "/v1/classify", Authorization=f"Bearer {key}", X_Request_Id="the-id")
        assert peer.answer().code == 200
        bad = {"image": "!" + jpeg(), "prompts": [SECRETS[0]]}
        peer.post(bad, "/v1/classify", X_API_Key=key, X_Request_Id="bad")
        assert peer.answer().code == 400
        peer.post(good, "/v1/classify", X_API_Key=new_key(), X_Request_Id="stranger")
        assert peer.answer().code == 401
    assert service.stop() == 0
    lines = logged(service)
    access = [
        line for line in lines if line["logger"] == "hailo_clip.api.access" and line.get("trace") == "the-id"
    ]
    assert len(access) == 1  # one line a request
    line = access[0]
    assert (line["process"], line["level"], line["message"]) == ("api", "info", "POST /v1/classify")
    assert (line["tenant"], line["key"], line["code"], line["items"]) == ("door", "door", 200, 3)
    assert line["body_bytes"] > len(jpeg())
    assert line["sent_bytes"] > 50
    stages = [line[f"{stage}_s"] for stage in ("receive", "decode", "queue", "device")]
    assert 0 < sum(stages) <= line["total_s"]
    knew = {entry["process"] for entry in lines if "the-id" in (entry.get("trace"), *entry.get("traces", ()))}
    assert knew == ({"api", "broker", "worker-0"} if level == "debug" else {"api"})
    for secret in SECRETS:
        assert secret not in service.log.read_text()


def test_keys_on_the_command_line_and_over_http(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    command = [sys.executable, "-m", "hailo_clip.ops.cli", "keys"]
    create = [*command, "create", "cli", "--tenant", "desk", "--file", str(file)]
    key = subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()
    service = start(HAILO_CLIP__AUTH__KEYS_FILE=str(file), HAILO_CLIP__AUTH__METRICS="key")
    with Peer(service.port) as peer:
        assert code(peer, key) == 200
        peer.get("/metrics")
        refused = peer.answer()
        assert (refused.code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="hailo-clip"')
    subprocess.run([*command, "revoke", "cli", "--file", str(file)], check=True, capture_output=True)
    with Peer(service.port) as peer:
        eventually(lambda: code(peer, key) == 401)
    assert service.stop() == 0


def test_idle_connections_do_not_delay_the_stop(start: Start) -> None:
    service = start()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(service.port)) for _ in range(5)]
        assert peers[0].alive()
        peers[1].send(b"POST /v1/classify HTTP/1.1\r\nHost:")
        stopped: list[int] = []
        thread = threading.Thread(target=lambda: stopped.append(service.stop()))
        thread.start()
        thread.join(9)  # a frontend's process alone would have been given 35 s
        assert stopped == [0]
