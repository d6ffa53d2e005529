"""JPEG files of any size with the detail of real photos: mosaics of the photos at hand, never scaled up."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

QUALITY = 85
_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE.parents[1] / "examples" / "photos", _HERE.parent / "data")
"""The checkout's photos; where it is not there, those that the package carries."""
PHOTOS = tuple(
    sorted(p for p in next(d for d in _PLACES if d.is_dir()).iterdir() if p.suffix in (".jpg", ".png"))
)


def photo_files(size: tuple[int, int], count: int) -> list[bytes]:
    """`count` different JPEG files of `size` (width, height)."""
    photos = [Image.open(p).convert("RGB") for p in PHOTOS]
    return [_file(_mosaic(photos, size, i)) for i in range(count)]


def _mosaic(photos: list[Image.Image], size: tuple[int, int], first: int) -> Image.Image:
    """The photos side by side in rows, beginning with the one numbered `first`, shifted by a few pixels."""
    canvas = Image.new("RGB", size)
    number, top = first, -(7 * first % 64)
    while top < size[1]:
        left, tallest = -(11 * first % 64), 10**6
        while left < size[0]:
            photo = photos[number % len(photos)]
            canvas.paste(photo, (left, top))
            left, tallest, number = left + photo.width, min(tallest, photo.height), number + 1
        top += tallest
    return canvas


def _file(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
