"""The emulated encoder: service times of a Hailo-10H, embeddings that mean nothing.

For tests, benchmarks and capacity planning, and named "emulated" wherever it shows. An embedding is a
function of its input's bytes alone (`emulated_embedding`), so a test that sends a nonce can tell whether
the answer belongs to it. Workers that name the same device take turns on it, across processes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Kind
from hailo_clip.shared.models import EMULATED_PREFIX, is_emulated
from hailo_clip.workers.emulated_faults import POISON, VARIABLE, Faults, described
from hailo_clip.workers.encoder import Embeddings, Images, TokenIds, normalised
from hailo_clip.workers.timing import DeviceTurn, service_time

NAME = "emulated"
EXIT_CRASHED = 70

log = logging.getLogger(__name__)


def emulated_embedding(kind: Kind, payload: bytes | memoryview, dimension: int) -> npt.NDArray[np.float32]:
    """The embedding ``[dimension]`` that this encoder gives for one item, of length 1.

    Args:
        kind: image or text.
        payload: the item's bytes as on the wire: uint8 ``[H, W, 3]``, or int32 token ids, little-endian.
        dimension: of the model.
    """
    seed = hashlib.blake2b(payload, digest_size=32, person=kind.name.lower().encode()).digest()
    stream = hashlib.shake_256(seed).digest(2 * dimension)
    raw = np.frombuffer(stream, "<i2").astype(np.float32)[None]
    embedding: npt.NDArray[np.float32] = normalised(raw, 1, dimension)[0]
    return embedding


class EmulatedEncoder:
    """See `Encoder`.

    Args:
        manifest: one of the emulated models.
        device_id: "emu:0", "emu:1" and so on.
        max_batch: most items of one call.
        run_dir: directory of the devices' locks; processes that share it share the devices.
        faults: what goes wrong.
    """

    def __init__(
        self,
        manifest: Manifest,
        device_id: str,
        max_batch: int,
        run_dir: Path,
        faults: Faults = Faults(),  # noqa: B008  (frozen)
    ) -> None:
        if not is_emulated(manifest):
            raise EncoderError(f"the emulated encoder does not run {manifest.name}", fatal=True)
        self._manifest = manifest
        self._device_id = device_id
        self._max_batch = max_batch
        self._faults = faults.at(device_id)
        self._turn = DeviceTurn(run_dir, device_id)
        real = manifest.name.removeprefix(EMULATED_PREFIX)
        self._times = {kind: service_time(real, kind) for kind in Kind}
        self._loaded = False
        self._calls = 0

    @property
    def name(self) -> str:
        """What runs: nothing real."""
        return NAME

    @property
    def device_id(self) -> str:
        """The emulated device."""
        return self._device_id

    @property
    def max_batch(self) -> int:
        """Most items of one call."""
        return self._max_batch

    def load(self) -> None:
        """Open the device's lock. Raises `EncoderError` if the faults or the directory say so."""
        if changed := described(self._faults):
            log.warning("emulated encoder with faults from %s: %s", VARIABLE, changed)
        time.sleep(self._faults.load_slow_s)
        if self._faults.load_fail:
            raise EncoderError("emulated: load fails as asked for by load_fail", fatal=True)
        try:
            self._turn.open()
        except OSError as e:
            raise EncoderError(f"emulated: cannot open the device's lock: {e}", fatal=True) from e
        self._loaded = True

    def encode_images(self, images: Images) -> Embeddings:
        """See `Encoder.encode_images`; takes the time of a Hailo-10H."""
        size = self._manifest.image.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise EncoderError(
                f"images are {images.dtype} {list(images.shape)}, expected uint8 [n, {size}, {size}, 3]"
            )
        payloads = [np.ascontiguousarray(image).data.cast("B") for image in images]
        poisoned = bool(self._faults.poison) and any(POISON in image.tobytes() for image in images)
        return self._encode(Kind.IMAGE, payloads, poisoned)

    def encode_tokens(self, ids: Sequence[TokenIds]) -> Embeddings:
        """See `Encoder.encode_tokens`; takes the time of a Hailo-10H."""
        payloads = [np.ascontiguousarray(prompt, "<i4").data.cast("B") for prompt in ids]
        token = self._faults.poison_token
        poisoned = token is not None and any(token in prompt for prompt in ids)
        return self._encode(Kind.TEXT, payloads, poisoned)

    def close(self) -> None:
        """Close the device's lock. Safe to call twice and after a failed `load`."""
        self._turn.close()
        self._loaded = False

    def _encode(self, kind: Kind, payloads: Sequence[memoryview], poisoned: bool) -> Embeddings:
        if not self._loaded:
            raise EncoderError("encoder used before load", fatal=True)
        if not 1 <= len(payloads) <= self._max_batch:
            raise EncoderError(f"a batch has {len(payloads)} items, allowed are 1 to {self._max_batch}")
        seconds = self._times[kind].of(len(payloads)) * self._faults.time_scale * self._faults.slow
        with self._turn.busy(seconds):
            self._misbehave(poisoned)
            rows = np.stack([emulated_embedding(kind, p, self._manifest.dimension) for p in payloads])
        return self._spoilt(rows)

    def _misbehave(self, poisoned: bool) -> None:
        """Whatever the switches want at this call, while this process has the device."""
        f, done = self._faults, self._calls
        self._calls += 1
        act = f.poison if poisoned else ""
        if act == "crash" or (f.crash_after is not None and done >= f.crash_after):
            _crash(f.crash_with)
        if act == "hang" or (f.hang_after is not None and done >= f.hang_after):
            _hang()
        if act == "raise":
            raise EncoderError("emulated: poison in the batch")
        if f.fail or f.fail_fatal:
            raise EncoderError("emulated: fails as asked for by fail", fatal=f.fail_fatal)

    def _spoilt(self, rows: Embeddings) -> Embeddings:
        """`rows`, or what the switches nan and wrong_dim make of them: a worker's output gone wrong."""
        if self._faults.nan:
            rows = np.full_like(rows, np.nan)
        if self._faults.wrong_dim:
            rows = np.concatenate([rows, rows[:, :1]], axis=1)
        return rows


def _crash(how: str) -> NoReturn:
    if how == "exit":
        os._exit(EXIT_CRASHED)
    os.kill(os.getpid(), signal.SIGKILL)
    _hang()  # the signal may take a moment


def _hang() -> NoReturn:
    while True:
        time.sleep(3600)
