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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from hailo_clip.ops.atomic import exclusive, publish
from hailo_clip.ops.fetch import Progress, sha256_of, step
from hailo_clip.ops.models_arrays import golden_items, onnx_image_input, read_projection, read_table
from hailo_clip.ops.models_encoder import opened
from hailo_clip.ops.models_proof import FLOOR, REFERENCE_FLOOR, agreement, doubts, encode_here, unseen
from hailo_clip.shared.canary import Golden, Pair, run_canary, save_canary
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import (
    BUILTIN_TOKENIZER,
    MANIFEST_NAME,
    NAME,
    Backend,
    Canary,
    FileEntry,
    ImageInput,
    ImageSpec,
    Manifest,
    TextSpec,
    dump_manifest,
    load_manifest,
)
from hailo_clip.shared.models import DEMO, EMULATED, EMULATED_PREFIX, open_model

CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
"""What all of OpenAI's CLIP models were trained with, on the pixel scale (Radford et al. 2021)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the user has at hand.

    Attributes:
        networks: backend ("hailo", "onnx") to its image and text network.
        orientation: how the projection P is applied: "in_out" ``x @ P``, "out_in" ``x @ P.T``.
        image_size: side in pixels; None: from the ONNX file, else what is known of a model of this name.
        tokenizer: in the format of the `tokenizers` library; None: CLIP's own.
        final_norm: .npy ``[2, width]`` with scale and shift of the text tower's last LayerNorm, for text
            networks that end before it.
        facts: further manifest fields: title, about, licence, source, logit_scale.
    """

    name: str
    networks: Mapping[str, tuple[Path, Path]]
    token_embedding: Path
    text_projection: Path
    orientation: Literal["in_out", "out_in"]
    image_size: int | None = None
    context_length: int = 77
    tokenizer: Path | None = None
    final_norm: Path | None = None
    facts: Mapping[str, str | float] = field(default_factory=dict)


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
    if not parts.networks:
        raise ModelError("give --image-onnx and --text-onnx, or --image-hef and --text-hef, or all four")
    if (directory / parts.name).exists() and not replace:
        raise ModelError(
            f"{directory / parts.name} is there already; --replace puts the new one in its place"
        )


def _build(parts: Parts, staged: Path, progress: Progress, checks: Checks) -> Imported:
    remarks: list[str] = []
    draft = _draft(parts, staged, remarks)
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
    return Imported(manifest, cosines, remarks, [*unverified, *doubts(manifest, bool(ran))])


def _draft(parts: Parts, staged: Path, remarks: list[str]) -> Manifest:
    """The manifest but for its files; table and projection are written to `staged` on the way."""
    projection = read_projection(parts.text_projection)
    width, dimension = projection.shape if parts.orientation == "in_out" else projection.shape[::-1]
    table, turned = read_table(parts.token_embedding, width)
    if turned:
        remarks.append(f"{parts.token_embedding} holds the table as [width, vocabulary]; it was turned")
    np.save(staged / "token_embedding.npy", table)
    np.save(staged / "text_projection.npy", projection)
    size, image_input = _image(parts)
    if parts.final_norm is not None:
        shutil.copyfile(parts.final_norm, staged / "final_norm.npy")
    if parts.tokenizer is not None:
        shutil.copyfile(parts.tokenizer, staged / "tokenizer.json")
    inputs: dict[str, ImageInput] = {"hailo": "nhwc_uint8", "onnx": image_input}
    manifest = Manifest(
        name=parts.name,
        dimension=dimension,
        logit_scale=100.0,
        image=ImageSpec(size, CLIP_MEAN, CLIP_STD),
        text=TextSpec(
            pipeline="clip",
            context_length=parts.context_length,
            tokenizer=BUILTIN_TOKENIZER if parts.tokenizer is None else "tokenizer.json",
            token_embedding="token_embedding.npy",  # noqa: S106  (a file name)
            projection="text_projection.npy",
            projection_orientation=parts.orientation,
            final_norm=None if parts.final_norm is None else "final_norm.npy",
        ),
        backends={b: Backend(*_names(b), inputs[b]) for b in parts.networks},
        files={},
        canary=Canary("canary.npz", FLOOR),
        directory=staged,
    )
    return dataclasses.replace(manifest, **parts.facts)  # type: ignore[arg-type]  # text and a number


def _names(backend: str) -> tuple[str, str]:
    """File names of a backend's networks in a package."""
    ending = {"hailo": "hef", "onnx": "onnx"}[backend]
    return f"image.{ending}", f"text.{ending}"


def _image(parts: Parts) -> tuple[int, ImageInput]:
    """Side in pixels, and what the ONNX image network takes (if there is one)."""
    found: int | None = None
    image_input: ImageInput = "nhwc_uint8"
    if "onnx" in parts.networks:
        found, image_input = onnx_image_input(parts.networks["onnx"][0])
    if found and parts.image_size and found != parts.image_size:
        raise ModelError(f"--image-size is {parts.image_size}, {parts.networks['onnx'][0]} takes {found}")
    known = EMULATED_PREFIX + parts.name
    size = found or parts.image_size
    if size is None and known in EMULATED:
        size = open_model(known, Path()).image.size
    if size is None:
        raise ModelError("give --image-size: no file at hand tells the image's side in pixels")
    return size, image_input


def _copy_networks(parts: Parts, draft: Manifest, progress: Progress) -> None:
    for backend, sources in parts.networks.items():
        for source, name in zip(sources, _names(backend), strict=True):
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
