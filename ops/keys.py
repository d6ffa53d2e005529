"""Editing the file of API keys: one editor at a time, and readers see the old file or the new one."""

from __future__ import annotations

import difflib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hailo_clip.shared.errors import ConfigError, SetupError
from hailo_clip.shared.keys import FIELDS, MAX_KEYS, ApiKey, hashed, load_keys, new_key, write_keys

NEW_MODE = 0o600


def create(path: Path, name: str, tenant: str | None, weight: float | None, bulk: bool) -> tuple[str, ApiKey]:
    """Add a key to the file `path`, which is made if need be; the key, and its entry.

    Args:
        path: the file.
        name: of the key.
        tenant: whose it is; None: one called like the key.
        weight: the tenant's share relative to others; None: as the tenant's other keys have it, else 1.
        bulk: its requests yield to interactive ones.

    Raises:
        ConfigError: a name or the weight is not allowed.
        SetupError: the name is taken, the tenant's other keys have another weight, or the file can't be used.
    """
    tenant = name if tenant is None else tenant
    for field, value in (("name", name), ("tenant", tenant), ("weight", 1.0 if weight is None else weight)):
        _check(field, value)
    with _locked(path):
        keys = load_keys(path) if path.exists() else ()
        if any(key.name == name for key in keys):
            raise SetupError(f"{path} has a key {name} already; choose another name, or revoke it first")
        if len(keys) >= MAX_KEYS:
            raise SetupError(f"{path} has {len(keys)} keys, the most there may be")
        weight = _weight(keys, tenant, weight)
        key = new_key()
        created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        entry = ApiKey(name, tenant, hashed(key), weight, bulk, created)
        _replace(path, write_keys([*keys, entry]))
    return key, entry


def revoke(path: Path, name: str) -> ApiKey:
    """Take the key `name` out of the file `path`; its entry. Raises `SetupError` when there is none."""
    with _locked(path):
        keys = load_keys(path)
        found = next((key for key in keys if key.name == name), None)
        if found is None:
            near = difflib.get_close_matches(name, [key.name for key in keys], n=1)
            hint = f"did you mean {near[0]}?" if near else "`hailo-clip keys list` shows what there is"
            raise SetupError(f"{path} has no key {name}; {hint}")
        _replace(path, write_keys(key for key in keys if key is not found))
    return found


def listing(keys: tuple[ApiKey, ...]) -> str:
    """A table of `keys`."""
    if not keys:
        return "no keys"
    rows = [("name", "tenant", "weight", "class", "created")]
    rows += [
        (k.name, k.tenant, f"{k.weight:g}", "bulk" if k.bulk else "interactive", k.created or "-")
        for k in keys
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _check(field: str, value: object) -> None:
    try:
        FIELDS[field].check(value)
    except ValueError:
        raise ConfigError(f"{field} must be {FIELDS[field].allowed}, is {value!r}") from None


def _weight(keys: tuple[ApiKey, ...], tenant: str, wanted: float | None) -> float:
    has = next((key.weight for key in keys if key.tenant == tenant), None)
    if has is None:
        return 1.0 if wanted is None else wanted
    if wanted not in (None, has):
        raise SetupError(f"the other keys of tenant {tenant} have weight {has:g}; a tenant has one weight")
    return has


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Be the only editor of files in this directory. Raises `SetupError` when it is not there."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        raise SetupError(f"the directory {path.parent} cannot be used: {e.strerror}") from e
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _replace(path: Path, text: str) -> None:
    """Put `text` into the file `path` (where it leads, if it is a link), whose owner and mode stay."""
    target = path.resolve()
    fd, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as f:
            if target.exists():
                _look_like(f.fileno(), target)
            else:
                os.fchmod(f.fileno(), NEW_MODE)
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        Path(partial).replace(target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _look_like(fd: int, older: Path) -> None:
    """Give an open file the owner and mode of `older`: the service's user must still be able to read it."""
    old, new = older.stat(), os.fstat(fd)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o777)
