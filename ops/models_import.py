"""Building a CLIP model package from files at hand: encoders, token table, text projection.

The golden embeddings are worked out on the encoders that are here. They show when something changes later
(another device, a damaged file, another version); that they are the original model's own embeddings they
can't show, and the caller is told so, as well as of everything else that could not be verified.

An encoder that is not here is given the golden embeddings of one that is, with a lower floor: when it runs
at last, its canary is a check against an independent computation. Where none is here, a package is built
only when the caller says so; it has no golden embeddings then, and serves when they have been recorded
(models_verify.py).
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hailo_clip.ops.atomic import exclusive, publish
from hailo_clip.ops.fetch import Progress, sha256_of, step
from hailo_clip.ops.models_arrays import golden_items
from hailo_clip.ops.models_encoder import opened
from hailo_clip.ops.models_parts import Parts, names
from hailo_clip.ops.models_parts import draft as make_draft
from hailo_clip.ops.models_proof import REFERENCE_FLOOR, agreement, doubts, encode_here, unseen
from hailo_clip.ops.models_trial import settled
from hailo_clip.shared.canary import Golden, Pair, run_canary, save_canary
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import (
    MANIFEST_NAME,
    NAME,
    FileEntry,
    Manifest,
    dump_manifest,
    load_manifest,
)
from hailo_clip.shared.models import DEMO, EMULATED_PREFIX


@dataclass(frozen=True, slots=True)
class Checks:
    """What is asked of the networks.

    Attributes:
        golden: makes the golden items.
        judge: is given each encoder that ran and its embeddings of them; a line about it, or `ModelError`.
        unproven: True: build the package also when no encoder is here that could run it.
    """

    golden: Callable[[Manifest], Golden] = golden_items
    judge: Callable[[str, Pair], str] | None = None
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """The package that was built, and what is known about it.

    Attributes:
        cosines: backend to the lowest cosine of its canary, for those that ran here.
        remarks: what was done on the way that the user should know.
        unverified: what could not be verified, and how to do it.
    """

    manifest: Manifest
    cosines: Mapping[str, float]
    remarks: Sequence[str]
    unverified: Sequence[str]


def import_model(
    parts: Parts, directory: Path, progress: Progress, *, replace: bool = False, checks: Checks | None = None
) -> Imported:
    """Build the package `directory`/`parts.name`; it appears whole and checked, or not at all.

    Args:
        parts: the files.
        directory: the models directory.
        progress: hears of the steps.
        replace: put it in the place of a package of that name.
        checks: what is asked of the networks.

    Raises:
        ModelError: a file is missing, does not fit the others or does not run; or the package is there
            already. What was there stays as it was.
        OSError: the disk can't be written.
    """
    _check_request(parts, directory, replace)
    directory.mkdir(parents=True, exist_ok=True)
    staged = directory / f".{parts.name}.partial"
    with exclusive(directory / f".{parts.name}.lock", lambda: None):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        try:
            imported = _build(parts, staged, progress, checks or Checks())
            publish(staged, directory / parts.name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return dataclasses.replace(imported, manifest=load_manifest(directory / parts.name))


def _check_request(parts: Parts, directory: Path, replace: bool) -> None:
    if not NAME.fullmatch(parts.name) or parts.name == DEMO or parts.name.startswith(EMULATED_PREFIX):
        raise ModelError(
            f"a model can't be called {parts.name!r}: names are a-z, 0-9, '.', '_' and '-', at most 64, "
            f"and neither {DEMO} nor {EMULATED_PREFIX}..."
        )
    if parts.orientation is None and parts.golden is None:
        raise ModelError(
            "give --projection-orientation, or a prompt whose embedding is known: --golden-prompt and "
            "--golden-embedding"
        )
    if not parts.networks:
        raise ModelError("give --image-onnx and --text-onnx, or --image-hef and --text-hef, or all four")
    if (directory / parts.name).exists() and not replace:
        raise ModelError(
            f"{directory / parts.name} is there already; --replace puts the new one in its place"
        )


def _build(parts: Parts, staged: Path, progress: Progress, checks: Checks) -> Imported:
    remarks: list[str] = []
    if parts.golden is not None:
        parts = settled(parts, parts.golden, staged / "trial", progress, remarks)
    draft = make_draft(parts, staged, remarks)
    _copy_networks(parts, draft, progress)
    golden = checks.golden(draft)
    ran: dict[str, Pair] = {}
    absent: dict[str, str] = {}
    for backend in draft.backends:
        with step(progress, f"encoding the golden items on {backend}"):
            pair, reason = encode_here(draft, backend, golden)
        if pair is None:
            absent[backend] = reason
        else:
            ran[backend] = pair
            remarks += [checks.judge(backend, pair)] if checks.judge is not None else []
    if not ran and not checks.unproven:
        raise ModelError(f"no encoder here can run this model. {'; '.join(absent.values())}")
    manifest = _finish(draft, golden, ran, absent)
    cosines: dict[str, float] = {}
    for backend in ran:
        with opened(manifest, backend) as encoder:
            cosines[backend] = run_canary(encoder, manifest)
    remarks += agreement(ran)
    unverified = [unseen(manifest, b, reason, bool(ran)) for b, reason in absent.items()]
    unproven = doubts(manifest, bool(ran), settled=parts.golden is not None)
    return Imported(manifest, cosines, remarks, [*unverified, *unproven])


def _copy_networks(parts: Parts, draft: Manifest, progress: Progress) -> None:
    for backend, sources in parts.networks.items():
        for source, name in zip(sources, names(backend), strict=True):
            with step(progress, f"copying {source.name}"):
                shutil.copyfile(source, draft.path(name))


def _finish(draft: Manifest, golden: Golden, ran: Mapping[str, Pair], absent: Iterable[str]) -> Manifest:
    """Write canary and manifest; the manifest as it is read back."""
    directory = draft.path("")
    reference = next(iter(ran.values()), None)
    borrowed = {} if reference is None else dict.fromkeys(absent, reference)
    save_canary(draft.path(draft.canary.file), Golden(golden.images, golden.ids, {**ran, **borrowed}))
    canary = dataclasses.replace(draft.canary, floors=dict.fromkeys(borrowed, REFERENCE_FLOOR))
    return seal(dataclasses.replace(draft, canary=canary), directory)


def seal(manifest: Manifest, directory: Path) -> Manifest:
    """Write `manifest` with the hashes that the files in `directory` have; the manifest as it is read back.

    Raises:
        OSError: the disk can't be written.
    """
    there = [p for p in sorted(directory.iterdir()) if p.name != MANIFEST_NAME]
    files = {p.name: FileEntry(sha256_of(p), p.stat().st_size) for p in there}
    text = dump_manifest(dataclasses.replace(manifest, files=files))
    (directory / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return load_manifest(directory)
