"""Text embeddings by token ids: a least-recently-used cache bounded in entries and bytes.

Keys are the prompt's int32 ids as bytes, values one float32 embedding as bytes. One cache serves one
model fingerprint; `entries`, `pack` and `load` carry it across restarts in this layout:

    magic (8) | SHA-256 of the rest (32) | fingerprint (32 hex digits) | count u32
    | per entry: key length u32, key, value length u32, value      (little-endian, oldest first)

An entry may be marked with who made it (`makers.Makers`), so that it can be dropped when that worker turns
out to be wrong. Marks are not in the file.

Pure: the shell reads and writes the file.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence

MAGIC = b"HCPCACH1"
_U32 = struct.Struct("<I")
_PIECE = 64  # entries
_OVERHEAD = 200  # bytes of Python objects an entry, measured with sys.getsizeof


class PromptCache:
    """See the module docstring. Zero `max_entries` turns it off."""

    def __init__(self, max_entries: int, max_bytes: int = 256 << 20) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.bytes = 0
        self.changes = 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._marks: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> bytes | None:
        """The embedding of `key`, now the most recently used; None when it is not held."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: bytes, mark: int = 0) -> None:
        """Hold `value`, with a mark unless that is 0; the least recently used entries make room."""
        if key in self._entries:
            self._drop(key)
        self._entries[key] = value
        if mark:
            self._marks[key] = mark
        self.bytes += self._size(key, value)
        self.changes += 1
        while len(self._entries) > self.max_entries or self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def drop_marked(self, mark: int) -> int:
        """Drop every entry with this mark; how many there were."""
        marked = [key for key, found in self._marks.items() if found == mark]
        for key in marked:
            self._drop(key)
        self.changes += len(marked)
        return len(marked)

    def entries(self) -> list[tuple[bytes, bytes]]:
        """Everything held, oldest first: a copy that later changes leave alone."""
        return list(self._entries.items())

    def load(self, data: bytes, fingerprint: str, value_bytes: int) -> int:
        """Take over the entries of a cache file.

        Args:
            data: the file.
            fingerprint: of the model served now.
            value_bytes: size of one embedding.

        Returns:
            How many of its entries are held now.

        Raises:
            ValueError: damaged, or of another model; nothing was taken. The message says which.
        """
        entries = list(_parse(data, fingerprint))
        if any(len(value) != value_bytes for _, value in entries):
            raise ValueError("an embedding has the wrong size")
        for key, value in entries:
            self.put(key, value)
        self.changes = 0
        return sum(key in self._entries for key, _ in entries)

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._size(key, self._entries.pop(key))
        self._marks.pop(key, None)

    def _size(self, key: bytes, value: bytes) -> int:
        return len(key) + len(value) + _OVERHEAD


def pack(entries: Sequence[tuple[bytes, bytes]], fingerprint: str) -> Iterator[bytes]:
    """`PromptCache.entries` as a cache file, in pieces.

    Pieces are small and the hash is of one at a time, so that another thread gets its turn in between.
    """
    digest = hashlib.sha256()
    for piece in _body(entries, fingerprint):
        digest.update(piece)
    yield MAGIC + digest.digest()
    yield from _body(entries, fingerprint)


def _body(entries: Sequence[tuple[bytes, bytes]], fingerprint: str) -> Iterator[bytes]:
    yield fingerprint.encode("ascii") + _U32.pack(len(entries))
    for at in range(0, len(entries), _PIECE):
        parts: list[bytes] = []
        for key, value in entries[at : at + _PIECE]:
            parts += [_U32.pack(len(key)), key, _U32.pack(len(value)), value]
        yield b"".join(parts)


def _parse(data: bytes, fingerprint: str) -> Iterator[tuple[bytes, bytes]]:
    body = data[40:]
    if data[:8] != MAGIC or hashlib.sha256(body).digest() != data[8:40]:
        raise ValueError("the checksum does not match")
    if body[:32] != fingerprint.encode("ascii"):
        raise ValueError("it was made with another model")
    at = 36
    for _ in range(int.from_bytes(body[32:36], "little")):
        key, at = _chunk(body, at)
        value, at = _chunk(body, at)
        yield key, value
    if at != len(body):
        raise ValueError("it does not end with its last entry")


def _chunk(body: bytes, at: int) -> tuple[bytes, int]:
    """The bytes whose length stands at `at`, and where they end."""
    start = at + _U32.size
    end = start + int.from_bytes(body[at:start], "little")
    if end > len(body):
        raise ValueError("it ends in the middle of an entry")
    return body[start:end], end
