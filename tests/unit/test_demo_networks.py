"""Both ONNX graphs, on small random weights, against the plain NumPy implementation of the same networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from hailo_clip.ops.demo import efficientnet, minilm
from hailo_clip.ops.demo.efficientnet import Layout, Stage
from hailo_clip.shared.errors import ModelError
from tests.unit import demo_reference as reference

Weights = dict[str, npt.NDArray[Any]]

# repeats, kernel, stride, expansion, channels in, channels out
BLOCKS = [(1, 3, 1, 1, 8, 4), (2, 5, 2, 6, 4, 6), (2, 3, 2, 3, 6, 6)]
STAGES = (Stage(1, 1), Stage(2, 2), Stage(2, 2))
CLASSES, HEAD, WIDTH = 30, 16, 12


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def norm(rng: np.random.Generator, name: str, channels: int) -> Weights:
    return {
        f"{name}.weight": rng.uniform(0.5, 2, channels).astype(np.float32),
        f"{name}.bias": rng.normal(0, 0.5, channels).astype(np.float32),
        f"{name}.running_mean": rng.normal(0, 0.5, channels).astype(np.float32),
        f"{name}.running_var": rng.uniform(0.001, 1, channels).astype(np.float32),
    }


def convolution(rng: np.random.Generator, name: str, out: int, into: int, kernel: int) -> Weights:
    spread = 1.5 / np.sqrt(into * kernel * kernel)
    return {f"{name}.weight": rng.normal(0, spread, (out, into, kernel, kernel)).astype(np.float32)}


def image_weights(rng: np.random.Generator) -> Weights:
    w = convolution(rng, "_conv_stem", 8, 3, 3) | norm(rng, "_bn0", 8)
    number = 0
    for repeats, kernel, _, expansion, first, out in BLOCKS:
        for repeat in range(repeats):
            into = first if repeat == 0 else out
            name, wide = f"_blocks.{number}.", into * expansion
            if expansion > 1:
                w |= convolution(rng, f"{name}_expand_conv", wide, into, 1) | norm(rng, f"{name}_bn0", wide)
            w |= convolution(rng, f"{name}_depthwise_conv", wide, 1, kernel) | norm(rng, f"{name}_bn1", wide)
            w |= convolution(rng, f"{name}_project_conv", out, wide, 1) | norm(rng, f"{name}_bn2", out)
            number += 1
    w |= convolution(rng, "_conv_head", HEAD, 6, 1) | norm(rng, "_bn1", HEAD)
    w["_fc.weight"] = rng.normal(0, 1, (CLASSES, HEAD)).astype(np.float32)
    w["_fc.bias"] = rng.normal(0, 1, CLASSES).astype(np.float32)
    return w


def text_weights(rng: np.random.Generator, layers: int = 2, width: int = 8, inner: int = 20) -> Weights:
    def linear(name: str, out: int, into: int) -> Weights:
        return {
            f"{name}.weight": rng.normal(0, 0.6, (out, into)).astype(np.float32),
            f"{name}.bias": rng.normal(0, 0.3, out).astype(np.float32),
        }

    def layer_norm(name: str) -> Weights:
        return {
            f"{name}.LayerNorm.weight": rng.uniform(0.5, 2, width).astype(np.float32),
            f"{name}.LayerNorm.bias": rng.normal(0, 0.3, width).astype(np.float32),
        }

    w = layer_norm("embeddings")
    for name, rows in (("word", 40), ("position", 16), ("token_type", 2)):
        w[f"embeddings.{name}_embeddings.weight"] = rng.normal(0, 1, (rows, width)).astype(np.float32)
    for i in range(layers):
        stem = f"encoder.layer.{i}."
        for part in ("query", "key", "value"):
            w |= linear(f"{stem}attention.self.{part}", width, width)
        w |= linear(f"{stem}attention.output.dense", width, width) | layer_norm(f"{stem}attention.output")
        w |= linear(f"{stem}intermediate.dense", inner, width)
        w |= linear(f"{stem}output.dense", width, inner) | layer_norm(f"{stem}output")
    return w


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("size", [32, 35, 37])
def test_image_network_is_the_reference(size: int, rng: np.random.Generator) -> None:
    weights, vectors = image_weights(rng), rng.normal(0, 1, (CLASSES, WIDTH)).astype(np.float32)
    images = rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    network = session(efficientnet.image_model(weights, vectors, Layout(size, STAGES)))
    got = network.run(None, {"image": images})[0]
    expected = [reference.conse(reference.classify(weights, x, BLOCKS), vectors) for x in images]
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert np.abs(np.subtract(*expected[:2])).max() > 0.01, "the images must not all look the same"


def test_image_network_takes_any_batch_and_gives_float32(rng: np.random.Generator) -> None:
    vectors = rng.normal(0, 1, (CLASSES, WIDTH)).astype(np.float32)
    network = session(efficientnet.image_model(image_weights(rng), vectors, Layout(32, STAGES)))
    (put,), (taken,) = network.get_inputs(), network.get_outputs()
    assert (put.name, put.type, put.shape[1:]) == ("image", "tensor(uint8)", [32, 32, 3])
    assert (taken.name, taken.type, taken.shape[1:]) == ("embedding", "tensor(float)", [WIDTH])
    images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    together = network.run(None, {"image": images})[0]
    alone = np.concatenate([network.run(None, {"image": x[None]})[0] for x in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_batch_norm_leaves_no_trace_in_the_graph(rng: np.random.Generator) -> None:
    vectors = rng.normal(0, 1, (CLASSES, WIDTH)).astype(np.float32)
    model = efficientnet.image_model(image_weights(rng), vectors, Layout(32, STAGES))
    kinds = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in kinds
    assert model.ir_version <= 9, "older ONNX Runtimes must open it"


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pads"),
    [
        (224, 3, 2, (0, 1)),
        (112, 3, 1, (1, 1)),
        (56, 5, 2, (1, 2)),
        (7, 5, 1, (2, 2)),
        (35, 3, 2, (1, 1)),
        (8, 1, 2, (0, 0)),
    ],
)
def test_padding_is_tensorflows(side: int, kernel: int, stride: int, pads: tuple[int, int]) -> None:
    assert efficientnet.same_padding(side, kernel, stride) == pads


def test_missing_and_misshapen_weights_are_named(rng: np.random.Generator) -> None:
    vectors = np.ones((CLASSES, WIDTH), np.float32)
    weights = image_weights(rng)
    del weights["_blocks.1._bn1.running_var"]
    with pytest.raises(ModelError, match=r"no tensor _blocks\.1\._bn1\.running_var"):
        efficientnet.image_model(weights, vectors, Layout(32, STAGES))
    with pytest.raises(ModelError, match=r"_fc\.weight is float32 \[30, 16\], expected float32 \[29, -1\]"):
        efficientnet.image_model(image_weights(rng), vectors[:-1], Layout(32, STAGES))
    texts = text_weights(rng)
    texts["encoder.layer.1.output.dense.weight"] = texts["encoder.layer.1.output.dense.weight"].astype(
        np.float64
    )
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.output\.dense\.weight is float64"):
        minilm.text_model(texts, heads=2)


def run_text(network: onnxruntime.InferenceSession, prompts: list[list[int]]) -> npt.NDArray[np.float32]:
    shape = (len(prompts), max(map(len, prompts)))
    ids, mask = np.full(shape, 3, np.int64), np.zeros(shape, np.int64)
    for row, tokens in enumerate(prompts):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    rows: npt.NDArray[np.float32] = network.run(None, {"ids": ids, "mask": mask})[0]
    return rows


PROMPTS = [
    [1, 5, 9, 2],
    [1, 2],
    [1, *range(10, 24), 2],
    [1, 39, 39, 2],
    [1, 7, 2],
    [1, 8, 8, 8, 8, 2],
    [2],
    [1, 9, 5, 2],
]


def test_text_network_is_the_reference_whatever_the_batch(rng: np.random.Generator) -> None:
    weights = text_weights(rng)
    network = session(minilm.text_model(weights, heads=2))
    expected = np.stack([reference.embed_text(weights, p, heads=2) for p in PROMPTS])
    together = run_text(network, PROMPTS)
    alone = np.concatenate([run_text(network, [p]) for p in PROMPTS])
    np.testing.assert_allclose(together, expected, atol=2e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.dtype == np.float32
    assert np.abs(expected[0] - expected[7]).max() > 0.01, "the order of the tokens must matter"


def test_text_network_has_as_many_layers_as_the_weights(rng: np.random.Generator) -> None:
    for layers in (1, 3):
        model = minilm.text_model(text_weights(rng, layers), heads=2)
        assert sum(node.op_type == "Softmax" for node in model.graph.node) == layers
