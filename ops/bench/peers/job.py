"""The job that every peer does: image or prompt in, embedding of the emulated encoder out.

The encoder is the service's own, with the same lock for the device, so every server has the same device.
The way from the file to the model's input is the one that most people write with Pillow; where $BENCH_DECODER
is "ours" it is hailo-clip's, to tell apart what the server does and what the decoder does.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image

from hailo_clip.shared.models import models_dir, open_model
from hailo_clip.shared.tokenizer import load_tokenizer
from hailo_clip.workers.emulated import EmulatedEncoder

MODEL = "emulated-clip-resnet-50x4"
DEVICE = "emu:0"
BATCH = 8
SIZE = 288
DIRECTORY = "BENCH_DIRECTORY"
DECODER = "BENCH_DECODER"

Pixels = npt.NDArray[np.uint8]
Embeddings = npt.NDArray[np.float32]


def encoder() -> EmulatedEncoder:
    """The loaded encoder; for the process that uses it."""
    made = EmulatedEncoder(open_model(MODEL, models_dir(None)), DEVICE, BATCH, Path(os.environ[DIRECTORY]))
    made.load()
    return made


class Prompts:
    """From prompts to token ids."""

    def __init__(self) -> None:
        self._tokenizer = load_tokenizer(open_model(MODEL, models_dir(None)))

    def ids(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """Token ids of each."""
        return [self._tokenizer.encode(text) for text in texts]


def pixels(image: str) -> Pixels:
    """The model's input from an image in base64."""
    data = base64.b64decode(image)
    if os.environ.get(DECODER) == "ours":
        from hailo_clip.api.image import decode_image

        return decode_image(data, SIZE)
    return plain(data, SIZE)


def plain(data: bytes, size: int) -> Pixels:
    """Decode, bicubic to the short side, centre crop."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    short = min(width, height)
    resized = picture.resize((size * width // short, size * height // short), Image.Resampling.BICUBIC)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def answer(row: Embeddings) -> bytes:
    """The JSON of one embedding, by the fastest encoder there is."""
    body = {"embedding": row, "dimension": len(row), "model": MODEL}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
