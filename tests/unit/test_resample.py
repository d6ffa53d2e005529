"""The compiled resize gives what Pillow gives, to the bit, and where it can't be used, Pillow is."""

import os
import shutil
import subprocess
import sys
import sysconfig
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from hailo_clip.api import resample
from hailo_clip.api.image import decode_image
from hailo_clip.api.resample import Axis, Box, axis, bicubic
from tests.doubles.pictures import Pixels, encoded, photo

BICUBIC = Image.Resampling.BICUBIC

compiled = pytest.mark.skipif(resample.COMPILED is None, reason="installed without a compiler")


def test_it_is_compiled_where_there_is_a_compiler():
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None or not headers.exists():
        pytest.skip("no compiler, or none of Python's headers, here")
    assert resample.COMPILED is not None


def noise(width: int, height: int, seed: int = 0, levels: int = 256) -> Image.Image:
    """Noise brings out every difference: sums beyond both ends of the scale are cut off."""
    values = np.random.default_rng(seed).integers(0, levels, (height, width, 3)) * (255 // (levels - 1))
    return Image.fromarray(values.astype(np.uint8))


def rows_first(picture: Image.Image, size: int, box: Box) -> Pixels:
    """Pillow's resize, one pass at a time, so that the order of both is known."""
    left, top, right, bottom = box
    across = picture.resize((size, picture.height), BICUBIC, (left, 0, right, picture.height))
    return np.asarray(across.resize((size, size), BICUBIC, (0, top, size, bottom)))


def resized(picture: Image.Image, size: int, box: Box | None = None) -> Pixels:
    """By the compiled part, for sure: from Pillow's memory and from an array, which is the same."""
    results = [bicubic(form, size, box or (0, 0, *picture.size)) for form in (picture, np.asarray(picture))]
    assert isinstance(results[0], np.ndarray)
    assert isinstance(results[1], np.ndarray)
    assert np.array_equal(results[0], results[1])
    return results[0]


@compiled
@given(st.data())
def test_it_is_pillows_to_the_bit(data: st.DataObject):
    width, height = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))
    size = data.draw(st.sampled_from([1, 2, 7, 8, 33, 64, 224, 288]))
    fraction = st.floats(0, 1, allow_subnormal=False)
    left, right = sorted(data.draw(st.tuples(fraction, fraction)))
    top, bottom = sorted(data.draw(st.tuples(fraction, fraction)))
    box = (left * width, top * height, right * width, bottom * height)
    assume(min(box[2] - box[0], box[3] - box[1]) > 0.01)
    assume(max(box[2] - box[0], box[3] - box[1]) < 6 * size)
    picture = noise(width, height, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([2, 256])))
    assert np.array_equal(resized(picture, size, box), rows_first(picture, size, box))


@compiled
@pytest.mark.parametrize("side", [100, 287, 288, 289, 320, 503, 504, 1008, 1727])
def test_whole_pictures_of_many_sizes(side: int):
    picture = noise(side, side)
    assert np.array_equal(resized(picture, 288), rows_first(picture, 288, (0, 0, side, side)))


@compiled
def test_a_picture_of_the_right_size_stays_as_it_is():
    picture = noise(288, 288)
    assert np.array_equal(resized(picture, 288), np.asarray(picture))


@compiled
def test_photos_are_as_pillow_resizes_them_at_once():
    """It does the columns of tall pictures first, from version 13 on: a level here and there."""
    for name in ("cat", "coffee", "rocket", "flower", "temple"):
        picture = photo(name)
        side = min(picture.size)
        left, top = (picture.width - side) / 2, (picture.height - side) / 2
        box = (left, top, left + side, top + side)
        at_once = np.asarray(picture.resize((288, 288), BICUBIC, box)).astype(np.int16)
        assert np.abs(resized(picture, 288, box) - at_once).max() <= 2


def with_and_without(monkeypatch: pytest.MonkeyPatch, data: bytes, size: int) -> tuple[Pixels, Pixels]:
    ours = decode_image(data, size)
    monkeypatch.setattr(resample, "COMPILED", None)
    return ours, decode_image(data, size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_without_it_pillow_does_the_same(monkeypatch: pytest.MonkeyPatch, orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(photo("cat").resize((700, 500)), "JPEG", quality=90, exif=exif)
    ours, pillows = with_and_without(monkeypatch, data, 288)
    assert ours.shape == pillows.shape == (288, 288, 3)
    assert np.array_equal(ours, pillows)
    assert not ours.flags.writeable


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "CMYK"])
def test_other_modes_are_pillows(monkeypatch: pytest.MonkeyPatch, mode: str):
    data = encoded(photo("cat").resize((400, 300)).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    ours, pillows = with_and_without(monkeypatch, data, 224)
    assert np.array_equal(ours, pillows)


def test_a_picture_in_several_pieces_is_pillows():
    """Pillow keeps pictures of more than 16 MiB so; then it can't hand out one array."""
    picture = noise(2100, 2100)
    with pytest.raises(ValueError):
        picture.__arrow_c_array__()
    box = (0, 0, 300, 300)
    result = bicubic(picture, 288, box)
    assert isinstance(result, Image.Image)
    assert np.array_equal(np.asarray(result), np.asarray(picture.resize((288, 288), BICUBIC, box)))


def test_pictures_with_gaps_between_their_rows_are_pillows():
    program = (
        "from PIL import Image; from hailo_clip.api.resample import bicubic;"
        "picture = Image.effect_noise((301, 301), 50).convert('RGB');"
        "assert isinstance(bicubic(picture, 288, (0, 0, 301, 301)), Image.Image)"
    )
    environ = {**os.environ, "PILLOW_ALIGNMENT": "64"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environ)


@compiled
def test_what_the_compiled_part_refuses_is_pillows(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> bytes:
        raise ValueError("another layout")

    monkeypatch.setattr(resample, "COMPILED", SimpleNamespace(convolve=refuse))
    assert isinstance(bicubic(noise(300, 300), 288, (0, 0, 300, 300)), Image.Image)


def test_very_large_pictures_are_averaged_down_first(monkeypatch: pytest.MonkeyPatch):
    picture = noise(600, 600)
    result = bicubic(picture, 64, (0, 0, 600, 600))
    assert isinstance(result, Image.Image)
    assert np.array_equal(np.asarray(result), np.asarray(picture.resize((64, 64), BICUBIC, None, 3.0)))


@given(
    side=st.integers(1, 2000),
    size=st.integers(1, 300),
    edges=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_coefficients_lie_within_the_picture_and_add_up(side: int, size: int, edges: list[float]):
    begin, end = (edge * side for edge in edges)
    assume(end - begin > 0.01)
    found = axis(side, begin, end, size)
    taps = found.coefs.shape[1]
    assert found.start.shape == (size,)
    assert found.start.dtype == found.coefs.dtype == np.int32
    assert found.start.min() >= 0
    assert found.start.max() + taps <= side
    assert (np.diff(found.start) >= 0).all()
    assert np.abs(found.coefs.sum(axis=1) - (1 << 22)).max() <= taps
    assert np.abs(found.coefs.astype(np.int64)).sum(axis=1).max() * 255 + (1 << 21) < 1 << 31


@compiled
class TestArguments:
    """What resample.py never passes is an error all the same, and reads no memory beside the picture."""

    GOOD = Axis(np.zeros(4, np.int32), np.full((4, 2), 1 << 21, np.int32))

    def convolve(
        self, x: Any = GOOD, y: Any = GOOD, width: int = 8, height: int = 8, array: Any = None
    ) -> bytes:
        assert resample.COMPILED is not None
        pixels = Image.new("RGB", (8, 8), (9, 8, 7)).__arrow_c_array__()[1] if array is None else array
        result: bytes = resample.COMPILED.convolve(pixels, width, height, x.start, x.coefs, y.start, y.coefs)
        return result

    @pytest.mark.parametrize("array", [None, bytes((9, 8, 7)) * 64])
    def test_good_ones(self, array: bytes | None):
        assert self.convolve(array=array) == bytes((9, 8, 7)) * 16

    @pytest.mark.parametrize("length", [0, 64, 191, 193, 256])
    def test_a_buffer_of_another_size(self, length: int):
        with pytest.raises(ValueError, match="mode RGB"):
            self.convolve(array=bytes(length))

    @pytest.mark.parametrize(("width", "height"), [(8, 9), (7, 8), (0, 8), (8, -8), (1 << 40, 1 << 40)])
    def test_another_size(self, width: int, height: int):
        with pytest.raises(ValueError, match="size"):
            self.convolve(width=width, height=height)

    @pytest.mark.parametrize(
        ("start", "coefs"),
        [
            ([0, 1, 2, 7], [1] * 8),
            ([-1, 0, 0, 0], [1] * 8),
            ([3, 0, 0, 0], [1] * 8),
            ([0, 0, 0, 0], [1] * 7),
            ([0, 0, 0, 0], []),
            ([], []),
            ([2**31 - 1] * 4, [1] * 8),
        ],
    )
    def test_starts_and_coefficients_that_do_not_fit(self, start: list[int], coefs: list[int]):
        bad = SimpleNamespace(start=array("i", start), coefs=array("i", coefs))
        with pytest.raises(ValueError, match="starts must ascend"):
            self.convolve(x=bad)
        with pytest.raises(ValueError, match="starts must ascend"):
            self.convolve(y=bad)

    def test_an_odd_number_of_bytes(self):
        odd = SimpleNamespace(start=b"\0" * 7, coefs=b"\0" * 8)
        with pytest.raises(ValueError, match="starts must ascend"):
            self.convolve(x=odd)

    def test_a_picture_of_another_mode(self):
        grey = Image.new("L", (8, 8)).__arrow_c_array__()[1]
        with pytest.raises(ValueError, match="mode RGB"):
            self.convolve(array=grey)

    def test_no_picture_at_all(self):
        with pytest.raises(TypeError, match="bytes-like"):
            self.convolve(array=object())

    def test_a_schema_instead_of_an_array(self):
        with pytest.raises(ValueError, match="Capsule"):
            self.convolve(array=Image.new("RGB", (8, 8)).__arrow_c_schema__())
