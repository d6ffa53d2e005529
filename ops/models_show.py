"""What `hailo-clip models list` and `show` print."""

from __future__ import annotations

from pathlib import Path

from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.logs import escaped
from hailo_clip.shared.manifest import Manifest, load_manifest
from hailo_clip.shared.models import EMULATED, KNOWN, installed


def listing(directory: Path) -> str:
    """A table of all models: known, installed and emulated."""
    there = installed(directory)
    names = [*KNOWN, *(n for n in there if n not in KNOWN)]
    rows = [("NAME", "STATE", "ENCODERS", "SIZE", "TITLE")]
    rows += [_row(n, directory) if n in there else (n, "not installed", "-", "-", "") for n in names]
    rows += [
        (name, "built in", "emulated", "-", "no real embeddings: for tests and planning") for name in EMULATED
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), "", f"in {directory}"])


def description(manifest: Manifest) -> str:
    """All that a manifest tells, for people."""
    m = manifest
    lines = [
        f"name         {m.name}",
        f"title        {escaped(m.title)}",
        f"about        {escaped(m.about)}",
        f"dimension    {m.dimension}",
        f"image        {m.image.size} x {m.image.size}",
        f"text         {m.text.context_length} tokens, {m.text.pipeline}, tokenizer {m.text.tokenizer}",
        f"logit scale  {m.logit_scale:g}",
        f"licence      {escaped(m.licence)}",
        f"source       {escaped(m.source)}",
    ]
    if m.directory is not None:
        lines.append(f"directory    {m.directory}")
    lines += [f"encoder      {b}: fingerprint {m.fingerprint(b)}" for b in m.backends or ("emulated",)]
    lines += [f"file         {name}: {megabytes(e.size)}, sha256 {e.sha256}" for name, e in m.files.items()]
    return "\n".join(line.rstrip() for line in lines)


def size_of(manifest: Manifest) -> int:
    """Bytes of all files of a package."""
    return sum(entry.size for entry in manifest.files.values())


def megabytes(size: int) -> str:
    """A size in bytes, for people."""
    return f"{size / 1e6:.1f} MB"


def _row(name: str, directory: Path) -> tuple[str, str, str, str, str]:
    try:
        m = load_manifest(directory / name)
    except ModelError as e:
        return (name, "damaged", "-", "-", escaped(e.message))
    return (name, "installed", ", ".join(m.backends), megabytes(size_of(m)), escaped(m.title))
