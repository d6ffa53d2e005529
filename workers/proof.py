"""Proof that an encoder works, before it is offered any request: the canary.

Real models carry golden embeddings in their package. An emulated one has none; its golden embeddings are
worked out by the function that defines them, so that a fault switched on in it shows all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hailo_clip.shared.canary import Golden, Pair, encode_golden, lowest_cosine, run_canary
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Kind, Timings
from hailo_clip.shared.models import is_emulated
from hailo_clip.workers.encoder import Embeddings, Encoder, Images, TokenIds

_IDS = np.array([49406, 320, 2368, 49407], np.int32)  # "a cat"


_Items = TypeVar("_Items", Images, Sequence[TokenIds])


@dataclass(frozen=True, slots=True)
class Proof:
    """The canary passed: the lowest cosine over the golden items, and what its batches took (`Timings`)."""

    cosine: float
    batches: Timings


def prove(encoder: Encoder, manifest: Manifest) -> Proof:
    """Run the canary.

    Raises:
        ModelError: a cosine is below the manifest's floor.
        EncoderError: the encoder failed.
    """
    timed = _Timed(encoder)
    if not is_emulated(manifest):
        cosine = run_canary(timed, manifest)
        return Proof(cosine, timed.batches())
    golden = _emulated_golden(manifest)
    lowest = lowest_cosine(encode_golden(timed, golden), golden.for_backend(encoder.name))
    if not lowest.cosine >= manifest.canary.floor:
        raise ModelError(f"canary of {manifest.name} failed: golden {lowest.item} has cosine {lowest.cosine}")
    return Proof(lowest.cosine, timed.batches())


class _Timed:
    """An encoder, as the canary sees it, that remembers the slowest batch of each kind."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._slowest: dict[Kind, tuple[int, float]] = {}
        self.name = encoder.name
        self.max_batch = encoder.max_batch

    def encode_images(self, images: Images) -> Embeddings:
        return self._timed(Kind.IMAGE, images, self._encoder.encode_images)

    def encode_tokens(self, ids: Sequence[TokenIds]) -> Embeddings:
        return self._timed(Kind.TEXT, ids, self._encoder.encode_tokens)

    def batches(self) -> Timings:
        return tuple(self._slowest[kind] for kind in Kind)

    def _timed(self, kind: Kind, items: _Items, encode: Callable[[_Items], Embeddings]) -> Embeddings:
        began = time.monotonic()
        rows = encode(items)
        took = (len(items), round(time.monotonic() - began, 6))
        self._slowest[kind] = max(took, self._slowest.get(kind, took), key=lambda batch: batch[1])
        return rows


def _emulated_golden(manifest: Manifest) -> Golden:
    from hailo_clip.workers.emulated import emulated_embedding

    side = manifest.image.size
    image = np.zeros((1, side, side, 3), np.uint8)
    pair = Pair(
        image=emulated_embedding(Kind.IMAGE, image.tobytes(), manifest.dimension)[None],
        text=emulated_embedding(Kind.TEXT, _IDS.tobytes(), manifest.dimension)[None],
    )
    return Golden(image, (_IDS,), {"emulated": pair})
