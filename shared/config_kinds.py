"""What a setting's value may be: one small class a kind, with its check and its words.

A kind checks a plain value (`check`), turns text from the environment into a plain value (`from_text`) and
says in words what is allowed (`allowed`); messages and the reference table use those same words.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

IPC_PATH_MAX = 107  # sizeof(sockaddr_un.sun_path) is 108 on Linux, with the closing NUL

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_TCP = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


class Kind(Protocol):
    """What every kind offers."""

    @property
    def allowed(self) -> str:
        """What is allowed, fit for "must be ..."."""
        ...

    def check(self, value: object) -> Any:
        """The value as the configuration holds it. Raises `ValueError` when it is not allowed."""
        ...

    def from_text(self, text: str) -> object:
        """A plain value from an environment variable's text. Raises `ValueError`."""
        ...


class _FromYaml:
    """Kinds whose text form is YAML: numbers, flags, lists."""

    def from_text(self, text: str) -> object:
        """`text` read as YAML."""
        from hailo_clip.shared.config_yaml import read_yaml  # not needed to print --help

        return read_yaml(text)


class _FromString:
    """Kinds whose text form is the value itself, so that a model may be called "1e3"."""

    def from_text(self, text: str) -> object:
        """`text` as it is."""
        return text


@dataclass(frozen=True)
class Whole(_FromYaml):
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """The range in words."""
        return f"a whole number from {self.low} to {self.high}"

    def check(self, value: object) -> int:
        """`value` when it is an int in range; True and 5.0 are none."""
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise ValueError
        return value


@dataclass(frozen=True)
class Number(_FromYaml):
    """A finite number from `low` to `high`, both included."""

    low: float
    high: float

    @property
    def allowed(self) -> str:
        """The range in words."""
        return f"a number from {self.low:g} to {self.high:g}"

    def check(self, value: object) -> float:
        """`value` as a float when it is in range; NaN never is."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ValueError
        if not self.low <= value <= self.high:
            raise ValueError
        return float(value)


@dataclass(frozen=True)
class Flag(_FromYaml):
    """True or false."""

    allowed: str = "true or false"

    def check(self, value: object) -> bool:
        """`value` when it is a bool; 0, 1 and "true" are none."""
        if not isinstance(value, bool):
            raise ValueError
        return value


@dataclass(frozen=True)
class Choice(_FromString):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """The words."""
        return "one of " + ", ".join(self.words)

    def check(self, value: object) -> str:
        """`value` when it is one of the words."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError
        return value


@dataclass(frozen=True)
class Text(_FromString):
    """A string that matches `pattern` as a whole."""

    pattern: str
    allowed: str

    def check(self, value: object) -> str:
        """`value` when it matches."""
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError
        return value


@dataclass(frozen=True)
class Host(_FromString):
    """An address to listen on."""

    allowed: str = "an IP address or host name"

    def check(self, value: object) -> str:
        """`value` when it is an IPv4 or IPv6 address or looks like a host name."""
        if not isinstance(value, str):
            raise ValueError
        if not _HOST.fullmatch(value):
            ipaddress.ip_address(value)
        return value


@dataclass(frozen=True)
class Network(_FromString):
    """An IP address or a range of them."""

    allowed: str = "an IP address or network such as 10.0.0.0/8"

    def check(self, value: object) -> str:
        """`value` when `ipaddress` reads it."""
        if not isinstance(value, str):
            raise ValueError
        ipaddress.ip_network(value, strict=False)
        return value


@dataclass(frozen=True)
class Origin(_FromString):
    """An origin in the sense of CORS."""

    allowed: str = 'an origin such as https://example.org, or "*" for every one'

    def check(self, value: object) -> str:
        """`value` when a browser could send it as Origin, which has no path and is in lower case."""
        if not isinstance(value, str) or (value != "*" and not _ORIGIN.fullmatch(value)):
            raise ValueError
        return value


@dataclass(frozen=True)
class FilePath(_FromString):
    """A path; "~" is the home directory, and what is relative starts at the current directory."""

    allowed: str = "a path"

    def check(self, value: object) -> Path:
        """`value` as an absolute path."""
        if not isinstance(value, (str, Path)) or not str(value).strip() or "\0" in str(value):
            raise ValueError
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError as e:  # "~name" of nobody
            raise ValueError(str(e)) from e


@dataclass(frozen=True)
class Endpoint(_FromString):
    """A ZeroMQ endpoint."""

    allowed: str = f"ipc://PATH (at most {IPC_PATH_MAX} bytes of path) or tcp://HOST:PORT"

    def check(self, value: object) -> str:
        """`value` when it is an ipc or tcp endpoint that ZeroMQ could use."""
        if not isinstance(value, str):
            raise ValueError
        if value.startswith("ipc:///"):
            if len(value.removeprefix("ipc://").encode()) > IPC_PATH_MAX:
                raise ValueError
            return value
        tcp = _TCP.fullmatch(value)
        if tcp is None or not 1 <= int(tcp[2]) <= 65535:
            raise ValueError
        return value


@dataclass(frozen=True)
class Maybe:
    """`kind`, or null."""

    kind: Kind

    @property
    def allowed(self) -> str:
        """The inner kind's words, or null."""
        return f"{self.kind.allowed}, or null"

    def check(self, value: object) -> Any:
        """None, or what the inner kind makes of `value`."""
        return None if value is None else self.kind.check(value)

    def from_text(self, text: str) -> object:
        """None for "", "null" and "~", else what the inner kind reads."""
        return None if text in ("", "null", "~") else self.kind.from_text(text)


@dataclass(frozen=True)
class Each(_FromYaml):
    """A list whose every entry is of `kind`, or instead of the list the word `instead`."""

    kind: Kind
    instead: str | None = None

    @property
    def allowed(self) -> str:
        """The list in words."""
        listed = f"a list, each entry {self.kind.allowed}"
        return listed if self.instead is None else f"{self.instead}, or {listed}"

    def check(self, value: object) -> Any:
        """A tuple of checked entries, or the word."""
        if self.instead is not None and value == self.instead:
            return value
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return tuple(self.kind.check(entry) for entry in value)
