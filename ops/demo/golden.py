"""Golden images and prompts of the demo model, and the embeddings that a right build gives for them.

The embeddings were worked out once by an implementation in plain NumPy that shares nothing with the ONNX
graphs (tests/unit/demo_reference.py writes them), so a build that is wrong in any part can't agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from hailo_clip.shared.canary import Golden, Pair

_DATA: Final = Path(__file__).parent.parent / "data"
IMAGES: Final = ("demo_cat.png", "demo_coffee.png")  # 224 x 224; whose they are: data/README.md
REFERENCE: Final = _DATA / "demo_reference.npz"
PROMPTS: Final = (
    "a photo of a cat",
    "A Café-crème, s'il vous plaît: 咖啡 ☕!",
    "a large rocket with a white body lifts off from its launch pad at night, its engines throwing out a "
    "bright column of fire and smoke that lights up the towers, the water and the low clouds around it",
)


def images() -> npt.NDArray[np.uint8]:
    """The golden images, uint8 ``[k, 224, 224, 3]``."""
    return np.stack([np.asarray(Image.open(_DATA / name).convert("RGB")) for name in IMAGES])


def reference() -> Pair:
    """The embeddings of `images` and `PROMPTS`."""
    with np.load(REFERENCE) as stored:
        return Pair(image=stored["image"], text=stored["text"])


def class_residues() -> npt.NDArray[np.uint8]:
    """What `class_vectors.settle` rounds by."""
    with np.load(REFERENCE) as stored:
        pinned: npt.NDArray[np.uint8] = stored["class_residues"]
        return pinned


def golden(ids: Sequence[npt.NDArray[np.int32]]) -> Golden:
    """The canary data of the package; `ids` are the token ids of `PROMPTS`."""
    return Golden(images=images(), ids=tuple(ids), expected={"onnx": reference()})
