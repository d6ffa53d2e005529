"""Inputs that killed or failed a worker while running alone, refused for a while."""

from __future__ import annotations

import hashlib

from hailo_clip.shared.messages import Buffer, Kind

QUARANTINED = "this input made a worker fail a short while ago and is not run again yet"


def digest(kind: Kind, payload: Buffer) -> bytes:
    """What the quarantine knows an input by."""
    return hashlib.blake2b(payload, digest_size=16, person=kind.name.encode()).digest()


class Quarantine:
    """Digests and until when each is held; at most `limit`, the oldest go first. Pure."""

    def __init__(self, seconds: float, limit: int = 1000) -> None:
        self._seconds = seconds
        self._limit = limit
        self._until: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, now: float, digest: bytes) -> None:
        """Hold `digest` from now on."""
        self._until.pop(digest, None)
        self._until[digest] = now + self._seconds
        if len(self._until) > self._limit:
            del self._until[next(iter(self._until))]

    def holds(self, digest: bytes) -> bool:
        """True while `digest` is held."""
        return digest in self._until

    def expire(self, now: float) -> None:
        """Let go of those whose time is over."""
        while self._until and (first := next(iter(self._until))) and self._until[first] <= now:
            del self._until[first]
