"""The devices, as files in a directory that processes share: who has them open, whose turn it is, faults."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

UNIQUE = "UNIQUE"
UNIQUE_WAIT_S = 5.0


class Faults(dict[str, Any]):
    """What goes wrong on a device.

    scan, identify, create, configure, run_async: a status number that this call raises.
    create_gil_s, configure_gil_s, release_gil_s: seconds that it holds the GIL.
    infer: a status number that completions carry; the outputs are garbage.
    infer_after, run_async_after, hang_after: how many batches of a process go well before the fault.
    hang_s: seconds before the device touches a batch; 1e9 for never. Then it writes garbage and succeeds.
    nan: outputs are not numbers. crash: the process dies by SIGKILL in the middle of a batch.
    slow: factor on device times. queue: frames a model can queue. arch: what the device is.
    gone: it is off the bus: not found, and what was under way on it ends with status 62.
    firmware: its version. heat: degrees Celsius, None where it does not tell.
    """


def root() -> Path:
    default = Path(tempfile.gettempdir()) / f"hailo-double-{os.getuid()}"
    path = Path(os.environ.get("HAILO_DOUBLE_DIR") or default)
    path.mkdir(parents=True, exist_ok=True)
    return path


def device_ids() -> list[str]:
    names = os.environ.get("HAILO_DOUBLE_DEVICES", "0001:01:00.0")
    return [n for n in names.split(",") if n and not faults(n).get("gone")]


def time_scale() -> float:
    return float(os.environ.get("HAILO_DOUBLE_TIME_SCALE", "1"))


def computes_nothing() -> bool:
    return bool(os.environ.get("HAILO_DOUBLE_COMPUTES_NOTHING"))


def faults(device_id: str) -> Faults:
    try:
        told = json.loads((root() / "faults.json").read_text())
    except FileNotFoundError:
        return Faults()
    return Faults(told.get("*", {}) | told.get(device_id, {}))


def hold_gil(seconds: float) -> None:
    """Sleep as a native call does that does not release the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


class Chip:
    """One device: a lock for its core, and one locked file for each client that has it open."""

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self._home = root() / quote(device_id, safe="")
        self._home.mkdir(exist_ok=True)
        self._client: Any = None
        (self._home / "core.lock").touch()
        self._core = (self._home / "core.lock").open("r+b", buffering=0)

    def faults(self) -> Faults:
        return faults(self.device_id)

    def open(self, group: str) -> bool:
        """Become a client; False when the device stays taken by another group."""
        wait = UNIQUE_WAIT_S * time_scale() if group == UNIQUE else 0.0
        deadline = time.monotonic() + wait
        while True:
            with self._door():
                if all(group == c["group"] != UNIQUE for c in self._live()):
                    self._register(group)
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)

    def clients(self) -> list[dict[str, Any]]:
        """What the live clients wrote down: group, pid, batch_sizes."""
        with self._door():
            return self._live()

    def note_model(self, network: str, batch_size: int) -> None:
        """Write down what this client configured, for tests to read."""
        with self._door():
            self._record["batch_sizes"][network] = batch_size
            self._path.write_text(json.dumps(self._record))

    @contextlib.contextmanager
    def _door(self) -> Iterator[None]:
        with (self._home / "clients.lock").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield

    def _live(self) -> list[dict[str, Any]]:
        """Records of the clients; files whose owner is gone are swept away."""
        live = []
        for path in sorted(self._home.glob("client-*.json")):
            with path.open() as f:
                try:
                    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    live.append(json.loads(path.read_text()))
                else:
                    path.unlink()
        return live

    def _register(self, group: str) -> None:
        self._record: dict[str, Any] = {"group": group, "pid": os.getpid(), "batch_sizes": {}}
        self._path = self._home / f"client-{os.getpid()}-{id(self)}.json"
        self._path.write_text(json.dumps(self._record))
        self._client = self._path.open()
        fcntl.flock(self._client, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def core(self, queued: float, seconds: float) -> Iterator[float]:
        """The core is this client's meanwhile; the monotonic time at which it is through.

        It begins when the request was queued or when the one before ended, whichever is later, as hardware
        with a queue of its own does, however late the host's thread wakes.
        """
        fcntl.flock(self._core, fcntl.LOCK_EX)
        try:
            stored = os.pread(self._core.fileno(), 8, 0)
            before = struct.unpack("d", stored)[0] if len(stored) == 8 else 0.0
            end = max(queued, before) + seconds
            yield end
            if not self._core.closed:
                os.pwrite(self._core.fileno(), struct.pack("d", end), 0)
        finally:
            if not self._core.closed:
                fcntl.flock(self._core, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave."""
        if self._client is not None:
            with self._door():
                self._path.unlink()
                self._client.close()
        self._client = None
        self._core.close()
