"""A frontend as gunicorn runs it, in processes of its own, in front of the fake broker; for raw sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hailo_clip.shared.config import dump_config
from tests.doubles.fake_broker import FakeBroker
from tests.doubles.frontend import configured, until

PROGRAM = """
import importlib, sys
from pathlib import Path
from hailo_clip.shared.config import load_config
for bound in sys.argv[2:]:
    name, _, value = bound.partition("=")
    module, _, attribute = name.rpartition(".")
    number = int(value) if value.isdigit() else float(value)
    setattr(importlib.import_module(f"hailo_clip.api.{module}"), attribute, number)
from hailo_clip.api.server import run_api
sys.exit(run_api(load_config(Path(sys.argv[1]))))
"""
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: its code, headers by lower-case name, JSON, and what came after it."""

    code: int
    headers: dict[str, str]
    json: Any
    rest: bytes


class Peer:
    """A client that sends bytes as they are."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self._ahead = b""
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

    def send(self, data: bytes) -> None:
        """Send `data`; the other side may have had enough before its end."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def get(self, path: str = "/livez") -> None:
        """Send a request without a body."""
        self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def post(self, value: object, path: str = "/v1/embed/text", **headers: str) -> None:
        """Send a request with a JSON body."""
        body = json.dumps(value).encode()
        more = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self.send(head.encode() + body)

    def rest(self) -> bytes:
        """All that came and was not read, and all that comes until the other side closes."""
        parts, self._ahead = [self._ahead], b""
        while part := self.socket.recv(65536):
            parts.append(part)
        return b"".join(parts)

    def last(self) -> Answer:
        """The answer after which the other side closes."""
        return parsed(self.rest())

    def answer(self) -> Answer:
        """The next answer, of a connection that may stay; what came after it is kept for the next call."""
        data, self._ahead = self._ahead, b""
        while True:
            head, mark, body = data.partition(b"\r\n\r\n")
            if mark and len(body) >= int(headers_of(head).get("content-length", "0")):
                answer = parsed(data)
                self._ahead = answer.rest
                return answer
            part = self.socket.recv(65536)
            assert part, f"closed in the middle of {data!r}"
            data += part

    def alive(self) -> bool:
        """Whether the connection still serves a request."""
        try:
            self.get()
            return self.answer().code == 200
        except (OSError, AssertionError):
            return False

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *what: object) -> None:
        self.close()


class Served:
    """A running `run_api` and its broker."""

    def __init__(self, port: int, broker: FakeBroker, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port, self.broker, self.process, self.log = port, broker, process, log

    def peer(self, receive_buffer: int | None = None) -> Peer:
        """A new connection."""
        return Peer(self.port, receive_buffer)

    def healthy(self) -> bool:
        """Whether GET /health says 200."""
        try:
            with self.peer() as peer:
                peer.get("/health")
                return peer.answer().code == 200
        except (OSError, AssertionError):
            return False

    def logged(self) -> list[dict[str, Any]]:
        """Everything logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> float:
        """SIGTERM; the seconds until it has ended, which it does with exit code 0."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        return time.monotonic() - began


@contextlib.contextmanager
def serving(*bounds: str, **server: Any) -> Iterator[Served]:
    """Serve with one process unless told otherwise.

    Args:
        bounds: constants of modules in api/ and their values here, e.g. "guard.HEAD_S=0.5".
        server: settings.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {"host": "127.0.0.1", "port": port, "processes": 1, **server}
    with configured(**given) as config, FakeBroker(config) as broker:
        assert config.broker.run_dir is not None
        file, log = config.broker.run_dir / "config.yaml", config.broker.run_dir / "log"
        file.write_text(dump_config(config))
        command = [sys.executable, "-c", PROGRAM, str(file), *bounds]
        with log.open("w") as out:
            process = subprocess.Popen(command, env={**os.environ}, stderr=out)
        served = Served(port, broker, process, log)
        try:
            until(lambda: process.poll() is not None or served.healthy(), 30)
            assert process.poll() is None, "it did not start"
            yield served
        except BaseException:
            print(log.read_text()[-4000:])
            raise
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def headers_of(head: bytes) -> dict[str, str]:
    """The headers of an answer's head by lower-case name."""
    pairs = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value for name, _, value in pairs}


def parsed(data: bytes) -> Answer:
    """An answer with a Content-Length."""
    head, mark, body = data.partition(b"\r\n\r\n")
    assert mark, f"no answer: {data!r}"
    headers = headers_of(head)
    length = int(headers.get("content-length", "0"))
    content = body[:length]
    assert len(content) == length, f"an answer that is cut off: {data[:300]!r}"
    return Answer(
        int(head.split(b" ", 2)[1]), headers, json.loads(content) if content else None, body[length:]
    )
