"""What the core computes: the two towers of the small CLIP, in float32 and for whole batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._hef import Network  # noqa: TID252

Array = npt.NDArray[Any]


def compute(network: Network, batch: Array) -> Array:
    """Outputs ``[n, ...]`` for inputs ``[n, ...]``."""
    return {"image": _image, "text": _text}[network.kind](network, batch)


def _image(network: Network, batch: Array) -> Array:
    w, patch = network.weights, int(network.facts["patch"])
    mean, std = (np.array(network.facts[k], np.float32) for k in ("mean", "std"))
    n, height, width, _ = batch.shape
    pixels = (batch.astype(np.float32) - mean) / std
    grid = pixels.reshape(n, height // patch, patch, width // patch, patch, 3)
    tokens = grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, patch * patch * 3) @ w["embed"]
    tokens = _transformer(tokens + w["positions"], w, None)
    return _norm(tokens, w, "final").reshape(n, -1) @ w["head"]


def _text(network: Network, batch: Array) -> Array:
    w = network.weights
    context, width = w["positions"].shape
    tokens = (batch.reshape(-1, context, width) + w["positions"]) @ w["embed"]
    future = np.triu(np.full((context, context), -np.inf, np.float32), 1)
    out: Array = _norm(_transformer(tokens, w, future), w, "final") @ w["head"]
    return out


def _transformer(tokens: Array, w: dict[str, Array], mask: Array | None) -> Array:
    normed = _norm(tokens, w, "first")
    q, k, v = (normed @ w[name] for name in ("query", "key", "value"))
    scores = np.einsum("nqd,nkd->nqk", q, k) * np.float32(q.shape[-1] ** -0.5)
    scores = np.exp((scores if mask is None else scores + mask) - scores.max(axis=-1, keepdims=True))
    tokens = tokens + (scores / scores.sum(axis=-1, keepdims=True)) @ v @ w["mix"]
    up = _norm(tokens, w, "second") @ w["up"]
    out: Array = tokens + up * (0.5 + 0.5 * np.tanh(np.float32(0.851) * up)) @ w["down"]
    return out


def _norm(x: Array, w: dict[str, Array], name: str) -> Array:
    variance = x.var(axis=-1, keepdims=True)
    scaled = (x - x.mean(axis=-1, keepdims=True)) * (variance + np.float32(1e-5)) ** np.float32(-0.5)
    out: Array = scaled * w[f"{name}.scale"] + w[f"{name}.shift"]
    return out
