"""The emulated encoder: embeddings that tell whose they are, a device in turns, faults on demand."""

from __future__ import annotations

import fcntl
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.messages import Kind
from hailo_clip.shared.models import EMULATED, open_model
from hailo_clip.workers.catalog import make_encoder
from hailo_clip.workers.emulated import EXIT_CRASHED, EmulatedEncoder, emulated_embedding
from hailo_clip.workers.emulated_faults import POISON, Faults, described, parse_faults
from hailo_clip.workers.encoder import Images
from hailo_clip.workers.timing import DeviceTurn, service_time

MODEL = "emulated-clip-vit-b-32"
SIZE = 224


def encoder(tmp_path: Path, faults: str = "", device: str = "emu:0", model: str = MODEL) -> EmulatedEncoder:
    parsed = parse_faults(f"time_scale=0,{faults}")
    made = EmulatedEncoder(open_model(model, tmp_path), device, 8, tmp_path / "run", parsed)
    made.load()
    return made


def images(count: int, seed: int = 1) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("model", EMULATED)
def test_every_emulated_model_gives_unit_vectors_of_its_dimension(tmp_path: Path, model: str) -> None:
    manifest = open_model(model, tmp_path)
    made = encoder(tmp_path, model=model)
    size = manifest.image.size
    rows = made.encode_images(np.zeros((2, size, size, 3), np.uint8))
    assert rows.shape == (2, manifest.dimension)
    assert rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    assert made.encode_tokens([np.array([1, 2], np.int32)]).shape == (1, manifest.dimension)


def test_an_embedding_is_a_function_of_the_bytes_alone(tmp_path: Path) -> None:
    batch = images(8)
    prompts = [np.array([49406, i, 49407], np.int32) for i in range(8)]
    rows = encoder(tmp_path).encode_images(batch)
    texts = encoder(tmp_path, device="emu:1").encode_tokens(prompts)
    for i in range(8):
        assert np.array_equal(rows[i], emulated_embedding(Kind.IMAGE, batch[i].tobytes(), 512))
        assert np.array_equal(texts[i], emulated_embedding(Kind.TEXT, prompts[i].tobytes(), 512))
    cosines = np.concatenate([rows, texts]) @ np.concatenate([rows, texts]).T
    np.fill_diagonal(cosines, 0)
    assert np.abs(cosines).max() < 0.3


def test_a_view_that_is_not_contiguous_gives_the_same(tmp_path: Path) -> None:
    batch = images(3)
    flipped = batch[::-1]
    assert np.array_equal(
        encoder(tmp_path).encode_images(flipped), encoder(tmp_path).encode_images(batch)[::-1]
    )


@pytest.mark.parametrize(
    ("model", "kind", "launch_ms", "item_ms"),
    [
        ("clip-resnet-50x4", Kind.IMAGE, 10.83, 5.016),
        ("clip-resnet-50x4", Kind.TEXT, 15.36, 11.67),
        ("clip-vit-b-32", Kind.IMAGE, 12.51, 1.422),
        ("tinyclip-61m-32", Kind.TEXT, 11.60, 6.614),
    ],
)
def test_service_times_are_solved_from_the_published_rates(
    model: str, kind: Kind, launch_ms: float, item_ms: float
) -> None:
    times = service_time(model, kind)
    assert times.launch * 1000 == pytest.approx(launch_ms, abs=0.006)
    assert times.item * 1000 == pytest.approx(item_ms, abs=0.004)
    assert times.of(8) == pytest.approx(times.launch + 8 * times.item)


def test_a_batch_takes_its_time(tmp_path: Path) -> None:
    made = encoder(tmp_path, "time_scale=0.2")
    start = time.monotonic()
    made.encode_images(images(4))
    assert time.monotonic() - start >= 0.2 * service_time("clip-vit-b-32", Kind.IMAGE).of(4)


def test_workers_of_one_device_take_turns(tmp_path: Path) -> None:
    mine, other = DeviceTurn(tmp_path, "emu:0"), DeviceTurn(tmp_path, "emu:1")
    mine.open()
    other.open()
    with (tmp_path / "device-emu%3A0.lock").open("wb") as theirs:
        with mine.busy(0), other.busy(0), pytest.raises(BlockingIOError):
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
    mine.close()
    mine.close()
    other.close()


def test_the_device_is_free_again_after_a_failure(tmp_path: Path) -> None:
    made = encoder(tmp_path, "fail")
    for _ in range(2):
        with pytest.raises(EncoderError, match="asked for by fail") as caught:
            made.encode_images(images(1))
        assert not caught.value.fatal


def test_fatal_failures_say_so(tmp_path: Path) -> None:
    with pytest.raises(EncoderError) as caught:
        encoder(tmp_path, "fail_fatal").encode_images(images(1))
    assert caught.value.fatal


def test_nan_and_wrong_dimension_get_out(tmp_path: Path) -> None:
    assert np.isnan(encoder(tmp_path, "nan").encode_images(images(2))).all()
    assert encoder(tmp_path, "wrong_dim").encode_images(images(2)).shape == (2, 513)


def test_poison_fails_its_batch_and_nothing_else(tmp_path: Path) -> None:
    made = encoder(tmp_path, "poison=raise,poison_token=7")
    batch = images(2)
    batch[1].reshape(-1)[1000 : 1000 + len(POISON)] = np.frombuffer(POISON, np.uint8)
    with pytest.raises(EncoderError, match="poison"):
        made.encode_images(batch)
    with pytest.raises(EncoderError, match="poison"):
        made.encode_tokens([np.array([1, 7], np.int32)])
    assert made.encode_images(batch[:1]).shape == (1, 512)
    assert made.encode_tokens([np.array([1, 8], np.int32)]).shape == (1, 512)


def test_poison_is_only_poison_when_asked_for(tmp_path: Path) -> None:
    image = np.frombuffer(POISON * (SIZE * SIZE * 3 // len(POISON)), np.uint8).reshape(1, SIZE, SIZE, 3)
    assert encoder(tmp_path).encode_images(image).shape == (1, 512)


@pytest.mark.parametrize(("how", "code"), [("kill", -signal.SIGKILL), ("exit", EXIT_CRASHED)])
def test_a_crash_after_n_calls_takes_the_process(tmp_path: Path, how: str, code: int) -> None:
    script = (
        "import sys, pathlib, numpy as np, os\n"
        "from hailo_clip.shared.models import open_model\n"
        "from hailo_clip.workers.catalog import make_encoder\n"
        "d = pathlib.Path(sys.argv[1])\n"
        f"e = make_encoder(open_model({MODEL!r}, d), 'emulated', 'emu:0', 8, run_dir=d)\n"
        "e.load()\n"
        "for _ in range(9):\n"
        "    e.encode_tokens([np.array([1], np.int32)]); print('done', flush=True)\n"
    )
    faults = {"HAILO_CLIP_EMULATED_FAULTS": f"time_scale=0,crash_after=2,crash_with={how}"}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], env=faults, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout.split() == ["done", "done"]
    encoder(tmp_path).encode_tokens([np.array([1], np.int32)])  # the device is free


def test_load_fail(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="load_fail") as caught:
        encoder(tmp_path, "load_fail")
    assert caught.value.fatal


def test_load_slow(tmp_path: Path) -> None:
    start = time.monotonic()
    encoder(tmp_path, "load_slow_s=0.05")
    assert time.monotonic() - start >= 0.05


def test_faults_of_one_device_leave_the_others_alone(tmp_path: Path) -> None:
    faults = "nan,only=emu:1"
    assert np.isfinite(encoder(tmp_path, faults, "emu:0").encode_images(images(1))).all()
    assert np.isnan(encoder(tmp_path, faults, "emu:1").encode_images(images(1))).all()


def test_faults_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoder(tmp_path, "slow=10x")
    assert "HAILO_CLIP_EMULATED_FAULTS: time_scale=0.0, slow=10.0" in caplog.text


def test_no_faults_no_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    EmulatedEncoder(open_model(MODEL, tmp_path), "emu:0", 8, tmp_path).load()
    assert not caplog.text


def test_faults_are_parsed_whole() -> None:
    text = (
        "time_scale=0.5,slow=10x,nan,wrong_dim=1,fail,fail_fatal,hang_after=3,crash_after=4,crash_with=exit,"
        "poison=hang,poison_token=9,load_fail,load_slow_s=2,only=emu:1"
    )
    parsed = parse_faults(text)
    expected = Faults(0.5, 10, True, True, True, True, 3, 4, "exit", "hang", 9, True, 2.0, "emu:1")
    assert parsed == expected
    assert parsed.at("emu:1") == parsed
    assert parsed.at("emu:0") == Faults(time_scale=0.5)
    assert parse_faults("") == Faults()
    assert described(Faults()) == ""


@pytest.mark.parametrize("text", ["slwo=10", "slow=fast", "slow=-1", "nan=0", "hang_after=x", "poison=maybe"])
def test_faults_that_cannot_be(text: str) -> None:
    with pytest.raises(EncoderError, match="HAILO_CLIP_EMULATED_FAULTS") as caught:
        parse_faults(text)
    assert caught.value.fatal


def test_inputs_that_cannot_be(tmp_path: Path) -> None:
    made = encoder(tmp_path)
    with pytest.raises(EncoderError, match=r"expected uint8 \[n, 224, 224, 3\]"):
        made.encode_images(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(EncoderError, match="9 items, allowed are 1 to 8"):
        made.encode_tokens([np.array([1], np.int32)] * 9)
    with pytest.raises(EncoderError, match="0 items"):
        made.encode_tokens([])
    made.close()
    made.close()
    with pytest.raises(EncoderError, match="before load"):
        made.encode_tokens([np.array([1], np.int32)])


def test_it_runs_no_real_model(tmp_path: Path) -> None:
    from tests.doubles.tiny_clip import build_package, make_tiny_clip

    with pytest.raises(EncoderError, match="does not run tiny"):
        EmulatedEncoder(build_package(tmp_path, make_tiny_clip()), "emu:0", 8, tmp_path)


def test_the_catalog(tmp_path: Path) -> None:
    manifest = open_model(MODEL, tmp_path)
    faults = {"HAILO_CLIP_EMULATED_FAULTS": "nan"}
    made = make_encoder(manifest, "emulated", "emu:3", 4, run_dir=tmp_path, environ=faults)
    assert (made.name, made.device_id, made.max_batch) == ("emulated", "emu:3", 4)
    onnx = make_encoder(manifest, "onnx", "cpu", 4, run_dir=tmp_path, environ=faults)
    assert (onnx.name, onnx.device_id, onnx.max_batch) == ("onnx", "cpu", 4)
    with pytest.raises(EncoderError, match="no encoder 'cuda'"):
        make_encoder(manifest, "cuda", "cpu", 4, run_dir=tmp_path)
