"""A model package's manifest: what `model.yaml` says, checked, and the fingerprint over it.

A package is a directory named after its model::

    clip-resnet-50x4/
      model.yaml               this manifest
      image.hef, text.hef      encoders, per backend
      image.onnx, text.onnx
      token_embedding.npy      float32 [vocabulary, W]      (text.pipeline: clip)
      text_projection.npy      float32 [W, D] or [D, W]     (text.pipeline: clip)
      final_norm.npy           float32 [2, W], only where text.final_norm names it
      tokenizer.json           unless text.tokenizer is "clip", which ships with hailo-clip
      canary.npz               golden inputs and the embeddings each backend must give for them

Frontends need `model.yaml` and the tokenizer; workers need all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from hailo_clip.shared.errors import ModelError

FORMAT = 1
MANIFEST_NAME = "model.yaml"
BUILTIN_TOKENIZER = "clip"
BACKENDS = ("hailo", "onnx")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

ImageInput = Literal["nhwc_uint8", "nchw_normalised"]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How an image becomes the model's input.

    Always: RGB (alpha over white, EXIF orientation applied), bicubic, short side to `size`, centre crop,
    uint8 ``[size, size, 3]``. `mean` and `std` (pixel scale, RGB) are applied by the encoder for backends
    whose `image_input` is "nchw_normalised"; elsewhere normalisation is inside the network.
    """

    size: int
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class TextSpec:
    """How a prompt becomes an embedding.

    Attributes:
        pipeline: "clip": ids -> token table rows [context_length, width] -> text network (adds positions
            and, but for `final_norm`, the final LayerNorm itself) -> row at the first end token ->
            projection -> L2.
            "pooled": ids and mask -> text network, which pools -> L2.
        context_length: most tokens, start and end token included; longer prompts are cut and keep the end.
        tokenizer: "clip" (ships with hailo-clip) or a file of the package in `tokenizers` format.
        token_embedding, projection: files ("clip" only).
        projection_orientation: "in_out": ``x @ P``; "out_in": ``x @ P.T`` ("clip" only).
        final_norm: file with scale and shift of the final LayerNorm, for text networks that end before it;
            None: it is in the network ("clip" only).
    """

    pipeline: Literal["clip", "pooled"]
    context_length: int
    tokenizer: str = BUILTIN_TOKENIZER
    token_embedding: str | None = None
    projection: str | None = None
    projection_orientation: Literal["in_out", "out_in"] | None = None
    final_norm: str | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """The two networks of one encoder: files, and what the image network takes."""

    image: str
    text: str
    image_input: ImageInput = "nhwc_uint8"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the package: its SHA-256 in hex and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Canary:
    """Golden data and the lowest cosine at which an encoder counts as right.

    Attributes:
        file: see canary.py.
        floor: for every encoder but those of `floors`.
        floors: lower ones, by encoder: for golden embeddings that another encoder worked out.
    """

    file: str
    floor: float
    floors: Mapping[str, float] = field(default_factory=dict)

    def floor_of(self, encoder: str) -> float:
        """The lowest cosine at which `encoder` counts as right."""
        return self.floors.get(encoder, self.floor)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One model, as its package describes it.

    Attributes:
        dimension: D, length of an embedding.
        logit_scale: factor on cosines before a softmax.
        about: one paragraph for users: what it is good at and what not.
        files: every file of the package but model.yaml.
    """

    name: str
    dimension: int
    logit_scale: float
    image: ImageSpec
    text: TextSpec
    backends: Mapping[str, Backend]
    files: Mapping[str, FileEntry]
    canary: Canary
    title: str = ""
    about: str = ""
    licence: str = ""
    source: str = ""
    format: int = FORMAT
    directory: Path | None = field(default=None, compare=False)

    def path(self, file: str) -> Path:
        """Where `file` of this package lies."""
        if self.directory is None:
            raise ModelError(f"model {self.name} has no files")
        return self.directory / file

    def fingerprint(self, encoder: str) -> str:
        """Hash over all that determines an embedding: weights, preprocessing, tokenizer, encoder.

        Returns:
            32 hex digits of SHA-256. Two encoders of one model differ: a quantised network's embeddings
            must not be mixed with a float network's.
        """
        text = {k: v for k, v in dataclasses.asdict(self.text).items() if k != "final_norm" or v}
        used = [self.text.tokenizer, self.text.token_embedding, self.text.projection, self.text.final_norm]
        if encoder in self.backends:
            used += [self.backends[encoder].image, self.backends[encoder].text]
        facts = {
            "encoder": encoder,
            "dimension": self.dimension,
            "image": dataclasses.asdict(self.image),
            "text": text,
            "input": self.backends[encoder].image_input if encoder in self.backends else self.name,
            "files": sorted(self.files[f].sha256 for f in used if f is not None and f in self.files),
        }
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def load_manifest(directory: Path) -> Manifest:
    """The manifest of the package at `directory`.

    Raises:
        ModelError: there is no model.yaml, or it is not valid; the message names the key.
    """
    path = directory / MANIFEST_NAME
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{directory} holds no {MANIFEST_NAME}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ModelError(f"{path}: cannot be read: {e}") from e
    try:
        return dataclasses.replace(parse_manifest(raw), directory=directory)
    except ModelError as e:
        raise ModelError(f"{path}: {e.message}") from None


def parse_manifest(raw: object) -> Manifest:
    """A `Manifest` from plain data. Raises `ModelError` that names the key."""
    top = _mapping("manifest", raw)
    manifest: Manifest = _build(
        Manifest,
        "",
        {
            **top,
            "image": _build(ImageSpec, "image", _pairs(_mapping("image", top.get("image")))),
            "text": _build(TextSpec, "text", _mapping("text", top.get("text"))),
            "canary": _build(Canary, "canary", _mapping("canary", top.get("canary"))),
            "backends": {
                str(k): _build(Backend, f"backends.{k}", _mapping(f"backends.{k}", v))
                for k, v in _mapping("backends", top.get("backends")).items()
            },
            "files": {
                str(k): _build(FileEntry, f"files.{k}", _mapping(f"files.{k}", v))
                for k, v in _mapping("files", top.get("files")).items()
            },
        },
    )
    _check(manifest)
    return manifest


def dump_manifest(manifest: Manifest) -> str:
    """`manifest` as the text of a model.yaml, keys in the order of this module."""
    plain = dataclasses.asdict(dataclasses.replace(manifest, directory=None))
    del plain["directory"]
    head = ("format", "name", "title", "about", "licence", "source")
    ordered = {k: plain[k] for k in head} | {k: v for k, v in plain.items() if k not in head}
    return yaml.safe_dump(json.loads(json.dumps(ordered)), sort_keys=False, allow_unicode=True, width=100)


def _mapping(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{key} must be a mapping, is {type(value).__name__}")
    return value


def _pairs(image: dict[str, Any]) -> dict[str, Any]:
    """`image` with its mean and std as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in image.items()}


def _build(cls: Any, key: str, values: dict[str, Any]) -> Any:
    """`cls(**values)` with unknown and missing keys named."""
    prefix = f"{key}." if key else ""
    known = {f.name: f for f in dataclasses.fields(cls) if f.name != "directory"}
    for name in values:
        if name not in known:
            raise ModelError(f"{prefix}{name} is not a key of a manifest of format {FORMAT}")
    for name, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and values.get(name) is None:
            raise ModelError(f"{prefix}{name} is missing")
    return cls(**values)


def _check(m: Manifest) -> None:
    """Raise `ModelError` at the first value that can't be."""
    rules: list[tuple[str, bool, str]] = [
        ("format", m.format == FORMAT, f"must be {FORMAT}, is {m.format}"),
        ("name", bool(NAME.fullmatch(str(m.name))), f"{m.name!r} must match {NAME.pattern}"),
        ("dimension", _whole(m.dimension, 1, 65536), f"must be 1 to 65536, is {m.dimension!r}"),
        ("logit_scale", _number(m.logit_scale) and m.logit_scale > 0, f"must be > 0, is {m.logit_scale!r}"),
        ("image.size", _whole(m.image.size, 16, 4096), f"must be 16 to 4096, is {m.image.size!r}"),
        ("text.pipeline", m.text.pipeline in ("clip", "pooled"), "must be clip or pooled"),
        ("text.context_length", _whole(m.text.context_length, 3, 4096), "must be 3 to 4096"),
        ("backends", bool(m.backends), "must name at least one backend"),
        ("canary.floor", _is_floor(m.canary.floor), "must be above 0, at most 1"),
    ]
    if m.text.pipeline == "clip":
        orientation = m.text.projection_orientation in ("in_out", "out_in")
        rules += [
            ("text.projection_orientation", orientation, "must be in_out or out_in"),
            ("text.token_embedding", m.text.token_embedding is not None, "is missing"),
            ("text.projection", m.text.projection is not None, "is missing"),
        ]
    rules += [
        (f"canary.floors.{name}", name in m.backends and _is_floor(floor), "must be a floor of a backend")
        for name, floor in _mapping("canary.floors", m.canary.floors).items()
    ]
    for name, backend in m.backends.items():
        normalised = backend.image_input == "nchw_normalised"
        rules += [
            (f"backends.{name}", name in BACKENDS, f"must be one of {', '.join(BACKENDS)}"),
            (
                f"backends.{name}.image_input",
                normalised or backend.image_input == "nhwc_uint8",
                "must be nhwc_uint8 or nchw_normalised",
            ),
            (
                "image.mean",
                not normalised or (m.image.mean is not None and m.image.std is not None),
                "and image.std are needed by nchw_normalised",
            ),
        ]
    rules += [(f"files.{f}", f in m.files, "is missing") for f in sorted(referenced_files(m))]
    rules += [(f"files.{f}", Path(f).name == f, "must be a plain file name") for f in m.files]
    for key, fine, message in rules:
        if not fine:
            raise ModelError(f"{key} {message}")


def referenced_files(m: Manifest) -> set[str]:
    """Every file of the package that the manifest names outside `files`."""
    names = {m.canary.file, m.text.token_embedding, m.text.projection, m.text.final_norm}
    if m.text.tokenizer != BUILTIN_TOKENIZER:
        names.add(m.text.tokenizer)
    for backend in m.backends.values():
        names |= {backend.image, backend.text}
    return {n for n in names if n is not None}


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _is_floor(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1
