"""The prompt cache's file: loaded at start, written atomically now and then and at the end.

A cache of 10,000 entries is 26 MB and a disk may be slow, so a thread of its own packs and writes a copy of
the entries, one file at a time.

A file that can't be read or written never stops the broker: it is logged, and serving goes on.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hailo_clip.broker.policy import Policy
from hailo_clip.broker.promptcache import PromptCache, pack

log = logging.getLogger("hailo_clip.broker")

EVERY_S = 300.0
DEBRIS = "tmp"


class CacheFile:
    """Carries `cache` across restarts in `directory`; does nothing where that is None."""

    def __init__(self, cache: PromptCache, policy: Policy, directory: Path | None) -> None:
        self._cache = cache
        self._policy = policy
        self._next = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-file")
        self._round: Future[bool] | None = None
        self._changes = 0  # that the round under way is to write
        self._path = directory / f"prompts-{policy.model}.cache" if directory is not None else None

    def load(self) -> None:
        """Take over what the file holds, if it was made with this model."""
        if self._path is None or not self._cache.max_entries:
            return
        try:
            data = self._path.read_bytes()
            count = self._cache.load(data, self._policy.fingerprint, 4 * self._policy.dimension)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as e:
            log.warning("prompt cache file ignored: %s", e, extra={"file": str(self._path)})
            return
        log.info("prompt cache loaded", extra={"entries": count, "file": str(self._path)})

    def save_now_and_then(self, now: float) -> None:
        """Begin to write the file if it is time, something changed and no writing is under way."""
        if self._round is not None and self._round.done():
            self._end()
        if now >= self._next:
            if self._next:
                self._begin()
            self._next = now + EVERY_S

    def save(self) -> None:
        """Write the file if something changed, and return when that is done."""
        self._end()
        self._begin()
        self._end()

    def _begin(self) -> None:
        if self._path is None or self._round is not None or not self._cache.changes:
            return
        self._changes, self._cache.changes = self._cache.changes, 0
        entries, fingerprint = self._cache.entries(), self._policy.fingerprint
        self._round = self._thread.submit(_write, self._path, entries, fingerprint)

    def _end(self) -> None:
        """Wait for the writing under way, if any; what it did not write counts as a change again."""
        if self._round is not None:
            if not self._round.result():
                self._cache.changes += self._changes
            self._round = None


def _write(path: Path, entries: Sequence[tuple[bytes, bytes]], fingerprint: str) -> bool:
    """A new file takes the old one's place in one step; False when it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, pack(entries, fingerprint))
    except OSError as e:
        log.warning("prompt cache not written: %s", e, extra={"file": str(path)})
        return False
    return True


def replace_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write `pieces` beside `path`, then put it in its place. Raises OSError, and leaves nothing behind.

    What a killed process leaves begins with `DEBRIS`.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=DEBRIS, delete=False) as f:
        try:
            f.writelines(pieces)
            f.flush()
            os.fsync(f.fileno())
            Path(f.name).replace(path)
        except OSError:
            Path(f.name).unlink(missing_ok=True)
            raise
