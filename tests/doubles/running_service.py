"""The whole service as a user runs it, in processes of its own, for tests that talk to it over HTTP."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

PATIENCE_S = 40.0
EMULATED = "emulated-clip-resnet-50x4"


def eventually(true: Callable[[], Any]) -> None:
    """Wait until `true` says so; an `AssertionError` when it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def jpeg(colour: tuple[int, int, int] = (200, 30, 40)) -> str:
    """A small one-coloured picture as base64."""
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "JPEG")
    return base64.b64encode(out.getvalue()).decode()


class RunningService:
    """``hailo-clip serve``, with the emulated model unless told otherwise.

    Args:
        directory: for its run and state directories and its output.
        model: its name.
        settings: environment variables, e.g. HAILO_CLIP__WORKERS__COUNT.
    """

    def __init__(self, directory: Path, model: str = EMULATED, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        (directory / "empty.yaml").touch()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("HAILO_CLIP")} | {
            "HAILO_CLIP_CONFIG": str(directory / "empty.yaml"),
            "HAILO_CLIP__BROKER__RUN_DIR": str(directory / "run"),
            "HAILO_CLIP__SERVER__HOST": "127.0.0.1",
            "HAILO_CLIP__SERVER__PROCESSES": "1",
            "HAILO_CLIP__LOG__FORMAT": "json",
            "XDG_STATE_HOME": str(directory / "state"),
        }
        command = [sys.executable, "-m", "hailo_clip.ops.cli", "serve", "--model", model]
        self.out, self.log = directory / "out", directory / "log"
        with self.out.open("w") as out, self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=out, stderr=log, env=environ | settings
            )

    def wait_ready(self) -> None:
        """Wait for the line that says so."""
        eventually(lambda: self.out.read_text() or self.process.poll() is not None)
        assert self.out.read_text().startswith("ready: "), self.log.read_text()[-3000:]

    def children(self) -> dict[str, int]:
        """Process ids of the supervisor's children by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                argv = child.cmdline()
            except psutil.Error:  # gone in between
                continue
            if "hailo_clip.ops.cli" in argv:
                role = argv[argv.index("hailo_clip.ops.cli") + 1]
                found[argv[argv.index("--name") + 1] if role == "worker" else role] = child.pid
        return found

    def wait_replaced(self, name: str, pid: int) -> None:
        """Wait until the child `name` runs as another process than `pid`."""
        eventually(lambda: self.children().get(name, pid) != pid)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of one HTTP request on a connection of its own; OSError when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def embed(self, text: str) -> tuple[int, Any]:
        """POST /v1/embed/text."""
        return self.request("POST", "/v1/embed/text", {"text": text})

    def healthy(self) -> bool:
        """Whether GET /health says 200."""
        try:
            return self.request("GET", "/health")[0] == 200
        except OSError:
            return False

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Leave nothing running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Load:
    """Clients that send different prompts one after another and keep every answer."""

    def __init__(self, service: RunningService, clients: int) -> None:
        self.answers: list[tuple[str, int, Any]] = []
        self._service = service
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        number = 0
        while not self._over.is_set():
            text = f"client {client} prompt {number}"
            try:
                self.answers.append((text, *self._service.embed(text)))
            except (OSError, http.client.HTTPException) as e:
                self.answers.append((text, 0, repr(e)))
            number += 1

    def wait_for(self, count: int) -> None:
        """Wait until there are `count` answers."""
        eventually(lambda: len(self.answers) >= count)

    def finish(self) -> list[tuple[str, int, Any]]:
        """Stop after the requests under way; every (prompt, status, body), status 0 where none came."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.answers
