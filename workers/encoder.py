"""The one interface that every encoder has, and the checks on what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import EncoderError

Images = npt.NDArray[np.uint8]  # [n, H, W, 3]
TokenIds = npt.NDArray[np.int32]  # [n_tokens], start and end token included, unpadded
Embeddings = npt.NDArray[np.float32]  # [n, D], rows of length 1


class Encoder(Protocol):
    """Turns model inputs into embeddings; used by one thread of one process.

    `load` is called once, in the process that uses the encoder; before it nothing heavy happens, and
    `device_id` and `max_batch` may be read.
    """

    @property
    def name(self) -> str:
        """What runs: "hailo", "onnx" or "emulated"."""
        ...

    @property
    def device_id(self) -> str:
        """The physical device, e.g. "cpu" or "0000:01:00.0"; workers of one device contend for it."""
        ...

    @property
    def max_batch(self) -> int:
        """Most items of one call."""
        ...

    def load(self) -> None:
        """Open the device and load the model. Raises `EncoderError`."""
        ...

    def encode_images(self, images: Images) -> Embeddings:
        """Embeddings of uint8 ``[n, H, W, 3]`` RGB images, 1 <= n <= max_batch. Raises `EncoderError`."""
        ...

    def encode_tokens(self, ids: Sequence[TokenIds]) -> Embeddings:
        """Embeddings of n prompts, 1 <= n <= max_batch, as unpadded int32 ids. Raises `EncoderError`."""
        ...

    def close(self) -> None:
        """Let go of the device. Safe to call twice and after a failed `load`."""
        ...


class Pending(Protocol):
    """A batch on its way through an encoder."""

    @property
    def deadline(self) -> float:
        """Monotonic time from which `result` raises at once instead of waiting."""
        ...

    @property
    def device_s(self) -> float:
        """Seconds that the device had this batch, 0 before it is done."""
        ...

    def result(self) -> Embeddings:
        """The embeddings; waits for them until `deadline`. Raises `EncoderError`."""
        ...


@runtime_checkable
class PipelinedEncoder(Encoder, Protocol):
    """An encoder whose host work for one batch may overlap device work for another.

    A batch is handed over with `submit_images` or `submit_tokens`, which prepare it (stacking, table
    look-up) and queue it on the device without waiting for it; with up to `depth` batches handed over, the
    device goes from one to the next without a pause. Both and `Pending.result` are called by one thread;
    `done` is called once, from any thread, when `result` need not wait any more. It must be quick. It is
    not called when the submit raised, and may never be called when the device hangs: then `deadline` says
    when to stop waiting. Use `pipeline.Pipeline`, which works with any encoder.
    """

    @property
    def depth(self) -> int:
        """Most batches worth handing over before the oldest is done."""
        ...

    def submit_images(self, images: Images, done: Callable[[], None]) -> Pending:
        """`encode_images` without waiting; `images` may be changed afterwards. Raises `EncoderError`."""
        ...

    def submit_tokens(self, ids: Sequence[TokenIds], done: Callable[[], None]) -> Pending:
        """`encode_tokens` without waiting; `ids` may be changed afterwards. Raises `EncoderError`."""
        ...


def normalised(raw: npt.NDArray[np.floating], count: int, dimension: int) -> Embeddings:
    """L2-normalised float32 rows of an encoder's raw output ``[count, dimension]``.

    Raises:
        EncoderError: the shape is wrong, a value is not finite or a row is zero. Each is a fault of the
            encoder, never of the input.
    """
    if raw.shape != (count, dimension):
        raise EncoderError(f"encoder gave shape {list(raw.shape)}, expected [{count}, {dimension}]")
    rows = np.ascontiguousarray(raw, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms < 1e-12).any():
        raise EncoderError("encoder gave an embedding that is zero or not finite")
    unit: Embeddings = rows / norms
    return unit
