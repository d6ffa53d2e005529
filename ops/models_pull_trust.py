"""Trust on first use: the hash that a file had when first fetched is the one it must have from then on.

``trusted.json`` in the models directory holds them by address. A hash that the user pins (``--sha256``) or
that the list of sources names counts more, and is recorded in its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hailo_clip.ops.fetch import sha256_of
from hailo_clip.shared.errors import ModelError

NAME: Final = "trusted.json"


class Trust:
    """The record of a models directory, for one process at a time.

    Raises (on creation):
        ModelError: it can't be read; nothing is trusted by accident.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._known: dict[str, dict[str, Any]] = _load(self._path)

    def check(self, address: str, file: Path, name: str, pinned: str | None) -> str:
        """The SHA-256 of `file`, fetched from `address`, if it is the one that it must have.

        Args:
            address: its URL, with the name of the part behind ``#`` where it is not the whole file.
            file: it is deleted when it is not what it must be, so that it is fetched anew.
            name: how the user names it in ``--sha256``.
            pinned: the hash that the user or the list of sources demands.

        Raises:
            ModelError: it has another one.
            OSError: the record can't be written.
        """
        found = sha256_of(file)
        known = self._known.get(address)
        if pinned is not None and found != pinned:
            file.unlink()
            raise ModelError(
                f"{name} from {address} has SHA-256 {found}, {pinned} was demanded. It was thrown away: "
                "it was damaged on the way, or it is another file"
            )
        if pinned is None and known is not None and found != known["sha256"]:
            file.unlink()
            raise ModelError(
                f"{name} from {address} has SHA-256 {found}; when it was fetched first ({known['first']}) it "
                f"had {known['sha256']}. It was thrown away. Fetch it again; if it is still another one, the "
                f"publisher changed it: accept that with --sha256 {name}={found}"
            )
        if known is None or known["sha256"] != found:
            self._record(address, found, file.stat().st_size)
        return found

    def knows(self, address: str) -> bool:
        """True when a hash is on record for `address`."""
        return address in self._known

    def _record(self, address: str, sha256: str, size: int) -> None:
        today = datetime.now(UTC).date().isoformat()
        self._known[address] = {"sha256": sha256, "bytes": size, "first": today}
        partial = self._path.with_name(f".{NAME}.partial")
        with partial.open("w", encoding="utf-8") as out:
            json.dump({"format": 1, "files": self._known}, out, indent=1, sort_keys=True)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(self._path)


def _load(path: Path) -> dict[str, dict[str, Any]]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise ModelError(_broken(path, str(e))) from e
    files: object = told.get("files") if isinstance(told, Mapping) and told.get("format") == 1 else None
    if not isinstance(files, dict) or not all(_is_entry(entry) for entry in files.values()):
        raise ModelError(_broken(path, "it is not of the form that is written here"))
    return files


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("sha256", "first"))


def _broken(path: Path, why: str) -> str:
    return (
        f"{path}, the record of the hashes that files had when they were first fetched, cannot be read: "
        f"{why}. Mend it, or delete it to trust what is fetched next"
    )
