"""Bicubic resize of a part of a picture, with vector instructions where this package was compiled.

What it is measured by is Pillow's: a separable convolution whose sums are kept in fixed point, and rounded
and cut to 8 bits after each pass, rows first. From version 13 on Pillow does some tall pictures' columns
first: the same within a level or two on photos, but not on the hard edges of drawings, where more is cut.
Here are the coefficients; `_resample.c` sums up. Where the compiled part is missing, or can't take a
picture, Pillow resizes.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np
import numpy.typing as npt
from PIL import Image

try:
    from hailo_clip.api import _resample as _compiled
except ImportError:  # no compiler was there when it was installed
    _compiled = None  # type: ignore[assignment]

__all__ = ["COMPILED", "Box", "Pixels", "bicubic", "size_of"]

COMPILED: ModuleType | None = _compiled
"""The compiled part; None: it is not there, and Pillow does the work."""

_GAPS = os.environ.get("PILLOW_ALIGNMENT", "1") != "1"
"""Whether Pillow may leave gaps between the rows of a picture, of which it does not always tell."""

Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]

_REDUCING_GAP = 3.0
"""Pictures are averaged down by whole numbers first, no further than to this many times the final size."""

_ONE = 1 << 22
"""What stands for 1 in the coefficients: 255 times the largest sum of them still fits into 32 bits."""

_REACH = 2.0
"""How far the bicubic kernel reaches to either side, in pixels of the larger of both scales."""

_A = -0.5
"""The kernel's parameter: Catmull-Rom's, as in Pillow and in torchvision where it antialiases."""


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """What each output along one side is made of.

    Attributes:
        start: int32 ``[outputs]``, the first input of each; ascending.
        coefs: int32 ``[outputs, taps]``, of the inputs from there on; 1 is `_ONE`.
    """

    start: npt.NDArray[np.int32]
    coefs: npt.NDArray[np.int32]


def bicubic(picture: Image.Image | Pixels, size: int, box: Box) -> Image.Image | Pixels:
    """`box` of `picture`, resized to `size` x `size`.

    Args:
        picture: loaded, of any mode that Pillow can resize; or uint8 ``[height, width, 3]``, C order.
        size: side of the result, pixels.
        box: left, top, right and lower edge, in pixels, within the picture.

    Returns:
        uint8 ``[size, size, 3]``, read-only, if the compiled part did it, as it does with three colours;
        else a picture of the same mode.
    """
    if COMPILED is not None and _taken(picture, size, box):
        left, top, right, bottom = box
        width, height = size_of(picture)
        x, y = axis(width, left, right, size), axis(height, top, bottom, size)
        with contextlib.suppress(ValueError):  # the picture is not in one piece
            pixels = picture if isinstance(picture, np.ndarray) else picture.__arrow_c_array__()[1]
            result: bytes = COMPILED.convolve(pixels, width, height, x.start, x.coefs, y.start, y.coefs)
            return np.frombuffer(result, np.uint8).reshape(size, size, 3)
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    return image.resize((size, size), Image.Resampling.BICUBIC, box, _REDUCING_GAP)


def size_of(picture: Image.Image | Pixels) -> tuple[int, int]:
    """Width and height of a picture, in pixels."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def _taken(picture: Image.Image | Pixels, size: int, box: Box) -> bool:
    """Whether the compiled part resizes such a picture."""
    left, top, right, bottom = box
    shrunk_first = int(max(right - left, bottom - top) / size / _REDUCING_GAP) > 1
    if isinstance(picture, Image.Image) and (picture.mode != "RGB" or _GAPS):
        return False
    return not shrunk_first


@lru_cache(maxsize=64)
def axis(side: int, begin: float, end: float, size: int) -> Axis:
    """How `size` outputs are made of the inputs between `begin` and `end`, by Pillow's rules.

    The kernel is Keys' (1981, "Cubic convolution interpolation", a = -0.5), stretched where the picture
    shrinks. Its weights are those at the inputs' centres, divided by their sum. Pillow takes a box as 32-bit
    floats.

    Args:
        side: inputs there are.
        begin: where the first output begins, in inputs.
        end: where the last one ends.
        size: outputs.
    """
    first, last = np.float32(begin), np.float32(end)
    scale = float(last - first) / size
    stretch = max(scale, 1.0)
    reach = _REACH * stretch
    centre = float(first) + (np.arange(size) + 0.5) * scale
    low = np.maximum((centre - reach + 0.5).astype(np.int32), 0)
    high = np.minimum((centre + reach + 0.5).astype(np.int32), side)
    taps = int((high - low).max())
    start = np.minimum(low, side - taps).astype(np.int32)
    inputs = start[:, None] + np.arange(taps)
    weights = _kernel((inputs - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[(inputs < low[:, None]) | (inputs >= high[:, None])] = 0.0
    # One after another, as Pillow adds them: another order may round a coefficient to its neighbour.
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]
    return Axis(start, np.trunc(weights * _ONE + np.copysign(0.5, weights)).astype(np.int32))


def _kernel(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.abs(distance)
    near = ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * _A
    return np.where(x < 1.0, near, np.where(x < _REACH, far, 0.0))
