"""The encoder's thread: loads the model, proves it with the canary, then encodes batch after batch.

The worker's other thread talks to the broker meanwhile, so a batch never delays a heartbeat. Inputs are
unpacked by that other thread (`unpack`), and an encoder that can takes the next batch while one runs.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from dataclasses import dataclass
from enum import Enum

import numpy as np

from hailo_clip.shared.errors import EncoderError, HailoClipError, SetupError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Batch, Kind, Result
from hailo_clip.shared.models import is_emulated, verify_files
from hailo_clip.workers.encoder import Encoder, Pending
from hailo_clip.workers.pipeline import Finished, Inputs, Pipeline
from hailo_clip.workers.proof import Proof, prove
from hailo_clip.workers.session import ExitCode

log = logging.getLogger("hailo_clip.worker")


@dataclass(frozen=True, slots=True)
class Loaded:
    """An outcome: the canary passed."""

    proof: Proof


@dataclass(frozen=True, slots=True)
class Broken:
    """An outcome: the encoder is unusable; `code` says what may help."""

    reason: str
    code: ExitCode = ExitCode.FAILED


Outcome = Loaded | Broken | Result


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch: waiting while `pending` is None, then with the encoder."""

    batch: Batch
    inputs: Inputs
    pending: Pending | None = None


class _Wish(Enum):
    """What the thread is asked to do beside encoding."""

    CANARY = 0
    STOP = 1


def unpack(batch: Batch, image_size: int) -> Inputs:
    """A batch's payload frames as encoder inputs: uint8 ``[n, H, W, 3]``, or n arrays of int32 ids.

    Raises:
        ValueError: a payload does not have the model's shape.
    """
    if batch.kind == Kind.TEXT:
        return [np.frombuffer(frame, np.int32) for frame in batch.frames]
    if len(batch.frames) == 1:  # nothing to put together, so nothing is copied
        return np.frombuffer(batch.frames[0], np.uint8).reshape(1, image_size, image_size, 3)
    images = np.empty((len(batch.frames), image_size, image_size, 3), np.uint8)
    for image, frame in zip(images, batch.frames, strict=True):
        image[:] = np.frombuffer(frame, np.uint8).reshape(image.shape)
    return images


class Engine:
    """Owns `encoder` in a thread of its own; outcomes are fetched with `outcomes` when `fd` is readable."""

    def __init__(self, encoder: Encoder, manifest: Manifest) -> None:
        self._encoder = encoder
        self._pipeline = Pipeline(encoder)
        self._manifest = manifest
        self._work: queue.SimpleQueue[_Flight | _Wish] = queue.SimpleQueue()
        self._flying: list[_Flight] = []
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="encoder", daemon=True)
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def encode(self, batch: Batch, inputs: Inputs) -> None:
        """Encode this batch after those before it."""
        self._work.put(_Flight(batch, inputs))

    def canary(self) -> None:
        """Run the canary once more."""
        self._work.put(_Wish.CANARY)

    def outcomes(self) -> list[Outcome]:
        """What came out since the last call."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        found = []
        while not self._done.empty():
            found.append(self._done.get())
        return found

    def stop(self, timeout_s: float) -> bool:
        """Finish and close the encoder; False when it is still busy after `timeout_s` seconds."""
        self._work.put(_Wish.STOP)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        loaded = False
        try:
            self._report(self._load())
            loaded = True
            self._serve()
        except HailoClipError as e:
            self._report(Broken(e.message, _what_helps(e, loaded)))
        except Exception as e:
            log.exception("the encoder's thread failed")
            self._report(Broken(f"unexpected {type(e).__name__}: {e}"))
        finally:
            self._encoder.close()

    def _serve(self) -> None:
        """Hand batches over as they come, report each when it is done, until told to stop."""
        while True:
            match self._next():
                case _Flight() as flight if flight.pending is not None:
                    self._land(flight)
                case _Flight() as flight:
                    self._launch(flight)
                case _Wish.CANARY:
                    self._land_all()
                    self._report(self._proved())
                case _Wish.STOP:
                    self._land_all()
                    return

    def _next(self) -> _Flight | _Wish:
        """What comes next; a batch whose deadline passed unannounced counts as done, to raise its error."""
        oldest = self._flying[0] if self._flying else None
        if oldest is None or oldest.pending is None:
            return self._work.get()
        try:
            return self._work.get(timeout=max(0.0, oldest.pending.deadline - time.monotonic()))
        except queue.Empty:
            return oldest

    def _launch(self, flight: _Flight) -> None:
        self._flying.append(flight)
        try:
            flight.pending = self._pipeline.submit(flight.inputs, lambda: self._work.put(flight))
        except EncoderError as e:
            self._failed(flight, e)
            return
        if isinstance(flight.pending, Finished):
            self._land(flight)

    def _land(self, flight: _Flight) -> None:
        """Report the batch; a second announcement of the same one says nothing new."""
        if flight not in self._flying or flight.pending is None:
            return
        batch, pending = flight.batch, flight.pending
        try:
            rows = pending.result()
        except EncoderError as e:
            self._failed(flight, e)
            return
        self._flying.remove(flight)
        told = {"batch": batch.batch_id, "traces": batch.traces, "seconds": round(pending.device_s, 6)}
        log.debug("batch done", extra=told)
        self._report(Result(batch.epoch, batch.batch_id, pending.device_s, (), (rows.tobytes(),)))

    def _land_all(self) -> None:
        for flight in list(self._flying):
            self._land(flight)

    def _failed(self, flight: _Flight, e: EncoderError) -> None:
        """An error fails the whole batch, which the broker then splits; a fatal one ends the encoder."""
        self._flying.remove(flight)
        batch = flight.batch
        log.error("batch failed: %s", e.message, extra={"batch": batch.batch_id, "traces": batch.traces})
        if e.fatal:
            raise e
        self._report(Result(batch.epoch, batch.batch_id, 0.0, (e.to_wire(),) * len(batch.frames)))

    def _load(self) -> Loaded:
        started = time.monotonic()
        if not is_emulated(self._manifest):
            verify_files(self._manifest, self._encoder.name)
        self._encoder.load()
        loaded = self._proved()
        log.info(
            "model loaded, canary passed",
            extra={
                "model": self._manifest.name,
                "encoder": self._encoder.name,
                "device": self._encoder.device_id,
                "cosine": round(loaded.proof.cosine, 6),
                "seconds": round(time.monotonic() - started, 3),
            },
        )
        return loaded

    def _proved(self) -> Loaded:
        return Loaded(prove(self._encoder, self._manifest))

    def _report(self, outcome: Outcome) -> None:
        self._done.put(outcome)
        os.eventfd_write(self.fd, 1)


def _what_helps(error: HailoClipError, loaded: bool) -> ExitCode:
    """Time, somebody's hand, or a new process: what was fine once may be fine again."""
    if error.retry_after_s is not None:
        return ExitCode.HELD
    if not loaded and (isinstance(error, SetupError) or (isinstance(error, EncoderError) and error.fatal)):
        return ExitCode.UNFIT
    return ExitCode.FAILED
