"""A batch that a Hailo device has, until its embeddings are asked for."""

from __future__ import annotations

from collections.abc import Callable

from hailo_clip.shared.errors import EncoderError
from hailo_clip.workers.encoder import Embeddings


class DevicePending:
    """See `Pending`.

    Args:
        deadline: monotonic time from which `finish` raises instead of waiting.
        finish: waits for the device and makes embeddings of what it gave; called once.
    """

    def __init__(self, deadline: float, finish: Callable[[], Embeddings]) -> None:
        self.deadline = deadline
        self.device_s = 0.0
        self._finish = finish
        self._outcome: Embeddings | EncoderError | None = None

    def settle(self) -> None:
        """Wait for the device, so that it can reuse the batch's buffers; the outcome is for `result`."""
        if self._outcome is None:
            try:
                self._outcome = self._finish()
            except EncoderError as e:
                self._outcome = e

    def result(self) -> Embeddings:
        """The embeddings; waits for them. Raises `EncoderError`."""
        self.settle()
        if isinstance(self._outcome, EncoderError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome
