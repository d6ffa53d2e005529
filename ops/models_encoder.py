"""A model's encoder for a command: opened on the first device that fits, closed afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.catalog import devices_of, make_encoder, spread
from hailo_clip.workers.encoder import Encoder
from hailo_clip.workers.hailo_status import DeviceBusy

MAX_BATCH = 8


@contextmanager
def opened(manifest: Manifest, backend: str, max_batch: int = MAX_BATCH) -> Iterator[Encoder]:
    """The encoder `backend` with `manifest` loaded, on the first device that no other program holds.

    Logs of the device go where nobody keeps them.

    Raises:
        EncoderError: there is no device, or the model can't be loaded on it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        ids = devices_of(backend, log_dir=place)
        encoder = _loaded(manifest, backend, spread(ids, max(1, len(ids))), max_batch, place)
        try:
            yield encoder
        finally:
            encoder.close()


def _loaded(manifest: Manifest, backend: str, device_ids: list[str], max_batch: int, place: Path) -> Encoder:
    """The encoder on the first of the devices that is free. Raises `EncoderError`."""
    encoder = make_encoder(manifest, backend, device_ids[0], max_batch, run_dir=place)
    try:
        encoder.load()
    except EncoderError as e:
        encoder.close()
        if not isinstance(e, DeviceBusy) or len(device_ids) == 1:
            raise
        return _loaded(manifest, backend, device_ids[1:], max_batch, place)
    return encoder
