"""A small CLIP with random weights: its reference in numpy, and model packages made of it.

The reference is written for reading: float64, one item at a time, formulas as in the papers (Vaswani et
al. 2017, Ba et al. 2016, Radford et al. 2021). What runs in tests (ONNX graphs, the device double) is
written apart from it, so that the two can disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.canary import Golden, Pair, save_canary
from hailo_clip.shared.manifest import (
    MANIFEST_NAME,
    Backend,
    Canary,
    FileEntry,
    ImageInput,
    ImageSpec,
    Manifest,
    TextSpec,
    dump_manifest,
    load_manifest,
)
from hailo_clip.shared.messages import Kind
from hailo_clip.shared.models import DEFAULT
from hailo_clip.workers.timing import service_time
from tests.doubles.hailo_platform._hef import Network, Stream, save_hef
from tests.doubles.tiny_onnx import export_image, export_text

Array = npt.NDArray[Any]
Orientation = Literal["in_out", "out_in"]

MEAN = (122.7709383, 116.7460125, 104.09373615)
STD = (68.5005327, 66.6321579, 70.32316305)


@dataclass(frozen=True)
class TinyClip:
    """Sizes and weights. The text network works at `inner` values a token between `width` and `width`."""

    dimension: int
    size: int
    width: int
    vocabulary: int
    context: int
    patch: int
    weights: dict[str, Array]  # float32
    table: Array  # float32 [vocabulary, width]
    projection: Array  # float32 [width, dimension], for x @ projection

    def image_features(self, image: Array) -> Array:
        """Embedding ``[dimension]`` of a uint8 ``[size, size, 3]`` image, of length 1."""
        w = self._double("image.")
        pixels = (image.astype(np.float64) - MEAN) / STD
        side, p = self.size // self.patch, self.patch
        patches = [
            pixels[y * p : (y + 1) * p, x * p : (x + 1) * p].reshape(-1)
            for y in range(side)
            for x in range(side)
        ]
        tokens = np.stack(patches) @ w["embed"] + w["positions"]
        tokens = _block(tokens, w, causal=False)
        pooled = _layer_norm(tokens, w["final.scale"], w["final.shift"]).reshape(-1)
        return _unit(pooled @ w["head"])

    def text_network(self, rows: Array) -> Array:
        """What the text network gives, ``[context, width]``, for table rows of that shape."""
        w = self._double("text.")
        tokens = (rows.astype(np.float64) + w["positions"]) @ w["embed"]
        tokens = _block(tokens, w, causal=True)
        hidden: Array = _layer_norm(tokens, w["final.scale"], w["final.shift"]) @ w["head"]
        return hidden

    def text_features(self, ids: Sequence[int] | Array) -> Array:
        """Embedding ``[dimension]`` of one prompt's token ids, of length 1."""
        padded = list(ids) + [0] * (self.context - len(ids))
        hidden = self.text_network(self.table[padded])
        first_end = padded.index(max(padded))
        return _unit(hidden[first_end] @ self.projection.astype(np.float64))

    def _double(self, prefix: str) -> dict[str, Array]:
        return {
            k.removeprefix(prefix): v.astype(np.float64)
            for k, v in self.weights.items()
            if k.startswith(prefix)
        }


def make_tiny_clip(
    dimension: int = 24,
    size: int = 64,
    width: int = 24,
    vocabulary: int = 600,
    context: int = 77,
    patch: int = 32,
    inner: int = 32,
    seed: int = 7,
) -> TinyClip:
    """A model with random weights; the same arguments give the same model.

    With `width` equal to `dimension` the projection is square, so that nothing but its values can tell
    which way round it is.
    """
    rng = np.random.default_rng(seed)
    tokens = (size // patch) ** 2

    def random(*shape: int) -> Array:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    weights = {
        "image.embed": random(patch * patch * 3, inner),
        "image.positions": random(tokens, inner),
        **_random_block("image.", inner, random),
        "image.head": random(tokens * inner, dimension),
        "text.positions": random(context, width) * 3,
        "text.embed": random(width, inner),
        **_random_block("text.", inner, random),
        "text.head": random(inner, width),
    }
    table = np.resize(random(min(vocabulary, 2000), width) * 20, (vocabulary, width))
    table[:, 0] = np.linspace(-1, 1, vocabulary, dtype=np.float32)  # no two tokens alike
    return TinyClip(
        dimension, size, width, vocabulary, context, patch, weights, table, random(width, dimension)
    )


def build_package(
    directory: Path,
    clip: TinyClip,
    name: str = "tiny",
    *,
    orientation: Orientation = "in_out",
    image_input: ImageInput = "nchw_normalised",
    backends: Iterable[str] = ("onnx",),
    batch: int | str = "n",
) -> Manifest:
    """A whole model package in ``directory/name``, golden data from the reference included.

    `image_input` and `batch` (a name, or 1 for graphs that take one item) are those of the ONNX files.
    """
    home = directory / name
    home.mkdir(parents=True)
    stored = clip.projection if orientation == "in_out" else np.ascontiguousarray(clip.projection.T)
    np.save(home / "token_embedding.npy", clip.table)
    np.save(home / "text_projection.npy", stored)
    networks = {b: _export(home, clip, b, image_input, batch) for b in backends}
    save_canary(home / "canary.npz", _golden(clip, networks))
    manifest = Manifest(
        name=name,
        dimension=clip.dimension,
        logit_scale=100.0,
        image=ImageSpec(clip.size, MEAN, STD),
        text=TextSpec(
            pipeline="clip",
            context_length=clip.context,
            token_embedding="token_embedding.npy",
            projection="text_projection.npy",
            projection_orientation=orientation,
        ),
        backends=networks,
        files={},
        canary=Canary("canary.npz", 0.9999),
    )
    return sign(replace(manifest, directory=home))


def sign(manifest: Manifest) -> Manifest:
    """Write `manifest` with the sizes and hashes that its files have now, and read it back."""
    home = manifest.path("")
    files = {p.name: _entry(p) for p in sorted(home.iterdir()) if p.name != MANIFEST_NAME}
    (home / MANIFEST_NAME).write_text(dump_manifest(replace(manifest, files=files)))
    return load_manifest(home)


def random_images(count: int, size: int, seed: int = 1) -> npt.NDArray[np.uint8]:
    """Blurred noise, uint8 ``[count, size, size, 3]``: images of low frequencies, each unlike the others."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    steps = np.arange(size) * 8 // size
    return np.ascontiguousarray(coarse[:, steps][:, :, steps])


def random_prompt(length: int, vocabulary: int = 600, seed: int = 1) -> npt.NDArray[np.int32]:
    """A prompt of `length` token ids: start token, words, end token (the two highest ids)."""
    words = np.random.default_rng(seed).integers(1, vocabulary - 2, max(0, length - 2))
    return np.array([vocabulary - 2, *words, vocabulary - 1][-length:], np.int32)


def _export(home: Path, clip: TinyClip, backend: str, image_input: ImageInput, batch: int | str) -> Backend:
    if backend == "hailo":
        export_hefs(home, clip)
        return Backend("image.hef", "text.hef")
    export_image(home / "image.onnx", clip.weights, clip.size, clip.patch, (MEAN, STD), image_input, batch)
    export_text(home / "text.onnx", clip.weights, batch)
    return Backend("image.onnx", "text.onnx", image_input)


def export_hefs(home: Path, clip: TinyClip, arch: str = "hailo10h", model: str = DEFAULT) -> None:
    """Write image.hef and text.hef for the device double, with the service times of `model`."""
    rows = [1, clip.context, clip.width]
    streams = {
        "image": (Stream("image/input_layer1", [clip.size, clip.size, 3], "UINT8"), [clip.dimension]),
        "text": (Stream("text/input_layer1", rows, "UINT8"), rows),
    }
    facts = {"patch": clip.patch, "mean": MEAN, "std": STD}
    for kind, (source, shape) in streams.items():
        target = Stream(f"{kind}/output_layer1", shape, "UINT8")
        times = service_time(model, Kind[kind.upper()])
        weights = {k.removeprefix(f"{kind}."): v for k, v in clip.weights.items() if k.startswith(kind)}
        launch, item = times.launch, times.item
        net = Network(f"{kind}_encoder", kind, arch, [source], [target], launch, item, facts, weights)
        save_hef(home / f"{kind}.hef", net)


def _golden(clip: TinyClip, backends: Iterable[str]) -> Golden:
    images = random_images(2, clip.size, seed=99)
    ids = tuple(random_prompt(n, clip.vocabulary, seed=n) for n in (3, 12, clip.context))
    pair = Pair(
        np.stack([clip.image_features(i) for i in images]).astype(np.float32),
        np.stack([clip.text_features(p) for p in ids]).astype(np.float32),
    )
    return Golden(images, ids, dict.fromkeys(backends, pair))


def _entry(path: Path) -> FileEntry:
    data = path.read_bytes()
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _random_block(prefix: str, inner: int, random: Any) -> dict[str, Array]:
    matrices = {f"{prefix}{name}": random(inner, inner) for name in ("query", "key", "value", "mix")}
    return {
        **matrices,
        f"{prefix}up": random(inner, 2 * inner),
        f"{prefix}down": random(2 * inner, inner),
        **{
            f"{prefix}{norm}.{part}": random(inner) + (1 if part == "scale" else 0)
            for norm in ("first", "second", "final")
            for part in ("scale", "shift")
        },
    }


def _block(tokens: Array, w: dict[str, Array], causal: bool) -> Array:
    """One pre-norm transformer block of one head: attention, then an MLP with quick GELU."""
    normed = _layer_norm(tokens, w["first.scale"], w["first.shift"])
    tokens = tokens + _attention(normed, w, causal) @ w["mix"]
    hidden = _layer_norm(tokens, w["second.scale"], w["second.shift"]) @ w["up"]
    out: Array = tokens + (hidden / (1 + np.exp(-1.702 * hidden))) @ w["down"]
    return out


def _attention(tokens: Array, w: dict[str, Array], causal: bool) -> Array:
    q, k, v = tokens @ w["query"], tokens @ w["key"], tokens @ w["value"]
    out = []
    for i, query in enumerate(q):
        seen = i + 1 if causal else len(k)
        scores = k[:seen] @ query / np.sqrt(len(query))
        weights = np.exp(scores - scores.max())
        out.append(weights @ v[:seen] / weights.sum())
    return np.stack(out)


def _layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    out: Array = centred / deviation * scale + shift
    return out


def _unit(x: Array) -> Array:
    out: Array = x / np.linalg.norm(x)
    return out
