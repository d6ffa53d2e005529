"""The keys file as a running frontend sees it: read again when it changes; a broken one changes nothing.

Polling instead of a signal: it needs no process to tell the others, works for files that an orchestrator
swaps, and drops no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from hailo_clip.shared.errors import SetupError
from hailo_clip.shared.keys import ApiKey, load_keys

log = logging.getLogger("hailo_clip.api.auth")

POLL_S = 0.5
"""Seconds between looks at the file: how long a revoked key may still work."""

_Signature = tuple[int, ...] | None


class KeyFile:
    """The keys in force.

    Args:
        path: the file; read at once, so that a service does not start with a broken one.

    Raises:
        SetupError: it can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _signature(path)
        self._keys = load_keys(path)
        self._task: asyncio.Task[None] | None = None

    @property
    def keys(self) -> Sequence[ApiKey]:
        """All of them."""
        return self._keys

    async def start(self) -> None:
        """Watch the file, in the event loop that is running."""
        await asyncio.to_thread(self.look)  # what changed since this process was forked
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Watch it no longer."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def look(self) -> None:
        """Take the file's keys when it is another than at the last look."""
        signature = _signature(self._path)
        if signature == self._seen:
            return
        self._seen = signature  # of before the read: a change meanwhile is seen at the next look
        try:
            self._keys = load_keys(self._path)
        except SetupError as e:
            log.error(
                "the keys file changed and can't be used; the old keys stay", extra={"reason": e.message}
            )
        else:
            level = logging.INFO if self._keys else logging.WARNING  # with none, nobody gets in
            log.log(level, "API keys read again", extra={"keys": len(self._keys)})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.look)


def _signature(path: Path) -> _Signature:
    """What differs once a file was replaced, written or had its mode changed; None while there is none."""
    try:
        s = path.stat()
    except OSError:
        return None
    return s.st_dev, s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_size
