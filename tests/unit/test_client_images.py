"""What a program may call an image, and that its embedding does not depend on which it uses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hailo_clip.api.client_images import MAX_PNG_PIXELS, image_bytes
from hailo_clip.api.image import decode_image
from tests.doubles.pictures import photo

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def as_file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def test_files_go_as_they_are(tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(b"anything")
    given: list[Any] = [tmp_path / "x.jpg", str(tmp_path / "x.jpg"), b"anything", bytearray(b"anything")]
    assert {image_bytes(image) for image in [*given, memoryview(b"anything")]} == {b"anything"}


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[::-1, ::2], np.asfortranarray(PIXELS)])
def test_pixels_arrive_unchanged(pixels: Any):
    np.testing.assert_array_equal(np.asarray(opened(image_bytes(pixels))), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pillow_images_of_every_common_mode(mode: str):
    picture = Image.fromarray(PIXELS).convert(mode)
    found = opened(image_bytes(picture))
    expected = picture if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else picture.convert("RGB")
    np.testing.assert_array_equal(np.asarray(found.convert("RGBA")), np.asarray(expected.convert("RGBA")))


def test_16_bits_stay_16_bits():
    values = RNG.integers(0, 65_536, (8, 9), dtype=np.uint16)
    np.testing.assert_array_equal(np.asarray(opened(image_bytes(Image.fromarray(values)))), values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_means_the_same_as_file_and_as_picture(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = as_file(photo("cat").resize((60, 40)), "PNG", exif=exif)
    as_picture = image_bytes(opened(file))
    turned_after, turned_before = (decode_image(data, 32, "image") for data in (file, as_picture))
    # What the file calls rows may be columns of the picture: sums are rounded in another order.
    np.testing.assert_allclose(turned_after.astype(int), turned_before, atol=2)


def test_very_large_pictures_are_jpeg_so_that_they_fit():
    side = int(MAX_PNG_PIXELS**0.5)
    large = Image.effect_noise((side, side + 1), 80).convert("RGB")
    found = image_bytes(large)
    assert opened(found).format == "JPEG"
    assert len(found) < 20 << 20
    assert opened(image_bytes(large.crop((0, 0, side, side)))).format == "PNG"


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_pixels_of_another_kind(wrong: Any):
    with pytest.raises(ValueError, match=r"pixels must be uint8 \[H, W, 3\] in RGB order, are "):
        image_bytes(wrong)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pictures_that_do_not_say_what_is_white(mode: str):
    with pytest.raises(ValueError, match=f"pixels of mode {mode} do not say"):
        image_bytes(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("wrong", [None, 3, [1, 2], {"a": 1}])
def test_what_is_no_image(wrong: Any):
    with pytest.raises(TypeError, match="an image must be a path"):
        image_bytes(wrong)
