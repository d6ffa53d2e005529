"""Writing an ONNX graph node by node, with names made along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET: Final = 20  # the first with Gelu; ONNX Runtime 1.17 and later run it
IR_VERSION: Final = 9  # what goes with OPSET: the file opens wherever the operators do

_TYPES: Final = {
    "uint8": onnx.TensorProto.UINT8,
    "int64": onnx.TensorProto.INT64,
    "float32": onnx.TensorProto.FLOAT,
}
Port = tuple[str, str, Sequence[str | int]]  # name, element type, shape with names for free dimensions


class Graph:
    """A graph under construction. `add` and `constant` give the name of the value they made."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """A weight; one name is one weight, and naming it again changes nothing."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector: axes, shapes and the like."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One operator with one output."""
        return self.add_many(op, 1, *inputs, **attributes)[0]

    def add_many(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """One operator with several outputs."""
        stem = f"{len(self._nodes)}_{op.lower()}"
        names = [stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name=stem, **attributes))
        return names

    def unit_rows(self, x: str) -> str:
        """Each row of `x` [n, D] divided by its length; a zero row stays zero."""
        length = self.add("ReduceL2", x, self.ints(1), keepdims=1)
        floor = self.constant("shortest", np.array(1e-12, np.float32))
        return self.add("Div", x, self.add("Max", length, floor))

    def model(self, inputs: Sequence[Port], outputs: Mapping[str, Port]) -> onnx.ModelProto:
        """The finished, checked model.

        Args:
            inputs: the ports to feed.
            outputs: the port to give, by the name of the value that it shows.
        """
        for value, port in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [port[0]], name=port[0]))
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [_value_info(p) for p in inputs],
            [_value_info(p) for p in outputs.values()],
            list(self._constants.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="hailo-clip")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model


def _value_info(port: Port) -> onnx.ValueInfoProto:
    name, kind, shape = port
    return helper.make_tensor_value_info(name, _TYPES[kind], list(shape))
