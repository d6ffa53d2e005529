"""Handing batches to any encoder in one way, whether it can overlap them or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hailo_clip.workers.encoder import Embeddings, Encoder, Images, Pending, PipelinedEncoder, TokenIds

Inputs = Images | Sequence[TokenIds]


@dataclass(frozen=True, slots=True)
class Finished:
    """A `Pending` that is done already."""

    embeddings: Embeddings
    device_s: float
    deadline: float

    def result(self) -> Embeddings:
        """The embeddings."""
        return self.embeddings


class Pipeline:
    """Hands batches to an encoder.

    Args:
        encoder: any; to be loaded before it gets a batch.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        # Asked once: Python looks at every member of a protocol, each time.
        self._overlaps = encoder if isinstance(encoder, PipelinedEncoder) else None

    @property
    def depth(self) -> int:
        """Most batches worth handing over at a time: 1 unless the encoder overlaps them."""
        return self._overlaps.depth if self._overlaps is not None else 1

    def submit(self, inputs: Inputs, done: Callable[[], None]) -> Pending:
        """Hand a batch over; an encoder that can't overlap batches encodes it before this returns.

        Args:
            inputs: uint8 ``[n, H, W, 3]``, or n prompts as int32 ids; 1 <= n <= max_batch.
            done: called once, from any thread, when the result is there (see `PipelinedEncoder`); not called
                where it is there already, which a `Finished` says.

        Raises:
            EncoderError: the batch was not taken, or failed; `done` is not called.
        """
        if self._overlaps is not None:
            return (
                self._overlaps.submit_images(inputs, done)
                if isinstance(inputs, np.ndarray)
                else self._overlaps.submit_tokens(inputs, done)
            )
        started = time.monotonic()
        rows = (
            self._encoder.encode_images(inputs)
            if isinstance(inputs, np.ndarray)
            else self._encoder.encode_tokens(inputs)
        )
        ended = time.monotonic()
        return Finished(rows, ended - started, ended)
