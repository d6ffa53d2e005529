"""`hailo-clip models verify`: are the files whole, and does the model compute what it should?"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

from hailo_clip.ops.atomic import exclusive, publish
from hailo_clip.ops.models_encoder import opened
from hailo_clip.ops.models_golden import check_photos, has_photos
from hailo_clip.ops.models_import import seal
from hailo_clip.ops.models_proof import REFERENCE_FLOOR
from hailo_clip.shared.canary import (
    Golden,
    Lowest,
    Pair,
    cosines,
    encode_golden,
    load_canary,
    lowest_cosine,
    save_canary,
)
from hailo_clip.shared.errors import EncoderError, ModelError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import is_emulated, open_model, resolve_encoder, verify_files

LEAST = 0.6
"""Golden embeddings are not recorded when they agree less than this with those on record: inputs that have
nothing in common agree as well."""


def verify(name: str, directory: Path, encoder: str, record: bool = False) -> Iterator[str]:
    """Check the model `name` on `encoder` ("auto": the best one here); a line for each thing found.

    Args:
        name: the model.
        directory: the models directory.
        encoder: which one computes.
        record: take what it computes as its golden embeddings from now on.

    Raises:
        ModelError: a file is not what the manifest says, or the canary failed.
        OSError: the package can't be written.
    """
    manifest = open_model(name, directory)
    if is_emulated(manifest):
        raise ModelError(f"model {name} is emulated: it has no files, and its embeddings are made up")
    for backend in manifest.backends:
        verify_files(manifest, backend)
    yield f"files: {len(manifest.files)} of {name} have their size and SHA-256"
    chosen = resolve_encoder(encoder, manifest)
    golden = load_canary(manifest)
    pair = _encode(manifest, chosen, golden)
    yield from _judge(manifest, chosen, golden, pair, record)
    if record:
        _record(manifest, chosen, golden, pair)
        yield f"recorded as golden embeddings of {chosen}, with a floor of {manifest.canary.floor:g}"
    for backend in manifest.backends:
        if backend != chosen:
            yield f"not verified: what {backend} computes (--encoder {backend} does it)"


def _encode(manifest: Manifest, encoder: str, golden: Golden) -> Pair:
    try:
        with opened(manifest, encoder, max_batch=1) as loaded:
            return encode_golden(loaded, golden)
    except EncoderError as e:
        raise ModelError(f"{encoder}: {e.message}") from e


def _judge(manifest: Manifest, encoder: str, golden: Golden, pair: Pair, record: bool) -> Iterator[str]:
    """A line for each golden item and one for all. Raises `ModelError` when they don't agree."""
    known = _to_compare(golden, encoder, record)
    if known is None:
        yield "canary: there are no golden embeddings to compare with"
        if has_photos(manifest, golden):
            yield check_photos(encoder, pair)
        return
    for item, cosine in cosines(pair, known):
        yield f"canary: {item} has cosine {cosine:.6f}"
    lowest = lowest_cosine(pair, known)
    floor = LEAST if record else manifest.canary.floor_of(encoder)
    if not lowest.cosine >= floor:
        raise ModelError(_failed(manifest, encoder, lowest, floor, record))
    yield f"canary: lowest cosine {lowest.cosine:.6f} on {encoder}, the floor is {floor:g}"


def _to_compare(golden: Golden, encoder: str, record: bool) -> Pair | None:
    """What `encoder` is held against: its own golden embeddings; before recording, if possible another's."""
    if not record:
        return golden.for_backend(encoder)
    others = [pair for backend, pair in golden.expected.items() if backend != encoder]
    return next(iter([*others, *golden.expected.values()]), None)


def _failed(manifest: Manifest, encoder: str, lowest: Lowest, floor: float, record: bool) -> str:
    text = (
        f"canary of {manifest.name} on {encoder} failed: golden {lowest.item} has cosine "
        f"{lowest.cosine:.6f} to its expected embedding, the floor is {floor:g}"
    )
    if record:
        return f"{text}. Nothing was recorded: these are not this model's embeddings"
    if floor < REFERENCE_FLOOR or not lowest.cosine >= LEAST or encoder not in manifest.canary.floors:
        return text
    return (
        f"{text}. The expected ones are another encoder's. If {encoder} is right on images whose answer you "
        f"know, type: hailo-clip models verify {manifest.name} --encoder {encoder} --record"
    )


def _record(manifest: Manifest, encoder: str, golden: Golden, pair: Pair) -> None:
    """Put a package with `pair` as golden embeddings of `encoder` in the place of this one."""
    home = manifest.path("")
    staged = home.parent / f".{manifest.name}.partial"
    with exclusive(home.parent / f".{manifest.name}.lock", lambda: None):
        shutil.rmtree(staged, ignore_errors=True)
        try:
            shutil.copytree(home, staged)
            expected = {**golden.expected, encoder: pair}
            save_canary(staged / manifest.canary.file, Golden(golden.images, golden.ids, expected))
            floors = {b: f for b, f in manifest.canary.floors.items() if b != encoder}
            canary = dataclasses.replace(manifest.canary, floors=floors)
            seal(dataclasses.replace(manifest, canary=canary), staged)
            publish(staged, home)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
