"""The canary: its file, what it refuses, and that a wrong encoder never passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hailo_clip.shared.canary import (
    Golden,
    Pair,
    encode_golden,
    load_canary,
    lowest_cosine,
    run_canary,
    save_canary,
)
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import Backend, Canary, FileEntry, ImageSpec, Manifest, TextSpec

SIDE, WIDTH = 16, 6
RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
IDS = tuple(RNG.integers(0, 99, n).astype(np.int32) for n in (2, 7, 4, 3, 5))
WEIGHTS = RNG.normal(size=(SIDE * SIDE * 3, WIDTH))


class LinearEncoder:
    """A true, if simple, encoder: a fixed linear map. `tilt` turns its answers away from the truth."""

    def __init__(self, name: str = "onnx", max_batch: int = 2, tilt: float = 0.0) -> None:
        self.name, self.max_batch, self.tilt = name, max_batch, tilt
        self.batches: list[int] = []

    def encode_images(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return self._unit(images.reshape(len(images), -1) @ WEIGHTS)

    def encode_tokens(self, ids: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.float32]:
        return self._unit(np.stack([tokens @ WEIGHTS[: len(tokens)] for tokens in ids]))

    def _unit(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        self.batches.append(len(rows))
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        unit[-1, 0] += self.tilt
        return unit.astype(np.float32)


def truth() -> Pair:
    encoder = LinearEncoder()
    return Pair(encoder.encode_images(IMAGES), encoder.encode_tokens(IDS))


def a_golden(**changes: object) -> Golden:
    return dataclasses.replace(Golden(IMAGES, IDS, {"onnx": truth()}), **changes)  # type: ignore[arg-type]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest(
        name="tiny",
        dimension=WIDTH,
        logit_scale=10,
        image=ImageSpec(SIDE),
        text=TextSpec("pooled", 9),
        backends={"onnx": Backend("i", "t")},
        files={"canary.npz": FileEntry("", 0)},
        canary=Canary("canary.npz", 0.999),
        directory=tmp_path,
    )


def test_what_is_saved_is_loaded(manifest: Manifest) -> None:
    hailo = Pair(-truth().image, -truth().text)
    save_canary(manifest.path("canary.npz"), a_golden(expected={"onnx": truth(), "hailo": hailo}))
    got = load_canary(manifest)
    np.testing.assert_array_equal(got.images, IMAGES)
    assert [list(x) for x in got.ids] == [list(x) for x in IDS]
    np.testing.assert_array_equal(got.for_backend("onnx").text, truth().text)
    np.testing.assert_array_equal(got.for_backend("hailo").image, hailo.image)


def test_the_same_golden_data_makes_the_same_file(manifest: Manifest) -> None:
    first, second = manifest.path("1"), manifest.path("2")
    save_canary(first, a_golden())
    save_canary(second, a_golden())
    assert first.read_bytes() == second.read_bytes()


def test_a_right_encoder_passes_in_batches_it_can_take(manifest: Manifest) -> None:
    save_canary(manifest.path("canary.npz"), a_golden())
    encoder = LinearEncoder(max_batch=2)
    assert run_canary(encoder, manifest) == pytest.approx(1)
    assert encoder.batches == [2, 1, 2, 2, 1]
    whole = encode_golden(LinearEncoder(max_batch=64), a_golden())
    np.testing.assert_allclose(whole.text, truth().text, atol=1e-6)


def test_a_wrong_encoder_fails_with_the_item_cosine_and_floor(manifest: Manifest) -> None:
    save_canary(manifest.path("canary.npz"), a_golden())
    with pytest.raises(
        ModelError,
        match=r"canary of tiny on onnx failed: golden (image|prompt) \d has cosine 0\.\d+ .*0\.999",
    ):
        run_canary(LinearEncoder(tilt=0.3), manifest)
    with pytest.raises(ModelError, match="cosine nan"):
        run_canary(LinearEncoder(tilt=float("nan")), manifest)


def test_one_bad_prompt_among_good_ones_is_found() -> None:
    got = truth()
    got.text[3] = -got.text[3]
    lowest = lowest_cosine(got, truth())
    assert lowest.item == "prompt 3"
    assert lowest.cosine == pytest.approx(-1)
    got.image[1, 2] = np.nan
    assert lowest_cosine(got, truth()).item == "image 1"


def test_length_does_not_matter_and_zero_is_no_match() -> None:
    got = truth()
    scaled = Pair(got.image * np.float32(7), got.text * np.float32(0.1))
    assert lowest_cosine(scaled, truth()).cosine == pytest.approx(1, abs=1e-6)
    got.image[0] = 0
    assert lowest_cosine(got, truth()).cosine == 0
    with pytest.raises(ModelError, match=r"image: embeddings of shape \[2, 6\], expected \[3, 6\]"):
        lowest_cosine(Pair(got.image[:2], got.text), truth())


def test_an_encoder_without_golden_data_does_not_pass(manifest: Manifest) -> None:
    save_canary(manifest.path("canary.npz"), a_golden())
    with pytest.raises(ModelError, match=r"no golden embeddings for the encoder hailo \(has: onnx\)"):
        run_canary(LinearEncoder("hailo"), manifest)


@pytest.mark.parametrize(
    ("golden", "why"),
    [
        (
            a_golden(images=IMAGES[:, 1:]),
            r"image is uint8 \[3, 15, 16, 3\], expected uint8 \[-1, 16, 16, 3\]",
        ),
        (a_golden(images=IMAGES[:0]), "image is"),
        (a_golden(images=IMAGES.astype(np.float32)), "image is float32"),
        (a_golden(ids=()), "holds no ids_0"),
        (a_golden(ids=(IDS[0], IDS[1].astype(np.int64))), "ids_1 is int64"),
        (a_golden(ids=IDS[:2]), "onnx_text is"),
        (a_golden(expected={"onnx": Pair(truth().image[:, :5], truth().text)}), "onnx_image is"),
    ],
)
def test_golden_data_that_does_not_fit_the_model_is_refused(
    golden: Golden, why: str, manifest: Manifest
) -> None:
    save_canary(manifest.path("canary.npz"), golden)
    with pytest.raises(ModelError, match=rf"canary\.npz: {why}"):
        load_canary(manifest)


def test_missing_and_damaged_files_are_named(manifest: Manifest) -> None:
    path = manifest.path("canary.npz")
    with pytest.raises(ModelError, match=r"canary\.npz: cannot be read"):
        load_canary(manifest)
    save_canary(path, a_golden())
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no zip at all"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"canary\.npz: cannot be read"):
            load_canary(manifest)
    np.savez(path, image=np.array([object()]), allow_pickle=True)
    with pytest.raises(ModelError, match=r"canary\.npz: cannot be read"):
        load_canary(manifest)
