"""A model's encoder for a command: opened on the first device that fits, closed afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.catalog import devices_of, make_encoder, spread
from hailo_clip.workers.encoder import Encoder

MAX_BATCH = 8


@contextmanager
def opened(manifest: Manifest, backend: str, max_batch: int = MAX_BATCH) -> Iterator[Encoder]:
    """The encoder `backend` with `manifest` loaded; logs of the device go where nobody keeps them.

    Raises:
        EncoderError: there is no device, or the model can't be loaded on it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        device = spread(devices_of(backend, log_dir=place), 1)[0]
        encoder = make_encoder(manifest, backend, device, max_batch, run_dir=place)
        try:
            encoder.load()
            yield encoder
        finally:
            encoder.close()
