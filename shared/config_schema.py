"""Every setting, declared once: its type, default, what is allowed, the flag that sets it and its meaning.

Parsing, messages, command-line flags and the reference in docs/configuration.md all come from here.
"""

# ruff: noqa: RUF009  (`setting` makes a dataclass field, as `field` does)

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hailo_clip.shared.config_kinds import (
    Choice,
    Each,
    Endpoint,
    FilePath,
    Flag,
    Host,
    Kind,
    Maybe,
    Network,
    Number,
    Origin,
    Text,
    Whole,
)

T = TypeVar("T")

ENV_PREFIX = "HAILO_CLIP__"

_MODEL_NAME = Text(r"[a-z0-9][a-z0-9._-]{0,63}", "a model's name: a-z, 0-9, '.', '_' and '-', at most 64")
_DEVICE = Text(r"[!-~]{1,128}", "a device id such as 0000:01:00.0")
_LISTENING = "null: a socket in the run directory; tcp:// needs curve_keys"


def setting(default: T, kind: Kind, doc: str, flag: str | None = None) -> T:
    """A dataclass field for one setting.

    Args:
        default: the value when nobody sets it.
        kind: what is allowed.
        doc: one line for the reference and for --help.
        flag: the command line's flag for it, e.g. "--port".
    """
    declared: T = field(default=default, metadata={"kind": kind, "doc": doc, "flag": flag})
    return declared


@dataclass(frozen=True, slots=True)
class Server:
    """The REST frontends."""

    host: str = setting("0.0.0.0", Host(), "address the REST API listens on", "--host")  # noqa: S104
    port: int = setting(5000, Whole(1, 65535), "TCP port of the REST API", "--port")
    processes: int = setting(2, Whole(1, 64), "frontend processes that parse requests and decode images")
    max_body_mib: int = setting(20, Whole(1, 1024), "largest request body in MiB; beyond it: 413")
    trusted_proxies: tuple[str, ...] = setting(
        (), Each(Network()), "proxies whose X-Forwarded-For is believed when a client is told by its address"
    )
    cors_origins: tuple[str, ...] = setting(
        (), Each(Origin()), "web pages that may use the API from a browser, by origin"
    )
    max_connections: int = setting(
        512, Whole(8, 65_536), "most connections of a frontend process; beyond it: 503"
    )


@dataclass(frozen=True, slots=True)
class Model:
    """Which model is served, and by what."""

    name: str = setting("clip-resnet-50x4", _MODEL_NAME, "the model to serve", "--model")
    dir: Path | None = setting(
        None,
        Maybe(FilePath()),
        "directory that holds the model packages; null: the user's or system's own",
        "--models-dir",
    )
    encoder: str = setting(
        "auto",
        Choice(("auto", "hailo", "onnx", "emulated")),
        "what runs the model; auto: hailo where its files and HailoRT are there, else onnx",
        "--encoder",
    )


@dataclass(frozen=True, slots=True)
class Workers:
    """The encoder processes."""

    count: int = setting(2, Whole(1, 64), "worker processes that `serve` starts", "--workers")
    devices: str | tuple[str, ...] = setting(
        "auto", Each(_DEVICE, "auto"), "devices to spread the workers over; auto: all that are found"
    )
    max_batch: int = setting(8, Whole(1, 63), "most items in one pass of the device")


@dataclass(frozen=True, slots=True)
class Queue:
    """What may wait, and for how long."""

    max_depth: int = setting(
        10,
        Whole(1, 100_000),
        "most requests that wait for a device; a list must also find fewer places taken, one for every "
        "workers.max_batch items; beyond it: 429",
    )
    max_bytes_mib: int = setting(
        256, Whole(1, 65_536), "most MiB of waiting images and prompts; beyond it: 429"
    )
    request_timeout_s: float = setting(
        30.0,
        Number(0.1, 3600),
        "seconds after which a request is answered 504 when its client names no deadline",
    )


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the processes meet."""

    run_dir: Path | None = setting(
        None,
        Maybe(FilePath()),
        "directory of the sockets, private to one user; null: one for this user and port",
        "--run-dir",
    )
    frontend: str | None = setting(
        None, Maybe(Endpoint()), f"endpoint that frontends connect to; {_LISTENING}"
    )
    backend: str | None = setting(None, Maybe(Endpoint()), f"endpoint that workers connect to; {_LISTENING}")
    curve_keys: Path | None = setting(
        None,
        Maybe(FilePath()),
        "directory with the CURVE keys of tcp:// endpoints, which `hailo-clip keys curve` makes",
    )


@dataclass(frozen=True, slots=True)
class Cache:
    """The broker's prompt cache."""

    max_entries: int = setting(
        10_000, Whole(0, 10_000_000), "most prompts whose embeddings are kept; 0: none"
    )
    persist: bool = setting(True, Flag(), "keep the prompt cache across restarts")


@dataclass(frozen=True, slots=True)
class Labels:
    """The label sets that the broker keeps."""

    max_sets: int = setting(1000, Whole(0, 1_000_000), "most label sets; one more: 400")
    max_mib: int = setting(64, Whole(1, 65_536), "most MiB that all label sets take; beyond it: 400")
    persist: bool = setting(True, Flag(), "keep label sets across restarts")


@dataclass(frozen=True, slots=True)
class Auth:
    """API keys."""

    keys_file: Path | None = setting(
        None, Maybe(FilePath()), "file with hashed API keys and their tenants; null: no keys are asked for"
    )
    metrics: str = setting(
        "open", Choice(("open", "key")), "who may read /metrics where keys are asked for: everybody, or a key"
    )


@dataclass(frozen=True, slots=True)
class Log:
    """Logs, which go to standard error."""

    level: str = setting(
        "info", Choice(("debug", "info", "warning", "error")), "least severity that is logged", "--log-level"
    )
    format: str = setting(
        "auto",
        Choice(("auto", "json", "text")),
        "one JSON object a line, or text; auto: text on a terminal, else json",
        "--log-format",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked; made by `hailo_clip.shared.config.load_config`."""

    server: Server = field(default_factory=Server)
    model: Model = field(default_factory=Model)
    workers: Workers = field(default_factory=Workers)
    queue: Queue = field(default_factory=Queue)
    broker: Broker = field(default_factory=Broker)
    cache: Cache = field(default_factory=Cache)
    labels: Labels = field(default_factory=Labels)
    auth: Auth = field(default_factory=Auth)
    log: Log = field(default_factory=Log)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as declared above: `key` is dotted, e.g. "queue.max_depth"."""

    key: str
    default: Any
    kind: Kind
    doc: str
    flag: str | None

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENV_PREFIX + self.key.upper().replace(".", "__")


SECTIONS: dict[str, type] = {
    "server": Server,
    "model": Model,
    "workers": Workers,
    "queue": Queue,
    "broker": Broker,
    "cache": Cache,
    "labels": Labels,
    "auth": Auth,
    "log": Log,
}


def _declared() -> Iterator[Setting]:
    for name, section in SECTIONS.items():
        for f in dataclasses.fields(section):
            m = f.metadata
            yield Setting(f"{name}.{f.name}", f.default, m["kind"], m["doc"], m["flag"])


SETTINGS: dict[str, Setting] = {s.key: s for s in _declared()}


def reference() -> str:
    """Markdown tables of all settings, a section each."""
    parts = []
    for name, section in SECTIONS.items():
        rows = [_row(s) for s in SETTINGS.values() if s.key.startswith(f"{name}.")]
        head = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([f"### {name}", "", section.__doc__ or "", "", *head, *rows]))
    return "\n\n".join(parts) + "\n"


def _row(s: Setting) -> str:
    flag = f" (`{s.flag}`)" if s.flag else ""
    return f"| `{s.key}`{flag} | `{_shown(s.default)}` | {s.kind.allowed} | {s.doc} |"


def _shown(default: object) -> str:
    """A default as one would write it in YAML."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return "[]" if default == () else f"{default:g}" if isinstance(default, float) else str(default)
