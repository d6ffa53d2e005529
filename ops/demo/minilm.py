"""The text network: all-MiniLM-L6-v2, a BERT of six layers (Devlin et al. 2018; Wang et al. 2020), in ONNX.

Token, position and type embeddings, six layers of self-attention and feed-forward, each with its residual
and LayerNorm, then the mean over the prompt's own tokens, to length 1. Padding has no influence: a padded
key gets the attention weight exp(-1e9) = 0, and a padded position is not part of the mean.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from hailo_clip.ops.demo.graph import Graph
from hailo_clip.ops.demo.sources import Tensors, float32

Floats = npt.NDArray[np.float32]

HEADS: Final = 12
EPSILON: Final = 1e-12
MASKED: Final = -1e9  # added to a score; exp of it is 0 in float32


def text_model(weights: Tensors, heads: int = HEADS) -> onnx.ModelProto:
    """The network from token ids to embedding.

    In: "ids" and "mask", int64 ``[n, L]``; mask is 1 for the prompt's own tokens and 0 for padding.
    Out: "embedding", float32 ``[n, D]``, rows of length 1. L is at most the length of the position table.

    Args:
        weights: BERT's tensors by the names of the PyTorch model, as many layers as there are.
        heads: of each layer; divides D.

    Raises:
        ModelError: a tensor is missing or has another type or shape.
    """
    net = _Net(Graph("minilm"), weights, heads)
    x = net.embed("ids")
    bias = net.mask_bias("mask")
    for index in range(_layers(weights)):
        x = net.layer(x, bias, f"encoder.layer.{index}")
    embedding = net.mean(x, "mask")
    shape = ("n", "tokens")
    return net.graph.model(
        [("ids", "int64", shape), ("mask", "int64", shape)],
        {embedding: ("embedding", "float32", ("n", net.width))},
    )


def _layers(weights: Tensors) -> int:
    return len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})


class _Net:
    """The graph so far."""

    def __init__(self, graph: Graph, weights: Tensors, heads: int) -> None:
        self.graph, self.weights, self.heads = graph, weights, heads
        self.width = float32(weights, "embeddings.word_embeddings.weight", -1, -1).shape[1]

    def embed(self, ids: str) -> str:
        """Token plus position plus type, normalised: [n, L, D]. All tokens are of type 0."""
        g, stem = self.graph, "embeddings."
        words = g.constant("words", self._tensor(f"{stem}word_embeddings.weight", -1, self.width))
        places = self._tensor(f"{stem}position_embeddings.weight", -1, self.width)
        types = self._tensor(f"{stem}token_type_embeddings.weight", -1, self.width)
        positions = g.constant("positions", places + types[0])
        length = g.add("Shape", ids, start=1, end=2)
        x = g.add("Add", g.add("Gather", words, ids), g.add("Slice", positions, g.ints(0), length, g.ints(0)))
        return self._norm(x, f"{stem}LayerNorm")

    def mask_bias(self, mask: str) -> str:
        """What is added to attention scores: 0 for real keys, `MASKED` for padding; [n, 1, 1, L]."""
        g = self.graph
        padding = g.add("Sub", g.constant("one", np.array(1, np.float32)), self._floats(mask))
        bias = g.add("Mul", padding, g.constant("masked", np.array(MASKED, np.float32)))
        return g.add("Unsqueeze", bias, g.ints(1, 2))

    def layer(self, x: str, bias: str, name: str) -> str:
        """One layer: attention, then feed-forward, each added to its input and normalised."""
        attended = self._linear(
            self._attention(x, bias, f"{name}.attention.self"), f"{name}.attention.output.dense"
        )
        x = self._norm(self.graph.add("Add", attended, x), f"{name}.attention.output.LayerNorm")
        inner = self.graph.add("Gelu", self._linear(x, f"{name}.intermediate.dense"))
        out = self._linear(inner, f"{name}.output.dense")
        return self._norm(self.graph.add("Add", out, x), f"{name}.output.LayerNorm")

    def mean(self, x: str, mask: str) -> str:
        """The mean over the prompt's own tokens, to length 1: [n, D]."""
        g = self.graph
        own = g.add("Unsqueeze", self._floats(mask), g.ints(2))
        total = g.add("ReduceSum", g.add("Mul", x, own), g.ints(1), keepdims=0)
        return g.unit_rows(g.add("Div", total, g.add("ReduceSum", own, g.ints(1), keepdims=0)))

    def _attention(self, x: str, bias: str, name: str) -> str:
        """softmax(Q K^T / sqrt(d) + bias) V of all heads side by side; Q, K, V by one product."""
        g, per_head = self.graph, self.width // self.heads
        joined = g.add("MatMul", x, g.constant(f"{name}.weight", self._qkv(name, per_head, "weight")))
        joined = g.add("Add", joined, g.constant(f"{name}.bias", self._qkv(name, per_head, "bias")))
        q, k, v = g.add_many("Split", 3, joined, axis=2, num_outputs=3)
        split = g.ints(0, 0, self.heads, per_head)
        q = g.add("Transpose", g.add("Reshape", q, split), perm=[0, 2, 1, 3])
        k = g.add("Transpose", g.add("Reshape", k, split), perm=[0, 2, 3, 1])
        v = g.add("Transpose", g.add("Reshape", v, split), perm=[0, 2, 1, 3])
        share = g.add("Softmax", g.add("Add", g.add("MatMul", q, k), bias), axis=3)
        mixed = g.add("Transpose", g.add("MatMul", share, v), perm=[0, 2, 1, 3])
        return g.add("Reshape", mixed, g.ints(0, 0, self.width))

    def _qkv(self, name: str, per_head: int, part: str) -> Floats:
        """Weights [D, 3D] or biases [3D] of query, key and value; 1/sqrt(d) is in the query's."""
        shape = (self.width, self.width) if part == "weight" else (self.width,)
        q, k, v = (self._tensor(f"{name}.{p}.{part}", *shape).T for p in ("query", "key", "value"))
        return np.concatenate([q * np.float32(per_head**-0.5), k, v], axis=-1)

    def _linear(self, x: str, name: str) -> str:
        bias = self._tensor(f"{name}.bias", -1)
        weight = self._tensor(f"{name}.weight", len(bias), -1)
        product = self.graph.add("MatMul", x, self.graph.constant(f"{name}.weight", weight.T))
        return self.graph.add("Add", product, self.graph.constant(f"{name}.bias", bias))

    def _norm(self, x: str, name: str) -> str:
        parts = [
            self.graph.constant(f"{name}.{p}", self._tensor(f"{name}.{p}", self.width))
            for p in ("weight", "bias")
        ]
        return self.graph.add("LayerNormalization", x, *parts, axis=-1, epsilon=EPSILON)

    def _floats(self, mask: str) -> str:
        return self.graph.add("Cast", mask, to=onnx.TensorProto.FLOAT)

    def _tensor(self, name: str, *shape: int) -> Floats:
        return float32(self.weights, name, *shape)
