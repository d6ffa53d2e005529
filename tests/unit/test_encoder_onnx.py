"""The ONNX encoder gives the reference's embeddings, and refuses files that are not what they should be."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto

from hailo_clip.shared.canary import run_canary
from hailo_clip.shared.errors import EncoderError, ModelError
from hailo_clip.shared.manifest import Backend, ImageInput, Manifest, TextSpec
from hailo_clip.workers.onnx import OnnxEncoder
from tests.doubles.tiny_clip import (
    Orientation,
    TinyClip,
    build_package,
    make_tiny_clip,
    random_images,
    random_prompt,
    sign,
)
from tests.doubles.tiny_onnx import Graph, export_image, export_pooled, export_text


@pytest.fixture(scope="module")
def clip() -> TinyClip:
    return make_tiny_clip()


def loaded(manifest: Manifest) -> OnnxEncoder:
    encoder = OnnxEncoder(manifest)
    encoder.load()
    return encoder


@pytest.mark.parametrize("orientation", ["in_out", "out_in"])
@pytest.mark.parametrize("image_input", ["nchw_normalised", "nhwc_uint8"])
@pytest.mark.parametrize("batch", ["n", 1])
def test_embeddings_equal_the_reference(
    tmp_path: Path, clip: TinyClip, orientation: Orientation, image_input: ImageInput, batch: int | str
) -> None:
    package = build_package(tmp_path, clip, orientation=orientation, image_input=image_input, batch=batch)
    encoder = loaded(package)
    images = random_images(8, clip.size)
    prompts = [random_prompt(n, seed=n) for n in (2, 7, 30, 77)]
    truth_images = np.stack([clip.image_features(i) for i in images])
    truth_texts = np.stack([clip.text_features(p) for p in prompts])
    assert (encoder.encode_images(images) * truth_images).sum(1).min() >= 0.99999
    assert (encoder.encode_tokens(prompts) * truth_texts).sum(1).min() >= 0.99999
    assert run_canary(encoder, package) >= 0.99999


def test_prompts_of_every_length_alone_and_in_batches(tmp_path: Path, clip: TinyClip) -> None:
    encoder = loaded(build_package(tmp_path, clip))
    prompts = [random_prompt(n, seed=n) for n in range(1, 78)]
    truth = np.stack([clip.text_features(p) for p in prompts])
    alone = np.concatenate([encoder.encode_tokens([p]) for p in prompts])
    batched = np.concatenate([encoder.encode_tokens(prompts[i : i + 8]) for i in range(0, 77, 8)])
    assert (alone * truth).sum(1).min() >= 0.99999
    assert np.abs(alone - batched).max() <= 1e-5


def test_an_image_alone_and_in_a_batch(tmp_path: Path, clip: TinyClip) -> None:
    encoder = loaded(build_package(tmp_path, clip))
    images = random_images(8, clip.size)
    alone = np.concatenate([encoder.encode_images(images[i : i + 1]) for i in range(8)])
    assert np.abs(alone - encoder.encode_images(images)).max() <= 1e-5


def test_a_projection_the_wrong_way_round_shows(tmp_path: Path, clip: TinyClip) -> None:
    package = build_package(tmp_path, clip, orientation="in_out")
    wrong = replace(package, text=replace(package.text, projection_orientation="out_in"))
    with pytest.raises(ModelError, match="golden prompt"):
        run_canary(loaded(wrong), wrong)


def pooled_package(
    tmp_path: Path, clip: TinyClip, length: int | str = "l"
) -> tuple[Manifest, npt.NDArray[np.float32]]:
    package = build_package(tmp_path, clip)
    table = np.random.default_rng(3).standard_normal((50, clip.dimension)).astype(np.float32)
    export_pooled(package.path("text.onnx"), table, length)
    return sign(replace(package, text=TextSpec("pooled", 40))), table


@pytest.mark.parametrize("length", ["l", 16])
def test_pooled_text_masks_its_padding(tmp_path: Path, clip: TinyClip, length: int | str) -> None:
    package, table = pooled_package(tmp_path, clip, length)
    encoder = loaded(package)
    prompts = [random_prompt(n, 50, seed=n) for n in (1, 5, 16, 2)]
    raw = np.stack([np.tanh(table[p].mean(axis=0)) for p in prompts])
    truth = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(encoder.encode_tokens(prompts) - truth).max() < 1e-5
    assert np.abs(encoder.encode_tokens(prompts[:1]) - truth[:1]).max() < 1e-5


def test_pooled_text_longer_than_the_graph_allows(tmp_path: Path, clip: TinyClip) -> None:
    package, _ = pooled_package(tmp_path, clip, 16)
    with pytest.raises(EncoderError, match="17 tokens, the text network takes 16"):
        loaded(package).encode_tokens([random_prompt(17, 50)])


def break_nothing_there(package: Manifest, clip: TinyClip) -> None:
    package.path("image.onnx").unlink()


def break_garbage(package: Manifest, clip: TinyClip) -> None:
    package.path("image.onnx").write_bytes(b"no model")


def break_size(package: Manifest, clip: TinyClip) -> None:
    other = make_tiny_clip(size=96)
    export_image(
        package.path("image.onnx"), other.weights, 96, 32, ((0,) * 3, (1,) * 3), "nchw_normalised", "n"
    )


def break_type(package: Manifest, clip: TinyClip) -> None:
    export_image(package.path("image.onnx"), clip.weights, 64, 32, ((0,) * 3, (1,) * 3), "nhwc_uint8", "n")


def break_batch(package: Manifest, clip: TinyClip) -> None:
    export_text(package.path("text.onnx"), clip.weights, 4)


def break_swapped(package: Manifest, clip: TinyClip) -> None:
    package.path("image.onnx").write_bytes(package.path("text.onnx").read_bytes())


def break_dimension(package: Manifest, clip: TinyClip) -> None:
    other = make_tiny_clip(dimension=25)
    export_image(
        package.path("image.onnx"), other.weights, 64, 32, ((0,) * 3, (1,) * 3), "nchw_normalised", "n"
    )


def break_inputs(package: Manifest, clip: TinyClip) -> None:
    export_pooled(package.path("text.onnx"), clip.table)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_nothing_there, r"image\.onnx: ONNX Runtime cannot open it"),
        (break_garbage, r"image\.onnx: ONNX Runtime cannot open it"),
        (break_size, r"image\.onnx: input pixels is tensor\(float\) \[any, 3, 96, 96\], expected .*64, 64"),
        (break_type, r"image\.onnx: input pixels is tensor\(uint8\) .* expected tensor\(float\)"),
        (break_batch, r"text\.onnx: input rows is tensor\(float\) \[4, 77, 24\], expected .*\[any, 77, 24\]"),
        (break_swapped, r"image\.onnx: input rows is"),
        (break_dimension, r"image\.onnx: output embedding is tensor\(float\) \[any, 25\], expected .*24"),
        (break_inputs, r"text\.onnx: expected one input, found ids, mask"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, clip: TinyClip, damage: Any, message: str) -> None:
    package = build_package(tmp_path, clip)
    damage(package, clip)
    with pytest.raises(EncoderError, match=message) as caught:
        loaded(package)
    assert caught.value.fatal


def test_extra_dimensions_of_one_are_fine(tmp_path: Path, clip: TinyClip) -> None:
    package = build_package(tmp_path, clip)
    graph = Graph()
    out = graph.op("Mul", "rows", np.array(2, np.float32))
    shape = [1, 1, 77, clip.width]
    graph.save(package.path("text.onnx"), {"rows": (TensorProto.FLOAT, shape)}, out, shape)
    prompts = [random_prompt(n) for n in (4, 9)]
    raw = np.stack([clip.table[p[-1]] @ clip.projection for p in prompts])
    truth = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(loaded(package).encode_tokens(prompts) - truth).max() < 1e-5


def test_a_network_that_fails_is_an_encoder_error_and_the_next_call_works(
    tmp_path: Path, clip: TinyClip
) -> None:
    package, table = pooled_package(tmp_path, clip)
    encoder = loaded(package)
    with pytest.raises(EncoderError, match=r"text\.onnx: ONNX Runtime failed") as caught:
        encoder.encode_tokens([np.array([1, len(table)], np.int32)])
    assert not caught.value.fatal
    assert encoder.encode_tokens([np.array([1, 2], np.int32)]).shape == (1, clip.dimension)


def test_not_a_number_in_the_weights_is_an_encoder_error(tmp_path: Path, clip: TinyClip) -> None:
    package, table = pooled_package(tmp_path, clip)
    table[7, 0] = np.nan
    export_pooled(package.path("text.onnx"), table)
    encoder = loaded(package)
    with pytest.raises(EncoderError, match="not finite"):
        encoder.encode_tokens([np.array([7], np.int32)])


def test_images_of_another_size_are_refused(tmp_path: Path, clip: TinyClip) -> None:
    encoder = loaded(build_package(tmp_path, clip))
    with pytest.raises(EncoderError, match=r"expected uint8 \[n, 64, 64, 3\]"):
        encoder.encode_images(random_images(1, 32))


def test_without_onnxruntime_it_says_what_to_type(
    tmp_path: Path, clip: TinyClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = build_package(tmp_path, clip)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EncoderError, match=r"pip install 'hailo-clip\[onnx\]'") as caught:
        loaded(package)
    assert caught.value.fatal


def test_a_package_without_onnx_files(tmp_path: Path, clip: TinyClip) -> None:
    package = build_package(tmp_path, clip)
    only_hailo = replace(package, backends={"hailo": Backend("image.onnx", "text.onnx")})
    with pytest.raises(EncoderError, match="no ONNX files"):
        loaded(only_hailo)


def test_closing_twice_and_using_it_after(tmp_path: Path, clip: TinyClip) -> None:
    encoder = loaded(build_package(tmp_path, clip))
    encoder.close()
    encoder.close()
    with pytest.raises(EncoderError, match="before load"):
        encoder.encode_images(random_images(1, clip.size))
