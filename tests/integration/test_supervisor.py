"""The real supervisor over stand-ins for broker, worker and api: real processes, signals and sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hailo_clip.shared.config import dump_config, load_config

ROOT = Path(__file__).parents[2]
ON_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also when the tests run under nohup
os.setsid()
os.open(sys.argv[1], os.O_RDWR)  # becomes the terminal of the new session
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
PATIENCE_S = 20.0

pytestmark = pytest.mark.xdist_group("serve")  # several processes each: not several at a time
READY: dict[str, Any] = {
    "state": "ready",
    "reason": "",
    "in_flight": 0,
    "lost_workers": [],
    "workers": [{"state": "ready", "pid": 1}],
}


def eventually(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


class Service:
    """A running supervisor and what its stand-ins wrote."""

    def __init__(self, directory: Path, environ: dict[str, str], terminal: str = "") -> None:
        self.directory = directory
        self.tell()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        flags = {
            "server.host": "127.0.0.1",
            "server.port": port,
            "broker.run_dir": directory / "run",
            "queue.request_timeout_s": 30,
        }
        (directory / "config.yaml").write_text(dump_config(load_config(None, {}, flags)))
        self.log = (directory / "log").open("w")
        command = ["-m", "tests.doubles.fake_service", "serve", str(directory)]
        wrapper = ["-c", ON_TERMINAL, terminal] if terminal else []
        self.process = subprocess.Popen(
            [sys.executable, *wrapper, *command], cwd=ROOT, stderr=self.log, env=os.environ | environ
        )

    def tell(self, **changes: object) -> None:
        """Have the broker answer this from now on."""
        partial = self.directory / "snapshot.partial"
        partial.write_text(json.dumps(READY | changes))
        partial.replace(self.directory / "snapshot.json")

    @property
    def events(self) -> list[str]:
        file = self.directory / "events"
        return file.read_text().splitlines() if file.exists() else []

    def seen(self, pattern: str) -> list[re.Match[str]]:
        return [m for m in (re.fullmatch(pattern, line) for line in self.events) if m]

    def pid(self, name: str) -> int:
        return int(self.seen(rf"{name} starts (\d+)")[-1][1])

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def started(ready: bool = True, terminal: str = "", **environ: str) -> Service:
        service = Service(tmp_path, environ, terminal)
        running.append(service)
        if ready:
            eventually(lambda: service.seen("ready 1"))
        return service

    yield started
    for service in running:
        service.end()


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_sigterm_drains_then_ends_api_workers_broker_and_exits_0(start: Callable[..., Service]) -> None:
    service = start()
    service.tell(in_flight=2)
    service.process.send_signal(signal.SIGTERM)
    eventually(lambda: "drain" in service.events)
    assert not service.seen("api SIGTERM")
    service.tell(in_flight=0)
    assert service.wait() == 0
    assert service.events[-4:] == ["drain", "api SIGTERM", "worker-0 SIGTERM", "broker SIGTERM"]


def test_sighup_ends_nothing_while_the_terminal_is_there(start: Callable[..., Service]) -> None:
    master, slave = os.openpty()
    service = start(terminal=os.ttyname(slave))
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP: API keys are read again" in _log(service))
    assert not service.seen("drain")
    os.close(slave)
    os.close(master)  # the terminal is closed: its session gets SIGHUP
    assert service.wait() == 0
    assert service.events[-4:] == ["drain", "api SIGTERM", "worker-0 SIGTERM", "broker SIGTERM"]


def test_sighup_ends_nothing_without_a_terminal(start: Callable[..., Service]) -> None:
    service = start()
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP: API keys are read again" in _log(service))
    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 0
    assert len(service.seen(r"api starts \d+")) == 1


def test_a_child_that_dies_comes_back_and_the_service_stays(start: Callable[..., Service]) -> None:
    service = start()
    first = service.pid("worker-0")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(service.seen(r"worker-0 starts \d+")) == 2)
    assert service.pid("worker-0") != first
    service.process.send_signal(signal.SIGINT)
    assert service.wait() == 0
    assert "killed by SIGKILL" in (service.directory / "log").read_text()


def test_a_worker_that_the_broker_lost_is_killed_and_started_again(start: Callable[..., Service]) -> None:
    service = start(FAKE_STUBBORN="worker-0")
    hung = service.pid("worker-0")
    service.tell(state="unhealthy", reason="no worker is ready", lost_workers=[["worker-0", hung]])
    eventually(lambda: service.pid("worker-0") != hung)
    assert not lives(hung)
    assert not service.seen("worker-0 SIGTERM")


def test_a_second_signal_does_not_wait_and_stubborn_children_are_killed(
    start: Callable[..., Service],
) -> None:
    service = start(FAKE_STUBBORN="api worker-0 broker")
    service.tell(in_flight=1)
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    eventually(lambda: "drain" in service.events)
    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 0
    assert time.monotonic() - begun < 10  # the bound of a single role alone
    assert not any(lives(service.pid(name)) for name in ("api", "worker-0", "broker"))


def test_children_do_not_outlive_a_supervisor_that_is_killed(start: Callable[..., Service]) -> None:
    service = start(FAKE_STUBBORN="api worker-0 broker")
    pids = [service.pid(name) for name in ("api", "worker-0", "broker")]
    service.process.kill()
    service.wait()
    eventually(lambda: not any(lives(pid) for pid in pids))


def test_restarts_of_a_broken_child_come_ever_later(start: Callable[..., Service]) -> None:
    service = start(ready=False, FAKE_BROKEN="api")
    eventually(lambda: len(service.seen(r"api starts \d+")) >= 3)
    delays = re.findall(
        r'"message":"api died \(exit code 7\); it is started again in ([\d.]+) s"', _log(service)
    )
    assert delays[:2] == ["0.2", "0.4"]
    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_dead_broker_ends_draining_and_the_stop_is_still_orderly(start: Callable[..., Service]) -> None:
    service = start()
    service.tell(in_flight=1)
    service.process.send_signal(signal.SIGTERM)
    eventually(lambda: "drain" in service.events)
    os.kill(service.pid("broker"), signal.SIGKILL)
    assert service.wait() == 0
    assert service.events[-2:] == ["api SIGTERM", "worker-0 SIGTERM"]


def test_systemd_hears_when_it_is_ready_that_it_lives_and_that_it_stops(
    start: Callable[..., Service], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        service = start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert systemd.recv(1000) == b"READY=1\nSTATUS=ready, 1 workers ready"
        assert systemd.recv(1000).startswith(b"WATCHDOG=1\n")
        os.kill(service.pid("broker"), signal.SIGSTOP)
        systemd.settimeout(3.5)  # silence: the broker does not answer
        with pytest.raises(TimeoutError):
            while True:
                assert systemd.recv(1000).startswith(b"WATCHDOG=1\n")
        os.kill(service.pid("broker"), signal.SIGCONT)
        systemd.settimeout(PATIENCE_S)
        assert systemd.recv(1000).startswith(b"WATCHDOG=1\n")
        service.process.send_signal(signal.SIGTERM)
        while not (heard := systemd.recv(1000)).startswith(b"STOPPING=1"):
            assert heard.startswith(b"WATCHDOG=1\n")
        assert service.wait() == 0


def _log(service: Service) -> str:
    return (service.directory / "log").read_text()
