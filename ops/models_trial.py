"""A trial of parts at hand with the projection turned each way, held against a prompt of known embedding."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hailo_clip.ops.fetch import Progress, step
from hailo_clip.ops.models_encoder import opened
from hailo_clip.ops.models_orientation import WAYS, GoldenPair, Orientation, settle
from hailo_clip.ops.models_parts import Parts, draft, names
from hailo_clip.shared.errors import EncoderError, ModelError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import resolve_encoder
from hailo_clip.shared.tokenizer import load_tokenizer


def settled(parts: Parts, golden: GoldenPair, scratch: Path, progress: Progress, remarks: list[str]) -> Parts:
    """`parts` with the orientation that gives the golden prompt its embedding.

    Args:
        parts: an orientation that they name must be that one.
        golden: the prompt and its embedding.
        scratch: a directory that does not exist; it is gone afterwards.
        progress: hears of the steps.
        remarks: gets a line about it.

    Raises:
        ModelError: a file does not fit the others, nothing here can run the text network, neither
            orientation gives the embedding, or it is not the one named.
    """
    found: dict[Orientation, npt.NDArray[np.float32]] = {}
    why = ""
    for way in WAYS:
        scratch.mkdir()
        try:
            tried = draft(dataclasses.replace(parts, orientation=way), scratch, [])
            for backend, sources in parts.networks.items():
                for source, name in zip(sources, names(backend), strict=True):
                    (scratch / name).symlink_to(source.resolve())
            with step(progress, f"encoding the golden prompt, orientation {way}"):
                found[way] = _embedding(tried, golden.prompt)
        except ModelError as e:
            why = e.message
        finally:
            shutil.rmtree(scratch)
    if not found:
        raise ModelError(why)
    best, remark = settle(golden, found)
    if parts.orientation not in (None, best):
        raise ModelError(f"--projection-orientation is {parts.orientation}, but {remark}")
    remarks.append(remark)
    return dataclasses.replace(parts, orientation=best)


def _embedding(manifest: Manifest, prompt: str) -> npt.NDArray[np.float32]:
    """The prompt's embedding on the first encoder that runs here. Raises `ModelError`."""
    backend = resolve_encoder("auto", manifest)
    try:
        with opened(manifest, backend) as encoder:
            row: npt.NDArray[np.float32] = encoder.encode_tokens([load_tokenizer(manifest).encode(prompt)])[0]
    except EncoderError as e:
        raise ModelError(f"{backend}: {e.message}") from e
    return row
