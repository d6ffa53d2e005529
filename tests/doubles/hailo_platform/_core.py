"""The core of a device, as one process sees it: requests one after the other, callbacks beside them."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ._chip import Chip, computes_nothing, time_scale  # noqa: TID252
from ._hef import Network  # noqa: TID252
from ._network import compute  # noqa: TID252

Array = npt.NDArray[Any]


@dataclass
class Request:
    """A batch on its way: buffers, what they hold, whom to tell."""

    network: Network
    sources: list[Array]
    targets: list[Array]
    source_type: type[np.generic]
    target_type: type[np.generic]
    completed: Callable[[int], None]
    queued: float = field(default_factory=time.monotonic)

    def inputs(self) -> Array:
        shape = self.network.inputs[0].shape
        return np.stack([np.frombuffer(s.tobytes(), self.source_type).reshape(shape) for s in self.sources])

    def ones(self) -> Array:
        return np.ones((len(self.targets), *self.network.outputs[0].shape), np.float32)

    def write(self, rows: Array) -> None:
        for target, row in zip(self.targets, rows, strict=True):
            raw = np.ascontiguousarray(row, self.target_type).reshape(-1).view(np.uint8)
            target.reshape(-1).view(np.uint8)[:] = raw

    def write_garbage(self) -> None:
        for target in self.targets:
            target.reshape(-1).view(np.uint8)[:] = 0x4C


class Core:
    """Runs requests one after the other, in a thread, and their callbacks in another."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.closed = False
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._callbacks: queue.SimpleQueue[tuple[Request, int] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._batches = 0

    def put(self, request: Request) -> None:
        if not self._threads:
            for target in (self._run, self._call_back):
                self._threads.append(threading.Thread(target=target, daemon=True))
                self._threads[-1].start()
        self._requests.put(request)

    def close(self) -> None:
        self.closed = True
        self._requests.put(None)
        for thread in self._threads:
            thread.join(1.0)

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            status = self._execute(request)
            self._callbacks.put((request, status))
        self._callbacks.put(None)

    def _execute(self, request: Request) -> int:
        faults = self.chip.faults()
        count = len(request.sources)
        network = request.network
        seconds = (network.launch_s + network.item_s * count) * time_scale() * faults.get("slow", 1)
        ordinal, self._batches = self._batches, self._batches + 1
        with self.chip.core(request.queued, seconds) as end:
            if "hang_s" in faults and ordinal >= faults.get("hang_after", 0):
                return self._hang(request, faults["hang_s"])
            if faults.get("crash"):
                os.kill(os.getpid(), signal.SIGKILL)
            if faults.get("gone"):
                request.write_garbage()
                return 62
            rows = request.ones() if computes_nothing() else compute(network, request.inputs())
            request.write(np.full_like(rows, np.nan) if faults.get("nan") else rows)
            status = int(faults.get("infer", 0)) if ordinal >= faults.get("infer_after", 0) else 0
            if status:
                request.write_garbage()
            while (left := end - time.monotonic()) > 0 and not self.closed:
                time.sleep(left)
        return 63 if self.closed else status

    def _hang(self, request: Request, seconds: float) -> int:
        """Do nothing for `seconds`, then spoil the outputs."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.closed and seconds > 1e6:
                return 63
            time.sleep(0.01)
        request.write_garbage()
        return 0

    def _call_back(self) -> None:
        while (item := self._callbacks.get()) is not None:
            request, status = item
            try:
                request.completed(status)
            except BaseException:  # noqa: BLE001  (as a native thread would)
                traceback.print_exc()
                os.abort()
