"""Questions for the broker's status: at most one is under way, whoever asks meanwhile shares its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hailo_clip.shared.messages import Control, Status

STATUS_S = 2.0
"""Seconds to wait for the broker's answer; well below the scrape timeout of monitoring (10 s)."""

Snapshot = dict[str, Any]


class Enquiry:
    """Asks the broker how things are, for one event loop.

    Args:
        send: hands a message to the broker's socket; never blocks.
    """

    def __init__(self, send: Callable[[Control], None]) -> None:
        self._send = send
        self._seq = 0
        self._open: asyncio.Future[Snapshot | None] | None = None

    async def ask(self) -> Snapshot | None:
        """The broker's snapshot (broker/snapshot.py); None when it does not answer in `STATUS_S`."""
        if self._open is None:
            loop = asyncio.get_running_loop()
            self._open = loop.create_future()
            loop.call_later(STATUS_S, self._settle, self._open, None)
            self._seq += 1
            self._send(Control(self._seq, "status"))
        # One client that goes away must not take the answer from the others.
        return await asyncio.shield(self._open)

    def answered(self, status: Status) -> bool:
        """Take the broker's answer; False when nobody waits for it any more."""
        if self._open is None or status.seq != self._seq:
            return False
        self._settle(self._open, status.snapshot)
        return True

    def give_up(self) -> None:
        """Nobody will answer."""
        if self._open is not None:
            self._settle(self._open, None)

    def _settle(self, future: asyncio.Future[Snapshot | None], snapshot: Snapshot | None) -> None:
        if not future.done():
            future.set_result(snapshot)
        if self._open is future:
            self._open = None
