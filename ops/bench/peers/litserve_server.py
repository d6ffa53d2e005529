"""LitServe: workers that decode and run batches in turn, its fast queue, several HTTP processes."""

import os
from typing import Any

import fastapi
import litserve
import numpy as np

from hailo_clip.ops.bench.peers.job import BATCH, answer, encoder, pixels

SERVERS, WORKERS, WAIT_MS = (int(n) for n in os.environ.get("BENCH_LITSERVE", "2,2,5").split(","))


class Api(litserve.LitAPI):  # type: ignore[misc]  # litserve is not installed where types are checked
    """Images in batches."""

    def setup(self, device: str) -> None:
        """In each worker."""
        self.encoder = encoder()

    # LitServe looks at this annotation: with it, it parses the body and hands over what was in it.
    def decode_request(self, request: fastapi.Request) -> Any:
        """One image."""
        return pixels(request["image"])

    def batch(self, inputs: list[Any]) -> Any:
        """One array."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """One batch."""
        return self.encoder.encode_images(x)

    def unbatch(self, output: Any) -> list[Any]:
        """Rows."""
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """JSON by the fastest encoder there is, passed through as it is."""
        return fastapi.Response(answer(output), media_type="application/json")


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT_MS / 1000, api_path="/v1/embed/image")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=SERVERS,
        generate_client_file=False,
        log_level="warning",
    )
