"""How gunicorn runs the frontends; every value that differs from its default says why."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

from hailo_clip.api.guard import GuardedWorker
from hailo_clip.shared.config import Config

KEEPALIVE_S = 5
"""Connections are closed that have waited for their next request for this long."""

MAX_REQUEST_LINE = 8190
MAX_HEADER = 8190
MAX_HEADERS = 64
"""Most bytes of the request line and of a header, and most headers; prompts may travel in the query."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (only gunicorn's own unlinked heartbeat files go there)


def settings(config: Config) -> dict[str, Any]:
    """Settings of gunicorn by name."""
    server = config.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    return {
        "bind": f"{host}:{server.port}",
        "workers": server.processes,
        "worker_class": GuardedWorker,
        "worker_connections": server.max_connections,
        "http_parser": "python",  # what is tested, whatever else is installed
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",  # without its lifespan the app has no connection to the broker
        # A client that goes away cancels its request at once, and with it the work at the broker.
        "asgi_disconnect_grace_period": 0,
        "proc_name": "hailo-clip-api",
        "keepalive": KEEPALIVE_S,
        # Seconds without a sign of life from a process's event loop, and without a byte of a body.
        "timeout": 30,
        # What is accepted is answered before the process ends.
        "graceful_timeout": math.ceil(config.queue.request_timeout_s) + KEEPALIVE_S,
        "limit_request_line": MAX_REQUEST_LINE,
        "limit_request_fields": MAX_HEADERS,
        "limit_request_field_size": MAX_HEADER,
        # Heartbeat files on a disk can block the event loop while the disk is busy.
        "worker_tmp_dir": str(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None,
        "forwarded_allow_ips": "",  # server.trusted_proxies is judged by the app
        "accesslog": None,  # the app writes its own
        "errorlog": None,  # goes through our logging, see server.py
        "loglevel": config.log.level,
        "control_socket_disable": True,
        "post_fork": forked,
    }


def forked(arbiter: Any, worker: Any) -> None:
    """Let a signal to stop end a process that is still starting.

    Until a process has installed its own handlers it has its parent's, which only note the signal: a stop
    that came in between would be forgotten, and the process killed when the graceful timeout is over.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
