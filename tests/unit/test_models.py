"""Models are found where they should be, checked byte for byte, and run by what can run them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import Backend, Manifest
from hailo_clip.shared.models import (
    DEFAULT,
    EMULATED,
    KNOWN,
    installed,
    is_emulated,
    models_dir,
    needed_files,
    open_model,
    resolve_encoder,
    verify_files,
)
from tests.doubles.tiny_clip import build_package, make_tiny_clip


@pytest.fixture
def package(tmp_path: Path) -> Manifest:
    return build_package(tmp_path, make_tiny_clip())


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the packages that can be found; tests change it."""
    names = {"hailo_platform", "onnxruntime"}

    def find(name: str) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, None) if name in names else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    return names


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        (Path("/m"), {"STATE_DIRECTORY": "/s", "XDG_DATA_HOME": "/x"}, "/m"),
        (None, {"STATE_DIRECTORY": "/s:/t", "XDG_DATA_HOME": "/x"}, "/s/models"),
        (None, {"XDG_DATA_HOME": "/x"}, "/x/hailo-clip/models"),
        (None, {}, str(Path.home() / ".local/share/hailo-clip/models")),
    ],
)
def test_where_models_lie(configured: Path | None, environ: dict[str, str], expected: str) -> None:
    assert models_dir(configured, environ) == Path(expected)


def test_an_installed_model_opens(tmp_path: Path, package: Manifest) -> None:
    assert open_model("tiny", tmp_path) == package
    assert installed(tmp_path) == ["tiny"]
    assert installed(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["clip-resnet-50x4", "clip-vit-b-32", "tinyclip-61m-32"])
def test_a_known_model_that_is_not_installed_says_two_commands(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(name, tmp_path)
    assert f"hailo-clip models pull {name}" in caught.value.message
    assert "hailo-clip serve --model demo" in caught.value.message


def test_the_demo_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hailo-clip models pull demo"):
        open_model("demo", tmp_path)


@pytest.mark.parametrize("name", ["clip", "emulated-demo", "../tiny", "", "."])
def test_an_unknown_model_lists_the_known(tmp_path: Path, package: Manifest, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(name, tmp_path / "tiny")
    for known in (*KNOWN, *EMULATED):
        assert known in caught.value.message


def test_an_unknown_model_lists_the_installed(tmp_path: Path, package: Manifest) -> None:
    with pytest.raises(ModelError, match=r"tiny$"):
        open_model("tinny", tmp_path)


def test_a_renamed_directory_is_refused(tmp_path: Path, package: Manifest) -> None:
    (tmp_path / "tiny").rename(tmp_path / "other")
    with pytest.raises(ModelError, match="describes the model 'tiny'"):
        open_model("other", tmp_path)


def test_emulated_models_need_no_files(tmp_path: Path) -> None:
    seen = {open_model(name, tmp_path / "nowhere").fingerprint("emulated") for name in EMULATED}
    assert len(seen) == len(EMULATED)
    default = open_model(f"emulated-{DEFAULT}", tmp_path)
    assert (default.dimension, default.image.size, default.text.context_length) == (640, 288, 77)
    assert default.logit_scale == 100
    assert is_emulated(default)
    assert needed_files(default, "emulated") == []
    verify_files(default, "emulated")


def test_files_of_a_whole_package_pass(package: Manifest) -> None:
    verify_files(package, "onnx")
    assert needed_files(package, "onnx") == [
        "canary.npz",
        "image.onnx",
        "text.onnx",
        "text_projection.npy",
        "token_embedding.npy",
    ]
    other = replace(package, text=replace(package.text, tokenizer="tokenizer.json"))
    assert "tokenizer.json" in needed_files(other, "onnx")


def test_files_of_another_backend_are_left_alone(package: Manifest) -> None:
    both = replace(package, backends={**package.backends, "hailo": Backend("image.hef", "text.hef")})
    verify_files(both, "onnx")
    assert "image.onnx" not in needed_files(both, "hailo")


@pytest.mark.parametrize("file", ["image.onnx", "text_projection.npy", "canary.npz"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: None, "is missing"),
        (lambda data: data[:-1], r"has \d+ bytes, expected \d+"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
    ],
)
def test_a_damaged_file_is_named_and_what_to_type(
    package: Manifest, file: str, damage: Any, message: str
) -> None:
    path = package.path(file)
    data = damage(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ModelError, match=message) as caught:
        verify_files(package, "onnx")
    assert file in caught.value.message
    assert "hailo-clip models verify tiny" in caught.value.message


def test_a_damaged_known_model_is_pulled_again(tmp_path: Path) -> None:
    package = build_package(tmp_path, make_tiny_clip(), DEFAULT)
    package.path("text.onnx").unlink()
    with pytest.raises(ModelError, match=f"hailo-clip models pull {DEFAULT}"):
        verify_files(package, "onnx")


ONNX, HAILO = Backend("image.onnx", "text.onnx"), Backend("image.hef", "text.hef")


@pytest.mark.parametrize(
    ("requested", "backends", "packages", "expected"),
    [
        ("auto", {"onnx": ONNX, "hailo": HAILO}, {"hailo_platform", "onnxruntime"}, "hailo"),
        ("auto", {"onnx": ONNX, "hailo": HAILO}, {"onnxruntime"}, "onnx"),
        ("auto", {"onnx": ONNX}, {"hailo_platform", "onnxruntime"}, "onnx"),
        ("onnx", {"onnx": ONNX, "hailo": HAILO}, {"hailo_platform", "onnxruntime"}, "onnx"),
        ("hailo", {"onnx": ONNX, "hailo": HAILO}, {"hailo_platform"}, "hailo"),
    ],
)
def test_what_runs_a_model(
    package: Manifest,
    present: set[str],
    requested: str,
    backends: dict[str, Backend],
    packages: set[str],
    expected: str,
) -> None:
    present &= packages
    assert resolve_encoder(requested, replace(package, backends=backends)) == expected


@pytest.mark.parametrize(
    ("requested", "backends", "packages", "words"),
    [
        ("auto", {"hailo": HAILO}, {"onnxruntime"}, ["hailo_platform is not there", "python3-h10-hailort"]),
        ("auto", {"onnx": ONNX}, set(), ["onnxruntime is not there", "pip install 'hailo-clip[onnx]'"]),
        ("hailo", {"onnx": ONNX}, {"hailo_platform"}, ["no files for it, only for onnx", "import it anew"]),
        ("onnx", {"hailo": HAILO}, {"hailo_platform"}, ["'onnx'", "only for hailo"]),
        ("emulated", {"onnx": ONNX}, {"onnxruntime"}, ["does not run tiny", EMULATED[0]]),
    ],
)
def test_nothing_fits_and_it_says_why(
    package: Manifest,
    present: set[str],
    requested: str,
    backends: dict[str, Backend],
    packages: set[str],
    words: list[str],
) -> None:
    present &= packages
    with pytest.raises(ModelError) as caught:
        resolve_encoder(requested, replace(package, backends=backends))
    assert all(word in caught.value.message for word in words), caught.value.message


def test_a_known_model_without_hefs_says_how_to_get_them(tmp_path: Path, present: set[str]) -> None:
    package = build_package(tmp_path, make_tiny_clip(), DEFAULT)
    with pytest.raises(ModelError, match=f"hailo-clip models pull {DEFAULT} --backend hailo"):
        resolve_encoder("hailo", package)


def test_what_runs_an_emulated_model(tmp_path: Path) -> None:
    emulated = open_model(EMULATED[0], tmp_path)
    assert resolve_encoder("auto", emulated) == "emulated"
    assert resolve_encoder("emulated", emulated) == "emulated"
    with pytest.raises(ModelError, match=f"--model {DEFAULT}"):
        resolve_encoder("onnx", emulated)
