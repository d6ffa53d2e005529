"""Which way round a text projection is: settled by a prompt whose embedding is known.

A square projection fits both ways, and only the embeddings tell. With a prompt and the embedding that the
original model gives it, each way is computed on an encoder that is here, and the one that gives it is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from hailo_clip.ops.models_proof import REFERENCE_FLOOR
from hailo_clip.shared.errors import ModelError

Orientation = Literal["in_out", "out_in"]
WAYS: Final[tuple[Orientation, ...]] = ("in_out", "out_in")


@dataclass(frozen=True, slots=True)
class GoldenPair:
    """A prompt and its embedding by the original model, of length 1."""

    prompt: str
    embedding: npt.NDArray[np.float32]


def read_pair(prompt: str, path: Path) -> GoldenPair:
    """The pair of `prompt` and the .npy file with its embedding, of whatever length. Raises `ModelError`."""
    try:
        raw: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as e:
        raise ModelError(f"{path} cannot be read as a .npy file: {e}") from e
    if not isinstance(raw, np.ndarray) or not np.issubdtype(raw.dtype, np.floating):
        raise ModelError(f"{path} must hold the prompt's embedding: floating-point numbers")
    row = raw.astype(np.float32).reshape(-1)
    length = float(np.linalg.norm(row))
    if not np.isfinite(length) or length == 0:
        raise ModelError(f"{path} holds zeros alone, or values that are not finite")
    return GoldenPair(prompt, row / np.float32(length))


def settle(pair: GoldenPair, found: Mapping[Orientation, npt.NDArray[np.float32]]) -> tuple[Orientation, str]:
    """The orientation under which the prompt has its embedding, and a line about it.

    Args:
        pair: what is known.
        found: the prompt's embedding under each orientation that fits the files' shapes.

    Raises:
        ModelError: it is none of them, or they can't be told apart.
    """
    cosines: dict[Orientation, float] = {}
    for way, row in found.items():
        if row.shape != pair.embedding.shape:
            raise ModelError(
                f"the golden embedding has {pair.embedding.size} values, this model gives {row.size}"
            )
        cosines[way] = float(row @ pair.embedding)
    told = ", ".join(f"{way} {cosine:.4f}" for way, cosine in cosines.items())
    best = max(cosines, key=lambda way: cosines[way])
    others = [cosine for way, cosine in cosines.items() if way != best]
    if not cosines[best] >= REFERENCE_FLOOR:
        raise ModelError(
            f"the prompt {pair.prompt!r} does not have the golden embedding (cosine: {told}; expected: at "
            f"least {REFERENCE_FLOOR:g}): the embedding is another model's, or a file is"
        )
    if any(cosine >= REFERENCE_FLOOR for cosine in others):
        raise ModelError(
            f"the golden pair does not tell the orientations apart (cosine: {told}); take another"
        )
    return best, f"the projection's orientation is {best}: cosine of the golden prompt {told}"
