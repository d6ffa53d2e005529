"""`hailo-clip models`: packages are listed, built from files, verified and removed, with clear refusals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hailo_clip.ops import models_remove
from hailo_clip.ops.cli import main
from hailo_clip.shared.canary import load_canary
from hailo_clip.shared.manifest import load_manifest
from hailo_clip.workers.catalog import make_encoder
from tests.doubles.tiny_clip import TinyClip, build_package, make_tiny_clip

VOCABULARY = 49408  # CLIP's own tokenizer needs the whole table


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in os.environ:
        if variable.startswith("HAILO_CLIP"):
            monkeypatch.delenv(variable)
    (tmp_path / "empty.yaml").touch()
    monkeypatch.setenv("HAILO_CLIP_CONFIG", str(tmp_path / "empty.yaml"))
    monkeypatch.setenv("HAILO_CLIP__MODEL__DIR", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def clip() -> TinyClip:
    return make_tiny_clip(vocabulary=VOCABULARY)


@pytest.fixture
def parts(tmp_path: Path, clip: TinyClip) -> Path:
    """A directory with the files that a user may have at hand."""
    return build_package(tmp_path / "parts", clip, "tiny").path("")


def flags(parts: Path, **other: str) -> list[str]:
    given = {
        "image-onnx": str(parts / "image.onnx"),
        "text-onnx": str(parts / "text.onnx"),
        "token-embedding": str(parts / "token_embedding.npy"),
        "text-projection": str(parts / "text_projection.npy"),
        "projection-orientation": "in_out",
    } | {k.replace("_", "-"): v for k, v in other.items()}
    return [word for name, value in given.items() if value for word in (f"--{name}", value)]


def failed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 1
    return capsys.readouterr().err


def test_a_package_built_from_parts_gives_the_models_own_embeddings(
    parts: Path, clip: TinyClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import", "mine", *flags(parts), "--title", "Mine"]) == 0
    out = capsys.readouterr().out
    assert "onnx: runs; canary cosine 1.000000\n" in out
    assert "not verified: the projection's orientation: it is square" in out
    assert "not verified: that these are the original model's embeddings" in out
    manifest = load_manifest(tmp_path / "models" / "mine")
    assert (manifest.dimension, manifest.image.size, manifest.title) == (24, 64, "Mine")
    assert manifest.backends["onnx"].image_input == "nchw_normalised"
    golden = load_canary(manifest)
    pair = golden.for_backend("onnx")
    for image, row in zip(golden.images, pair.image, strict=True):
        assert clip.image_features(image) @ row > 0.99999
    for ids, row in zip(golden.ids, pair.text, strict=True):
        assert clip.text_features(ids) @ row > 0.99999
    encoder = make_encoder(manifest, "onnx", "cpu", 4, run_dir=tmp_path)
    encoder.load()
    assert encoder.encode_tokens([golden.ids[0]])[0] @ pair.text[0] > 0.99999
    encoder.close()


def test_the_other_orientation_and_a_turned_table(parts: Path, clip: TinyClip, tmp_path: Path) -> None:
    np.save(parts / "turned.npy", clip.projection.T)
    np.save(parts / "table.npy", clip.table.T.astype(np.float16))
    other = flags(
        parts,
        text_projection=str(parts / "turned.npy"),
        projection_orientation="out_in",
        token_embedding=str(parts / "table.npy"),
    )
    assert main(["models", "import", "turned", *other]) == 0
    golden = load_canary(load_manifest(tmp_path / "models" / "turned"))
    expected = clip.text_features(golden.ids[0])
    assert expected @ golden.for_backend("onnx").text[0] > 0.999  # the table was rounded to float16


def test_networks_that_cannot_run_here_are_copied_and_said_to_be_unverified(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("image.hef", "text.hef"):
        (parts / name).write_bytes(b"\x01HEF" + name.encode())
    hefs = {"image_hef": str(parts / "image.hef"), "text_hef": str(parts / "text.hef")}
    assert main(["models", "import", "both", *flags(parts, **hefs)]) == 0
    out = capsys.readouterr().out
    assert "not verified: what hailo computes: " in out
    assert "the Python package hailo_platform is not there" in out
    manifest = load_manifest(tmp_path / "models" / "both")
    assert set(manifest.backends) == {"hailo", "onnx"}
    assert manifest.path("image.hef").read_bytes() == b"\x01HEFimage.hef"
    alone = flags(parts, **hefs, image_onnx="", text_onnx="", image_size="64")
    err = failed(["models", "import", "hailo-only", *alone], capsys)
    assert "no encoder here can run this model" in err
    assert "the Python package hailo_platform is not there" in err
    assert not (tmp_path / "models" / "hailo-only").exists()


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("Mine!", {}, "a model can't be called 'Mine!'"),
        ("demo", {}, "a model can't be called 'demo'"),
        ("emulated-x", {}, "a model can't be called 'emulated-x'"),
        ("m", {"image_onnx": "", "text_onnx": ""}, "give --image-onnx and --text-onnx, or"),
        ("m", {"image_size": "32"}, "--image-size is 32, {parts}/image.onnx takes 64"),
        (
            "m",
            {"image_onnx": "{parts}/text.onnx"},
            "an image network takes one input, uint8 [n, H, W, 3] or float",
        ),
        ("m", {"image_onnx": "{parts}/model.yaml"}, "ONNX Runtime cannot open it"),
        ("m", {"text_onnx": "{parts}/image.onnx"}, "onnx: "),
        ("m", {"text_onnx": "{parts}/absent.onnx"}, "{parts}/absent.onnx: No such file or directory"),
        ("m", {"token_embedding": "{parts}/absent.npy"}, "{parts}/absent.npy does not exist"),
        ("m", {"token_embedding": "{parts}/model.yaml"}, "cannot be read as a .npy file"),
        ("m", {"token_embedding": "{parts}/other.npy"}, "it must be [vocabulary, 24]"),
        ("m", {"text_projection": "{parts}/nan.npy"}, "not finite"),
        ("m", {"text_projection": "{parts}/vector.npy"}, "must hold one matrix"),
        (
            "m",
            {"text_projection": "{parts}/same.npy"},
            "the text network gives one embedding for different inputs",
        ),
        ("m", {"tokenizer": "{parts}/model.yaml"}, "cannot be read as a tokenizer"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    other: dict[str, str],
    message: str,
) -> None:
    np.save(parts / "other.npy", np.zeros((7, 9), np.float32))
    np.save(parts / "nan.npy", np.full((24, 24), np.nan, np.float32))
    np.save(parts / "vector.npy", np.zeros(24, np.float32))
    np.save(parts / "same.npy", np.ones((24, 24), np.float32))
    filled = {k: v.format(parts=parts) for k, v in other.items()}
    assert message.format(parts=parts) in failed(["models", "import", name, *flags(parts, **filled)], capsys)
    left = [p.name for p in (tmp_path / "models").glob("*")]
    assert all(n.endswith(".lock") for n in left)


def test_half_a_pair_is_wrong_usage(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "import", "m", *flags(parts, text_onnx="")]) == 2
    assert "--image-onnx and --text-onnx belong together" in capsys.readouterr().err


def test_a_package_is_replaced_only_when_asked(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import", "m", *flags(parts)]) == 0
    assert "--replace puts the new one in its place" in failed(
        ["models", "import", "m", *flags(parts)], capsys
    )
    assert main(["models", "import", "m", *flags(parts), "--replace", "--source", "new"]) == 0
    assert load_manifest(tmp_path / "models" / "m").source == "new"


def test_list_tells_what_is_installed_damaged_and_absent(
    tmp_path: Path, clip: TinyClip, capsys: pytest.CaptureFixture[str]
) -> None:
    build_package(tmp_path / "models", clip, "tiny")
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "model.yaml").write_text("name: x")
    assert main(["models", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "installed" in rows["tiny"]
    assert "onnx" in rows["tiny"]
    assert "damaged" in rows["broken"]
    assert "not installed" in rows["clip-resnet-50x4"]
    assert "built in" in rows["emulated-clip-resnet-50x4"]


def test_show_tells_all_and_escapes_it(
    tmp_path: Path, clip: TinyClip, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = build_package(tmp_path / "models", clip, "tiny")
    assert main(["models", "show", "tiny"]) == 0
    out = capsys.readouterr().out
    assert f"fingerprint {manifest.fingerprint('onnx')}" in out
    assert manifest.files["image.onnx"].sha256 in out
    assert "there is no model 'absent'" in failed(["models", "show", "absent"], capsys)


def test_verify_runs_the_canary_and_finds_damage(
    tmp_path: Path, clip: TinyClip, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = build_package(tmp_path / "models", clip, "tiny")
    assert main(["models", "verify", "tiny"]) == 0
    assert "canary: lowest cosine 1.000000 on onnx" in capsys.readouterr().out
    network = manifest.path("image.onnx")
    data = bytearray(network.read_bytes())
    data[-1] ^= 1
    network.write_bytes(data)
    assert f"{network} has SHA-256" in failed(["models", "verify", "tiny"], capsys)


def test_verify_says_what_an_emulated_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "its embeddings are made up" in failed(["models", "verify", "emulated-clip-vit-b-32"], capsys)


def test_remove_deletes_with_yes_and_refuses_without_anyone_to_ask(
    tmp_path: Path, clip: TinyClip, capsys: pytest.CaptureFixture[str]
) -> None:
    build_package(tmp_path / "models", clip, "tiny")
    assert main(["models", "remove", "tiny"]) == 2
    assert "needs --yes" in capsys.readouterr().err
    assert main(["models", "remove", "tiny", "--yes"]) == 0
    assert list((tmp_path / "models").iterdir()) == []
    assert "is not installed, so it can't be removed" in failed(["models", "remove", "tiny", "--yes"], capsys)


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("YES", 0), ("", 1), ("no", 1)])
def test_remove_asks(
    tmp_path: Path, clip: TinyClip, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    package = build_package(tmp_path / "models", clip, "tiny").path("")
    read, write = os.openpty()
    os.write(read, f"{answer}\n".encode())
    with os.fdopen(write, closefd=True) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        assert models_remove.remove("tiny", tmp_path / "models", yes=False) == code
    os.close(read)
    assert package.exists() == (code == 1)


@pytest.mark.parametrize("name", ["../outside", ".", "/etc", "a/b"])
def test_remove_never_leaves_the_models_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "model.yaml").touch()
    assert "is not installed" in failed(["models", "remove", name, "--yes"], capsys)
    assert (tmp_path / "outside" / "model.yaml").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emulated-clip-vit-b-32", "is built in; there is nothing to fetch"),
        ("nonsense", "there is no model 'nonsense' to fetch; there are: clip-resnet-50x4, "),
    ],
)
def test_pull_says_what_it_cannot_fetch(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in failed(["models", "pull", name], capsys)
