"""gunicorn processes as a user runs them, against the fake broker, for well-behaved clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hailo_clip.shared.config import Config, dump_config
from tests.doubles.fake_broker import FakeBroker
from tests.doubles.frontend import configured, until

PROGRAM = """
import sys
from pathlib import Path
from hailo_clip.api.server import run_api
from hailo_clip.shared.config import load_config
sys.exit(run_api(load_config(Path(sys.argv[1]))))
"""


@dataclass
class Served:
    """A running `run_api` and its broker."""

    port: int
    broker: FakeBroker
    process: subprocess.Popen[bytes]

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers of one answer, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            return response.status, json.loads(data), {k.lower(): v for k, v in response.getheaders()}

    def post(self, path: str, value: object) -> tuple[int, Any, dict[str, str]]:
        return self.request("POST", path, json.dumps(value), {"Content-Type": "application/json"})

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def healthy(self) -> bool:
        try:
            return self.request("GET", "/health")[0] == 200
        except (ConnectionError, http.client.HTTPException):
            return False


@contextlib.contextmanager
def serving(processes: int = 1, change: Callable[[Config], Config] | None = None) -> Iterator[Served]:
    """Frontends that are ready; `change` makes their configuration from the usual one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with configured(host="127.0.0.1", port=port, processes=processes) as config, FakeBroker(config) as broker:
        process = start(change(config) if change else config)
        served = Served(port, broker, process)
        try:
            until(lambda: process.poll() is None and served.healthy(), 30)
            yield served
        finally:
            process.terminate()
            process.wait(20)


def start(config: Config) -> subprocess.Popen[bytes]:
    """Frontends of `config`, starting."""
    assert config.broker.run_dir is not None
    file = config.broker.run_dir / "config.yaml"
    file.write_text(dump_config(config))
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(file)], env={**os.environ})
