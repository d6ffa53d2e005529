"""What encoders make of a new package's golden items, and what nobody can know yet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hailo_clip.ops.models_encoder import opened
from hailo_clip.shared.canary import Golden, Pair, encode_golden, lowest_cosine
from hailo_clip.shared.errors import EncoderError, ModelError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import resolve_encoder
from hailo_clip.workers.hailo_status import HefUnfit

FLOOR = 0.999
"""The canary's floor: the same files on the same kind of device agree far better."""

REFERENCE_FLOOR = 0.85
"""The floor for a quantised network against the float one's embeddings. The accuracies published for the
networks on the device are within a few points of the float ones', which takes a cosine well above 0.9 on
photos and plain prompts; other inputs, another model, a wrong normalisation or projection are below 0.7."""


def encode_here(draft: Manifest, backend: str, golden: Golden) -> tuple[Pair | None, str]:
    """The golden items' embeddings on `backend`, or None and why it can't run here.

    Raises:
        ModelError: it ran, and the networks are not what they should be.
    """
    try:
        resolve_encoder(backend, draft)
    except ModelError as e:
        return None, e.message
    try:
        with opened(draft, backend) as encoder:
            pair = encode_golden(encoder, golden)
    except EncoderError as e:
        if backend == "hailo" and not isinstance(e, HefUnfit):  # the files may be fine, the device not here
            return None, e.message
        raise ModelError(f"{backend}: {e.message}") from e
    for kind, rows in (("image", pair.image), ("text", pair.text)):
        if (np.abs(rows[1:] @ rows[0]) > 0.99999).any():
            raise ModelError(f"{backend}: the {kind} network gives one embedding for different inputs")
    return pair, ""


def unseen(manifest: Manifest, backend: str, reason: str, compared: bool) -> str:
    """What is to be said of an encoder that did not run here."""
    if compared:
        later = (
            f"when {backend} runs them at last, they must agree with the other encoder's embeddings to a "
            f"cosine of {manifest.canary.floor_of(backend):g}"
        )
    else:
        later = (
            f"where {backend} runs, type: hailo-clip models verify {manifest.name} --encoder {backend} "
            "--record; until then they are not served"
        )
    return f"what {backend} computes: {reason}. Its networks were copied unseen; {later}"


def agreement(ran: Mapping[str, Pair]) -> list[str]:
    """How well two encoders agree, where two ran."""
    if len(ran) < 2:
        return []
    first, second = ran
    lowest = lowest_cosine(ran[first], ran[second])
    return [f"{first} and {second} agree to a cosine of {lowest.cosine:.4f} (lowest, on {lowest.item})"]


def doubts(manifest: Manifest, ran: bool, *, settled: bool) -> list[str]:
    """What no file at hand can prove; nothing more where no encoder ran at all.

    Args:
        manifest: the package.
        ran: an encoder ran here.
        settled: a known embedding showed that the text side is the original model's.
    """
    doubts: list[str] = []
    if not ran:
        return doubts
    if settled:
        return ["that the image network is the original model's: the golden prompt speaks for the text side"]
    rows, columns = np.load(manifest.path("text_projection.npy"), mmap_mode="r").shape
    if rows == columns:
        doubts.append(
            "the projection's orientation: it is square, so both fit and one is wrong. Classify a few images "
            "whose answer you know"
        )
    doubts.append(
        "that these are the original model's embeddings: the golden vectors were worked out with these very "
        "files, so they show a later change, not a fault that is there already"
    )
    return doubts
