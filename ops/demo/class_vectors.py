"""One embedding for each ImageNet class, from its name and the first sentence of its description."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import ModelError

Floats = npt.NDArray[np.float32]

STEP: Final = 2.0**-12
RENAMED: Final = {282: "tiger cat"}  # the list says "a cat having a striped coat"
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s")


def class_texts(names: Sequence[str], descriptions: Mapping[int, str]) -> tuple[list[str], list[str]]:
    """What is embedded for each class: a prompt with its name, and a sentence on it.

    A class without a description has its name for a sentence.
    """
    names = [RENAMED.get(i, name) for i, name in enumerate(names)]
    prompts = [f"a photo of a {name}" for name in names]
    sentences = [first_sentence(descriptions.get(i, name)) for i, name in enumerate(names)]
    return prompts, sentences


def first_sentence(text: str) -> str:
    """`text` up to and with its first full stop, exclamation or question mark before a space."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def class_vectors(
    prompts: Sequence[str], sentences: Sequence[str], embed: Callable[[Sequence[str]], Floats]
) -> Floats:
    """The mean of each class's two embeddings, to length 1: float32 ``[classes, D]``.

    Args:
        prompts: one a class.
        sentences: one a class.
        embed: texts to float32 ``[n, D]``, rows of length 1.
    """
    both = embed([*prompts, *sentences])
    mean = (both[: len(prompts)] + both[len(prompts) :]) / 2
    unit: Floats = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def residues(vectors: Floats) -> npt.NDArray[np.uint8]:
    """What `settle` needs of the reference: `vectors` in whole `STEP`s modulo 4, four to a byte."""
    twos = (np.rint(vectors.ravel() / STEP).astype(np.int64) % 4).astype(np.uint8)
    bits = np.stack([twos >> 1, twos & 1], axis=1)
    return np.packbits(bits)


def settle(vectors: Floats, pinned: npt.NDArray[np.uint8]) -> Floats:
    """`vectors` rounded to whole `STEP`s, to the same ones on every machine.

    Processors differ in the last bits of a sum, so rounding alone would now and then go another way,
    and two machines would build packages with different fingerprints. Of the steps near a value, the
    one taken is that whose number modulo 4 is pinned. It is at most one step from the value when the
    value is right, and likely farther when it is not: so this checks every class vector, too.

    Args:
        vectors: float32 ``[classes, D]``.
        pinned: `residues` of the reference.

    Raises:
        ModelError: the vectors are not those of the reference.
    """
    if pinned.size != -(-vectors.size // 4):
        raise ModelError(
            f"{vectors.size} numbers in the class vectors do not go with {pinned.size} pinned bytes"
        )
    bits = np.unpackbits(pinned)[: 2 * vectors.size].reshape(-1, 2)
    wanted = (2 * bits[:, 0] + bits[:, 1]).reshape(vectors.shape)
    steps = vectors.astype(np.float64) / STEP
    nearest = wanted + 4 * np.rint((steps - wanted) / 4)
    wrong = np.flatnonzero((np.abs(nearest - steps) > 1).any(axis=1))
    if wrong.size:
        raise ModelError(
            f"the embeddings of {wrong.size} classes differ from the reference (the first is class "
            f"{wrong[0]}): the text network, its tokenizer or this machine's ONNX Runtime is not right"
        )
    settled: Floats = (nearest * STEP).astype(np.float32)
    return settled
