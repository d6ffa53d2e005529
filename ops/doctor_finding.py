"""What `doctor` finds: one line each, with the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Level(Enum):
    """How bad it is: a PROBLEM keeps the service from working, a WARNING may."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: one word: "driver", "model".
        text: what was found.
        fix: what to type or do about it, empty where nothing is to be done; a hint where all is well.
    """

    level: Level
    topic: str
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look: another place for each in tests."""

    sys: Path = Path("/sys")
    lib: tuple[Path, ...] = (Path("/usr/lib"), Path("/usr/local/lib"))
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def guarded(topic: str, look: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of `look`; what this user may not look at is one of them, and no reason to stop."""
    try:
        yield from look
    except OSError as e:
        yield warning(topic, f"could not be looked at: {e}", "sudo hailo-clip doctor")


def ok(topic: str, text: str, hint: str = "") -> Finding:
    """All is well; `hint` is for those who expected something else."""
    return Finding(Level.OK, topic, text, hint)


def warning(topic: str, text: str, fix: str) -> Finding:
    """It may become a problem."""
    return Finding(Level.WARNING, topic, text, fix)


def problem(topic: str, text: str, fix: str) -> Finding:
    """It must be mended."""
    return Finding(Level.PROBLEM, topic, text, fix)
