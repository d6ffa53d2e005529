"""Starts the service to be measured as a user would, with directories and a port of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hailo_clip.ops.lifeline import VARIABLE as PARENT_PID
from hailo_clip.shared.errors import HailoClipError

PATIENCE_S = 120.0
_STOP_S = 45.0


class ServiceFailed(HailoClipError):
    """The service that was to be measured did not come up; the message has its last words."""


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Served:
    """A server in a process of its own; a context manager that leaves nothing behind.

    Args:
        argv: how it is started; "{port}" stands for its port and "{dir}" for a directory of its own.
        environ: more of its environment, with the same stand-ins.
        name: for error messages.

    Attributes:
        host: where it listens. port: the port. pid: of its first process. log: what it wrote.
        ready_s: seconds from its start until it was ready, see `wait`.
    """

    host = "127.0.0.1"

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], name: str) -> None:
        self.name = name
        self.port = free_port()
        self.ready_s = 0.0
        self._argv, self._given = argv, environ

    def __enter__(self) -> Served:
        self._directory = Path(tempfile.mkdtemp(prefix="hcbench-"))
        self.log = self._directory / "log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HAILO_CLIP")}
        given = {k: self._filled(v) for k, v in self._given.items()}
        self._begun = time.perf_counter()
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                [self._filled(a) for a in self._argv],
                env=kept | given | {PARENT_PID: str(os.getpid())},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):  # whatever it left behind
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def wait(self, sign: bytes) -> None:
        """Wait until it has written `sign`. Raises `ServiceFailed`."""
        self._until(lambda: sign in self.log.read_bytes())

    def wait_answer(self, request: bytes) -> None:
        """Wait until it answers `request` with 200. Raises `ServiceFailed`."""
        self._until(lambda: _answers(self.host, self.port, request))

    def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if self._process.poll() is not None or time.perf_counter() > self._begun + PATIENCE_S:
                said = self.log.read_text(errors="replace")[-2000:]
                raise ServiceFailed(f"{self.name} did not start:\n{said}")
            time.sleep(0.01)
        self.ready_s = time.perf_counter() - self._begun

    def _filled(self, text: str) -> str:
        return text.replace("{port}", str(self.port)).replace("{dir}", str(self._directory))


def our_service(model: str, settings: Mapping[str, str]) -> Served:
    """``hailo-clip serve`` of `model` with `settings` by dotted key over its defaults."""
    given = {
        "broker.run_dir": "{dir}/run",
        "server.host": Served.host,
        "server.port": "{port}",
        "log.level": "warning",
        "cache.persist": "false",
        **settings,
    }
    environ = {f"HAILO_CLIP__{key.upper().replace('.', '__')}": value for key, value in given.items()}
    environ |= {"HAILO_CLIP_CONFIG": os.devnull, "XDG_STATE_HOME": "{dir}/state"}
    argv = [sys.executable, "-m", "hailo_clip.ops.cli", "serve", "--model", model]
    return Served(argv, environ, "hailo-clip serve")


def _answers(host: str, port: int, request: bytes) -> bool:
    try:
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(request)
            return connection.recv(12)[9:] == b"200"
    except OSError:
        return False
