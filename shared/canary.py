"""The canary: golden inputs of a model, and proof that an encoder gives the right embeddings for them.

A worker runs it after loading its model, before it says that it is ready, and again now and then. It catches
what no checksum can: a network compiled for other inputs, a projection turned the wrong way round, a
device that computes nonsense. The golden data is one file of the package, `canary.npz`::

    image                uint8   [k, H, W, 3]   model input tensors
    ids_0 ... ids_<m-1>  int32   [n]            token ids, start and end token included, no padding
    <backend>_image      float32 [k, D]         the embeddings that this backend must give
    <backend>_text       float32 [m, D]
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import Manifest

Images = npt.NDArray[np.uint8]  # [n, H, W, 3]
TokenIds = npt.NDArray[np.int32]  # [tokens]
Embeddings = npt.NDArray[np.float32]  # [n, D]


class CanEncode(Protocol):
    """What the canary needs of an encoder."""

    @property
    def name(self) -> str:
        """Whose golden data counts: "hailo" or "onnx"."""
        ...

    @property
    def max_batch(self) -> int:
        """Most items of one call."""
        ...

    def encode_images(self, images: Images) -> Embeddings:
        """Embeddings of uint8 ``[n, H, W, 3]``, n <= max_batch."""
        ...

    def encode_tokens(self, ids: Sequence[TokenIds]) -> Embeddings:
        """Embeddings of n prompts as token ids, n <= max_batch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Embeddings of the golden images, float32 ``[k, D]``, and prompts, ``[m, D]``."""

    image: Embeddings
    text: Embeddings


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """The golden data of a model: at least one image and one prompt.

    Attributes:
        images: uint8 ``[k, H, W, 3]``.
        ids: m prompts as int32 token ids.
        expected: what each backend must give.
    """

    images: Images
    ids: tuple[TokenIds, ...]
    expected: Mapping[str, Pair]

    def for_backend(self, backend: str) -> Pair:
        """What `backend` must give. Raises `ModelError` when there is nothing for it."""
        if backend not in self.expected:
            known = ", ".join(sorted(self.expected)) or "none"
            raise ModelError(
                f"the package has no golden embeddings for the encoder {backend} (has: {known}). Where it "
                f"runs, type: hailo-clip models verify MODEL --encoder {backend} --record"
            )
        return self.expected[backend]


@dataclass(frozen=True, slots=True)
class Lowest:
    """The golden item that agrees least: "image 0", "prompt 2", and its cosine (NaN when not a number)."""

    item: str
    cosine: float


def save_canary(path: Path, golden: Golden) -> None:
    """Write `golden` to `path` and to the disk. Raises `OSError`."""
    arrays: dict[str, npt.NDArray[Any]] = {"image": golden.images}
    arrays |= {f"ids_{i}": ids for i, ids in enumerate(golden.ids)}
    for backend, pair in golden.expected.items():
        arrays |= {f"{backend}_image": pair.image, f"{backend}_text": pair.text}
    with path.open("wb") as f:
        np.savez_compressed(f, **arrays)  # type: ignore[arg-type]  # the names collide with no parameter
        f.flush()
        os.fsync(f.fileno())


def load_canary(manifest: Manifest) -> Golden:
    """The golden data of the package, checked against its manifest.

    Raises:
        ModelError: the file is missing or damaged, or an array has not the type and shape that the
            manifest calls for; the message names the file and the array.
    """
    path = manifest.path(manifest.canary.file)
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
        raise ModelError(f"{path}: cannot be read: {e}") from e
    try:
        return _golden(arrays, manifest)
    except ModelError as e:
        raise ModelError(f"{path}: {e.message}") from None


def encode_golden(encoder: CanEncode, golden: Golden) -> Pair:
    """What `encoder` gives for the golden items, in batches of at most its `max_batch`."""
    size = max(1, encoder.max_batch)
    return Pair(
        image=_in_batches(golden.images, size, encoder.encode_images),
        text=_in_batches(golden.ids, size, encoder.encode_tokens),
    )


def cosines(got: Pair, expected: Pair) -> list[tuple[str, float]]:
    """Each golden item ("image 0", "prompt 2") and the cosine between what `got` and `expected` have for it.

    NaN where an embedding is not finite.

    Raises:
        ModelError: the two are not of the same shape.
    """
    found = []
    for kind, ours, theirs in (("image", got.image, expected.image), ("prompt", got.text, expected.text)):
        if ours.shape != theirs.shape:
            raise ModelError(f"{kind}: embeddings of shape {list(ours.shape)}, expected {list(theirs.shape)}")
        for index, (a, b) in enumerate(zip(ours.astype(np.float64), theirs.astype(np.float64), strict=True)):
            length = max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)
            found.append((f"{kind} {index}", float(a @ b / length)))
    return found


def lowest_cosine(got: Pair, expected: Pair) -> Lowest:
    """The item where `got` and `expected` agree least; one that is not finite counts as least of all.

    Raises:
        ModelError: the two are not of the same shape.
    """
    found = cosines(got, expected)
    return Lowest(*min(found, key=lambda item: (item[1] == item[1], item[1])))


def run_canary(encoder: CanEncode, manifest: Manifest) -> float:
    """Encode the golden items and compare; the lowest cosine.

    Raises:
        ModelError: it is below the manifest's floor (the message names the item, the cosine and the
            floor), or the package has no golden data for this encoder.
        EncoderError: the encoder failed.
    """
    golden = load_canary(manifest)
    expected = golden.for_backend(encoder.name)
    lowest = lowest_cosine(encode_golden(encoder, golden), expected)
    floor = manifest.canary.floor_of(encoder.name)
    if not lowest.cosine >= floor:
        raise ModelError(
            f"canary of {manifest.name} on {encoder.name} failed: golden {lowest.item} has cosine "
            f"{lowest.cosine:.6f} to its expected embedding, the floor is {floor}"
        )
    return lowest.cosine


_Items = TypeVar("_Items", Images, tuple[TokenIds, ...])


def _in_batches(items: _Items, size: int, encode: Callable[[_Items], Embeddings]) -> Embeddings:
    starts = range(0, len(items), size)
    return np.concatenate([encode(items[i : i + size]) for i in starts])


def _golden(arrays: Mapping[str, npt.NDArray[Any]], manifest: Manifest) -> Golden:
    side = manifest.image.size
    images = _array(arrays, "image", np.uint8, (-1, side, side, 3))
    count = sum(name.startswith("ids_") for name in arrays)
    ids = tuple(_array(arrays, f"ids_{i}", np.int32, (-1,)) for i in range(count))
    if not ids:
        raise ModelError("holds no ids_0")
    backends = [name.removesuffix("_image") for name in arrays if name.endswith("_image")]
    shapes = {"image": (len(images), manifest.dimension), "text": (count, manifest.dimension)}
    expected = {
        b: Pair(*(_array(arrays, f"{b}_{kind}", np.float32, shape) for kind, shape in shapes.items()))
        for b in backends
    }
    return Golden(images, ids, expected)


def _array(
    arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Array `name`, of `dtype` and `shape`, where -1 is any length but 0."""
    if name not in arrays:
        raise ModelError(f"holds no {name}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(
        (w == -1 and h > 0) or w == h for w, h in zip(shape, array.shape, strict=False)
    )
    if array.dtype != dtype or not fits:
        raise ModelError(
            f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}"
        )
    return array
