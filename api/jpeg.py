"""JPEG files straight to RGB pixels, by libjpeg-turbo (simplejpeg).

Pillow gives the same pixels by the same library, but carries them line by line into memory of four bytes a
pixel: a third more time at 320 x 320. What is no plain colour JPEG, or not wholly sound, is left to it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg

__all__ = ["decode_rgb"]

_DIVISORS = (8, 4, 2)
"""By which Pillow's `draft` decodes smaller, too, and libjpeg-turbo has vector instructions for it."""

_COLOURS = ("YCbCr", "RGB")
"""How three colours are stored. Grey is a third of the work to resize, and CMYK needs Pillow's conversion."""


def decode_rgb(file: bytes, width: int, height: int, least: int) -> tuple[npt.NDArray[np.uint8], int] | None:
    """The pixels of a JPEG, and by how much it was scaled down.

    Args:
        file: the whole file.
        width: what its header is known to say, in pixels; no larger one is decoded.
        height: the same.
        least: neither side is made smaller than this by scaling.

    Returns:
        uint8 ``[ceil(height / divisor), ceil(width / divisor), 3]`` and the divisor, 1, 2, 4 or 8; None: this
        is for Pillow, which says what is wrong, if anything is.
    """
    divisor = next((d for d in _DIVISORS if min(width, height) // d >= least), 1)
    try:
        found_height, found_width, colours, _ = simplejpeg.decode_jpeg_header(file)
        if (found_width, found_height) != (width, height) or colours not in _COLOURS:
            return None
        if divisor == 1:  # with bounds, a picture of less than 8 pixels might be made of 7/8 of itself
            return simplejpeg.decode_jpeg(file), 1
        across, down = -(-width // divisor), -(-height // divisor)
        return simplejpeg.decode_jpeg(file, min_width=across, min_height=down), divisor
    except (ValueError, KeyError):  # unsound, or of a kind that has no name there
        return None
