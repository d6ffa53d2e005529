"""Whatever a program calls an image, as the bytes of an image file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

ImageLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | PilImage | npt.NDArray[np.uint8]"
)
"""A file's path, a file's bytes, a Pillow image, or RGB pixels as uint8 ``[H, W, 3]``."""

MAX_PNG_PIXELS = 4 << 20
"""Larger pictures are sent as JPEG: a PNG of them might not fit into the service's largest body."""

JPEG_QUALITY = 95
_PNG_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))


def image_bytes(image: ImageLike) -> bytes:
    """The bytes of an image file; pixels are encoded as PNG, very large ones as JPEG.

    Raises:
        TypeError: it is nothing that is taken for an image.
        ValueError: the pixels are not uint8 ``[H, W, 3]``, or of a kind that no image file holds.
        OSError: the file can't be read.
    """
    match image:
        case bytes():
            return image
        case bytearray() | memoryview():
            return bytes(image)
        case str() | os.PathLike():
            return Path(image).read_bytes()
        case np.ndarray():
            return _encoded(_picture(image))
    from PIL import Image

    if isinstance(image, Image.Image):
        return _encoded(image)
    raise TypeError(
        "an image must be a path, the bytes of a file, a Pillow image or a uint8 array [H, W, 3], "
        f"is {type(image).__name__}"
    )


def _picture(pixels: npt.NDArray[Any]) -> PilImage:
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(
            f"pixels must be uint8 [H, W, 3] in RGB order, are {pixels.dtype} {list(pixels.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _encoded(picture: PilImage) -> bytes:
    """`picture` as a file, turned as its EXIF data says, as the service would turn the file it came from."""
    from PIL import ImageOps

    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode} do not say what is white; convert them to L or RGB")
    upright = ImageOps.exif_transpose(picture)
    fit = upright if upright.mode in _PNG_MODES else upright.convert("RGB")
    out = io.BytesIO()
    if fit.width * fit.height > MAX_PNG_PIXELS and not _only_in_png(fit):
        fit.convert("RGB").save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        fit.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _only_in_png(picture: PilImage) -> bool:
    """Whether `picture` has what JPEG does not hold."""
    return picture.mode == "I;16" or picture.has_transparency_data
