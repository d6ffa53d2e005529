"""What `doctor` finds: one line each, with the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
        fix: what to type or do about it, empty where nothing is to be done.
    """

    level: Level
    topic: str
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look: another place for each in tests."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def ok(topic: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, topic, text)


def warning(topic: str, text: str, fix: str) -> Finding:
    """It may become a problem."""
    return Finding(Level.WARNING, topic, text, fix)


def problem(topic: str, text: str, fix: str) -> Finding:
    """It must be mended."""
    return Finding(Level.PROBLEM, topic, text, fix)
