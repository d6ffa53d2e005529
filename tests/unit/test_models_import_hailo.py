"""`hailo-clip models import` and `verify` on Hailo devices, and projections settled by a known embedding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hailo_clip.ops.cli import main
from hailo_clip.shared.canary import load_canary
from hailo_clip.shared.manifest import load_manifest
from hailo_clip.shared.tokenizer import load_tokenizer
from tests.doubles.hailo_double import FIRST, SECOND, Double, install
from tests.doubles.tiny_clip import TinyClip, build_package, export_hefs, make_tiny_clip

PROMPT = "a photo of a cat"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in os.environ:
        if variable.startswith("HAILO_CLIP"):
            monkeypatch.delenv(variable)
    (tmp_path / "empty.yaml").touch()
    monkeypatch.setenv("HAILO_CLIP_CONFIG", str(tmp_path / "empty.yaml"))
    monkeypatch.setenv("HAILO_CLIP__MODEL__DIR", str(tmp_path / "models"))


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(tmp_path / "devices", monkeypatch)


@pytest.fixture(scope="module")
def clip() -> TinyClip:
    return make_tiny_clip(vocabulary=49408)  # CLIP's own tokenizer needs the whole table


@pytest.fixture
def parts(tmp_path: Path, clip: TinyClip) -> Iterator[Path]:
    yield build_package(tmp_path / "parts", clip, "tiny", backends=("hailo", "onnx")).path("")


@pytest.fixture
def golden(tmp_path: Path, parts: Path, clip: TinyClip) -> Path:
    """The embedding that the original model gives `PROMPT`, of whatever length."""
    ids = load_tokenizer(load_manifest(parts)).encode(PROMPT)
    np.save(tmp_path / "golden.npy", 7.5 * clip.text_features(ids))
    return tmp_path / "golden.npy"


def argv(parts: Path, *kinds: str, **other: Any) -> list[str]:
    networks = {f"{part}-{kind}": parts / f"{part}.{kind}" for kind in kinds for part in ("image", "text")}
    given = {
        **networks,
        "image-size": 64,
        "token-embedding": parts / "token_embedding.npy",
        "text-projection": parts / "text_projection.npy",
        "projection-orientation": "in_out",
    } | {k.replace("_", "-"): v for k, v in other.items()}
    flags = [str(word) for name, value in given.items() if value for word in (f"--{name}", value)]
    return ["models", "import", "tiny", *flags]


def test_a_package_is_built_and_verified_on_a_device(
    parts: Path, double: Double, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv(parts, "hef")) == 0
    out = capsys.readouterr().out
    assert "hailo: runs; canary cosine 1.000000\n" in out
    manifest = load_manifest(tmp_path / "models" / "tiny")
    assert manifest.backends["hailo"].image_input == "nhwc_uint8"
    assert load_canary(manifest).expected.keys() == {"hailo"}
    assert main(["models", "verify", "tiny"]) == 0
    assert "canary: lowest cosine 1.000000 on hailo, the floor is 0.999\n" in capsys.readouterr().out
    assert double.clients(FIRST) == double.clients(SECOND) == []  # let go of


def test_both_encoders_are_held_against_each_other(
    parts: Path, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv(parts, "hef", "onnx")) == 0
    assert "note: hailo and onnx agree to a cosine of 1.0000" in capsys.readouterr().out


def test_a_device_that_is_held_leaves_the_others(
    parts: Path, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    with double.platform.VDevice():  # the first one
        assert main(argv(parts, "hef")) == 0
        with double.platform.VDevice(device_ids=[SECOND]):
            assert main(["models", "verify", "tiny"]) == 1
    out, err = capsys.readouterr()
    assert "hailo: runs" in out
    assert f"Hailo device {SECOND}: opening the device failed with HAILO_DEVICE_IN_USE (73)" in err


def test_a_hef_for_another_chip_is_no_package(
    parts: Path, clip: TinyClip, double: Double, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_hefs(parts, clip, arch="hailo8")
    assert main(argv(parts, "hef")) == 1
    assert "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE (93)" in capsys.readouterr().err
    assert not (tmp_path / "models" / "tiny").exists()


def test_verify_finds_a_device_that_computes_something_else(
    parts: Path, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv(parts, "hef")) == 0
    double.fault(infer=87)
    assert main(["models", "verify", "tiny"]) == 1
    assert "HAILO_DRIVER_TIMEOUT (87)" in capsys.readouterr().err


# The projection's orientation, by a prompt whose embedding is known.


@pytest.mark.parametrize("kind", ["hef", "onnx"])
@pytest.mark.parametrize("stored", ["in_out", "out_in"])
def test_a_golden_pair_settles_the_orientation(
    parts: Path,
    golden: Path,
    double: Double,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stored: str,
    kind: str,
) -> None:
    projection = np.load(parts / "text_projection.npy")
    np.save(parts / "text_projection.npy", projection if stored == "in_out" else projection.T)
    known = {"projection_orientation": None, "golden_prompt": PROMPT, "golden_embedding": golden}
    assert main(argv(parts, kind, **known)) == 0
    out = capsys.readouterr().out
    assert f"note: the projection's orientation is {stored}: cosine of the golden prompt " in out
    assert "1.0000" in out
    assert "it is square" not in out
    manifest = load_manifest(tmp_path / "models" / "tiny")
    assert manifest.text.projection_orientation == stored
    assert not (tmp_path / "models" / "tiny" / "trial").exists()


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"projection_orientation": "out_in"}, 1, "--projection-orientation is out_in, but the projection's"),
        ({"golden_prompt": "another"}, 1, "does not have the golden embedding (cosine: in_out "),
        ({"golden_prompt": None}, 2, "--golden-prompt and --golden-embedding belong together"),
        ({"golden_prompt": None, "golden_embedding": None}, 1, "give --projection-orientation, or a prompt"),
        ({"golden_embedding": "nothing.npy"}, 1, "nothing.npy does not exist"),
        ({"golden_embedding": __file__}, 1, "cannot be read as a .npy file"),
        ({"token_embedding": "nothing.npy"}, 1, "nothing.npy does not exist"),
    ],
)
def test_a_golden_pair_that_does_not_fit(
    parts: Path,
    golden: Path,
    double: Double,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    code: int,
    message: str,
) -> None:
    known = {"projection_orientation": None, "golden_prompt": PROMPT, "golden_embedding": golden}
    assert main(argv(parts, "onnx", **{**known, **changes})) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "models" / "tiny").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (np.zeros(24, np.float32), "holds zeros alone"),
        (np.arange(24), "must hold the prompt's embedding"),
        (np.ones(25, np.float32), "the golden embedding has 25 values, this model gives 24"),
    ],
)
def test_an_embedding_that_cannot_be(
    parts: Path, double: Double, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: Any, message: str
) -> None:
    np.save(tmp_path / "odd.npy", row)
    known = {
        "projection_orientation": None,
        "golden_prompt": PROMPT,
        "golden_embedding": tmp_path / "odd.npy",
    }
    assert main(argv(parts, "onnx", **known)) == 1
    assert message in capsys.readouterr().err


def test_a_projection_that_is_its_own_mirror_cannot_be_settled(
    parts: Path, golden: Path, clip: TinyClip, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(parts / "text_projection.npy", np.eye(24, dtype=np.float32))
    ids = load_tokenizer(load_manifest(parts)).encode(PROMPT)
    padded = list(ids) + [0] * (77 - len(ids))
    np.save(golden, clip.text_network(clip.table[padded])[len(ids) - 1])
    known = {"projection_orientation": None, "golden_prompt": PROMPT, "golden_embedding": golden}
    assert main(argv(parts, "onnx", **known)) == 1
    assert "does not tell the orientations apart" in capsys.readouterr().err
