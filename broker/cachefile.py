"""The prompt cache's file: loaded at start, written atomically now and then and at the end.

A file that can't be read or written never stops the broker: it is logged, and serving goes on.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from hailo_clip.broker.policy import Policy
from hailo_clip.broker.promptcache import PromptCache

log = logging.getLogger("hailo_clip.broker")

EVERY_S = 300.0
DEBRIS = "tmp"


class CacheFile:
    """Carries `cache` across restarts in `directory`; does nothing where that is None."""

    def __init__(self, cache: PromptCache, policy: Policy, directory: Path | None) -> None:
        self._cache = cache
        self._policy = policy
        self._next = 0.0
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
        """Write the file if it is time and something changed."""
        if now >= self._next:
            if self._next:
                self.save()
            self._next = now + EVERY_S

    def save(self) -> None:
        """Write the file if something changed: a new file takes the old one's place in one step."""
        if self._path is None or not self._cache.changes:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, self._cache.dump(self._policy.fingerprint))
        except OSError as e:
            log.warning("prompt cache not written: %s", e, extra={"file": str(self._path)})
            return
        self._cache.changes = 0


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then put it in its place. Raises OSError, and leaves nothing behind.

    What a killed process leaves begins with `DEBRIS`.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=DEBRIS, delete=False) as f:
        try:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
            Path(f.name).replace(path)
        except OSError:
            Path(f.name).unlink(missing_ok=True)
            raise
