"""`hailo-clip models pull`, whole: from published files to a proven package, on ONNX and on the double."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hailo_clip.ops.cli import main
from hailo_clip.ops.fetch import SilentProgress, sha256_of
from hailo_clip.ops.models_import import seal
from hailo_clip.ops.models_pull import Wish, pull
from hailo_clip.ops.models_pull_http import Patience
from hailo_clip.ops.models_pull_part import Body
from hailo_clip.shared.canary import Golden, Pair, load_canary, save_canary
from hailo_clip.shared.errors import ConfigError, ModelError
from hailo_clip.shared.manifest import Manifest, load_manifest
from hailo_clip.shared.models import verify_files
from hailo_clip.workers.catalog import make_encoder
from tests.doubles.file_server import FileServer, file_server
from tests.doubles.hailo_double import Double, install
from tests.doubles.published import NAME, publish
from tests.doubles.tiny_clip import TinyClip, make_tiny_clip, random_images

VOCABULARY = 49408  # CLIP's own tokenizer needs the whole table
BOTH = ("hailo", "onnx")


@pytest.fixture(scope="module")
def clip() -> TinyClip:
    """One that tells a cat from a cup of coffee, which one random model in four does."""
    return make_tiny_clip(vocabulary=VOCABULARY)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in os.environ:
        if variable.startswith("HAILO_CLIP") or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    (tmp_path / "empty.yaml").touch()
    monkeypatch.setenv("HAILO_CLIP_CONFIG", str(tmp_path / "empty.yaml"))
    monkeypatch.setenv("HAILO_CLIP__MODEL__DIR", str(tmp_path / "models"))


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(tmp_path / "devices", monkeypatch)


class Puller:
    """Publishes the model, pulls it, and looks at what came of it."""

    def __init__(self, server: FileServer, clip: TinyClip, tmp_path: Path) -> None:
        self.server = server
        self.clip = clip
        self.models = tmp_path / "models"
        self._scratch = tmp_path / "published"

    def publish(self, **how: Any) -> Puller:
        self.places = publish(self.server, self.clip, self._scratch, **how)
        return self

    def pull(self, backends: tuple[str, ...] | None = ("onnx",), **wish: Any) -> list[str]:
        asked = Wish(backends, self.places, patience=Patience(3, 0.0, 5.0), **wish)
        return list(pull(NAME, self.models, SilentProgress(), asked).lines)

    def refused(self, backends: tuple[str, ...] | None = ("onnx",), **wish: Any) -> str:
        with pytest.raises((ModelError, ConfigError)) as e:
            self.pull(backends, **wish)
        return e.value.message

    @property
    def manifest(self) -> Manifest:
        return load_manifest(self.models / NAME)

    def asked_for(self) -> list[str]:
        """Files asked for since the last call, each once, in order."""
        paths = list(dict.fromkeys(r.path[1:] for r in self.server.requests))
        self.server.requests.clear()
        return paths


@pytest.fixture
def puller(server: FileServer, clip: TinyClip, tmp_path: Path) -> Puller:
    return Puller(server, clip, tmp_path)


def check_embeddings(manifest: Manifest, clip: TinyClip, backend: str, device: str, tmp_path: Path) -> None:
    """The package computes what the reference does."""
    encoder = make_encoder(manifest, backend, device, 4, run_dir=tmp_path)
    encoder.load()
    try:
        images = random_images(3, clip.size)
        for image, row in zip(images, encoder.encode_images(images), strict=True):
            assert clip.image_features(image) @ row > 0.99999
        ids = list(load_canary(manifest).ids)
        for prompt, row in zip(ids, encoder.encode_tokens(ids), strict=True):
            assert clip.text_features(prompt) @ row > 0.99999
    finally:
        encoder.close()


def test_a_model_is_fetched_proven_and_installed(
    puller: Puller, clip: TinyClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    puller.publish()
    argv = ["models", "pull", NAME, "--backend", "onnx", "--sources", str(puller.places)]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "note: onnx tells two photos apart: 'a photo of a cat' " in out
    assert "onnx: runs; canary cosine 1.000000\n" in out
    assert "not verified: that these are the original model's embeddings" in out
    assert f"installed in {puller.models / NAME}\n" in out
    assert "fetching token_embedding.weight: 0 %" in err
    assert "fetching image.onnx.zip: 100 %" in err
    manifest = puller.manifest
    assert manifest.backends.keys() == {"onnx"}
    assert manifest.backends["onnx"].image_input == "nchw_normalised"
    assert (manifest.title, manifest.source) == ("A small CLIP", "a web server of this test")
    for name in ("token_embedding.npy", "image.onnx.zip"):
        assert f"  --sha256 {name}=" in out
    check_embeddings(manifest, clip, "onnx", "cpu", tmp_path)
    assert main(["models", "verify", NAME]) == 0
    told = capsys.readouterr().out
    assert "canary: image 0 has cosine 1.000000\n" in told
    assert "canary: prompt 2 has cosine 1.000000\n" in told
    left = {p.name for p in puller.models.iterdir()}
    assert left == {NAME, "trusted.json", ".downloads", f".{NAME}.lock", f".{NAME}.pull.lock"}
    assert not list((puller.models / ".downloads").iterdir())


def test_only_what_is_needed_of_the_weights_is_fetched(puller: Puller, clip: TinyClip) -> None:
    puller.publish().pull()
    needed = clip.table.nbytes + clip.projection.nbytes
    whole = len(puller.server.offers["weights.safetensors"].data)
    assert needed < puller.server.sent("weights.safetensors") < needed + 2000 < whole - 1_900_000
    assert puller.asked_for() == ["weights.safetensors", "image.onnx.zip", "text.onnx.zip"]


@pytest.mark.parametrize("orientation", ["in_out", "out_in"])
def test_both_backends_on_a_machine_with_a_device(
    puller: Puller, clip: TinyClip, double: Double, tmp_path: Path, orientation: str
) -> None:
    lines = puller.publish(orientation=orientation).pull(BOTH)
    manifest = puller.manifest
    assert manifest.text.projection_orientation == orientation
    assert "hailo: runs; canary cosine 1.000000" in lines
    assert "note: hailo and onnx agree to a cosine of 1.0000 (lowest, on " in "\n".join(lines)
    assert not manifest.canary.floors
    assert "hailort.log" not in manifest.files
    check_embeddings(manifest, clip, "onnx", "cpu", tmp_path)
    check_embeddings(manifest, clip, "hailo", "0001:01:00.0", tmp_path)
    assert main(["models", "verify", NAME, "--encoder", "hailo"]) == 0


def test_hefs_alone_on_a_machine_with_a_device(puller: Puller, double: Double) -> None:
    lines = puller.publish().pull(None)  # what this machine can run
    assert puller.manifest.backends.keys() == {"hailo"}
    assert "note: hailo tells two photos apart" in "\n".join(lines)
    assert puller.asked_for() == ["weights.safetensors", "image.hef", "text.hef"]


def test_without_hailort_the_cpu_is_what_this_machine_can_run(puller: Puller) -> None:
    puller.publish().pull(None)
    assert puller.manifest.backends.keys() == {"onnx"}


def test_hefs_without_a_device_are_held_against_the_float_network_when_there_is_one(
    puller: Puller,
    clip: TinyClip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = "\n".join(puller.publish().pull(BOTH))
    assert "not verified: what hailo computes: " in lines
    assert "to a cosine of 0.85" in lines
    manifest = puller.manifest
    assert manifest.canary.floors == {"hailo": 0.85}
    golden = load_canary(manifest)
    np.testing.assert_array_equal(golden.expected["hailo"].image, golden.expected["onnx"].image)
    double = install(tmp_path / "devices", monkeypatch)  # the package comes to a machine with a device
    assert main(["models", "verify", NAME, "--encoder", "hailo"]) == 0
    assert "canary: lowest cosine 1.000000 on hailo, the floor is 0.85\n" in capsys.readouterr().out
    before = manifest.fingerprint("hailo")
    assert main(["models", "verify", NAME, "--encoder", "hailo", "--record"]) == 0
    assert "recorded as golden embeddings of hailo, with a floor of 0.999\n" in capsys.readouterr().out
    recorded = puller.manifest
    assert not recorded.canary.floors
    assert recorded.fingerprint("hailo") == before
    double.fault(nan=True)
    assert main(["models", "verify", NAME, "--encoder", "hailo"]) == 1


def test_hefs_without_a_device_and_without_anything_to_compare_with(
    puller: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "\n".join(puller.publish().pull(("hailo",)))
    assert f"type: hailo-clip models verify {NAME} --encoder hailo --record; until then" in lines
    assert "original model" not in lines
    install(tmp_path / "devices", monkeypatch)
    assert main(["models", "verify", NAME]) == 1
    err = capsys.readouterr().err
    assert "no golden embeddings for the encoder hailo (has: none)" in err
    assert "--encoder hailo --record" in err
    assert main(["models", "verify", NAME, "--record"]) == 0
    out = capsys.readouterr().out
    assert "canary: there are no golden embeddings to compare with\nhailo tells two photos apart: " in out
    assert main(["models", "verify", NAME]) == 0


def test_embeddings_of_another_model_are_not_recorded(
    puller: Puller, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    puller.publish().pull(BOTH)
    package = puller.models / NAME
    canary = load_canary(puller.manifest)
    turned = {b: Pair(-p.image, p.text) for b, p in canary.expected.items()}
    save_canary(package / "canary.npz", Golden(canary.images, canary.ids, turned))
    sealed = seal(puller.manifest, package)
    assert main(["models", "verify", NAME, "--encoder", "hailo", "--record"]) == 1
    assert "Nothing was recorded: these are not this model's embeddings" in capsys.readouterr().err
    assert puller.manifest == sealed


@pytest.mark.parametrize("before_norm", [False, True])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_a_text_network_that_is_part_of_more_and_ends_before_its_last_norm(
    server: FileServer, tmp_path: Path, before_norm: bool, dtype: str
) -> None:
    clip = make_tiny_clip(vocabulary=VOCABULARY, width=32, inner=32)
    puller = Puller(server, clip, tmp_path).publish(
        cut=True, before_norm=before_norm, photos=False, dtype=dtype
    )
    puller.pull()
    manifest = puller.manifest
    assert manifest.text.final_norm == ("final_norm.npy" if before_norm else None)
    verify_files(manifest, "onnx")
    if dtype == "F32":
        check_embeddings(manifest, clip, "onnx", "cpu", tmp_path)


def test_a_model_that_takes_a_cat_for_coffee_is_not_installed(server: FileServer, tmp_path: Path) -> None:
    puller = Puller(server, make_tiny_clip(vocabulary=VOCABULARY, seed=8), tmp_path).publish()
    assert "onnx does not tell a cat from a cup of coffee" in puller.refused()
    assert not (puller.models / NAME).exists()


def test_a_hef_for_another_chip_is_refused(puller: Puller, double: Double) -> None:
    puller.publish()
    double.fault(arch="hailo8")
    message = puller.refused(BOTH)
    assert "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE (93)" in message
    assert not (puller.models / NAME).exists()


def test_a_device_that_is_held_leaves_the_hefs_unverified(puller: Puller, double: Double) -> None:
    puller.publish()
    with double.platform.VDevice(), double.platform.VDevice(device_ids=["0002:01:00.0"]):
        lines = "\n".join(puller.pull(BOTH))
    assert "not verified: what hailo computes: Hailo device 0002:01:00.0: opening the device failed" in lines
    assert puller.manifest.canary.floors == {"hailo": 0.85}


# Once more


def test_a_second_pull_finds_everything_there(puller: Puller) -> None:
    puller.publish().pull()
    puller.asked_for()
    assert puller.pull() == [f"{NAME} is installed already, and its files are whole"]
    assert puller.asked_for() == []


def test_another_backend_is_added_to_what_is_there(puller: Puller, double: Double) -> None:
    puller.publish().pull(("hailo",))
    puller.asked_for()
    puller.pull(("onnx",))
    assert puller.asked_for() == ["image.onnx.zip", "text.onnx.zip"]
    assert puller.manifest.backends.keys() == {"hailo", "onnx"}


def test_only_what_is_damaged_is_fetched_again(puller: Puller) -> None:
    puller.publish().pull()
    (puller.models / NAME / "text.onnx").write_bytes(b"")
    puller.asked_for()
    puller.pull()
    assert puller.asked_for() == ["text.onnx.zip"]
    verify_files(puller.manifest, "onnx")


def test_a_package_from_elsewhere_stays_unless_told_otherwise(puller: Puller) -> None:
    puller.publish(source="somewhere else").pull()
    puller.publish()
    message = puller.refused()
    assert "is there already and came from elsewhere (somewhere else); --replace puts" in message
    puller.pull(replace=True)
    assert puller.manifest.source == "a web server of this test"


def test_a_package_without_a_manifest_is_replaced(puller: Puller) -> None:
    puller.publish().pull()
    (puller.models / NAME / "model.yaml").unlink()
    puller.pull()
    verify_files(puller.manifest, "onnx")


def test_what_was_fetched_before_a_failure_is_not_fetched_again(puller: Puller) -> None:
    puller.publish()
    broken = puller.server.offers["text.onnx.zip"]
    broken.drop_after, broken.validator = 1000, "none"
    assert "(3 tries). Check the network and try again; what was fetched is kept" in puller.refused()
    assert puller.asked_for() == ["weights.safetensors", "image.onnx.zip", "text.onnx.zip"]
    broken.drop_after = None
    puller.pull()
    assert puller.asked_for() == ["text.onnx.zip"]


def test_an_interruption_is_told_and_continued(
    puller: Puller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    puller.publish()
    argv = ["models", "pull", NAME, "--backend", "onnx", "--sources", str(puller.places)]
    chunks = Body.chunks

    def interrupted(self: Body, start: int, stop: int | None) -> Iterator[bytes]:
        for data in chunks(self, start, stop):
            yield data
            if stop is None:
                raise KeyboardInterrupt

    monkeypatch.setattr(Body, "chunks", interrupted)
    assert main(argv) == 130
    assert "interrupted; what was fetched is kept, and the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert not (puller.models / NAME).exists()
    assert list((puller.models / ".downloads" / NAME).glob("image.onnx.zip*"))


# Trust


def test_a_file_that_is_another_one_than_before_is_refused_until_it_is_accepted(puller: Puller) -> None:
    puller.publish().pull()
    trusted = json.loads((puller.models / "trusted.json").read_text())["files"]
    assert puller.server.address("image.onnx.zip") in trusted
    assert puller.server.address("weights.safetensors#token_embedding.weight") in trusted
    (puller.models / NAME / "image.onnx").unlink()
    offer = puller.server.offers["image.onnx.zip"]
    offer.data = offer.data + b"\0"
    message = puller.refused()
    assert "image.onnx.zip from " in message
    accept = message.rpartition("--sha256 ")[2]
    name, _, digits = accept.partition("=")
    puller.pull(pins={name: digits})
    (puller.models / NAME / "image.onnx").unlink()
    puller.pull()


@pytest.mark.parametrize("name", ["token_embedding.npy", "text_projection.npy", "text.onnx.zip"])
def test_a_pinned_hash_is_demanded(puller: Puller, name: str) -> None:
    puller.publish()
    assert f"{'0' * 64} was demanded" in puller.refused(pins={name: "0" * 64})
    assert not (puller.models / NAME).exists()
    puller.pull()
    if name.endswith(".npy"):
        puller.pull(pins={name: sha256_of(puller.models / NAME / name)})


def test_a_hash_of_the_list_is_demanded(puller: Puller) -> None:
    weights = {"sha256": {"text_projection": "0" * 64}}
    puller.publish()
    top = yaml.safe_load(puller.places.read_text())
    top["models"][NAME]["weights"] |= weights
    puller.places.write_text(yaml.safe_dump(top))
    assert "text_projection.npy from " in puller.refused()


# What is wrong with the wish


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--sha256", "image.hef=zz"], 2, "--sha256 image.hef must be a SHA-256: 64 hex digits"),
        (
            ["--sha256", f"nothing={'0' * 64}"],
            2,
            "has no such file, only token_embedding.npy, ",
        ),
        (["--sources", "/nonexistent"], 1, "/nonexistent does not exist"),
    ],
)
def test_flags_that_cannot_be(
    puller: Puller, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, message: str
) -> None:
    puller.publish()
    assert main(["models", "pull", NAME, "--sources", str(puller.places), *flags]) == code
    assert message in capsys.readouterr().err


def test_a_backend_that_is_not_published(puller: Puller) -> None:
    puller.publish()
    top = yaml.safe_load(puller.places.read_text())
    del top["models"][NAME]["hailo"]
    puller.places.write_text(yaml.safe_dump(top))
    assert f"--backend hailo: {NAME} is published for onnx only" in puller.refused(BOTH)


def test_the_demo_takes_no_such_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "demo", "--backend", "hailo"]) == 2
    assert "demo runs on onnx alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("absent", "backends", "message"),
    [
        ({"onnxruntime"}, None, "nothing here can run"),
        ({"onnxruntime"}, ("onnx",), "ONNX networks need onnxruntime; type: pip install 'hailo-clip[onnx]'"),
        ({"onnx"}, ("onnx",), "cutting the text network out of its ONNX file needs onnx; type: pip install"),
    ],
)
def test_missing_libraries_are_told_before_anything_is_fetched(
    puller: Puller,
    monkeypatch: pytest.MonkeyPatch,
    absent: set[str],
    backends: tuple[str, ...] | None,
    message: str,
) -> None:
    puller.publish(cut=True)
    found = importlib.util.find_spec

    def find(name: str) -> importlib.machinery.ModuleSpec | None:
        return None if name in absent else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert message in puller.refused(backends)
    assert puller.asked_for() == []
