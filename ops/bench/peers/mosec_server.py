"""mosec: one stage of processes that decode, one that runs batches."""

from __future__ import annotations

import os
from typing import Any

import mosec
import numpy as np
import orjson

from hailo_clip.ops.bench.peers.job import BATCH, SIZE, answer, encoder, pixels

DECODERS, ENCODERS, WAIT_MS = (int(n) for n in os.environ.get("BENCH_MOSEC", "2,2,1").split(","))


class Decode(mosec.Worker):  # type: ignore[misc]  # mosec is not installed where types are checked
    """From JSON to the model's input."""

    def deserialize(self, data: bytes) -> Any:
        """JSON by the fastest decoder there is."""
        return orjson.loads(data)

    def serialize_ipc(self, data: Any) -> bytes:
        """The array's bytes: cheaper than pickle."""
        made: bytes = data.tobytes()
        return made

    def forward(self, data: Any) -> Any:
        """One image."""
        return pixels(data["image"])


class Encode(mosec.Worker):  # type: ignore[misc]
    """Batches of inputs to embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = encoder()

    def deserialize_ipc(self, data: bytes) -> Any:
        """See `Decode.serialize_ipc`."""
        return np.frombuffer(data, np.uint8).reshape(SIZE, SIZE, 3)

    def forward(self, data: list[Any]) -> list[Any]:
        """One batch."""
        return list(self._encoder.encode_images(np.stack(data)))

    def serialize(self, data: Any) -> bytes:
        """JSON by the fastest encoder there is."""
        return answer(data)


if __name__ == "__main__":
    server = mosec.Server()
    route = "/v1/embed/image"
    server.append_worker(Decode, num=DECODERS, route=route)
    server.append_worker(Encode, num=ENCODERS, max_batch_size=BATCH, max_wait_time=WAIT_MS, route=route)
    server.run()
