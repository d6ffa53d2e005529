"""The image network: EfficientNet-Lite0 and, on top of it, the ConSE mean, as one ONNX graph.

EfficientNet-Lite (Google's TPU repository, 2020) is EfficientNet (Tan and Le 2019) without squeeze and
excitation and with ReLU6, trained with TensorFlow: "same" padding that puts the odd pixel at the end, and
batch norm with epsilon 0.001. Batch norm is folded into the convolution before it:

    w' = w * gamma / sqrt(variance + eps)        b' = beta - mean * gamma / sqrt(variance + eps)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from hailo_clip.ops.demo.graph import Graph
from hailo_clip.ops.demo.sources import Tensors, float32

Floats = npt.NDArray[np.float32]

MEAN: Final = 127.0  # pixels go in as (x - 127) / 128
SCALE: Final = 128.0
EPSILON: Final = 1e-3
TOP: Final = 10


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks that follow each other: how many, and the first one's stride."""

    blocks: int
    stride: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What the weights do not tell: the input's side in pixels, and the strides."""

    size: int
    stages: tuple[Stage, ...]


LITE0: Final = Layout(
    224, (Stage(1, 1), Stage(2, 2), Stage(2, 2), Stage(3, 2), Stage(3, 1), Stage(4, 2), Stage(1, 1))
)


def image_model(weights: Tensors, class_vectors: Floats, layout: Layout = LITE0) -> onnx.ModelProto:
    """The network from pixels to embedding.

    In: "image", uint8 ``[n, size, size, 3]`` RGB. Out: "embedding", float32 ``[n, D]``, rows of length 1.

    Args:
        weights: EfficientNet-Lite's tensors by the names of the PyTorch port.
        class_vectors: ``[classes, D]``, one embedding a class; at least `TOP` classes.
        layout: which EfficientNet-Lite it is.

    Raises:
        ModelError: a tensor is missing or has another type or shape.
    """
    net = _Net(Graph("efficientnet_lite_conse"), weights, layout.size)
    x = net.pixels("image")
    for index, stride in enumerate(_strides(layout)):
        x = net.block(x, f"_blocks.{index}", stride)
    logits = net.head(x, len(class_vectors))
    embedding = _conse(net.graph, logits, class_vectors)
    side = layout.size
    return net.graph.model(
        [("image", "uint8", ("n", side, side, 3))],
        {embedding: ("embedding", "float32", ("n", class_vectors.shape[1]))},
    )


def _strides(layout: Layout) -> list[int]:
    """One stride a block."""
    return [s.stride if i == 0 else 1 for s in layout.stages for i in range(s.blocks)]


class _Net:
    """The graph so far and the side, in pixels, of the feature map at its end."""

    def __init__(self, graph: Graph, weights: Tensors, side: int) -> None:
        self.graph, self.weights, self.side = graph, weights, side

    def pixels(self, image: str) -> str:
        """From uint8 NHWC to the stem's output; the division by 128 is in the stem's weights (exact)."""
        nchw = self.graph.add("Transpose", image, perm=[0, 3, 1, 2])
        mean = self.graph.constant("pixel_mean", np.array(MEAN, np.float32))
        x = self.graph.add("Sub", self.graph.add("Cast", nchw, to=onnx.TensorProto.FLOAT), mean)
        return self.relu6(self.convolve(x, "_conv_stem", "_bn0", stride=2, gain=1 / SCALE))

    def block(self, x: str, name: str, stride: int) -> str:
        """Expand (where the block has it), depthwise, project; added to the input where shapes allow."""
        start, channels_in = x, self._channels(f"{name}._depthwise_conv")
        if f"{name}._expand_conv.weight" in self.weights:
            channels_in = self.weights[f"{name}._expand_conv.weight"].shape[1]
            x = self.relu6(self.convolve(x, f"{name}._expand_conv", f"{name}._bn0"))
        group = self._channels(f"{name}._depthwise_conv")
        x = self.convolve(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, group=group)
        x = self.convolve(self.relu6(x), f"{name}._project_conv", f"{name}._bn2")
        same = stride == 1 and channels_in == self._channels(f"{name}._project_conv")
        return self.graph.add("Add", x, start) if same else x

    def head(self, x: str, classes: int) -> str:
        """The last convolution, the mean over the map, and the classifier: logits [n, classes]."""
        x = self.relu6(self.convolve(x, "_conv_head", "_bn1"))
        pooled = self.graph.add("Flatten", self.graph.add("GlobalAveragePool", x))
        weight = self.graph.constant("_fc.weight", float32(self.weights, "_fc.weight", classes, -1))
        bias = self.graph.constant("_fc.bias", float32(self.weights, "_fc.bias", classes))
        return self.graph.add("Gemm", pooled, weight, bias, transB=1)

    def convolve(
        self, x: str, name: str, norm: str, stride: int = 1, group: int = 1, gain: float = 1.0
    ) -> str:
        """A convolution with its batch norm (and `gain` on its input) folded in."""
        weight, bias = fold(self.weights, name, norm, gain)
        kernel = weight.shape[2]
        before, after = same_padding(self.side, kernel, stride)
        self.side = -(-self.side // stride)
        return self.graph.add(
            "Conv",
            x,
            self.graph.constant(f"{name}.weight", weight),
            self.graph.constant(f"{name}.bias", bias),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=group,
        )

    def relu6(self, x: str) -> str:
        """min(max(x, 0), 6)."""
        low = self.graph.constant("zero", np.array(0, np.float32))
        return self.graph.add("Clip", x, low, self.graph.constant("six", np.array(6, np.float32)))

    def _channels(self, name: str) -> int:
        return len(float32(self.weights, f"{name}.weight", -1, -1, -1, -1))


def fold(weights: Tensors, name: str, norm: str, gain: float = 1.0) -> tuple[Floats, Floats]:
    """Weight ``[out, in, k, k]`` and bias ``[out]`` of convolution `name`, batch norm `norm` folded in."""
    weight = float32(weights, f"{name}.weight", -1, -1, -1, -1)
    out = weight.shape[0]
    parts = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (float32(weights, f"{norm}.{p}", out).astype(np.float64) for p in parts)
    factor = gamma / np.sqrt(variance + EPSILON)
    folded = weight * (factor * gain)[:, None, None, None]
    return folded.astype(np.float32), (beta - mean * factor).astype(np.float32)


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that the output has ceil(side / stride) pixels, as TensorFlow pads."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def _conse(graph: Graph, logits: str, class_vectors: Floats) -> str:
    """The likeliest classes' vectors, weighted by their probabilities among themselves, to length 1."""
    best, which = graph.add_many("TopK", 2, logits, graph.ints(TOP), axis=1)
    weight = graph.add("Unsqueeze", graph.add("Softmax", best, axis=1), graph.ints(1))
    rows = graph.add("Gather", graph.constant("class_vectors", class_vectors), which, axis=0)
    return graph.unit_rows(graph.add("Squeeze", graph.add("MatMul", weight, rows), graph.ints(1)))
