"""The encoders by name. Only the chosen one's library is imported, and only when the encoder loads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.encoder import Encoder


def make_encoder(
    manifest: Manifest,
    encoder: str,
    device_id: str,
    max_batch: int,
    *,
    run_dir: Path,
    log_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Encoder:
    """The encoder that runs `manifest` on `device_id`, not loaded yet.

    Args:
        manifest: the model.
        encoder: what `resolve_encoder` gave: "hailo", "onnx" or "emulated".
        device_id: a device of that encoder.
        max_batch: most items of one call.
        run_dir: the service's run directory.
        log_dir: where HailoRT writes its log; None for the run directory.
        environ: for the emulated encoder's fault switches; None for the process's own.

    Raises:
        EncoderError: fatal; there is no such encoder, or the model is not for it.
    """
    if encoder == "hailo":
        from hailo_clip.workers.hailo import HailoEncoder

        return HailoEncoder(manifest, device_id, max_batch, log_dir or run_dir)
    if encoder == "onnx":
        from hailo_clip.workers.onnx import OnnxEncoder

        return OnnxEncoder(manifest, device_id, max_batch)
    if encoder == "emulated":
        from hailo_clip.workers.emulated import EmulatedEncoder
        from hailo_clip.workers.emulated_faults import faults_from

        faults = faults_from(os.environ if environ is None else environ)
        return EmulatedEncoder(manifest, device_id, max_batch, run_dir, faults)
    raise EncoderError(f"there is no encoder {encoder!r}; there are: hailo, onnx, emulated", fatal=True)


def devices_of(encoder: str, *, log_dir: Path | None = None) -> list[str]:
    """Devices of this machine that `encoder` can use: Hailo ids as HailoRT finds them, "cpu", or "emu:0".

    Raises:
        EncoderError: fatal; HailoRT is not installed or failed.
    """
    if encoder == "hailo":
        from hailo_clip.workers.hailo import devices

        return devices(log_dir)
    return ["emu:0"] if encoder == "emulated" else ["cpu"]


def spread(device_ids: Sequence[str], workers: int) -> list[str]:
    """The device of each of `workers` workers, in order: in turn, so that none has two more than another.

    With fewer workers than devices the last devices stay idle. Raises `EncoderError` without devices.
    """
    if not device_ids:
        raise EncoderError("there is no device to run workers on; type: hailo-clip doctor", fatal=True)
    return [device_ids[i % len(device_ids)] for i in range(workers)]
