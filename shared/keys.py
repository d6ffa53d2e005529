"""API keys: what one looks like, and the file that holds their hashes.

A key is ``hc_`` and 256 random bits in URL-safe base64. The file holds its SHA-256, never the key. A slow
hash (bcrypt, argon2) would gain nothing: it makes guessing a password dearer, and nobody guesses 256 random
bits, while every request would pay for it.

The file::

    keys:
    - name: door-camera            # what logs, `keys list` and `keys revoke` call it; each name once
      tenant: cameras              # whose share of the device it uses; several keys may have one tenant
      weight: 2.0                  # the tenant's share relative to others
      class: interactive           # or bulk, which yields to interactive
      created: 2026-01-31T12:00:00Z
      sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hailo_clip.shared.config_kinds import Choice, Kind, Number, Text
from hailo_clip.shared.config_yaml import read_yaml, write_yaml
from hailo_clip.shared.errors import SetupError

PREFIX = "hc_"
MAX_KEYS = 1000
"""Most keys in a file: a presented key is compared with every one of them."""

INTERACTIVE, BULK = CLASSES = ("interactive", "bulk")

_NAME = Text(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', the first a letter or digit"
)
FIELDS: dict[str, Kind] = {
    "name": _NAME,
    "tenant": _NAME,
    "weight": Number(0.01, 100),
    "class": Choice(CLASSES),
    "created": Text(r"[0-9TZ:.+-]{0,40}", "a time such as 2026-01-31T12:00:00Z"),
    "sha256": Text(r"[0-9a-f]{64}", "64 hex digits in lower case"),
}
"""What an entry holds, and what is allowed there."""

_DEFAULTS = {"weight": 1.0, "class": INTERACTIVE, "created": ""}
_HEAD = "# API keys of hailo-clip, hashed. `hailo-clip keys create|list|revoke` edits this file.\n"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry of the file, see the module's text; `sha256` is 32 bytes."""

    name: str
    tenant: str
    sha256: bytes
    weight: float = 1.0
    bulk: bool = False
    created: str = ""


def new_key() -> str:
    """A fresh random key."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(key: str) -> bytes:
    """What the file keeps of `key`."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def load_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys in the file `path`.

    Raises:
        SetupError: it can't be read, others could write it (and so let themselves in), or what is in it is
            wrong; the message names the file.
    """
    try:
        with path.open(encoding="utf-8") as f:
            if os.fstat(f.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise SetupError(f"{path} can be written by others; run: chmod 600 {path}")
            text = f.read()
    except FileNotFoundError:
        raise SetupError(
            f"there is no keys file {path}; make it with: hailo-clip keys create NAME --file {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise SetupError(f"the keys file {path} cannot be read: {getattr(e, 'strerror', None) or e}") from e
    try:
        return read_keys(text)
    except ValueError as e:
        raise SetupError(f"the keys file {path} is wrong: {e}") from e


def read_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys that `text` lists. Raises `ValueError` that says where and why it is wrong."""
    raw = read_yaml(text)
    if raw is None:  # more likely cut short than meant: it would lock everybody out
        raise ValueError("it is empty; 'keys: []' says that there are none")
    if not isinstance(raw, dict) or set(raw) != {"keys"}:
        raise ValueError("it must hold one list, 'keys:'")
    entries = raw["keys"]
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"'keys' must be a list of at most {MAX_KEYS} entries")
    keys = tuple(_entry(number, entry) for number, entry in enumerate(entries, start=1))
    _check_together(keys)
    return keys


def write_keys(keys: Iterable[ApiKey]) -> str:
    """The file's text for `keys`; `read_keys` gives them back."""
    return _HEAD + write_yaml({"keys": [_plain(key) for key in keys]})


def _entry(number: int, entry: object) -> ApiKey:
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} must hold {', '.join(FIELDS)}")
    given = {**_DEFAULTS, "tenant": entry.get("name"), **entry}
    unknown = sorted(map(str, given.keys() - FIELDS.keys()))
    if unknown:
        raise ValueError(f"entry {number}: there is no {unknown[0]!r}, only {', '.join(FIELDS)}")
    value = {field: _checked(number, field, given.get(field)) for field in FIELDS}
    sha256 = bytes.fromhex(value["sha256"])
    bulk = value["class"] == BULK
    return ApiKey(value["name"], value["tenant"], sha256, value["weight"], bulk, value["created"])


def _checked(number: int, field: str, value: object) -> Any:
    kind = FIELDS[field]
    try:
        return kind.check(value)
    except ValueError:
        # What stands in the hash's place may be the key itself, and this message goes to the logs.
        found = "" if field == "sha256" else f", is {value!r:.80}"
        raise ValueError(f"entry {number}: {field} must be {kind.allowed}{found}") from None


def _check_together(keys: Sequence[ApiKey]) -> None:
    """Raise `ValueError` for what is wrong between entries that are fine alone."""
    names: set[str] = set()
    hashes: dict[bytes, str] = {}
    weights: dict[str, float] = {}
    for key in keys:
        if key.name in names:
            raise ValueError(f"the name {key.name} stands twice")
        names.add(key.name)
        twin = hashes.setdefault(key.sha256, key.name)
        if twin != key.name:
            raise ValueError(f"{key.name} and {twin} are the same key")
        weight = weights.setdefault(key.tenant, key.weight)
        if weight != key.weight:
            raise ValueError(f"tenant {key.tenant} has keys of weight {weight:g} and {key.weight:g}")


def _plain(key: ApiKey) -> dict[str, object]:
    return {
        "name": key.name,
        "tenant": key.tenant,
        "weight": key.weight,
        "class": BULK if key.bulk else INTERACTIVE,
        "created": key.created,
        "sha256": key.sha256.hex(),
    }
