"""The small random CLIP as ONNX graphs, and a small pooled text network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class Graph:
    """Collects nodes and constants; `op` returns the name of the value it makes."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, value: Array) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def op(self, kind: str, *inputs: str | Array, **attributes: Any) -> str:
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def save(
        self, path: Path, inputs: dict[str, tuple[int, list[Any]]], output: str, shape: list[Any]
    ) -> None:
        infos = [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()]
        self._nodes.append(helper.make_node("Identity", [output], ["embedding"]))
        out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "tiny", infos, [out], list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def export_image(
    path: Path,
    weights: dict[str, Array],
    size: int,
    patch: int,
    scale: tuple[tuple[float, ...], tuple[float, ...]],
    image_input: str,
    batch: int | str,
) -> None:
    """The image tower; with "nhwc_uint8" the normalisation by `scale` (mean, std) is in the graph."""
    g = Graph()
    w = {k.removeprefix("image."): v for k, v in weights.items() if k.startswith("image.")}
    pixels, spec = "pixels", (TensorProto.FLOAT, [batch, 3, size, size])
    if image_input == "nhwc_uint8":
        spec = (TensorProto.UINT8, [batch, size, size, 3])
        real = g.op("Cast", pixels, to=TensorProto.FLOAT)
        mean, std = (np.array(part, np.float32) for part in scale)
        pixels = g.op("Transpose", g.op("Div", g.op("Sub", real, mean), std), perm=[0, 3, 1, 2])
    inner = w["embed"].shape[1]
    kernel = w["embed"].reshape(patch, patch, 3, inner).transpose(3, 2, 0, 1)
    planes = g.op("Conv", pixels, kernel, strides=[patch, patch])
    flat = g.op("Reshape", planes, np.array([0, inner, -1], np.int64))
    tokens = g.op("Add", g.op("Transpose", flat, perm=[0, 2, 1]), w["positions"])
    tokens = _block(g, tokens, w, None)
    final = _norm(g, tokens, w, "final")
    out = g.op("MatMul", g.op("Flatten", final), w["head"])
    g.save(path, {"pixels": spec}, out, [batch, w["head"].shape[1]])


def export_text(path: Path, weights: dict[str, Array], batch: int | str) -> None:
    """The text tower between the token table and the projection."""
    g = Graph()
    w = {k.removeprefix("text."): v for k, v in weights.items() if k.startswith("text.")}
    context, width = w["positions"].shape
    tokens = g.op("MatMul", g.op("Add", "rows", w["positions"]), w["embed"])
    mask = np.triu(np.full((context, context), -1e9, np.float32), 1)
    tokens = _block(g, tokens, w, mask)
    out = g.op("MatMul", _norm(g, tokens, w, "final"), w["head"])
    shape = [batch, context, width]
    g.save(path, {"rows": (TensorProto.FLOAT, shape)}, out, shape)


def export_pooled(path: Path, table: Array, length: int | str = "l") -> None:
    """A text network of the kind "pooled": the masked mean of `table` rows, squashed by tanh."""
    g = Graph()
    weight = g.op("Unsqueeze", g.op("Cast", "mask", to=TensorProto.FLOAT), np.array([2], np.int64))
    rows = g.op("Mul", g.op("Gather", g.constant(table), "ids"), weight)
    axis = np.array([1], np.int64)
    total = g.op("ReduceSum", rows, axis, keepdims=0)
    mean = g.op("Div", total, g.op("ReduceSum", weight, axis, keepdims=0))
    spec = (TensorProto.INT64, ["n", length])
    g.save(path, {"ids": spec, "mask": spec}, g.op("Tanh", mean), ["n", table.shape[1]])


def _block(g: Graph, tokens: str, w: dict[str, Array], mask: Array | None) -> str:
    normed = _norm(g, tokens, w, "first")
    q, k, v = (g.op("MatMul", normed, w[name]) for name in ("query", "key", "value"))
    root = np.array(np.sqrt(w["query"].shape[1]), np.float32)
    scores = g.op("Div", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), root)
    if mask is not None:
        scores = g.op("Add", scores, mask)
    mixed = g.op("MatMul", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), w["mix"])
    tokens = g.op("Add", tokens, mixed)
    hidden = g.op("MatMul", _norm(g, tokens, w, "second"), w["up"])
    gate = g.op("Sigmoid", g.op("Mul", hidden, np.array(1.702, np.float32)))
    return g.op("Add", tokens, g.op("MatMul", g.op("Mul", hidden, gate), w["down"]))


def _norm(g: Graph, tokens: str, w: dict[str, Array], name: str) -> str:
    scale, shift = w[f"{name}.scale"], w[f"{name}.shift"]
    return g.op("LayerNormalization", tokens, scale, shift, axis=-1, epsilon=1e-5)
