"""Stand-ins for the service's processes, so that the supervisor's own behaviour can be seen.

``python -m tests.doubles.fake_service serve DIRECTORY`` runs the real supervisor over a broker that answers
``DIRECTORY/snapshot.json``, a worker and an api that do nothing; each child writes what happens to it to
``DIRECTORY/events``. ``DIRECTORY/config.yaml`` is the configuration. The variable FAKE_STUBBORN names
children that ignore SIGTERM, FAKE_BROKEN children that exit with code 7 at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType

import zmq

from hailo_clip.ops.lifecycle import Child, Pool
from hailo_clip.ops.lifeline import die_with_parent
from hailo_clip.ops.supervisor import Supervisor
from hailo_clip.shared.codec import decode_from_frontend, encode
from hailo_clip.shared.config import Config, load_config
from hailo_clip.shared.logs import setup_logs
from hailo_clip.shared.messages import Control, Status
from hailo_clip.shared.sockets import frontend_router

NAMES = ("broker", "worker-0", "api")


def note(directory: Path, text: str) -> None:
    """Append a line to the events, whole even when several processes write."""
    fd = os.open(directory / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def serve(directory: Path, config: Config) -> int:
    """The real supervisor over the stand-ins."""

    def child(name: str) -> Child:
        command = (sys.executable, "-m", "tests.doubles.fake_service", name, str(directory))
        return Child(name, name.partition("-")[0], command)

    def ready(pool: Pool) -> None:
        note(directory, f"ready {pool.ready_workers}")

    setup_logs(config.log, "serve")
    return Supervisor(config, [child(n) for n in NAMES], os.environ, ready).run()


def broker(directory: Path, config: Config) -> None:
    """Answers what stands in snapshot.json, "draining" once it was told to drain."""
    draining = False
    with zmq.Context() as context, frontend_router(context, config) as socket:
        while True:
            peer, *frames = socket.recv_multipart()
            message = decode_from_frontend(frames)
            assert isinstance(message, Control)
            if message.verb == "drain":
                draining = True
                note(directory, "drain")
            snapshot = json.loads((directory / "snapshot.json").read_text())
            if draining:
                snapshot["state"] = "draining"
            socket.send_multipart([peer, *encode(Status(message.seq, snapshot))])


def api(config: Config) -> None:
    """Answers 200 to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    HTTPServer((config.server.host, config.server.port), Handler).serve_forever()


def main() -> int:
    name, directory = sys.argv[1], Path(sys.argv[2])
    config = load_config(directory / "config.yaml", {})
    if name == "serve":
        return serve(directory, config)
    die_with_parent()
    note(directory, f"{name} starts {os.getpid()}")
    if name in os.environ.get("FAKE_BROKEN", ""):
        return 7

    def on_term(number: int, frame: FrameType | None) -> None:
        note(directory, f"{name} SIGTERM")
        if name not in os.environ.get("FAKE_STUBBORN", ""):
            os._exit(0)

    signal.signal(signal.SIGTERM, on_term)
    if name == "broker":
        broker(directory, config)
    elif name == "api":
        api(config)
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
