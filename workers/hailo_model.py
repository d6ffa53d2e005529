"""One network on a Hailo device: its checks, its buffers, and batches handed to it without waiting.

What HailoRT 5.2.0 asks of its callers, and how it is met here:

- ``run()`` and ``AsyncInferJob.wait()`` report a timeout and nothing else, and the output buffer is
  overwritten even when an inference failed. Only the callback of ``run_async`` is told, so that is what a
  batch waits for and believes (`Flight`).
- An exception that leaves the callback ends the process, so none does.
- After a timeout the device may still write to the buffers. They are never used again, nor freed.
- Any error shuts the configured model down, so each one makes this network unusable for good.
- Buffers must be writable and contiguous, and only their size in bytes is checked, so arrays are made
  here, with the type and shape that were checked at load.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import EncoderError
from hailo_clip.workers.hailo_status import HefUnfit, hailo_error, hailo_errors

SLOTS = 2
"""Batches on the device at a time: one runs while the next waits in its queue."""

TIMEOUT_S = 4.0
"""Longest wait for a batch. One takes about 0.1 s, but other programs may share the device. It is shorter
than the broker's patience (5 s), which could only guess whether the device or the input is to blame."""

FIRST_TIMEOUT_S = 20.0
"""The same for a network's first batch, before which the device may have to take the network in."""

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

READY_S = 5.0
"""Longest wait for room in the device's queue, which `SLOTS` batches never fill."""

_ABANDONED: list[object] = []
"""What a device may still write to, and what may hang when it is let go; kept until the process ends."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Buffers of one batch: ``[max_batch, *shape]``."""

    inputs: Array
    outputs: Array


@dataclass(frozen=True, slots=True)
class Edge:
    """What a network's input or output must be: numpy type, and shape but for dimensions of 1."""

    dtype: type[np.generic]
    shape: tuple[int, ...]

    def fits(self, shape: list[int]) -> bool:
        """True when `shape` is this one, whatever dimensions of 1 it has besides."""
        return [d for d in shape if d != 1] == [d for d in self.shape if d != 1]


class Meter:
    """Tells how long a device had each batch: from the end of the one before, whichever network's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0

    def lap(self, started: float) -> float:
        """Seconds that the device had a batch which was queued at `started` (monotonic) and is done now."""
        with self._lock:
            began, self._last = max(started, self._last), time.monotonic()
            return self._last - began


class Flight:
    """One batch on the device; its callback runs in a thread of HailoRT's."""

    def __init__(
        self, slot: Slot, count: int, done: Callable[[], None], meter: Meter, patience_s: float = TIMEOUT_S
    ) -> None:
        self.slot = slot
        self.count = count
        self.device_s = 0.0
        self._started = time.monotonic()
        self.patience_s = patience_s
        self.deadline = self._started + patience_s
        self._meter = meter
        self.error: BaseException | None = None
        self._landed = threading.Event()
        self._done = done

    def land(self, *, completion_info: Any) -> None:
        """The callback for ``run_async``. Raises nothing, whatever happens: it would end the process."""
        try:
            self.error = completion_info.exception
        except BaseException as e:  # noqa: BLE001
            self.error = e
        self.device_s = self._meter.lap(self._started)
        self._landed.set()
        try:
            self._done()
        except BaseException:
            log.exception("a batch is done, but its owner could not be told")

    def wait(self) -> bool:
        """Wait until it landed; False when it had not by its deadline."""
        return self._landed.wait(max(0.0, self.deadline - time.monotonic()))


class Network:
    """A HEF configured on a device. Used by one thread; see the module's docstring for the rules.

    Args:
        platform: the module `hailo_platform`.
        vdevice: an open VDevice.
        device_id: the device, for messages.
        hef: the network's file.
        max_batch: the batch size to configure: the same in all workers of a device, which then share one
            copy of the network on it.
        inputs: what the one input must be.
        outputs: what the one output must be.
        meter: of the device.

    Raises:
        EncoderError: fatal; HailoRT failed, or the HEF is not what was expected; the message names it.
    """

    def __init__(
        self,
        platform: Any,
        vdevice: Any,
        device_id: str,
        hef: Path,
        max_batch: int,
        inputs: Edge,
        outputs: Edge,
        meter: Meter,
    ) -> None:
        self._device_id = device_id
        self._hef = hef
        self._meter = meter
        self._broken: EncoderError | None = None
        self._has_run = False
        self._flights: deque[Flight] = deque()
        with hailo_errors("loading the network", device_id, hef):
            model = vdevice.create_infer_model(str(hef))
            model.set_batch_size(max_batch)
            shapes = [
                _prepared(platform, hef, "input", model.inputs, inputs),
                _prepared(platform, hef, "output", model.outputs, outputs),
            ]
            self._configured: Any = model.configure()
            queue = int(self._configured.get_async_queue_size())
        if queue < max_batch:
            raise HefUnfit(
                f"{hef}: the device queues {queue} frames, too few for batches of {max_batch}; "
                f"set workers.max_batch to {queue} or less",
                None,
            )
        self._slots = [
            Slot(
                *(np.zeros((max_batch, *s), e.dtype) for s, e in zip(shapes, (inputs, outputs), strict=True))
            )
            for _ in range(min(SLOTS, queue // max_batch))
        ]
        self.depth = len(self._slots)

    @property
    def broken(self) -> bool:
        """True when it is unusable."""
        return self._broken is not None

    def take_slot(self) -> Slot | None:
        """Buffers for a batch, None when all are in use; give them to `launch`.

        Raises:
            EncoderError: fatal; the network is unusable.
        """
        if self._broken is not None:
            raise self._broken
        return self._slots[-1] if self._slots else None

    def launch(self, slot: Slot, count: int, done: Callable[[], None]) -> Flight:
        """Queue the first `count` frames of `slot` on the device, without waiting for them.

        Raises:
            EncoderError: fatal; the device did not take them.
        """
        self._slots.remove(slot)
        patience_s = TIMEOUT_S if self._has_run else FIRST_TIMEOUT_S
        flight = Flight(slot, count, done, self._meter, patience_s)
        try:
            with hailo_errors("queueing a batch", self._device_id, self._hef):
                self._configured.wait_for_async_ready(int(READY_S * 1000), count)
                self._configured.run_async(self._bindings(slot, count), flight.land)
        except EncoderError as e:
            raise self._break(e, flight) from e
        self._flights.append(flight)
        return flight

    def land(self, flight: Flight) -> Array:
        """Wait for a batch; a copy of its outputs ``[count, *shape]``.

        Raises:
            EncoderError: fatal; it failed, or did not end in time.
        """
        if self._broken is not None:
            raise self._broken
        if not flight.wait():
            late = TimeoutError(f"no answer within {flight.patience_s:g} s")
            raise self._break(hailo_error(late, "encoding", self._device_id, self._hef), flight)
        if flight.error is not None:
            raise self._break(hailo_error(flight.error, "encoding", self._device_id, self._hef), flight)
        self._has_run = True
        rows = flight.slot.outputs[: flight.count].copy()
        self._flights.remove(flight)
        self._slots.append(flight.slot)
        return rows

    def close(self) -> None:
        """Let the configured model go; buffers of batches under way stay where they are.

        A broken one stays as well: letting it go may wait for a device that does not answer.
        """
        _ABANDONED.extend(f.slot for f in self._flights)
        if self.broken:
            _ABANDONED.append(self._configured)
        self._flights.clear()
        self._slots.clear()
        self._configured = None

    def _bindings(self, slot: Slot, count: int) -> list[Any]:
        """New bindings for each batch: HailoRT may put buffers of its own into those it is given."""
        bindings = [self._configured.create_bindings() for _ in range(count)]
        for binding, frame, row in zip(bindings, slot.inputs, slot.outputs, strict=False):
            binding.input().set_buffer(frame)
            binding.output().set_buffer(row)
        return bindings

    def _break(self, error: EncoderError, flight: Flight) -> EncoderError:
        """Make this network unusable; all buffers that the device may know are abandoned."""
        self._broken = error
        _ABANDONED.append(flight.slot)
        _ABANDONED.extend(f.slot for f in self._flights if f is not flight)
        self._flights.clear()
        self._slots.clear()
        return error


def _prepared(platform: Any, hef: Path, kind: str, streams: list[Any], edge: Edge) -> list[int]:
    """Check the one stream of its kind, set its format; its shape."""
    if len(streams) != 1:
        names = ", ".join(str(s.name) for s in streams) or "none"
        raise HefUnfit(f"{hef}: expected one {kind}, found {len(streams)} ({names})", None)
    (stream,) = streams
    shape = [int(d) for d in stream.shape]
    if not edge.fits(shape):
        raise HefUnfit(
            f"{hef}: {kind} {stream.name} has shape {shape}, "
            f"the model's manifest calls for {list(edge.shape)}",
            None,
        )
    wanted = getattr(platform.FormatType, np.dtype(edge.dtype).name.upper())
    stream.set_format_type(wanted)
    if stream.format.type != wanted:
        raise HefUnfit(f"{hef}: {kind} {stream.name} cannot be used as {np.dtype(edge.dtype).name}", None)
    return shape


def abandon(thing: object) -> None:
    """Keep `thing` until the process ends, so that nothing waits for a device by letting it go."""
    _ABANDONED.append(thing)
