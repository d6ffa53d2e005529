"""`hailo-clip models remove`: delete a package, after asking."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from hailo_clip.ops.models_show import megabytes
from hailo_clip.shared.errors import ConfigError, ModelError
from hailo_clip.shared.manifest import NAME
from hailo_clip.shared.models import EMULATED, installed


def remove(name: str, directory: Path, yes: bool) -> int:
    """Delete the package `directory`/`name`; the exit code: 0, or 1 when the user did not agree.

    Raises:
        ModelError: there is no such package.
        ConfigError: it must be asked for, and nobody is there to answer.
    """
    target = directory / name
    if not NAME.fullmatch(name) or name not in installed(directory):
        there = "it is built in" if name in EMULATED else f"{directory} holds: {_names(directory)}"
        raise ModelError(f"model {name!r} is not installed, so it can't be removed; {there}")
    if not yes and not _agreed(f"Delete {target} ({megabytes(_size(target))})?"):
        print("nothing was deleted")
        return 1
    gone = directory / f".{name}.removed"
    shutil.rmtree(gone, ignore_errors=True)
    target.rename(gone)  # in one step, so that nobody opens half a package
    shutil.rmtree(gone)
    print(f"deleted {target}")
    return 0


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("deleting needs --yes when no one can be asked (standard input is no terminal)")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _size(directory: Path) -> int:
    return sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())


def _names(directory: Path) -> str:
    return ", ".join(installed(directory)) or "nothing"
