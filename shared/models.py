"""Finding model packages, checking their files, and choosing what runs them.

A package lies in a directory of its name below the models directory. The names of `KNOWN` can be fetched
(``hailo-clip models pull NAME``); any other package found in the directory can be served as well. A name
that begins with ``emulated-`` needs no files: its manifest is made here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import (
    BUILTIN_TOKENIZER,
    MANIFEST_NAME,
    NAME,
    Canary,
    ImageSpec,
    Manifest,
    TextSpec,
    load_manifest,
)

DEFAULT = "clip-resnet-50x4"
DEMO = "demo"
KNOWN = (DEFAULT, "clip-vit-b-32", "tinyclip-61m-32", DEMO)
"""Models that ``hailo-clip models pull`` can fetch."""

EMULATED_PREFIX = "emulated-"
_EMULATED = {"clip-resnet-50x4": (640, 288), "clip-vit-b-32": (512, 224), "tinyclip-61m-32": (512, 224)}
"""Known CLIP models that can be emulated: embedding dimension and image size in pixels."""
EMULATED = tuple(EMULATED_PREFIX + name for name in _EMULATED)

_PACKAGES = {"hailo": "hailo_platform", "onnx": "onnxruntime"}
_INSTALL = {
    "hailo": "install HailoRT's Python package (hailo_platform) from Hailo or from Raspberry Pi OS "
    "(sudo apt install python3-h10-hailort), in a venv made with --system-site-packages",
    "onnx": "type: pip install 'hailo-clip[onnx]'",
}
_CHUNK = 1 << 20


def models_dir(configured: Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """The directory that holds the model packages; it need not exist yet.

    `configured` (model.dir), else ``models`` in $STATE_DIRECTORY (systemd), else ``hailo-clip/models`` in
    $XDG_DATA_HOME or ``~/.local/share``.
    """
    env = os.environ if environ is None else environ
    if configured is not None:
        return configured
    if env.get("STATE_DIRECTORY"):
        return Path(env["STATE_DIRECTORY"].split(":", maxsplit=1)[0]) / "models"
    base = Path(env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "hailo-clip" / "models"


def installed(directory: Path) -> list[str]:
    """Names of the packages in the models directory, sorted; none when there is no such directory."""
    if not directory.is_dir():
        return []
    return sorted(
        p.parent.name for p in directory.glob(f"*/{MANIFEST_NAME}") if NAME.fullmatch(p.parent.name)
    )


def open_model(name: str, directory: Path) -> Manifest:
    """The manifest of the model `name`; its files are not touched (see `verify_files`).

    Args:
        name: a package in `directory`, or one of `EMULATED`.
        directory: what `models_dir` gave.

    Raises:
        ModelError: it is not installed, not known, or its manifest is not valid; the message says what
            to type.
    """
    if name in EMULATED:
        return _emulated(name)
    if not NAME.fullmatch(name) or not (directory / name).is_dir():
        raise ModelError(_absent(name, directory))
    manifest = load_manifest(directory / name)
    if manifest.name != name:
        raise ModelError(
            f"{directory / name / MANIFEST_NAME} describes the model {manifest.name!r}; "
            f"its directory must be named {manifest.name!r}"
        )
    return manifest


def is_emulated(manifest: Manifest) -> bool:
    """True for a model that only the emulated encoder can run."""
    return manifest.name in EMULATED


def needed_files(manifest: Manifest, backend: str) -> list[str]:
    """Files of the package that a worker of `backend` reads, sorted; none for the emulated encoder."""
    if backend not in manifest.backends:
        return []
    networks = manifest.backends[backend]
    names = {networks.image, networks.text, manifest.canary.file}
    text = manifest.text
    names |= {n for n in (text.token_embedding, text.projection, text.final_norm) if n is not None}
    if manifest.text.tokenizer != BUILTIN_TOKENIZER:
        names.add(manifest.text.tokenizer)
    return sorted(names)


def verify_files(manifest: Manifest, backend: str) -> None:
    """Check size and SHA-256 of every file that `backend` needs; reads them whole.

    Raises:
        ModelError: one is missing, unreadable or not what the manifest says; the message names the file,
            what was expected and found, and the command that mends it.
    """
    for name in needed_files(manifest, backend):
        _verify(manifest, name)


def resolve_encoder(requested: str, manifest: Manifest) -> str:
    """The encoder that runs `manifest`: "hailo", "onnx" or "emulated".

    Args:
        requested: one of these, or "auto": hailo where the package has HEFs and hailo_platform can be
            found (it is not imported), else onnx. An emulated model is run by nothing else.
        manifest: the model.

    Raises:
        ModelError: nothing fits; the message says what is missing and what to type.
    """
    if is_emulated(manifest) or requested == "emulated":
        return _resolve_emulated(requested, manifest)
    wanted = ("hailo", "onnx") if requested == "auto" else (requested,)
    lacking = {e: _lacking(e, manifest) for e in wanted}
    for encoder, reason in lacking.items():
        if not reason:
            return encoder
    what = "by any encoder" if requested == "auto" else f"by the encoder {requested!r}"
    reasons = "; ".join(f"{e}: {reason}" for e, reason in lacking.items())
    raise ModelError(f"model {manifest.name} cannot be run {what} here. {reasons}")


def _resolve_emulated(requested: str, manifest: Manifest) -> str:
    """The encoder of an emulated model, unless request and model contradict each other."""
    if is_emulated(manifest) and requested in ("auto", "emulated"):
        return "emulated"
    if is_emulated(manifest):
        raise ModelError(
            f"model {manifest.name} has no files for the encoder {requested!r}; take model.encoder auto, or "
            f"the real model: --model {manifest.name.removeprefix(EMULATED_PREFIX)}"
        )
    raise ModelError(
        f"the emulated encoder makes its embeddings up and does not run {manifest.name}; "
        f"to emulate a device, name an emulated model: {', '.join(EMULATED)}"
    )


def _lacking(encoder: str, manifest: Manifest) -> str:
    """Why `encoder` can't run `manifest` and what to do; empty when it can."""
    if encoder not in manifest.backends:
        pull = f"type: hailo-clip models pull {manifest.name} --backend {encoder}"
        fix = pull if manifest.name in KNOWN else "import it anew"
        return f"the package has no files for it, only for {', '.join(manifest.backends)} ({fix})"
    if importlib.util.find_spec(_PACKAGES[encoder]) is None:
        return f"the Python package {_PACKAGES[encoder]} is not there ({_INSTALL[encoder]})"
    return ""


def _absent(name: str, directory: Path) -> str:
    """Why there is no model `name`, and what to type."""
    if name == DEMO:
        return f"model {name} is not installed in {directory}; type: hailo-clip models pull {name}"
    if name in KNOWN:
        return (
            f"model {name} is not installed in {directory}. Type one of:\n"
            f"  hailo-clip models pull {name}\n"
            f"  hailo-clip serve --model {DEMO}"
        )
    names = [*KNOWN, *EMULATED, *(n for n in installed(directory) if n not in KNOWN)]
    return f"there is no model {name!r}; there are: {', '.join(names)}"


def _emulated(name: str) -> Manifest:
    """The manifest of an emulated model: shapes of the real one, no files, no backends."""
    real = name.removeprefix(EMULATED_PREFIX)
    dimension, size = _EMULATED[real]
    return Manifest(
        name=name,
        dimension=dimension,
        logit_scale=100.0,
        image=ImageSpec(size=size),
        text=TextSpec(pipeline="clip", context_length=77),
        backends={},
        files={},
        canary=Canary(file="", floor=0.9999),
        title=f"Emulated {real}",
        about="Service times of a Hailo-10H, embeddings that mean nothing: for tests and capacity planning.",
    )


def _verify(manifest: Manifest, name: str) -> None:
    path, entry = manifest.path(name), manifest.files[name]
    try:
        size = path.stat().st_size
        found = _sha256(path) if size == entry.size else None
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; {_mend(manifest)}") from None
    except OSError as e:
        raise ModelError(f"{path} cannot be read: {e.strerror}") from e
    if found is None:
        raise ModelError(f"{path} has {size} bytes, expected {entry.size}; {_mend(manifest)}")
    if found != entry.sha256:
        raise ModelError(f"{path} has SHA-256 {found}, expected {entry.sha256}; {_mend(manifest)}")


def _mend(manifest: Manifest) -> str:
    """What to type when a file of `manifest` is damaged."""
    again = f"pull {manifest.name}" if manifest.name in KNOWN else f"import {manifest.name} ..."
    return f"type: hailo-clip models {again}, then: hailo-clip models verify {manifest.name}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
