"""What the broker answered to one request, as arrays. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import HailoClipError, InferenceFailed, ServiceError, from_wire
from hailo_clip.shared.messages import Kind, Reply

Embeddings = npt.NDArray[np.float32]

FAILED = {Kind.IMAGE: "Failed to encode image", Kind.TEXT: "Failed to encode text"}
"""The specification's words for an item that the encoder failed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The embeddings of one request's items.

    Attributes:
        embeddings: float32 ``[n, D]``, rows of length 1 in item order; the row of a failed item is zero.
        errors: one entry an item: None, or why it has no embedding.
        queue_s: seconds that its last item waited in the queue.
        device_s: seconds of device time of its slowest batch, 0 when all came from the cache.
        cached: items answered from the prompt cache.
    """

    embeddings: Embeddings
    errors: tuple[HailoClipError | None, ...]
    queue_s: float
    device_s: float
    cached: int

    def rows(self, items: slice) -> Embeddings:
        """Rows of some items, float32 ``[k, D]``. Raises the first error among them."""
        for error in self.errors[items]:
            if error is not None:
                raise error
        return self.embeddings[items]


def read_reply(reply: Reply, kinds: Sequence[int], dimension: int) -> Answer:
    """`reply` as arrays.

    Args:
        reply: the broker's answer.
        kinds: of the items that were sent.
        dimension: D of the model.

    Raises:
        ServiceError: the reply does not fit the request.
    """
    if len(reply.errors) != len(kinds):
        raise ServiceError(f"the broker answered {len(reply.errors)} items instead of {len(kinds)}")
    good = [i for i, error in enumerate(reply.errors) if error is None]
    raw = reply.frames[0] if reply.frames else b""
    if len(raw) != len(good) * dimension * 4:
        raise ServiceError(f"the broker answered {len(raw)} bytes for {len(good)} embeddings of {dimension}")
    rows = np.frombuffer(raw, dtype="<f4").reshape(len(good), dimension)
    rows = rows if rows.flags.aligned else rows.copy()  # a message may begin anywhere in memory
    if len(good) < len(kinds):
        sparse = np.zeros((len(kinds), dimension), dtype=np.float32)
        sparse[good] = rows
        rows = sparse
    errors = tuple(_item_error(error, kind) for error, kind in zip(reply.errors, kinds, strict=True))
    return Answer(rows, errors, reply.queue_s, reply.device_s, reply.cached)


def _item_error(error: tuple[str, str, float | None] | None, kind: int) -> HailoClipError | None:
    """An item's error for the client: what a failing encoder said stays in the logs."""
    if error is None:
        return None
    if error[0] == InferenceFailed.code:
        return InferenceFailed(FAILED[Kind(kind)])
    return from_wire(*error)
