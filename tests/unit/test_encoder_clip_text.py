"""Table look-up, gather and projection of CLIP texts, and files that don't fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.clip_text import ClipText, load_clip_text
from tests.doubles.tiny_clip import Orientation, TinyClip, build_package, make_tiny_clip, random_prompt


@pytest.fixture
def clip() -> TinyClip:
    return make_tiny_clip(dimension=20)


@pytest.fixture
def package(tmp_path: Path, clip: TinyClip) -> Manifest:
    return build_package(tmp_path, clip)


def test_rows_are_the_table_and_padding_is_token_0(package: Manifest, clip: TinyClip) -> None:
    text = load_clip_text(package)
    rows = text.rows([np.array([598, 5, 599], np.int32), random_prompt(77)])
    assert rows.shape == (2, 77, 24)
    assert rows.dtype == np.float32
    assert np.array_equal(rows[0, :3], clip.table[[598, 5, 599]])
    assert np.array_equal(rows[0, 3:], np.repeat(clip.table[:1], 74, axis=0))
    assert np.array_equal(rows[1], clip.table[random_prompt(77)])


def test_rows_go_into_a_given_buffer(package: Manifest, clip: TinyClip) -> None:
    text = load_clip_text(package)
    buffer = np.full((2, 77, 24), np.nan, np.float32)
    assert text.rows([random_prompt(5), random_prompt(9)], out=buffer) is buffer
    assert np.array_equal(buffer[1, :9], clip.table[random_prompt(9)])


def test_features_come_from_the_first_end_token() -> None:
    hidden = np.arange(2 * 5 * 2, dtype=np.float32).reshape(2, 5, 2)
    text = ClipText(np.zeros((10, 2), np.float32), np.eye(2, dtype=np.float32), 5)
    prompts = [np.array([8, 9, 9, 3], np.int32), np.array([8, 1, 2, 3, 9], np.int32)]
    assert text.features(hidden, prompts).tolist() == [hidden[0, 1].tolist(), hidden[1, 4].tolist()]


@pytest.mark.parametrize("orientation", ["in_out", "out_in"])
def test_projection_is_turned_as_the_manifest_says(
    tmp_path: Path, clip: TinyClip, orientation: Orientation
) -> None:
    text = load_clip_text(build_package(tmp_path, clip, "p", orientation=orientation))
    assert np.array_equal(text.projection, clip.projection)
    assert text.projection.flags.c_contiguous


def test_the_table_is_mapped_not_read(package: Manifest) -> None:
    table = load_clip_text(package).table
    owner = table.base
    assert isinstance(owner, np.memmap)
    assert not table.flags.writeable


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "0 tokens, allowed are 1 to 77"),
        ([1] * 78, "78 tokens, allowed are 1 to 77"),
        ([1, 600], "outside the table of 600 tokens"),
        ([-1, 1], "outside the table of 600 tokens"),
    ],
)
def test_ids_that_cannot_be(package: Manifest, ids: list[int], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_clip_text(package).rows([np.array(ids, np.int32)])


def test_a_hidden_state_of_another_shape(package: Manifest) -> None:
    with pytest.raises(EncoderError, match=r"gave shape \[1, 76, 24\], expected \[1, 77, 24\]"):
        load_clip_text(package).features(np.zeros((1, 76, 24), np.float32), [random_prompt(3)])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("token_embedding.npy", None, "cannot be read as a .npy file"),
        ("token_embedding.npy", np.zeros((600, 24), np.float64), "one float32 matrix"),
        ("token_embedding.npy", np.zeros(600, np.float32), "one float32 matrix"),
        ("text_projection.npy", np.zeros((20, 24), np.float32), r"shape \[20, 24\], expected \[24, 20\]"),
        ("text_projection.npy", np.zeros((24, 21), np.float32), r"shape \[24, 21\], expected \[24, 20\]"),
    ],
)
def test_a_file_that_does_not_fit_is_named(package: Manifest, file: str, content: Any, message: str) -> None:
    path = package.path(file)
    if content is None:
        path.write_bytes(path.read_bytes()[:200])
    else:
        np.save(path, content)
    with pytest.raises(EncoderError, match=message) as caught:
        load_clip_text(package)
    assert caught.value.fatal
    assert file in str(caught.value)


def test_an_object_array_is_never_unpickled(package: Manifest) -> None:
    np.save(package.path("text_projection.npy"), np.array([{}], object), allow_pickle=True)
    with pytest.raises(EncoderError, match=r"text_projection\.npy"):
        load_clip_text(package)


def test_a_missing_file_is_named(package: Manifest) -> None:
    gone = replace(package, text=replace(package.text, projection="gone.npy"))
    with pytest.raises(EncoderError, match=r"gone\.npy"):
        load_clip_text(gone)
