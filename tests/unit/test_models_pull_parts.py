"""What a pulled model is made of: the list of places, tensors, networks cut out of files, trusted hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper

from hailo_clip.ops.fetch import SilentProgress
from hailo_clip.ops.models_pull_http import Client, Patience
from hailo_clip.ops.models_pull_onnx import cut_out, unpack
from hailo_clip.ops.models_pull_sources import SOURCES, Cut, load_sources
from hailo_clip.ops.models_pull_tensors import fetch_tensor, read_header
from hailo_clip.ops.models_pull_trust import NAME, Trust
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.models import DEMO, KNOWN, open_model
from tests.doubles.file_server import FileServer, file_server
from tests.doubles.published import END, START, raw_bytes, safetensors, whole_text, zipped
from tests.doubles.tiny_clip import build_package, make_tiny_clip, random_prompt

QUICK = Patience(attempts=2, pause_s=0.0)
CLIP = make_tiny_clip()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


# The list of places


def test_our_list_has_every_known_model_and_fits_what_is_emulated() -> None:
    sources = load_sources()
    assert set(sources) == set(KNOWN) - {DEMO}
    for name, source in sources.items():
        emulated = open_model(f"emulated-{name}", Path())
        assert (source.dimension, source.image_size) == (emulated.dimension, emulated.image.size)
        assert set(source.networks) == {"hailo", "onnx"}
        for image, text in source.networks.values():
            assert image.url.startswith("https://hailo-model-zoo.s3.eu-west-2.amazonaws.com/")
            assert text.url.startswith("https://hailo-model-zoo.s3.eu-west-2.amazonaws.com/")
            assert "image" in image.url
            assert "text" in text.url
        assert all("/hailo10h/" in p.url and p.url.endswith(".hef") for p in source.networks["hailo"])
        assert all(p.url.endswith(".zip") for p in source.networks["onnx"])
        assert source.weights.url.startswith("https://huggingface.co/")
        assert source.photos


CHANGES: list[tuple[Any, Any, str]] = [
    (("format",), 2, "format must be 1"),
    (
        ("models", "clip-vit-b-32", "dimension"),
        "512",
        "dimension must be a whole number",
    ),
    (("models", "clip-vit-b-32", "titel"), "x", "models.clip-vit-b-32.titel is no key of this file"),
    (("models", "clip-vit-b-32", "title"), None, "models.clip-vit-b-32.title is missing"),
    (("models", "clip-vit-b-32", "title"), 7, "models.clip-vit-b-32.title must be text"),
    (("models", "clip-vit-b-32", "photos"), "no", "photos must be true or false"),
    (("models", "clip-vit-b-32", "hailo"), [], "models.clip-vit-b-32.hailo must be a mapping, is list"),
    (("models", "clip-vit-b-32", "hailo", "image", "url"), "file:///etc/passwd", "must be an address"),
    (("models", "clip-vit-b-32", "hailo", "image", "sha256"), "abc", "must be a SHA-256: 64 hex digits"),
    (("models", "clip-vit-b-32", "onnx", "cut"), {"start": "a"}, "onnx.cut.end is missing"),
    (("models", "clip-vit-b-32", "weights", "orientation"), "up", "orientation must be in_out or out_in"),
    (("models", "clip-vit-b-32", "weights", "final_norm"), ["a"], "final_norm must be two names"),
    (
        ("models", "clip-vit-b-32", "weights", "sha256"),
        {"token_embedding": "x"},
        "sha256.token_embedding must",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), CHANGES)
def test_a_list_that_is_wrong_is_refused(
    tmp_path: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    top = yaml.safe_load(SOURCES.read_text())
    part = top
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    file = tmp_path / "sources.yaml"
    file.write_text(yaml.safe_dump(top))
    with pytest.raises(ModelError) as e:
        load_sources(file)
    assert e.value.message.startswith(f"{file}: ")
    assert message in e.value.message


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_sources(tmp_path / "absent")
    (tmp_path / "broken").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_sources(tmp_path / "broken")


# Tensors


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_only_the_bytes_of_the_tensor_are_fetched(server: FileServer, tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(1).standard_normal((30, 20)).astype(np.float32)
    big = np.zeros((300, 400), np.float32)
    server.put("w", safetensors({"big": big, "wanted": values, "more": big}, dtype))
    client, url = Client(QUICK), server.address("w")
    header = read_header(client, url)
    assert set(header) == {"big", "wanted", "more"}
    got = fetch_tensor(client, url, header, "wanted", tmp_path / "raw", SilentProgress())
    assert got.dtype == np.float32
    assert (tmp_path / "raw").read_bytes() == raw_bytes(values, dtype)
    np.testing.assert_allclose(
        got, values, rtol={"F64": 0, "F32": 0, "F16": 1e-3, "BF16": 1e-2}[dtype], atol=1e-6
    )
    assert server.sent() < len(raw_bytes(values, dtype)) + 1000


def test_a_tensor_that_is_not_there_names_some_that_are(server: FileServer, tmp_path: Path) -> None:
    server.put("w", safetensors({"text_projection": CLIP.projection, "visual.x": CLIP.projection}))
    client, url = Client(QUICK), server.address("w")
    header = read_header(client, url)
    with pytest.raises(ModelError, match="holds no tensor 'absent'; it holds text_projection"):
        fetch_tensor(client, url, header, "absent", tmp_path / "raw", SilentProgress())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}, "has type I64"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}, "expected one of"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "is no safetensors file"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "is no safetensors file"),
        ({"dtype": "F32", "data_offsets": [0, 8]}, "is no safetensors file"),
        (
            {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]},
            "shorter than the part that was asked for",
        ),
    ],
)
def test_a_header_that_cannot_be(
    server: FileServer, tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    text = json.dumps({"t": entry}).encode()
    server.put("w", len(text).to_bytes(8, "little") + text)
    client, url = Client(QUICK), server.address("w")
    with pytest.raises(ModelError, match=message):
        fetch_tensor(client, url, read_header(client, url), "t", tmp_path / "raw", SilentProgress())


@pytest.mark.parametrize(
    "data", [b"<!doctype html><html>sign in</html>", bytes(100), b"\x05" + bytes(7) + b"[1,2]"]
)
def test_what_is_no_safetensors_file(server: FileServer, data: bytes) -> None:
    server.put("w", data)
    with pytest.raises(ModelError, match="is no safetensors file"):
        read_header(Client(QUICK), server.address("w"))


# Networks in files


def test_a_network_is_unpacked_by_name_or_as_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "z").write_bytes(zipped("a/b/net.onnx", b"network"))
    for member in ("net.onnx", "renamed.onnx", None):
        unpack(tmp_path / "z", member, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"network"


def test_a_zip_without_the_network(tmp_path: Path) -> None:
    (tmp_path / "z").write_bytes(zipped("net.txt", b"network"))
    with pytest.raises(ModelError, match=r"holds no net\.onnx; it holds folder/, README.txt, net.txt"):
        unpack(tmp_path / "z", "net.onnx", tmp_path / "out")


@pytest.mark.parametrize("damage", [b"not a zip", None])
def test_a_broken_zip_is_thrown_away(tmp_path: Path, damage: bytes | None) -> None:
    data = bytearray(zipped("net.onnx", bytes(range(256)) * 40))
    data[120] ^= 0xFF
    (tmp_path / "z").write_bytes(damage or bytes(data))
    with pytest.raises(ModelError, match="is no zip that can be read, and was thrown away"):
        unpack(tmp_path / "z", "net.onnx", tmp_path / "out")
    assert not (tmp_path / "z").exists()


def published_text(tmp_path: Path, batch: int | str = "n") -> Path:
    network = build_package(tmp_path / "package", CLIP, batch=batch).path("text.onnx")
    whole = tmp_path / "whole.onnx"
    whole.write_bytes(whole_text(network, CLIP.table))
    return whole


def test_the_text_network_is_cut_out_of_its_file(tmp_path: Path) -> None:
    part = tmp_path / "part.onnx"
    cut_out(published_text(tmp_path), Cut(START, END), CLIP.context, CLIP.width, part)
    model = onnx.load(str(part))
    onnx.checker.check_model(model, full_check=True)
    assert "table" not in [i.name for i in model.graph.initializer]
    session = onnxruntime.InferenceSession(str(part))
    rows = CLIP.table[np.stack([np.pad(random_prompt(n, seed=n), (0, 77 - n)) for n in (3, 40)])]
    (out,) = session.run(None, {session.get_inputs()[0].name: rows})
    for row, hidden in zip(rows, out, strict=True):
        np.testing.assert_allclose(hidden, CLIP.text_network(row), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("Add_9999", END, "has 0 nodes named 'Add_9999', expected one; its first are Gather_0"),
        (START, "nowhere", "has 0 nodes named 'nowhere'"),
        ("MatMul_8", END, "has 2 inputs that vary, expected one"),
        (START, "ArgMax_x", "also needs the input input_ids"),
        (START, "Last", "also needs the input input_ids"),
        (END, "Add_14", "also needs the input input_ids"),
    ],
)
def test_a_cut_that_does_not_fit_the_file(tmp_path: Path, start: str, end: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        cut_out(published_text(tmp_path), Cut(start, end), 77, CLIP.width, tmp_path / "part.onnx")
    assert not (tmp_path / "part.onnx").exists()


def test_a_cut_whose_end_does_not_come_from_its_start(tmp_path: Path) -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 77, 8])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 77, 8])
    nodes = [
        helper.make_node("Neg", ["x"], ["z"], name="first"),
        helper.make_node("Constant", [], ["y"], name="last", value_float=1.0),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [given], [made]))
    onnx.save(model, str(tmp_path / "whole.onnx"))
    with pytest.raises(ModelError, match="does not depend on where it starts"):
        cut_out(tmp_path / "whole.onnx", Cut("first", "last"), 77, 8, tmp_path / "part.onnx")


def test_what_onnx_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "whole.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="onnx cannot read it"):
        cut_out(tmp_path / "whole.onnx", Cut("a", "b"), 77, 8, tmp_path / "part.onnx")


# Trust


def test_the_first_hash_counts_from_then_on(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"one")
    first = Trust(tmp_path).check("http://x/f", file, "image.hef", None)
    assert Trust(tmp_path).check("http://x/f", file, "image.hef", None) == first
    file.write_bytes(b"two")
    with pytest.raises(ModelError) as e:
        Trust(tmp_path).check("http://x/f", file, "image.hef", None)
    assert f"it had {first}" in e.value.message
    assert "accept that with --sha256 image.hef=" in e.value.message
    assert not file.exists()
    file.write_bytes(b"two")
    accepted = e.value.message.rpartition("=")[2]
    Trust(tmp_path).check("http://x/f", file, "image.hef", accepted)
    assert Trust(tmp_path).check("http://x/f", file, "image.hef", None) == accepted


def test_a_pinned_hash_must_be_met(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    with pytest.raises(ModelError, match=f"{'0' * 64} was demanded"):
        Trust(tmp_path).check("http://x/f", tmp_path / "f", "image.hef", "0" * 64)
    assert not (tmp_path / "f").exists()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 2, "files": {}}', '{"format": 1, "files": {"u": 1}}']
)
def test_a_record_that_cannot_be_read_trusts_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ModelError, match="Mend it, or delete it to trust what is fetched next"):
        Trust(tmp_path)
