"""A small CLIP as publishers offer it: HEFs, zips of ONNX files, safetensors, and a list of their places."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.file_server import FileServer
from tests.doubles.tiny_clip import TinyClip, build_package

NAME = "clip-resnet-50x4"
START, END = "Add_1", "MatMul_last"
FILES = ("image.hef", "text.hef", "image.onnx.zip", "text.onnx.zip", "weights.safetensors")


def publish(
    server: FileServer,
    clip: TinyClip,
    scratch: Path,
    *,
    name: str = NAME,
    dtype: str = "F32",
    orientation: str = "in_out",
    cut: bool = False,
    before_norm: bool = False,
    **changes: Any,
) -> Path:
    """Offer `clip` at `server`; the list of sources.

    Args:
        server: gets `FILES`.
        clip: the model.
        scratch: a directory for files on the way.
        name: the model's name.
        dtype: of the published weights: F32, F16 or BF16.
        orientation: of the published projection.
        cut: the text network's ONNX file begins before the token table and ends behind the network.
        before_norm: it is cut before its final LayerNorm (with `cut`; the HEFs do not know of it).
        changes: of the list's entry.
    """
    scratch.mkdir(exist_ok=True)
    package = build_package(Path(tempfile.mkdtemp(dir=scratch)), clip, backends=("hailo", "onnx")).path("")
    for kind in ("image", "text"):
        server.put(f"{kind}.hef", (package / f"{kind}.hef").read_bytes())
    server.put("image.onnx.zip", zipped("folder/image_encoder.onnx", (package / "image.onnx").read_bytes()))
    text = whole_text(package / "text.onnx", clip.table) if cut else (package / "text.onnx").read_bytes()
    server.put("text.onnx.zip", zipped("text_encoder.onnx", text))
    projection = clip.projection
    if before_norm:
        projection = clip.weights["text.head"] @ projection
    tensors = {
        "visual.big": np.zeros((500, 1000), np.float32),
        "token_embedding.weight": clip.table,
        "text_projection": projection if orientation == "in_out" else projection.T,
        "ln_final.weight": clip.weights["text.final.scale"],
        "ln_final.bias": clip.weights["text.final.shift"],
    }
    server.put("weights.safetensors", safetensors(tensors, dtype))
    entry = _entry(server, clip, orientation) | changes
    if cut:
        entry["onnx"]["cut"] = {"start": START, "end": _last_sum(text) if before_norm else END}
    if before_norm:
        entry["weights"]["final_norm"] = ["ln_final.weight", "ln_final.bias"]
    places = scratch / "sources.yaml"
    places.write_text(yaml.safe_dump({"format": 1, "models": {name: entry}}))
    return places


def _entry(server: FileServer, clip: TinyClip, orientation: str) -> dict[str, Any]:
    return {
        "title": "A small CLIP",
        "about": "Random weights.",
        "licence": "MIT",
        "source": "a web server of this test",
        "dimension": clip.dimension,
        "image_size": clip.size,
        "hailo": {
            "hailort": "5.2.0",
            **{kind: {"url": server.address(f"{kind}.hef")} for kind in ("image", "text")},
        },
        "onnx": {
            kind: {"url": server.address(f"{kind}.onnx.zip"), "member": f"{kind}_encoder.onnx"}
            for kind in ("image", "text")
        },
        "weights": {
            "url": server.address("weights.safetensors"),
            "token_embedding": "token_embedding.weight",
            "text_projection": "text_projection",
            "orientation": orientation,
        },
    }


def zipped(name: str, data: bytes) -> bytes:
    """A zip with a file and a note beside it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in (("folder/", b""), ("README.txt", b"read me"), (name, data)):
            info = zipfile.ZipInfo(path)  # of a date that does not change
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


def safetensors(tensors: dict[str, npt.NDArray[np.float32]], dtype: str = "F32") -> bytes:
    """A safetensors file with `tensors` as `dtype`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        data = raw_bytes(tensor, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def raw_bytes(tensor: npt.NDArray[np.float32], dtype: str) -> bytes:
    """The values of `tensor` as a safetensors file has them."""
    values = np.ascontiguousarray(tensor)
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()


def whole_text(network: Path, table: npt.NDArray[np.float32]) -> bytes:
    """The text network of a file as an exporter would give it: token ids in, the pooled row out."""
    model = onnx.load(str(network))
    graph = model.graph
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index + 1}"
    graph.node[-2].name = END  # before the last one, which only renames
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", 77])
    gather = helper.make_node("Gather", ["table", "input_ids"], ["rows"], name="Gather_0")
    ends = helper.make_node("ArgMax", ["input_ids"], ["ends"], name="ArgMax_x", axis=1, keepdims=1)
    pooled = helper.make_node(
        "GatherND", [graph.node[-1].output[0], "ends"], ["pooled"], batch_dims=1, name="Last"
    )
    nodes = [gather, *graph.node, ends, pooled]
    weights = [*graph.initializer, numpy_helper.from_array(table, "table")]
    outputs = [
        *graph.output,
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["n", table.shape[1]]),
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "text", [ids], outputs, weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _last_sum(text: bytes) -> str:
    """The name of the last Add before the final LayerNormalization."""
    names = [n.name for n in onnx.load_from_string(text).graph.node if n.op_type == "Add"]
    return str(names[-1])
