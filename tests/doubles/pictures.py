"""Small pictures and image files for tests, and the plain way from a file to a model's input."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def photo(name: str) -> Image.Image:
    """A photo of examples/photos, decoded."""
    with Image.open(PHOTOS / f"{name}.jpg") as picture:
        picture.load()
        return picture


def encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """`picture` as a file."""
    out = io.BytesIO()
    picture.save(out, file_format, **options)
    return out.getvalue()


def plain(data: bytes, size: int) -> Pixels:
    """The model's input by the book: decode all, turn, lay over white, resize all, crop."""
    picture: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    picture = picture.convert("RGB")
    width, height = picture.size
    short = min(width, height)
    resized = picture.resize((size * width // short, size * height // short), Image.Resampling.BICUBIC)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int,
    height: int,
    bits: int,
    colour: int,
    rows: bytes | None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG file from unfiltered `rows` (None: zeros, 3 bytes a pixel), with chunks around them."""
    raw = b"\0" * ((3 * width + 1) * height) if rows is None else rows
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + head + before + body + after + png_chunk(b"IEND", b"")


def tiff(entries: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value or offset), then `tail`."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0" * 4 + tail


def difference(a: Pixels, b: Pixels) -> float:
    """Mean absolute difference, in levels of 255."""
    return float(np.abs(a.astype(np.int16) - b).mean())


def cosine(a: Pixels, b: Pixels) -> float:
    """Cosine between two pictures as vectors, each less its mean."""
    x, y = (v.astype(np.float64).ravel() - v.mean() for v in (a, b))
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
