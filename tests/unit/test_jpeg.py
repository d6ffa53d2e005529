"""JPEG files decoded past Pillow: its pixels, its scales, and None for all that Pillow should judge."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hailo_clip.api.jpeg import decode_rgb
from tests.doubles.pictures import Pixels, encoded, photo

LEAST = 504


def pillows(data: bytes, least: int = LEAST) -> tuple[Pixels, int]:
    picture = Image.open(io.BytesIO(data))
    width = picture.width
    drafted = picture.draft(None, (least, least))
    assert picture.mode == "RGB"
    return np.asarray(picture), 1 if drafted is None else round(width / drafted[1][2])


def assert_is_pillows(data: bytes, width: int, height: int, least: int = LEAST) -> None:
    found = decode_rgb(data, width, height, least)
    assert found is not None
    pixels, divisor = found
    expected, scale = pillows(data, least)
    assert divisor == scale
    assert pixels.shape == expected.shape == (-(-height // divisor), -(-width // divisor), 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    # Both have a libjpeg-turbo of their own; versions of it may round differently.
    assert np.abs(pixels.astype(np.int16) - expected).max() <= 1


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("width", "height"),
    [(320, 320), (641, 479), (1007, 1100), (1008, 1100), (1101, 2015), (2016, 2017), (4032, 4040)],
)
def test_it_is_pillows(width: int, height: int, progressive: bool, subsampling: str):
    picture = photo("coffee").resize((width, height))
    data = encoded(picture, "JPEG", quality=85, progressive=progressive, subsampling=subsampling)
    assert_is_pillows(data, width, height)


@given(width=st.integers(1, 40), height=st.integers(1, 40), least=st.integers(1, 40))
def test_small_pictures_and_bounds(width: int, height: int, least: int):
    data = encoded(photo("cat").resize((width, height)), "JPEG")
    assert_is_pillows(data, width, height, least)


def test_colours_that_are_stored_as_they_are():
    data = encoded(photo("flower").resize((300, 200)), "JPEG", keep_rgb=True)
    assert_is_pillows(data, 300, 200)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_left_to_pillow(mode: str):
    data = encoded(photo("cat").resize((300, 200)).convert(mode), "JPEG")
    assert decode_rgb(data, 300, 200, LEAST) is None


@pytest.mark.parametrize(("width", "height"), [(299, 200), (300, 199), (200, 300), (3, 2), (30000, 20000)])
def test_a_picture_that_is_not_as_large_as_it_said(width: int, height: int):
    data = encoded(photo("cat").resize((300, 200)), "JPEG")
    assert decode_rgb(data, width, height, LEAST) is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_what_is_cut_short_is_left_to_pillow(share: float, progressive: bool):
    data = encoded(photo("cat").resize((300, 200)), "JPEG", progressive=progressive)
    assert decode_rgb(data[: int(len(data) * share)], 300, 200, LEAST) is None


@pytest.mark.parametrize("sampling", [0x31, 0x14])
def test_samplings_that_have_no_name_are_left_to_pillow(sampling: int):
    """Colours a third as wide, or a quarter as high, as brightness: Pillow reads them."""
    data = bytearray(encoded(photo("cat").resize((96, 96)), "JPEG", subsampling="4:4:4"))
    data[data.index(b"\xff\xc0") + 11] = sampling  # of the first component
    assert decode_rgb(bytes(data), 96, 96, LEAST) is None
    assert Image.open(io.BytesIO(data)).convert("RGB").size == (96, 96)
