"""Directories of TIFF files, which EXIF blocks are too: orientation, size, and what is too much.

Facts: TIFF 6.0 (Adobe, 1992), section 2 for the structure, sections 8 and 15 for the tags; EXIF 2.32 for the
orientation (tag 274).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_ENTRIES = 1024
"""Most entries of one directory."""

MAX_VALUES = 65_536
"""Most values of a directory, but for those of bytes (profiles, thumbnails), which cost nothing to read."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 274, 322, 323
_DIRECTORIES = (34665, 34853, 40965)  # EXIF, GPS and interoperability, which Pillow reads as well
_READ = frozenset((256, 257, 258, 259, 262, 274, 322, 323, *_DIRECTORIES))
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # by type
_SHORT, _LONG = 3, 4
# None, LZW, JPEG, deflate, PackBits, deflate. Fax codings are for pages, not pictures, and libtiff writes a
# line to stderr for each bad line of them; the rarer codings may ask for gigabytes of memory.
_COMPRESSIONS = (1, 5, 7, 8, 32773, 32946)


class _Entry(NamedTuple):
    """An entry of a directory: a tag, the type and number of its values, and where the entry's value is."""

    tag: int
    kind: int
    values: int
    at: int


def exif_orientation(block: bytes) -> int:
    """EXIF's orientation, 1 to 8, of an EXIF block with or without its "Exif" lead.

    Damaged or absent, it is 1: no reason to refuse a picture.
    """
    tiff = block.removeprefix(b"Exif\0\0")
    order = _order(tiff)
    try:
        for entry in _entries(tiff, order, _first_directory(tiff, order)):
            if entry.tag == _ORIENTATION:
                found = _value(tiff, order, entry)
                return found if 1 <= found <= 8 else 1
    except (struct.error, ValueError):
        pass
    return 1


def check_tiff(data: bytes) -> tuple[int, int]:
    """Width and height of a TIFF's first picture, before its orientation is applied.

    Raises:
        ValueError: it is of a kind that is not taken here, or would cost more than its size suggests.
        struct.error: it is cut short.
    """
    order = _order(data)
    tags = _checked(data, order, _first_directory(data, order))
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    compression, bits = tags.get(_COMPRESSION, 1), tags.get(_BITS, 1)
    if compression not in _COMPRESSIONS:
        raise ValueError(
            f"compression {compression} is not taken, only LZW, deflate, PackBits, JPEG and none"
        )
    if bits == 12 or (bits == 16 and tags.get(_PHOTOMETRIC) == 0):
        raise ValueError(f"samples ({bits} bits) are of a kind that is not taken")
    # A tile is decoded whole, so one much larger than the picture is a bomb.
    if tags.get(_TILE_WIDTH, 0) > width + 1024 or tags.get(_TILE_HEIGHT, 0) > height + 1024:
        raise ValueError("tiles are larger than its picture")
    return width, height


def _checked(data: bytes, order: str, offset: int, depth: int = 2) -> dict[int, int]:
    """The first value of each tag in `_READ`, once this directory and those below it are known to be sane."""
    tags: dict[int, int] = {}
    values = size = 0
    for entry in _entries(data, order, offset):
        value_bytes = _VALUE_BYTES.get(entry.kind, 0)
        size += entry.values * value_bytes
        values += entry.values if value_bytes > 1 else 0
        if entry.tag in _READ and entry.values:
            tags.setdefault(entry.tag, _value(data, order, entry))
    if values > MAX_VALUES:
        raise ValueError(f"directory has {values} values; at most {MAX_VALUES}")
    if size > len(data):
        raise ValueError("directory holds more than the file")
    for tag in _DIRECTORIES:
        if depth and tag in tags:
            _checked(data, order, tags[tag], depth - 1)
    return tags


def _order(data: bytes) -> str:
    """The byte order as `struct` writes it."""
    return "<" if data[:2] == b"II" else ">"


def _first_directory(data: bytes, order: str) -> int:
    offset: int = struct.unpack_from(f"{order}I", data, 4)[0]
    return offset


def _entries(data: bytes, order: str, offset: int) -> Iterator[_Entry]:
    (entries,) = struct.unpack_from(f"{order}H", data, offset)
    if entries > MAX_ENTRIES:
        raise ValueError(f"directory has {entries} entries; at most {MAX_ENTRIES}")
    for i in range(entries):
        at = offset + 2 + 12 * i
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, at)
        yield _Entry(tag, kind, values, at + 8)


def _value(data: bytes, order: str, entry: _Entry) -> int:
    """The first of an entry's shorts or longs, which stand elsewhere when they are too many; else 0."""
    if entry.kind not in (_SHORT, _LONG):
        return 0
    at = entry.at
    if entry.values * _VALUE_BYTES[entry.kind] > 4:
        (at,) = struct.unpack_from(f"{order}I", data, at)
    value: int = struct.unpack_from(f"{order}{'H' if entry.kind == _SHORT else 'I'}", data, at)[0]
    return value
