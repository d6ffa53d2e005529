"""An image as it comes in to the model's input: RGB, bicubic to the short side, centre crop, uint8.

The plain way is: decode, apply the EXIF orientation, lay alpha over white, bring it to 8-bit RGB, resize with
bicubic so that the short side is the model's size, crop the centre square. This module gives the same pixels
(to a level or so) for much less work:

- libjpeg decodes a JPEG at 1/2, 1/4 or 1/8 of its size (`_OVERSAMPLING` says how small);
- only the square that the crop keeps is resized, straight to its final size;
- large pictures of other formats are first averaged down by whole numbers;
- the resize uses vector instructions (resample.py);
- orientation is applied, and alpha laid over white, after resizing: a bicubic resize commutes with both.

Copies of a colour JPEG: the file is read in place, unless metadata is cut out of it (one copy); the resize
reads the decoded pixels and writes the result. Pillow, which decodes all else, keeps pixels in memory of its
own, from where they are copied once more. Other threads run while a picture is decoded and resized.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401  (the plugins register themselves)

from hailo_clip.api.base64image import decode_base64_image
from hailo_clip.api.decodememory import DecodeMemory, decoding_bytes
from hailo_clip.api.imageheader import BadImage, Header, read_header
from hailo_clip.api.jpeg import decode_rgb
from hailo_clip.api.resample import Box, Pixels, bicubic, size_of
from hailo_clip.shared.errors import ClientError

__all__ = ["ImageLimits", "Pixels", "decode_base64_image", "decode_image"]

Image.preinit()  # the plugins of the other formats: no request is to wait for an import
Image.MAX_IMAGE_PIXELS = None  # ours is the check that counts, on the header and with an error of its own

_OVERSAMPLING = 1.75  # a JPEG is decoded no smaller than this many times the final size
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How large a picture may be; checked on the header, before any pixel is decoded."""

    max_pixels: int = 50_000_000
    max_side: int = 16_384


DEFAULT_LIMITS = ImageLimits()


def decode_image(
    data: bytes | memoryview,
    size: int,
    field: str = "image",
    limits: ImageLimits = DEFAULT_LIMITS,
    memory: DecodeMemory | None = None,
) -> Pixels:
    """The model's input from an image file: uint8 ``[size, size, 3]``, RGB, C order, not to be changed.

    Formats: JPEG (and the first picture of an MPO), PNG, WebP, GIF (first frame), BMP, TIFF (first page).
    The format is told by the bytes alone. 16-bit samples are scaled to 8; colour profiles are not applied.

    Args:
        data: the whole file.
        size: side of the result, pixels.
        field: the request's field, for the error, e.g. "image" or "images[3]".
        limits: the largest picture taken.
        memory: which other threads decode in, too; None: there is enough.

    Raises:
        ClientError: it is empty, no image of these formats, too large, truncated or damaged.
    """
    try:
        return _decode(bytes(data), size, limits, memory or DecodeMemory())
    except BadImage as e:
        raise ClientError(f"Missing or invalid '{field}': {e}") from e


def _decode(data: bytes, size: int, limits: ImageLimits, memory: DecodeMemory) -> Pixels:
    if not data:
        raise BadImage("it is empty")
    header = read_header(data)
    _check_size(header, limits)
    with memory.room(decoding_bytes(header.format, header.width, header.height)):
        return _pixels(header, size)


def _pixels(header: Header, size: int) -> Pixels:
    picture, scale = _load(header, size)
    small = bicubic(picture, size, _crop_box(header, size_of(picture), scale, size))
    if isinstance(small, np.ndarray):
        if header.orientation == 1:
            return small
        small = Image.fromarray(small)
    if header.orientation != 1:
        small = small.transpose(_TURNS[header.orientation])
    return _over_white(small) if small.mode in ("La", "RGBa") else np.asarray(small.convert("RGB"))


def _check_size(header: Header, limits: ImageLimits) -> None:
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise BadImage(f"it is {width} x {height} pixels; at least 1 x 1 is needed")
    if max(width, height) > limits.max_side:
        raise BadImage(f"it is {width} x {height} pixels; at most {limits.max_side} a side are taken")
    if width * height > limits.max_pixels:
        most = f"{limits.max_pixels / 1e6:g}"
        raise BadImage(f"it is {width} x {height} pixels; at most {most} megapixels are taken")


def _load(header: Header, size: int) -> tuple[Image.Image | Pixels, int]:
    """The decoded picture, ready to be resized as numbers, and by how much it was scaled down.

    Raises:
        BadImage: a decoder failed, whatever way it chose to say so.
    """
    least = int(_OVERSAMPLING * size)
    try:
        if header.format == "JPEG":
            found = decode_rgb(header.file, header.width, header.height, least)
            if found is not None:
                return found
        picture = Image.open(io.BytesIO(header.file), formats=(header.format,))
        if sorted(picture.size) != sorted((header.width, header.height)):
            raise BadImage(f"its {header.format} header contradicts itself")
        width = picture.width
        drafted = picture.draft(None, (least, least))
        scale = 1 if drafted is None else round(width / drafted[1][2])
        picture.load()
        return _resizable(picture, header), scale
    except (BadImage, MemoryError):
        raise
    except Exception as e:  # decoders raise nearly anything at bytes that are wrong
        raise BadImage(f"it is a truncated or damaged {header.format}") from e


def _resizable(picture: Image.Image, header: Header) -> Image.Image:
    """`picture` as L or RGB, or as La or RGBa, which hold colours times alpha and so may be averaged."""
    mode = picture.mode
    if mode.startswith("I;16"):
        return _from_16_bits(picture)
    if mode in ("I", "F"):
        raise BadImage("its samples are signed, 32-bit or float, of which none says what is white")
    grey = mode in ("1", "L", "LA")
    if picture.has_transparency_data:
        _scale_key(picture, header.sample_bits)
        wide = "LA" if grey else "RGBA"
        straight = picture if mode == wide else picture.convert(wide)
        return straight.convert("La" if grey else "RGBa")
    return picture if mode in ("L", "RGB") else picture.convert("L" if grey else "RGB")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    grey = _EIGHT_OF_16_BITS[values]
    key = picture.info.get("transparency")
    if key is not None:
        grey[values == key] = 255
    return Image.fromarray(grey)


_EIGHT_OF_16_BITS = np.round(np.arange(65_536) / 257).astype(np.uint8)


def _scale_key(picture: Image.Image, bits: int) -> None:
    """Bring the transparent colour of a PNG, which is in the file's samples, to 8 bits as its pixels are.

    Pillow cuts 16-bit colours to their upper byte and stretches 2 and 4 bits; the key it leaves as it is.
    """
    key = picture.info.get("transparency")
    if isinstance(key, tuple):
        picture.info["transparency"] = tuple(k >> 8 if bits == 16 else k & 255 for k in key)
    elif isinstance(key, int) and picture.mode == "L":
        most = (1 << bits) - 1
        picture.info["transparency"] = (key & most) * 255 // most


def _crop_box(header: Header, decoded: tuple[int, int], scale: int, size: int) -> Box:
    """The square that the centre crop keeps, in coordinates of the decoded picture: left, top, right, bottom.

    The crop is the turned picture's. Before turning it is the same square, but for the odd pixel that a crop
    takes from the right or the lower end, which here may be the left or the upper one.
    """
    whole = (header.width, header.height) if scale > 1 else decoded
    across, down = (_kept(side, min(whole), size) for side in whole)
    if header.orientation in (2, 3, 7, 8):
        across = (whole[0] - across[1], whole[0] - across[0])
    if header.orientation in (3, 4, 6, 7):
        down = (whole[1] - down[1], whole[1] - down[0])
    # Rounding must not carry the box over the edge, nor do the last pixels of a scaled JPEG, which are cut.
    right, bottom = min(across[1] / scale, decoded[0]), min(down[1] / scale, decoded[1])
    return (max(across[0] / scale, 0), max(down[0] / scale, 0), right, bottom)


def _kept(side: int, short: int, size: int) -> tuple[float, float]:
    """Where a centre crop to `size` begins and ends along `side`, in pixels of the unresized picture.

    Both roundings are torchvision's (Resize, CenterCrop), which CLIP's preprocessing uses.
    """
    resized = size * side // short
    first = round((resized - size) / 2)
    return first * side / resized, (first + size) * side / resized


def _over_white(small: Image.Image) -> Pixels:
    """RGB pixels of `small`, La or RGBa, on a white ground."""
    values = np.asarray(small)
    ground = 255 - values[..., -1:]
    laid = np.minimum(values[..., :-1].astype(np.uint16) + ground, 255).astype(np.uint8)
    return laid if laid.shape[2] == 3 else np.repeat(laid, 3, axis=2)
