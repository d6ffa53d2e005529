"""From embeddings to ranked prompts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hailo_clip.api.answer import Embeddings

Scores = npt.NDArray[np.float32]


def cosine_scores(image: Embeddings, texts: Embeddings) -> Scores:
    """Cosines of an image ``[D]`` with texts ``[n, D]``, all of length 1, clipped to [0, 1]."""
    return np.clip(_cosines(image, texts), 0.0, 1.0)


def softmax_scores(image: Embeddings, texts: Embeddings, logit_scale: float) -> Scores:
    """Probabilities of texts ``[n, D]`` given an image ``[D]``: CLIP's softmax over scaled cosines.

    Args:
        image: of length 1.
        texts: each of length 1, negative prompts among them; the probabilities of all add up to 1.
        logit_scale: the model's, see Radford et al. 2021, figure 3.
    """
    logits = _cosines(image, texts).astype(np.float64) * logit_scale
    odds = np.exp(logits - logits.max())
    scores: Scores = (odds / odds.sum()).astype(np.float32)
    return scores


def ranked(prompts: Sequence[str], scores: Scores, top_k: int, threshold: float) -> list[dict[str, Any]]:
    """The best `top_k` prompts with a score of at least `threshold`, as the specification shows them.

    Returns:
        Mappings of text, score and rank (from 1), best first; equal scores keep the prompts' order.
    """
    best = np.argsort(-scores, kind="stable")[:top_k]
    kept = [int(i) for i in best if scores[i] >= threshold]
    return [{"text": prompts[i], "score": scores[i], "rank": rank} for rank, i in enumerate(kept, start=1)]


def _cosines(image: Embeddings, texts: Embeddings) -> Scores:
    # einsum adds each row up in the same order wherever it stands, so equal texts get equal scores;
    # a BLAS product does not promise that.
    cosines: Scores = np.einsum("nd,d->n", texts, image)
    return cosines
