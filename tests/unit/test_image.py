"""From a file to the model's input: the right pixels, whatever the format, mode, turn and shape."""

import base64
import io
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from hailo_clip.api.image import decode_image
from tests.doubles.pictures import (
    PHOTOS,
    Pixels,
    cosine,
    difference,
    encoded,
    photo,
    plain,
    png,
    png_chunk,
)

NAMES = ("cat", "coffee", "rocket", "flower", "temple")
ORIENTATION = 274


def most(a: Pixels, b: Pixels) -> int:
    """The largest difference between two pictures."""
    return int(np.abs(a.astype(np.int16) - b).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [224, 288])
def test_photos_at_their_own_size_give_the_plain_pixels(name: str, size: int) -> None:
    data = (PHOTOS / f"{name}.jpg").read_bytes()
    result = decode_image(data, size)
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert most(result, plain(data, size)) <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("short", "size"), [(427, 96), (1080, 224), (1080, 288), (1700, 224)])
def test_large_jpegs_stay_close_to_the_plain_pixels(name: str, short: int, size: int) -> None:
    """These are decoded at 1/2 or 1/4 of their size."""
    source = photo(name)
    scale = short / min(source.size)
    large = source.resize((round(source.width * scale), round(source.height * scale)))
    data = encoded(large, "JPEG", quality=90)
    result, expected = decode_image(data, size), plain(data, size)
    assert difference(result, expected) < 1.0
    assert cosine(result, expected) > 0.9995


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_large_pictures_of_other_formats_stay_close_to_the_plain_pixels(file_format: str) -> None:
    """Seven times the size, so that they are averaged down before they are resized."""
    data = encoded(photo("temple"), file_format)
    result, expected = decode_image(data, 48), plain(data, 48)
    assert difference(result, expected) < 1.0
    assert cosine(result, expected) > 0.9995


@pytest.mark.parametrize(
    ("width", "height"),
    [(97, 61), (61, 97), (61, 61), (62, 61), (100, 64), (101, 64), (64, 103), (640, 64), (40, 20), (7, 5)],
)
@pytest.mark.parametrize("size", [32, 61, 64])
def test_the_crop_is_the_plain_one(width: int, height: int, size: int) -> None:
    data = encoded(photo("coffee").resize((width, height)), "PNG")
    result, expected = decode_image(data, size), plain(data, size)
    # Pillow chooses whether rows or columns are summed first, which rounds differently.
    assert most(result, expected) <= 4
    assert difference(result, expected) < 0.3


def ramp(width: int, height: int) -> Image.Image:
    """A picture with nothing symmetrical in it: a smooth ramp, so that JPEG keeps it."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, (x + 2 * y) * 255 / (width + 2 * height)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
@pytest.mark.parametrize("shape", [(90, 61), (61, 90)])
def test_exif_orientation_is_applied(
    orientation: int, file_format: str, options: dict[str, object], shape: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(ramp(*shape), file_format, exif=exif, **options)
    assert most(decode_image(data, 48), plain(data, 48)) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(91, 61), (61, 91)])
def test_the_crop_of_a_turned_picture_is_the_plain_one(orientation: int, shape: tuple[int, int]) -> None:
    """One pixel more is cut on one side than on the other: on the right side only if turning counts."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(photo("temple").resize(shape), "PNG", exif=exif)
    assert difference(decode_image(data, 48), plain(data, 48)) < 0.3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_and_scaled_decoding_agree(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(ramp(803, 601), "JPEG", exif=exif, quality=95)
    assert difference(decode_image(data, 64), plain(data, 64)) < 1.0


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_a_senseless_orientation_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    upright = decode_image(encoded(ramp(40, 30), "PNG"), 30)
    assert np.array_equal(decode_image(encoded(ramp(40, 30), "PNG", exif=exif), 30), upright)


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    block = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    data = (PHOTOS / "cat.jpg").read_bytes()
    damaged = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    assert np.array_equal(decode_image(damaged, 64), decode_image(data, 64))


def grey(*levels: int) -> Pixels:
    """The expected picture of 2 x 2 grey levels."""
    return np.repeat(np.array(levels, np.uint8).reshape(2, 2, 1), 3, axis=2)


def rgb(*colours: tuple[int, int, int]) -> Pixels:
    """The expected picture of 2 x 2 colours."""
    return np.array(colours, np.uint8).reshape(2, 2, 3)


def two_by_two(mode: str, pixels: list[object], palette: list[int] | None = None) -> Image.Image:
    """A picture of 2 x 2 pixels, which is left as it is at size 2."""
    picture = Image.new(mode, (2, 2))
    if palette is not None:
        picture.putpalette(palette)
    for i, value in enumerate(pixels):
        picture.putpixel((i % 2, i // 2), value)  # type: ignore[arg-type]
    return picture


RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
PALETTE = [*RED, *BLUE, 10, 20, 30, *WHITE]


def rows(*samples: bytes) -> bytes:
    """Rows of a PNG, none of them filtered."""
    return b"".join(b"\0" + s for s in samples)


MODES: dict[str, tuple[Callable[[], bytes], Pixels]] = {
    "1-bit PNG": (lambda: encoded(two_by_two("1", [0, 255, 255, 0]), "PNG"), grey(0, 255, 255, 0)),
    "1-bit BMP": (lambda: encoded(two_by_two("1", [0, 255, 255, 0]), "BMP"), grey(0, 255, 255, 0)),
    "1-bit TIFF": (lambda: encoded(two_by_two("1", [0, 255, 255, 0]), "TIFF"), grey(0, 255, 255, 0)),
    "grey PNG": (lambda: encoded(two_by_two("L", [0, 7, 128, 255]), "PNG"), grey(0, 7, 128, 255)),
    "grey and alpha PNG": (
        lambda: encoded(two_by_two("LA", [(0, 255), (0, 0), (0, 51), (100, 204)]), "PNG"),
        grey(0, 255, 204, 131),
    ),
    "RGB PNG": (
        lambda: encoded(two_by_two("RGB", [RED, BLUE, WHITE, BLACK]), "PNG"),
        rgb(RED, BLUE, WHITE, BLACK),
    ),
    "RGB BMP": (
        lambda: encoded(two_by_two("RGB", [RED, BLUE, WHITE, BLACK]), "BMP"),
        rgb(RED, BLUE, WHITE, BLACK),
    ),
    "RGBA PNG": (
        lambda: encoded(
            two_by_two("RGBA", [(*RED, 255), (*BLUE, 0), (*BLACK, 51), (100, 0, 200, 204)]), "PNG"
        ),
        rgb(RED, WHITE, (204, 204, 204), (131, 51, 211)),
    ),
    "RGBA WebP": (
        lambda: encoded(
            two_by_two("RGBA", [(*RED, 255), (*BLUE, 0), (*BLACK, 51), (*WHITE, 9)]), "WEBP", lossless=True
        ),
        rgb(RED, WHITE, (204, 204, 204), WHITE),
    ),
    "RGBA TIFF": (
        lambda: encoded(two_by_two("RGBA", [(*RED, 255), (*BLUE, 0), (*BLACK, 51), (*WHITE, 9)]), "TIFF"),
        rgb(RED, WHITE, (204, 204, 204), WHITE),
    ),
    "palette PNG": (
        lambda: encoded(two_by_two("P", [0, 1, 2, 3], PALETTE), "PNG"),
        rgb(RED, BLUE, (10, 20, 30), WHITE),
    ),
    "palette PNG, one transparent": (
        lambda: encoded(two_by_two("P", [0, 1, 2, 3], PALETTE), "PNG", transparency=1),
        rgb(RED, WHITE, (10, 20, 30), WHITE),
    ),
    "palette PNG, alpha for each": (
        lambda: encoded(two_by_two("P", [0, 1, 2, 3], PALETTE), "PNG", transparency=bytes([255, 0, 0, 128])),
        rgb(RED, WHITE, WHITE, WHITE),
    ),
    "palette BMP": (
        lambda: encoded(two_by_two("P", [0, 1, 2, 3], PALETTE), "BMP"),
        rgb(RED, BLUE, (10, 20, 30), WHITE),
    ),
    "palette GIF": (
        lambda: encoded(two_by_two("P", [0, 1, 2, 3], PALETTE), "GIF"),
        rgb(RED, BLUE, (10, 20, 30), WHITE),
    ),
    "transparent GIF": (
        lambda: encoded(two_by_two("P", [0, 1, 2, 3], PALETTE), "GIF", transparency=0),
        rgb(WHITE, BLUE, (10, 20, 30), WHITE),
    ),
    "CMYK TIFF": (
        lambda: encoded(
            two_by_two("CMYK", [(0, 255, 255, 0), (255, 255, 0, 0), (0, 0, 0, 0), (0, 0, 0, 255)]), "TIFF"
        ),
        rgb(RED, BLUE, WHITE, BLACK),
    ),
    "16-bit grey PNG": (
        lambda: encoded(Image.fromarray(np.array([[0, 65535], [32896, 385]], np.uint16)), "PNG"),
        grey(0, 255, 128, 1),
    ),
    "16-bit grey TIFF": (
        lambda: encoded(Image.fromarray(np.array([[0, 65535], [32896, 386]], np.uint16)), "TIFF"),
        grey(0, 255, 128, 2),
    ),
    "16-bit big-endian grey TIFF": (
        lambda: encoded(Image.fromarray(np.array([[0, 65535], [32896, 386]], ">u2")), "TIFF"),
        grey(0, 255, 128, 2),
    ),
    "16-bit grey PNG, one transparent": (
        lambda: png(
            2, 2, 16, 0, rows(b"\0\0\x12\x34", b"\x12\x35\xff\xff"), before=png_chunk(b"tRNS", b"\x12\x34")
        ),
        grey(0, 255, 18, 255),
    ),
    "16-bit grey and alpha PNG": (
        lambda: png(2, 2, 16, 4, rows(b"\0\0\xff\xff\0\0\0\0", b"\x80\x80\xff\xff\xff\xff\xff\xff")),
        grey(0, 255, 128, 255),
    ),
    "16-bit RGB PNG": (
        lambda: png(2, 2, 16, 2, rows(b"\xff\xff\0\0\0\0" + b"\0\0\0\0\xff\xff", b"\xff" * 6 + b"\0" * 6)),
        rgb(RED, BLUE, WHITE, BLACK),
    ),
    "16-bit RGB PNG, one transparent": (
        lambda: png(
            2,
            2,
            16,
            2,
            rows(b"\xff\xff\0\0\0\0" + b"\x12\x34" * 3, b"\xff" * 6 + b"\x34\x12" * 3),
            before=png_chunk(b"tRNS", b"\x12\x34" * 3),
        ),
        rgb(RED, WHITE, WHITE, (52, 52, 52)),
    ),
    "16-bit RGBA PNG": (
        lambda: png(
            2,
            2,
            16,
            6,
            rows(
                b"\xff\xff\0\0\0\0\xff\xff" + b"\0\0\0\0\xff\xff\0\0", b"\xff" * 8 + b"\0" * 6 + b"\x33\x33"
            ),
        ),
        rgb(RED, WHITE, WHITE, (204, 204, 204)),
    ),
    "8-bit RGB PNG, one transparent": (
        lambda: encoded(two_by_two("RGB", [RED, BLUE, WHITE, BLACK]), "PNG", transparency=BLACK),
        rgb(RED, BLUE, WHITE, WHITE),
    ),
    "4-bit grey PNG, one transparent": (
        lambda: png(2, 2, 4, 0, rows(b"\x05", b"\xf3"), before=png_chunk(b"tRNS", b"\0\x05")),
        grey(0, 255, 255, 51),
    ),
    "2-bit grey PNG, one transparent": (
        lambda: png(2, 2, 2, 0, rows(b"\x10", b"\xe0"), before=png_chunk(b"tRNS", b"\0\x01")),
        grey(0, 255, 255, 170),
    ),
    "1-bit grey PNG, one transparent": (
        lambda: png(2, 2, 1, 0, rows(b"\x40", b"\x80"), before=png_chunk(b"tRNS", b"\0\0")),
        grey(255, 255, 255, 255),
    ),
}


@pytest.mark.parametrize(("make", "expected"), MODES.values(), ids=MODES.keys())
def test_every_mode_becomes_the_right_rgb(make: Callable[[], bytes], expected: Pixels) -> None:
    assert decode_image(make(), 2).tolist() == expected.tolist()


def cmyk_jpeg(as_ycck: bool) -> tuple[bytes, tuple[int, int, int]]:
    """A CMYK or YCCK JPEG of one colour, and that colour."""
    inks = (200, 40, 90, 30)
    if not as_ycck:
        data = encoded(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    else:  # Pillow writes no YCCK: give it luma and chroma as if they were inks, and mark them so
        y, cb, cr = Image.new("RGB", (1, 1), inks[:3]).convert("YCbCr").getpixel((0, 0))  # type: ignore[misc]
        stored = (255 - y, 255 - cb, 255 - cr, inks[3])
        data = encoded(Image.new("CMYK", (16, 16), stored), "JPEG", quality=100)
        at = data.index(b"Adobe") + 11
        data = data[:at] + b"\2" + data[at + 1 :]
    colour = Image.new("CMYK", (1, 1), inks).convert("RGB").getpixel((0, 0))
    assert isinstance(colour, tuple)
    return data, (int(colour[0]), int(colour[1]), int(colour[2]))


@pytest.mark.parametrize("as_ycck", [False, True], ids=["CMYK", "YCCK"])
def test_inks_in_a_jpeg(as_ycck: bool) -> None:
    data, colour = cmyk_jpeg(as_ycck)
    assert most(decode_image(data, 16), np.full((16, 16, 3), colour, np.uint8)) <= 3


def test_alpha_is_laid_over_white_before_resizing_as_the_plain_way_does() -> None:
    picture = photo("flower")
    picture.putalpha(Image.radial_gradient("L").resize(picture.size))
    data = encoded(picture, "PNG", compress_level=1)
    result, expected = decode_image(data, 224), plain(data, 224)
    assert most(result, expected) <= 8  # where bicubic overshoots, colour and alpha are clipped apart
    assert difference(result, expected) < 0.5


ANIMATED = ["GIF", "WEBP", "PNG", "TIFF", "MPO"]


@pytest.mark.parametrize("file_format", ANIMATED)
def test_the_first_picture_counts(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    frames = [Image.new("RGB", (40, 30), colour) for colour in (RED, BLUE, WHITE)]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert most(decode_image(data, 30), np.full((30, 30, 3), RED, np.uint8)) <= 2


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 2), (3, 1), (1, 16384), (16384, 1), (16384, 20)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_tiny_and_thin_pictures(width: int, height: int, file_format: str) -> None:
    data = encoded(Image.new("RGB", (width, height), (10, 200, 30)), file_format, quality=100)
    assert most(decode_image(data, 64), np.full((64, 64, 3), (10, 200, 30), np.uint8)) <= 3


def test_metadata_is_left_out_and_changes_no_pixel() -> None:
    picture = photo("cat")
    exif = Image.Exif()
    exif[0x010E] = "a cat " * 5000
    bare, laden = encoded(picture, "JPEG"), encoded(picture, "JPEG", exif=exif, icc_profile=b"x" * 200_000)
    assert len(laden) > len(bare) + 200_000
    assert np.array_equal(decode_image(laden, 64), decode_image(bare, 64))


def test_a_memoryview_is_as_good_as_bytes() -> None:
    data = (PHOTOS / "cat.jpg").read_bytes()
    inside = memoryview(b"--boundary" + data + b"--boundary--")[10 : 10 + len(data)]
    assert np.array_equal(decode_image(inside, 64), decode_image(data, 64))


def test_threads_get_the_same_pixels() -> None:
    files = [(PHOTOS / f"{name}.jpg").read_bytes() for name in NAMES]
    expected = [decode_image(data, 64).tobytes() for data in files]
    results: list[list[bytes]] = []
    threads = [
        threading.Thread(target=lambda: results.append([decode_image(data, 64).tobytes() for data in files]))
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [expected] * 4


def test_no_request_waits_for_an_import() -> None:
    """In a fresh process, decoding each format imports nothing that importing the module did not."""
    code = """
import base64, sys
files = [base64.b64decode(line) for line in sys.stdin]
from hailo_clip.api.image import decode_image
before = set(sys.modules)
for data in files:
    decode_image(data, 16)
print(sorted(set(sys.modules) - before))
"""
    picture = photo("cat").resize((40, 30))
    formats = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"]
    lines = [base64.b64encode(encoded(picture, f)).decode() for f in formats]
    out = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of a few runs."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize(("shape", "ratio"), [((1920, 1080), 1.6), ((4000, 3000), 3.0)])
def test_large_jpegs_cost_far_less_than_the_plain_way(shape: tuple[int, int], ratio: float) -> None:
    """Measured at 2.6 and 4.8 times on a quiet machine; the bounds leave room for a busy one."""
    data = encoded(photo("temple").resize(shape), "JPEG", quality=90)
    assert seconds(lambda: plain(data, 288)) > ratio * seconds(lambda: decode_image(data, 288))


def test_nothing_is_written_to_the_result() -> None:
    assert not decode_image((PHOTOS / "cat.jpg").read_bytes(), 64).flags.writeable


def test_the_plain_way_is_what_it_says() -> None:
    """The reference that the tests compare with, checked by hand: left half red, right half blue."""
    picture = Image.new("RGB", (8, 4), RED)
    picture.paste(BLUE, (4, 0, 8, 4))
    out = io.BytesIO()
    picture.save(out, "PNG")
    expected = [[RED, RED, BLUE, BLUE]] * 4
    assert plain(out.getvalue(), 4).tolist() == [[list(c) for c in row] for row in expected]
