"""Proof that an encoder works, before it is offered any request: the canary.

Real models carry golden embeddings in their package. An emulated one has none; its golden embeddings are
worked out by the function that defines them, so that a fault switched on in it shows all the same.
"""

from __future__ import annotations

import numpy as np

from hailo_clip.shared.canary import Golden, Pair, encode_golden, lowest_cosine, run_canary
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Kind
from hailo_clip.shared.models import is_emulated
from hailo_clip.workers.encoder import Encoder

_IDS = np.array([49406, 320, 2368, 49407], np.int32)  # "a cat"


def prove(encoder: Encoder, manifest: Manifest) -> float:
    """The lowest cosine over the golden items.

    Raises:
        ModelError: it is below the manifest's floor.
        EncoderError: the encoder failed.
    """
    if not is_emulated(manifest):
        return run_canary(encoder, manifest)
    golden = _emulated_golden(manifest)
    lowest = lowest_cosine(encode_golden(encoder, golden), golden.for_backend(encoder.name))
    if not lowest.cosine >= manifest.canary.floor:
        raise ModelError(f"canary of {manifest.name} failed: golden {lowest.item} has cosine {lowest.cosine}")
    return lowest.cosine


def _emulated_golden(manifest: Manifest) -> Golden:
    from hailo_clip.workers.emulated import emulated_embedding

    side = manifest.image.size
    image = np.zeros((1, side, side, 3), np.uint8)
    pair = Pair(
        image=emulated_embedding(Kind.IMAGE, image.tobytes(), manifest.dimension)[None],
        text=emulated_embedding(Kind.TEXT, _IDS.tobytes(), manifest.dimension)[None],
    )
    return Golden(image, (_IDS,), {"emulated": pair})
