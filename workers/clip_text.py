"""The host's share of a CLIP text tower: token table before the text network, projection after it.

The network between takes float32 ``[n, L, W]`` rows of the token table (it adds positions itself) and
gives float32 ``[n, L, W]`` after its final LayerNorm, or before it: then the norm is done here, on the one
row that counts. Text features are the row at the first end token, times the text projection (Radford et
al. 2021, `encode_text` of the published model). The end token has the highest id of the vocabulary, so it
is found by argmax, as the reference does; what follows it does not matter, since attention is causal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.encoder import TokenIds

Floats = npt.NDArray[np.float32]

NORM_EPSILON = 1e-5
"""Of CLIP's LayerNorms: PyTorch's default, which OpenAI's and TinyCLIP's models use."""


@dataclass(frozen=True, slots=True)
class ClipText:
    """Table and projection of one model.

    Attributes:
        table: float32 ``[vocabulary, W]``, mapped from its file: workers of a host share its pages.
        projection: float32 ``[W, D]``, to be applied as ``x @ projection``.
        context_length: L, rows of a prompt.
        final_norm: float32 ``[2, W]``, scale and shift of the final LayerNorm; None: it is in the network.
    """

    table: Floats
    projection: Floats
    context_length: int
    final_norm: Floats | None = None

    @property
    def width(self) -> int:
        """W, values of one table row."""
        return int(self.table.shape[1])

    def rows(self, ids: Sequence[TokenIds], out: Floats | None = None) -> Floats:
        """Table rows ``[n, L, W]`` of n prompts, padded with token 0; into `out` if given.

        Raises:
            EncoderError: a prompt is empty, longer than L or has an id outside the table.
        """
        padded = self._padded(ids)
        shape = (*padded.shape, self.width)
        if out is None:
            out = np.empty(shape, np.float32)
        np.take(self.table, padded, axis=0, out=out, mode="clip")  # "raise" would make a copy first
        return out

    def features(self, hidden: Floats, ids: Sequence[TokenIds]) -> Floats:
        """Text features ``[n, D]``, not normalised, from the network's output ``[n, L, W]``.

        Raises:
            EncoderError: `hidden` has another shape.
        """
        expected = (len(ids), self.context_length, self.width)
        if hidden.shape != expected:
            raise EncoderError(f"text network gave shape {list(hidden.shape)}, expected {list(expected)}")
        ends = [int(np.argmax(prompt)) for prompt in ids]
        rows = hidden[np.arange(len(ids)), ends]
        if self.final_norm is not None:
            rows = layer_norm(rows, self.final_norm)
        features: Floats = rows @ self.projection
        return features

    def _padded(self, ids: Sequence[TokenIds]) -> npt.NDArray[np.intp]:
        padded = np.zeros((len(ids), self.context_length), np.intp)
        vocabulary = len(self.table)
        for row, prompt in zip(padded, ids, strict=True):
            if not 1 <= len(prompt) <= self.context_length:
                raise EncoderError(
                    f"a prompt has {len(prompt)} tokens, allowed are 1 to {self.context_length}"
                )
            if prompt.min() < 0 or prompt.max() >= vocabulary:
                raise EncoderError(f"a token id is outside the table of {vocabulary} tokens")
            row[: len(prompt)] = prompt
        return padded


def layer_norm(rows: Floats, scale_and_shift: Floats) -> Floats:
    """LayerNorm (Ba et al. 2016) of each of ``[n, W]`` rows, with CLIP's epsilon, by ``[2, W]``."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(NORM_EPSILON))
    scale, shift = scale_and_shift
    normed: Floats = centred / deviation * scale + shift
    return normed


def load_clip_text(manifest: Manifest) -> ClipText:
    """Table (mapped) and projection (read) of a model whose text.pipeline is "clip".

    Raises:
        EncoderError: fatal; a file is missing, no float32 matrix, or shapes don't fit each other and the
            manifest's dimension. The message names the file.
    """
    spec = manifest.text
    if spec.token_embedding is None or spec.projection is None:
        raise EncoderError(f"model {manifest.name} names no token table and projection", fatal=True)
    table_path, projection_path = manifest.path(spec.token_embedding), manifest.path(spec.projection)
    table, stored = _matrix(table_path), _matrix(projection_path)
    width, d = table.shape[1], manifest.dimension
    expected = (width, d) if spec.projection_orientation == "in_out" else (d, width)
    if stored.shape != expected:
        raise EncoderError(
            f"{projection_path}: shape {list(stored.shape)}, expected {list(expected)} "
            f"({spec.projection_orientation}, table width {width}, dimension {d})",
            fatal=True,
        )
    projection = stored if spec.projection_orientation == "in_out" else stored.T
    return ClipText(
        table, np.ascontiguousarray(projection), spec.context_length, _final_norm(manifest, width)
    )


def _final_norm(manifest: Manifest, width: int) -> Floats | None:
    if manifest.text.final_norm is None:
        return None
    path = manifest.path(manifest.text.final_norm)
    norm = _matrix(path)
    if norm.shape != (2, width):
        raise EncoderError(f"{path}: shape {list(norm.shape)}, expected [2, {width}]", fatal=True)
    return norm


def _matrix(path: Path) -> Floats:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise EncoderError(f"{path}: cannot be read as a .npy file: {e}", fatal=True) from e
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype != np.float32:
        raise EncoderError(f"{path}: must hold one float32 matrix", fatal=True)
    return matrix.view(np.ndarray)  # plain array over the map: memmap's own indexing is slower
