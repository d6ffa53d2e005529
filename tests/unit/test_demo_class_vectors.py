"""Class texts and vectors, and their rounding to the same numbers on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from hailo_clip.ops.demo.class_vectors import (
    STEP,
    class_texts,
    class_vectors,
    first_sentence,
    residues,
    settle,
)
from hailo_clip.shared.errors import ModelError


def unit_rows(seed: int, rows: int = 50, width: int = 13) -> npt.NDArray[np.float32]:
    x = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    unit: npt.NDArray[np.float32] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def test_texts_of_a_class() -> None:
    names = [f"thing {i}" for i in range(283)]
    prompts, sentences = class_texts(names, {1: "A thing that is round. It rolls."})
    assert prompts[1] == "a photo of a thing 1"
    assert sentences[1] == "A thing that is round."
    assert sentences[2] == "thing 2"
    assert (prompts[282], sentences[282]) == ("a photo of a tiger cat", "tiger cat")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        (" Is it? Yes.", "Is it?"),
        ("About 1.5 m tall.\nBrown.", "About 1.5 m tall."),
        ("No end", "No end"),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_class_vector_is_the_mean_of_its_two_texts() -> None:
    table = {"p0": [1, 0, 0], "p1": [0, 1, 0], "s0": [0, 1, 0], "s1": [0, 1, 0]}

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([table[t] for t in texts], np.float32)

    got = class_vectors(["p0", "p1"], ["s0", "s1"], embed)
    np.testing.assert_allclose(got, [[0.5**0.5, 0.5**0.5, 0], [0, 1, 0]], atol=1e-7)


def test_machines_that_differ_in_the_last_bits_settle_on_the_same_numbers() -> None:
    exact = unit_rows(1)
    pinned = residues(exact)
    settled = settle(exact, pinned)
    assert np.abs(settled - exact).max() <= STEP / 2
    on_the_edge = settled + np.float32(STEP / 2)
    rng = np.random.default_rng(2)
    for values in (exact, on_the_edge):
        for _ in range(5):
            noise = rng.uniform(-STEP / 8, STEP / 8, exact.shape).astype(np.float32)
            np.testing.assert_array_equal(settle(values + noise, pinned), settled)


def test_one_wrong_class_is_found() -> None:
    vectors = unit_rows(1)
    pinned = residues(vectors)
    vectors[[17, 18]] = vectors[[18, 17]]
    with pytest.raises(ModelError, match=r"2 classes differ .*first is class 17"):
        settle(vectors, pinned)
    with pytest.raises(ModelError, match=r"117 numbers .* 163 pinned bytes"):
        settle(vectors[:9], pinned)
