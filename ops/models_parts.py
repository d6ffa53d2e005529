"""The files that a CLIP model package is built from, and the manifest that they make."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hailo_clip.ops.models_arrays import onnx_image_input, read_projection, read_table
from hailo_clip.ops.models_orientation import GoldenPair, Orientation
from hailo_clip.ops.models_proof import FLOOR
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import (
    BUILTIN_TOKENIZER,
    Backend,
    Canary,
    ImageInput,
    ImageSpec,
    Manifest,
    TextSpec,
)
from hailo_clip.shared.models import EMULATED, EMULATED_PREFIX, open_model

CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
"""What all of OpenAI's CLIP models were trained with, on the pixel scale (Radford et al. 2021)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the user has at hand.

    Attributes:
        networks: backend ("hailo", "onnx") to its image and text network.
        orientation: how the projection P is applied: "in_out" ``x @ P``, "out_in" ``x @ P.T``; None: what
            `golden` tells.
        golden: a prompt whose embedding is known.
        image_size: side in pixels; None: from the ONNX file, else what is known of a model of this name.
        tokenizer: in the format of the `tokenizers` library; None: CLIP's own.
        final_norm: .npy ``[2, width]`` with scale and shift of the text tower's last LayerNorm, for text
            networks that end before it.
        facts: further manifest fields: title, about, licence, source, logit_scale.
    """

    name: str
    networks: Mapping[str, tuple[Path, Path]]
    token_embedding: Path
    text_projection: Path
    orientation: Orientation | None
    image_size: int | None = None
    context_length: int = 77
    tokenizer: Path | None = None
    final_norm: Path | None = None
    facts: Mapping[str, str | float] = field(default_factory=dict)
    golden: GoldenPair | None = None


def draft(parts: Parts, staged: Path, remarks: list[str]) -> Manifest:
    """The manifest but for its files; table and projection are written to `staged` on the way.

    Raises:
        ModelError: a file is missing or does not fit the others.
    """
    assert parts.orientation is not None
    projection = read_projection(parts.text_projection)
    width, dimension = projection.shape if parts.orientation == "in_out" else projection.shape[::-1]
    table, turned = read_table(parts.token_embedding, width)
    if turned:
        remarks.append(f"{parts.token_embedding} holds the table as [width, vocabulary]; it was turned")
    np.save(staged / "token_embedding.npy", table)
    np.save(staged / "text_projection.npy", projection)
    size, image_input = _image(parts)
    if parts.final_norm is not None:
        shutil.copyfile(parts.final_norm, staged / "final_norm.npy")
    if parts.tokenizer is not None:
        shutil.copyfile(parts.tokenizer, staged / "tokenizer.json")
    inputs: dict[str, ImageInput] = {"hailo": "nhwc_uint8", "onnx": image_input}
    manifest = Manifest(
        name=parts.name,
        dimension=dimension,
        logit_scale=100.0,
        image=ImageSpec(size, CLIP_MEAN, CLIP_STD),
        text=TextSpec(
            pipeline="clip",
            context_length=parts.context_length,
            tokenizer=BUILTIN_TOKENIZER if parts.tokenizer is None else "tokenizer.json",
            token_embedding="token_embedding.npy",  # noqa: S106  (a file name)
            projection="text_projection.npy",
            projection_orientation=parts.orientation,
            final_norm=None if parts.final_norm is None else "final_norm.npy",
        ),
        backends={b: Backend(*names(b), inputs[b]) for b in parts.networks},
        files={},
        canary=Canary("canary.npz", FLOOR),
        directory=staged,
    )
    return dataclasses.replace(manifest, **parts.facts)  # type: ignore[arg-type]  # text and a number


def names(backend: str) -> tuple[str, str]:
    """File names of a backend's networks in a package: image, text."""
    ending = {"hailo": "hef", "onnx": "onnx"}[backend]
    return f"image.{ending}", f"text.{ending}"


def _image(parts: Parts) -> tuple[int, ImageInput]:
    """Side in pixels, and what the ONNX image network takes (if there is one)."""
    found: int | None = None
    image_input: ImageInput = "nhwc_uint8"
    if "onnx" in parts.networks:
        found, image_input = onnx_image_input(parts.networks["onnx"][0])
    if found and parts.image_size and found != parts.image_size:
        raise ModelError(f"--image-size is {parts.image_size}, {parts.networks['onnx'][0]} takes {found}")
    known = EMULATED_PREFIX + parts.name
    size = found or parts.image_size
    if size is None and known in EMULATED:
        size = open_model(known, Path()).image.size
    if size is None:
        raise ModelError("give --image-size: no file at hand tells the image's side in pixels")
    return size, image_input
