"""The Hailo encoder against the device double: right embeddings, overlap, and HEFs that don't fit."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hailo_clip.shared.canary import run_canary
from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.catalog import make_encoder
from hailo_clip.workers.clip_text import Floats
from hailo_clip.workers.encoder import PipelinedEncoder
from hailo_clip.workers.hailo import LOG_VARIABLE, HailoEncoder
from hailo_clip.workers.hailo_status import HefUnfit, SetupFault
from hailo_clip.workers.pipeline import Finished, Pipeline
from tests.doubles.hailo_double import FIRST, Double, install
from tests.doubles.hailo_platform._hef import Stream, load_hef, save_hef
from tests.doubles.tiny_clip import (
    Orientation,
    TinyClip,
    build_package,
    export_hefs,
    make_tiny_clip,
    random_images,
    random_prompt,
)

CLIP = make_tiny_clip()


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(tmp_path / "devices", monkeypatch)


@pytest.fixture
def package(tmp_path: Path) -> Manifest:
    return build_package(tmp_path, CLIP, backends=("hailo",))


@pytest.fixture
def encoder(double: Double, package: Manifest, tmp_path: Path) -> Iterator[HailoEncoder]:
    made = HailoEncoder(package, FIRST, 8, tmp_path / "log")
    made.load()
    yield made
    made.close()


def image_truth(images: np.ndarray, clip: TinyClip = CLIP) -> np.ndarray:
    return np.stack([clip.image_features(i) for i in images])


def text_truth(prompts: list[np.ndarray], clip: TinyClip = CLIP) -> np.ndarray:
    return np.stack([clip.text_features(p) for p in prompts])


def lowest(rows: Floats, truth: np.ndarray) -> float:
    return float((rows * truth).sum(axis=1).min())


@pytest.mark.parametrize("orientation", ["in_out", "out_in"])
@pytest.mark.parametrize("dimension", [24, 20])
def test_embeddings_equal_the_reference(
    tmp_path: Path, double: Double, orientation: Orientation, dimension: int
) -> None:
    clip = make_tiny_clip(dimension=dimension)
    package = build_package(tmp_path, clip, orientation=orientation, backends=("hailo",))
    encoder = make_encoder(package, "hailo", FIRST, 8, run_dir=tmp_path)
    encoder.load()
    images = random_images(8, clip.size)
    prompts = [random_prompt(n, seed=n) for n in range(1, 78)]
    rows = np.concatenate([encoder.encode_tokens(prompts[i : i + 8]) for i in range(0, 77, 8)])
    alone = np.concatenate([encoder.encode_tokens([p]) for p in prompts])
    assert lowest(encoder.encode_images(images), image_truth(images, clip)) >= 0.99999
    assert lowest(rows, text_truth(prompts, clip)) >= 0.99999
    assert np.abs(rows - alone).max() <= 1e-5
    assert run_canary(encoder, package) >= 0.99999
    encoder.close()


def test_inputs_may_be_read_only_and_strided(encoder: HailoEncoder) -> None:
    images = random_images(4, CLIP.size)
    message = np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape)
    ids = [np.frombuffer(random_prompt(5).tobytes(), np.int32)]
    assert lowest(encoder.encode_images(message), image_truth(images)) >= 0.99999
    assert lowest(encoder.encode_images(message[::-2]), image_truth(images[::-2])) >= 0.99999
    assert lowest(encoder.encode_tokens(ids), text_truth(ids)) >= 0.99999


def test_the_next_batch_is_on_the_device_before_the_last_is_asked_for(encoder: HailoEncoder) -> None:
    images = random_images(6, CLIP.size)
    prompts = [random_prompt(n) for n in (4, 9)]
    told: list[str] = []
    batches = [images[:3].copy(), images[3:].copy()]
    first = encoder.submit_images(batches[0], lambda: told.append("first"))
    second = encoder.submit_images(batches[1], lambda: told.append("second"))
    words = encoder.submit_tokens(prompts, lambda: told.append("words"))
    for batch in batches:
        batch[:] = 0
    assert lowest(words.result(), text_truth(prompts)) >= 0.99999
    assert lowest(second.result(), image_truth(images[3:])) >= 0.99999
    assert lowest(first.result(), image_truth(images[:3])) >= 0.99999
    assert sorted(told) == ["first", "second", "words"]
    assert np.array_equal(first.result(), first.result())
    assert min(p.device_s for p in (first, second, words)) > 0


def test_more_batches_than_the_device_takes_wait_their_turn(encoder: HailoEncoder) -> None:
    images = random_images(20, CLIP.size)
    pending = [encoder.submit_images(images[i : i + 4], lambda: None) for i in range(0, 20, 4)]
    rows = np.concatenate([p.result() for p in pending])
    assert encoder.depth == 2
    assert lowest(rows, image_truth(images)) >= 0.99999


def test_done_is_told_when_the_result_is_there(encoder: HailoEncoder) -> None:
    done = threading.Event()
    pending = encoder.submit_images(random_images(1, CLIP.size), done.set)
    assert done.wait(10)
    assert pending.result().shape == (1, CLIP.dimension)


def test_any_encoder_takes_a_batch_by_submit(tmp_path: Path, encoder: HailoEncoder) -> None:
    onnx = make_encoder(build_package(tmp_path, CLIP, "two"), "onnx", "cpu", 8, run_dir=tmp_path)
    onnx.load()
    images, prompts = random_images(2, CLIP.size), [random_prompt(5)]
    assert (Pipeline(encoder).depth, Pipeline(onnx).depth) == (2, 1)
    assert isinstance(encoder, PipelinedEncoder)
    for each in (encoder, onnx):
        done: list[bool] = []
        pictures = Pipeline(each).submit(images, lambda told=done: told.append(True))  # type: ignore[misc]
        words = Pipeline(each).submit(prompts, lambda told=done: told.append(True))  # type: ignore[misc]
        assert lowest(pictures.result(), image_truth(images)) >= 0.99999
        assert lowest(words.result(), text_truth(prompts)) >= 0.99999
        # What is done before submit returns needs no announcement.
        assert done == ([] if each is onnx else [True, True])
        assert isinstance(pictures, Finished) is (each is onnx)
        assert pictures.device_s > 0


def test_a_batch_that_cannot_be_prepared_hurts_nobody(encoder: HailoEncoder) -> None:
    with pytest.raises(EncoderError, match="78 tokens") as caught:
        encoder.encode_tokens([np.ones(78, np.int32)])
    assert not caught.value.fatal
    with pytest.raises(EncoderError, match="expected uint8"):
        encoder.encode_images(random_images(1, 32))
    with pytest.raises(EncoderError, match="9 items, allowed are 1 to 8"):
        encoder.encode_images(random_images(9, CLIP.size))
    images = random_images(8, CLIP.size)
    assert lowest(encoder.encode_images(images), image_truth(images)) >= 0.99999
    assert encoder.encode_tokens([random_prompt(77)] * 8).shape == (8, CLIP.dimension)


def test_not_a_number_is_an_error_of_the_encoder(encoder: HailoEncoder, double: Double) -> None:
    double.fault(nan=True)
    with pytest.raises(EncoderError, match="not finite"):
        encoder.encode_images(random_images(1, CLIP.size))


def test_closed_with_batches_under_way(encoder: HailoEncoder) -> None:
    pending = encoder.submit_images(random_images(1, CLIP.size), lambda: None)
    encoder.close()
    encoder.close()
    with pytest.raises(EncoderError, match="closed"):
        pending.result()
    with pytest.raises(EncoderError, match="before load"):
        encoder.encode_images(random_images(1, CLIP.size))


def test_a_release_that_fails_is_only_logged(
    encoder: HailoEncoder, double: Double, caplog: pytest.LogCaptureFixture
) -> None:
    double.fault(release=8)
    encoder.close()
    assert "HAILO_INTERNAL_FAILURE (8)" in caplog.text


def swapped(package: Manifest) -> None:
    package.path("image.hef").write_bytes(package.path("text.hef").read_bytes())


def another_size(package: Manifest) -> None:
    export_hefs(package.path(""), make_tiny_clip(size=96))


def another_dimension(package: Manifest) -> None:
    export_hefs(package.path(""), make_tiny_clip(dimension=25))


def another_width(package: Manifest) -> None:
    export_hefs(package.path(""), make_tiny_clip(width=26))


def another_chip(package: Manifest) -> None:
    export_hefs(package.path(""), CLIP, arch="hailo8")


def garbage(package: Manifest) -> None:
    package.path("text.hef").write_bytes(b"garbage")


def missing(package: Manifest) -> None:
    package.path("text.hef").unlink()


def two_outputs(package: Manifest) -> None:
    path = package.path("image.hef")
    network = load_hef(path.read_bytes())
    extra = Stream("image/extra", [4], "UINT8")
    save_hef(path, replace(network, outputs=[*network.outputs, extra]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swapped, r"image\.hef: input text/input_layer1 has shape \[1, 77, 24\], .* calls for \[64, 64, 3\]"),
        (another_size, r"image\.hef: input image/input_layer1 has shape \[96, 96, 3\]"),
        (another_dimension, r"image\.hef: output image/output_layer1 has shape \[25\], .* calls for \[24\]"),
        (another_width, r"text\.hef: input text/input_layer1 has shape \[1, 77, 26\]"),
        (another_chip, r"image\.hef: .*HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE \(93\).*hailo-clip models pull"),
        (garbage, r"text\.hef: .*HAILO_INVALID_HEF \(26\).*hailo-clip models verify"),
        (missing, r"text\.hef is missing; type: hailo-clip models pull tiny"),
        (two_outputs, r"image\.hef: expected one output, found 2 \(image/output_layer1, image/extra\)"),
    ],
)
def test_a_hef_that_does_not_fit_is_named(
    double: Double, package: Manifest, damage: Callable[[Manifest], None], message: str
) -> None:
    damage(package)
    encoder = HailoEncoder(package, FIRST, 8)
    with pytest.raises(EncoderError, match=message) as caught:
        encoder.load()
    assert caught.value.fatal
    assert caught.value.retry_after_s is None
    encoder.close()
    assert double.clients() == []


def test_a_device_that_queues_too_little(double: Double, package: Manifest) -> None:
    double.fault(queue=6)
    encoder = HailoEncoder(package, FIRST, 8)
    with pytest.raises(HefUnfit, match=r"set workers\.max_batch to 6 or less"):
        encoder.load()
    encoder.close()


def test_room_for_one_batch_only(double: Double, package: Manifest) -> None:
    double.fault(queue=15)
    encoder = HailoEncoder(package, FIRST, 8)
    encoder.load()
    images = random_images(8, CLIP.size)
    pending = [encoder.submit_images(images[i : i + 4], lambda: None) for i in (0, 4)]
    assert encoder.depth == 1
    assert lowest(np.concatenate([p.result() for p in pending]), image_truth(images)) >= 0.99999
    encoder.close()


def test_a_package_without_hefs(tmp_path: Path, double: Double) -> None:
    with pytest.raises(EncoderError, match="has no HEFs"):
        HailoEncoder(build_package(tmp_path, CLIP), FIRST, 8).load()


def test_its_log_goes_where_it_is_told(encoder: HailoEncoder, tmp_path: Path) -> None:
    assert os.environ[LOG_VARIABLE] == str(tmp_path / "log")
    assert (tmp_path / "log").is_dir()


def test_an_operator_may_choose_where_the_log_goes(
    double: Double, package: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "NONE")
    encoder = HailoEncoder(package, FIRST, 8, tmp_path / "log")
    encoder.load()
    assert os.environ[LOG_VARIABLE] == "NONE"
    encoder.close()


def test_without_the_package_it_says_what_to_type(
    double: Double, package: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not p.endswith("doubles")])
    with pytest.raises(SetupFault, match="python3-h10-hailort") as caught:
        HailoEncoder(package, FIRST, 8).load()
    assert caught.value.fatal
    assert not caught.value.transient


@pytest.mark.parametrize(
    "source",
    ["raise ImportError('_pyhailort version (5.1.1) does not match')", "import libhailort_that_is_not_there"],
)
def test_a_package_that_does_not_fit_says_so(
    double: Double, package: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "hailo_platform.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SetupFault, match="cannot be imported"):
        HailoEncoder(package, FIRST, 8).load()
