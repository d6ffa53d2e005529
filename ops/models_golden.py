"""Golden items of models that are fetched: two photos and three prompts, two of which describe them.

Photos are what a quantised network was calibrated for, so that its embeddings lie as near to the float
network's as they ever do; and a model that does not tell a cat from a cup of coffee is broken, whatever its
checksums say: a projection that is turned the wrong way round, say, or towers of two models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from hailo_clip.shared.canary import Golden, Pair
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.tokenizer import load_tokenizer

PHOTOS: Final = ("demo_cat.png", "demo_coffee.png")
PROMPTS: Final = (
    "a photo of a cat",
    "a photo of a cup of coffee",
    "A Café-crème, s'il vous plaît: 咖啡 ☕!",
)
"""The first ones describe `PHOTOS`, in their order."""

_DATA: Final = Path(__file__).parent / "data"


def photo_golden(draft: Manifest) -> Golden:
    """`PHOTOS` and `PROMPTS` as inputs of the model; nothing expected of them yet."""
    side = draft.image.size
    images = [
        Image.open(_DATA / name).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        for name in PHOTOS
    ]
    tokenizer = load_tokenizer(draft)
    return Golden(np.stack([np.asarray(i) for i in images]), tuple(tokenizer.encode(p) for p in PROMPTS), {})


def has_photos(manifest: Manifest, golden: Golden) -> bool:
    """True when `golden` is what `photo_golden` made."""
    ours = photo_golden(manifest)
    same_ids = len(ours.ids) == len(golden.ids) and all(map(np.array_equal, ours.ids, golden.ids))
    return same_ids and np.array_equal(ours.images, golden.images)


def check_photos(backend: str, pair: Pair) -> str:
    """One line that says how well `backend` tells the photos apart.

    Raises:
        ModelError: a photo is nearer to the other's description than to its own.
    """
    cosines = pair.image @ pair.text[: len(PHOTOS)].T
    told = ", ".join(f"{PROMPTS[i]!r} {row[i]:.3f} against {row[1 - i]:.3f}" for i, row in enumerate(cosines))
    if not all(row.argmax() == i for i, row in enumerate(cosines)):
        raise ModelError(
            f"{backend} does not tell a cat from a cup of coffee (cosine of each photo to its own "
            f"description and to the other's: {told}). Its parts do not belong together, or one of them is "
            "broken"
        )
    return f"{backend} tells two photos apart: {told}"
