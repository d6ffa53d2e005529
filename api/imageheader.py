"""What an image file says of itself, read in bounded time before any decoder sees it.

Decoders trust headers: they allocate what a header asks for, inflate its metadata and follow its offsets.
So size, orientation and structure are read here first, with a bound on every loop, and metadata that no
pixel depends on is cut out of JPEG and PNG files (a camera's maker notes, colour profiles, texts, the other
pictures of an MPO or APNG). Only TIFF (tiffheader.py) needs more than the offsets below.

Formats: JPEG is ITU T.81, annex B; PNG is W3C PNG 3rd edition, section 5; WebP is RFC 9649, section 2; GIF
is GIF89a; BMP is Microsoft's BITMAPFILEHEADER and BITMAPINFOHEADER.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hailo_clip.api.tiffheader import check_tiff, exif_orientation

MAX_SEGMENTS = 4096
"""Most segments of a JPEG before its picture."""

MAX_TABLES = 131_072
"""Most bytes of a JPEG's segments other than metadata; tables take about a thousand."""

MAX_PARTS = 65_536
"""Most chunks of a PNG or WebP, or blocks of a GIF before its picture."""

MAX_SCANS = 100
"""Most scans of a JPEG: each costs a pass over the whole picture, though it may be a few bytes long."""


class BadImage(Exception):
    """The image can't be used; the text says why, to follow the name of the field."""


@dataclass(frozen=True, slots=True)
class Header:
    """An image file before decoding.

    Attributes:
        format: Pillow's name of it, one of `FORMATS`.
        width: pixels as stored, before `orientation` is applied.
        height: pixels as stored.
        orientation: EXIF's, 1 to 8; 1 for TIFF, which Pillow turns itself.
        sample_bits: bits a sample, for PNG; 8 elsewhere.
        file: what to decode: the data, without metadata where that is easily cut out.
    """

    format: str
    width: int
    height: int
    file: bytes
    orientation: int = 1
    sample_bits: int = 8


def read_header(data: bytes) -> Header:
    """The header of an image file.

    Raises:
        BadImage: it is no image of a known format, it is cut short within the header, or its structure is
            absurd.
    """
    for (start, offset), (name, read) in _READERS.items():
        if data.startswith(start, offset):
            try:
                return read(data)
            except (struct.error, IndexError) as e:
                raise BadImage(f"its {name} header is cut short") from e
            except ValueError as e:
                raise BadImage(f"its {name} {e}") from e
    raise BadImage("it is not an image in a format taken here (JPEG, PNG, WebP, GIF, BMP, TIFF)")


def _jpeg(data: bytes) -> Header:
    """Walks the segments up to the first scan and leaves out those that hold metadata."""
    view = memoryview(data)
    kept: list[memoryview] = []
    kept_from, pos, orientation = 0, 2, 1
    frame: tuple[int, int, int, int] | None = None  # marker, height, width, components
    for _ in range(MAX_SEGMENTS):
        pos = data.find(b"\xff", pos)  # other bytes between segments are skipped, as decoders do
        if pos < 0:
            raise IndexError
        marker = data[pos + 1]
        if marker in _JPEG_BARE:
            pos += 1
            continue
        (length,) = struct.unpack_from(">H", data, pos + 2)
        end = pos + 2 + length
        if marker == _JPEG_SCAN:
            break
        if marker in _JPEG_FRAMES:
            frame = (marker, *struct.unpack_from(">HHB", data, pos + 5))
        elif marker in _JPEG_METADATA:
            if orientation == 1 and data.startswith(b"Exif\0\0", pos + 4):
                orientation = exif_orientation(data[pos + 10 : end])
            kept.append(view[kept_from:pos])
            kept_from = end
        pos = end
    else:
        raise ValueError(f"has more than {MAX_SEGMENTS} segments")
    if sum(map(len, kept)) + pos - kept_from > MAX_TABLES:
        raise ValueError(f"has more than {MAX_TABLES} bytes of tables")
    if frame is None:
        raise ValueError("has no picture")
    marker, height, width, components = frame
    file = b"".join([*kept, view[kept_from:]]) if kept else data
    if marker not in _JPEG_SEQUENTIAL or data[pos + 4] < components:
        _check_scans(file)
    return Header("JPEG", width, height, file, orientation)


_JPEG_BARE = frozenset((0x00, 0x01, *range(0xD0, 0xDA), 0xFF))  # markers without a length, and fill bytes
_JPEG_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))
_JPEG_METADATA = frozenset(range(0xE1, 0xF0)) - {0xEE} | {0xFE}  # all but JFIF and Adobe, which set colours


def _check_scans(file: bytes) -> None:
    scans = file.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise ValueError(f"has {scans} scans; at most {MAX_SCANS}")


def _png(data: bytes) -> Header:
    """Walks the chunks and leaves out those that hold metadata or further frames."""
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    view = memoryview(data)
    kept: list[memoryview] = []
    kept_from, pos, orientation = 0, 8, 1
    for _ in range(MAX_PARTS):
        if pos + 8 > len(data):
            break  # no end chunk: the decoder says whether a pixel is missing
        length, kind = struct.unpack_from(">I4s", data, pos)
        end = pos + length + 12
        if kind not in _PNG_PIXELS:
            if kind == b"eXIf":
                orientation = exif_orientation(data[pos + 8 : pos + 8 + length])
            kept.append(view[kept_from:pos])
            kept_from = end
        if kind == b"IEND":
            break
        pos = end
    else:
        raise ValueError(f"has more than {MAX_PARTS} chunks")
    file = b"".join([*kept, view[kept_from:]]) if kept else data
    return Header("PNG", width, height, file, orientation, bits)


_PNG_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF, data)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return Header("WEBP", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, data)
    if kind != b"VP8X":
        raise ValueError("has no picture")
    width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    has_exif = data[20] & 0x08
    return Header("WEBP", width, height, data, _webp_orientation(data) if has_exif else 1)


def _webp_orientation(data: bytes) -> int:
    pos = 12
    for _ in range(MAX_PARTS):
        if pos + 8 > len(data):
            return 1
        kind, length = struct.unpack_from("<4sI", data, pos)
        if kind == b"EXIF":
            return exif_orientation(data[pos + 8 : pos + 8 + length])
        pos += 8 + length + (length & 1)
    raise ValueError(f"has more than {MAX_PARTS} chunks")


def _gif(data: bytes) -> Header:
    """The canvas, widened by the first frame where that is larger, as Pillow does."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    pos = 13 + _gif_colours(flags)
    in_extension = False
    for _ in range(MAX_PARTS):
        if in_extension:  # a run of blocks, each led by its length, up to an empty one
            in_extension = data[pos] != 0
            pos += data[pos] + 1
        elif data[pos] == 0x21:
            in_extension = True
            pos += 2
        elif data[pos] == 0x2C:
            left, top, frame_width, frame_height = struct.unpack_from("<4H", data, pos + 1)
            return Header("GIF", max(width, left + frame_width), max(height, top + frame_height), data)
        elif data[pos] == 0x3B:
            raise ValueError("has no picture")
        else:
            pos += 1
    raise ValueError(f"has more than {MAX_PARTS} blocks before its picture")


def _gif_colours(flags: int) -> int:
    """Bytes of the colour table that `flags` announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height, data)
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data, 30)
    if compression not in (0, 3):
        raise ValueError("is compressed; only plain BMP is taken")
    return Header("BMP", width, abs(height), data)


def _tiff(data: bytes) -> Header:
    width, height = check_tiff(data)
    return Header("TIFF", width, height, data)


_READERS = {
    (b"\xff\xd8\xff", 0): ("JPEG", _jpeg),
    (b"\x89PNG\r\n\x1a\n", 0): ("PNG", _png),
    (b"WEBP", 8): ("WebP", _webp),
    (b"GIF87a", 0): ("GIF", _gif),
    (b"GIF89a", 0): ("GIF", _gif),
    (b"BM", 0): ("BMP", _bmp),
    (b"II*\0", 0): ("TIFF", _tiff),
    (b"MM\0*", 0): ("TIFF", _tiff),
}

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow's names of the formats taken; an MPO is read as the JPEG that it begins with."""
