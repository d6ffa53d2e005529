"""Running the two networks with ONNX Runtime while the package is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

Floats = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int32]

BATCH: Final = 16


def open_network(path: Path) -> Any:
    """An ONNX Runtime session on the CPU, with as many threads as there are cores."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


class TextEmbedder:
    """The text network behind its tokenizer.

    Args:
        network: text.onnx. tokenizer: tokenizer.json. context_length: most tokens; the end token stays.
    """

    def __init__(self, network: Path, tokenizer: Path, context_length: int) -> None:
        self._network = open_network(network)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(max_length=context_length)

    def ids(self, text: str) -> TokenIds:
        """The token ids of `text`, start and end token included."""
        return np.array(self._tokenizer.encode(text).ids, np.int32)

    def embed_ids(self, ids: Sequence[TokenIds]) -> Floats:
        """The embeddings of prompts as token ids, in one batch: ``[n, D]``."""
        shape = (len(ids), max(map(len, ids)))
        padded, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        rows: Floats = self._network.run(None, {"ids": padded, "mask": mask})[0]
        return rows

    def embed(self, texts: Sequence[str], done: Callable[[int], None]) -> Floats:
        """The embeddings of many texts, ``[n, D]``; `done` hears how many are ready.

        Texts of like length go together, so that little is spent on padding.
        """
        ids = [self.ids(t) for t in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        parts = []
        for start in range(0, len(order), BATCH):
            parts.append(self.embed_ids([ids[i] for i in order[start : start + BATCH]]))
            done(min(start + BATCH, len(order)))
        rows = np.concatenate(parts)
        unsorted = np.empty_like(rows)
        unsorted[order] = rows
        return unsorted


class NetworkPair:
    """Both networks as the canary wants them (see `hailo_clip.shared.canary.CanEncode`)."""

    name = "onnx"
    max_batch = 8

    def __init__(self, image: Path, text: TextEmbedder) -> None:
        self._image = open_network(image)
        self._text = text

    def encode_images(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Embeddings of uint8 ``[n, 224, 224, 3]``."""
        rows: Floats = self._image.run(None, {"image": images})[0]
        return rows

    def encode_tokens(self, ids: Sequence[TokenIds]) -> Floats:
        """Embeddings of n prompts as token ids."""
        return self._text.embed_ids(ids)
