"""Pictures that can't be used: each is a client's error that says why, at little cost."""

import struct
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from hailo_clip.api.image import ImageLimits, decode_image
from hailo_clip.shared.errors import ClientError
from tests.doubles.pictures import PHOTOS, encoded, photo, png, png_chunk, tiff

# Pillow warns of what it then refuses or repairs; the service's answer is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

MIB = 1 << 20
CAT = (PHOTOS / "cat.jpg").read_bytes()
SMALL = photo("cat").resize((80, 60))
GREY_TIFF = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]


def bmp(width: int, height: int, compression: int = 0) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + head


def gif(width: int, height: int, rest: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + rest


def gif_frame(width: int, height: int) -> bytes:
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2L\1\0;"


def webp(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 1000) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + sides


def jpeg_of_size(width: int, height: int) -> bytes:
    """A photo whose frame header tells another size."""
    at = CAT.index(b"\xff\xc0") + 5
    return CAT[:at] + struct.pack(">HH", height, width) + CAT[at + 4 :]


def jpeg_with(segments: bytes) -> bytes:
    return CAT[:2] + segments + CAT[2:]


def jpeg_scans(extra: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(SMALL, "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * (extra + 1) + data[-2:]


SIZES: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG": (lambda: png(100_000, 100_000, 8, 2, b""), "100000 x 100000 pixels; at most 16384 a side"),
    "PNG, wide": (lambda: png(16_385, 1, 8, 2, None), "16385 x 1 pixels; at most 16384 a side"),
    "PNG, area": (lambda: png(16_000, 16_000, 8, 2, b""), "16000 x 16000 pixels; at most 50 megapixels"),
    "PNG, none": (lambda: png(0, 5, 8, 2, b""), "0 x 5 pixels; at least 1 x 1"),
    "JPEG": (lambda: jpeg_of_size(65_000, 65_000), "65000 x 65000 pixels; at most 16384 a side"),
    "JPEG, none": (lambda: jpeg_of_size(100, 0), "100 x 0 pixels; at least 1 x 1"),
    "GIF": (lambda: gif(65_535, 65_535, gif_frame(1, 1)), "65535 x 65535 pixels; at most 16384 a side"),
    "GIF, frame": (lambda: gif(1, 1, gif_frame(65_535, 9)), "65535 x 9 pixels; at most 16384 a side"),
    "WebP": (lambda: webp(16_384, 16_384), "16384 x 16384 pixels; at most 50 megapixels"),
    "BMP": (lambda: bmp(100_000, 100_000), "100000 x 100000 pixels; at most 16384 a side"),
    "BMP, from the top": (lambda: bmp(9_000, -9_000), "9000 x 9000 pixels; at most 50 megapixels"),
    "TIFF": (
        lambda: tiff([(256, 4, 1, 100_000), (257, 4, 1, 100_000)]),
        "100000 x 100000 pixels; at most 16384 a side",
    ),
}

STRUCTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it is empty"),
    "text": (
        lambda: b"a cat, as text",
        "not an image in a format taken here (JPEG, PNG, WebP, GIF, BMP, TIFF)",
    ),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image in a format taken here"),
    "ICO": (lambda: encoded(SMALL, "ICO"), "not an image in a format taken here"),
    "JPEG magic alone": (lambda: b"\xff\xd8\xff", "JPEG header is cut short"),
    "JPEG without a picture": (lambda: b"\xff\xd8\xff\xfe\0\2\xff\xda\0\2\0", "JPEG has no picture"),
    "JPEG, half of it": (lambda: CAT[: len(CAT) // 2], "truncated or damaged JPEG"),
    "JPEG, last bytes missing": (lambda: CAT[:-200], "truncated or damaged JPEG"),
    "JPEG, many segments": (lambda: jpeg_with(b"\xff\xe2\0\2" * MIB), "more than 4096 segments"),
    "JPEG, endless filling": (lambda: jpeg_with(b"\xff" * 8 * MIB), "more than 4096 segments"),
    "JPEG, many tables": (
        lambda: jpeg_with((b"\xff\xdb\0\x43\0" + b"\1" * 64) * 4000),
        "more than 131072 bytes of tables",
    ),
    "JPEG, many scans": (lambda: jpeg_scans(5000), "scans; at most 100"),
    "PNG magic alone": (lambda: b"\x89PNG\r\n\x1a\n", "PNG header is cut short"),
    "PNG, half of it": (lambda: encoded(SMALL, "PNG")[:5000], "truncated or damaged PNG"),
    "PNG, damaged pixels": (
        lambda: png(8, 8, 8, 2, None).replace(b"IDAT\x78", b"IDAT\0"),
        "truncated or damaged PNG",
    ),
    "PNG, many chunks": (
        lambda: png(8, 8, 8, 2, None, before=png_chunk(b"tEXt", b"") * 100_000),
        "more than 65536 chunks",
    ),
    "GIF without a picture": (lambda: gif(8, 8, b";"), "GIF has no picture"),
    "GIF cut in a comment": (lambda: gif(8, 8, b"!\xfe\x09abc"), "GIF header is cut short"),
    "GIF, many blocks": (lambda: gif(8, 8, b"!\xfe" + b"\1A" * MIB + b"\0"), "more than 65536 blocks"),
    "WebP, half of it": (lambda: encoded(SMALL, "WEBP")[:900], "truncated or damaged WEBP"),
    "WebP without a picture": (lambda: b"RIFF\0\0\0\0WEBPXXXX", "WebP has no picture"),
    "BMP, header alone": (lambda: bmp(100, 100), "truncated or damaged BMP"),
    "BMP, compressed": (lambda: bmp(100, 100, compression=1) + b"\1\1" * MIB, "BMP is compressed"),
    "TIFF, header alone": (lambda: b"II*\0\x08\0\0\0", "TIFF header is cut short"),
    "TIFF, no pixels": (lambda: tiff(GREY_TIFF[:5]), "truncated or damaged TIFF"),
    "TIFF, fax": (
        lambda: encoded(SMALL.convert("1"), "TIFF", compression="group4"),
        "compression 4 is not taken, only LZW, deflate, PackBits, JPEG and none",
    ),
    "TIFF, float": (lambda: encoded(SMALL.convert("F"), "TIFF"), "signed, 32-bit or float"),
    "TIFF, 32 bits": (lambda: encoded(SMALL.convert("I"), "TIFF"), "signed, 32-bit or float"),
    "TIFF, many entries": (
        lambda: tiff(GREY_TIFF + [(40_000 + i, 3, 1, 0) for i in range(2000)]),
        "directory has 2006 entries; at most 1024",
    ),
    "TIFF, many strips": (lambda: tiff([*GREY_TIFF[:5], (273, 4, 5 * MIB, 8)]), "at most 65536"),
    "TIFF, many values below": (
        lambda: tiff(
            [*GREY_TIFF, (34665, 4, 1, 98)], struct.pack("<HHHII", 1, 33434, 5, 10**6, 200) + b"\1" * 8 * MIB
        ),
        "directory has 1000000 values; at most 65536",
    ),
    "TIFF, the file over and over": (
        lambda: tiff(GREY_TIFF + [(40_000 + i, 7, MIB, 8) for i in range(900)], b"\1" * MIB),
        "directory holds more than the file",
    ),
    "TIFF, one great tile": (
        lambda: tiff([*GREY_TIFF, (322, 4, 1, 30_000), (323, 4, 1, 30_000)]),
        "tiles are larger than its picture",
    ),
}


def fault(data: bytes, size: int = 64) -> str:
    """The error that `data` gives, and that it took little time."""
    start = time.thread_time()
    with pytest.raises(ClientError) as caught:
        decode_image(data, size, "images[3]")
    assert time.thread_time() - start < 0.5
    assert caught.value.http_status == 400
    assert caught.value.message.startswith("Missing or invalid 'images[3]': ")
    return caught.value.message


@pytest.mark.parametrize(("make", "expected"), SIZES.values(), ids=SIZES.keys())
def test_the_size_is_checked_before_decoding(make: Callable[[], bytes], expected: str) -> None:
    assert expected in fault(make())


@pytest.mark.parametrize(("make", "expected"), STRUCTURES.values(), ids=STRUCTURES.keys())
def test_a_fault_is_named(make: Callable[[], bytes], expected: str) -> None:
    assert expected in fault(make())


def test_limits_are_inclusive_and_can_be_set() -> None:
    data = encoded(Image.new("RGB", (40, 30)), "PNG")
    assert decode_image(data, 8, limits=ImageLimits(max_pixels=1200, max_side=40)).shape == (8, 8, 3)
    with pytest.raises(ClientError, match="at most 39 a side"):
        decode_image(data, 8, limits=ImageLimits(max_side=39))
    with pytest.raises(ClientError, match=r"'image': it is 40 x 30 pixels; at most 0\.001199 megapixels"):
        decode_image(data, 8, limits=ImageLimits(max_pixels=1199))


def bombs() -> dict[str, bytes]:
    """Small pictures with metadata that would inflate to hundreds of megabytes, or cost a step a byte."""
    inflating = zlib.compress(b"\0" * (64 * MIB), 9)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x100, 5, 1 << 28, 8) * 5000
    return {
        "PNG text": png(8, 8, 8, 2, None, before=png_chunk(b"zTXt", b"a\0\0" + inflating) * 20),
        "PNG text at the end": png(8, 8, 8, 2, None, after=png_chunk(b"zTXt", b"a\0\0" + inflating) * 20),
        "PNG profile": png(8, 8, 8, 2, None, before=png_chunk(b"iCCP", b"a\0\0" + inflating)),
        "PNG EXIF": png(8, 8, 8, 2, None, before=png_chunk(b"eXIf", exif[6:])),
        "JPEG EXIF": jpeg_with((b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif) * 100),
        "JPEG profile": jpeg_with((b"\xff\xe2\xff\xffICC_PROFILE\0\1\xff" + b"x" * 65_519) * 200),
        "JPEG, bytes after it": CAT + b"\0" * 16 * MIB,
    }


@pytest.mark.parametrize("data", bombs().values(), ids=bombs().keys())
def test_metadata_costs_nothing(data: bytes) -> None:
    start = time.thread_time()
    assert decode_image(data, 64).shape == (64, 64, 3)
    assert time.thread_time() - start < 0.3


def test_truncated_files_are_never_filled_up() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_cut_is_a_client_error(file_format: str) -> None:
    """Cut anywhere before its pixels end, a file is refused, and never half a picture."""
    data = encoded(SMALL, file_format)
    ends = range(0, len(data) - 40, max(1, len(data) // 150))
    for end in ends:
        fault(data[:end], size=16)


SEEDS = [
    encoded(SMALL, "JPEG"),
    encoded(SMALL.resize((400, 300)), "JPEG", progressive=True),
    encoded(SMALL.convert("CMYK"), "JPEG"),
    encoded(SMALL, "PNG"),
    encoded(SMALL.quantize(16), "PNG", transparency=3),
    encoded(SMALL, "WEBP"),
    encoded(SMALL.convert("RGBA"), "WEBP", lossless=True),
    encoded(SMALL.quantize(16), "GIF", transparency=1),
    encoded(SMALL, "BMP"),
    encoded(SMALL, "TIFF", compression="tiff_lzw"),
]
EDIT = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans())


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), st.lists(EDIT, min_size=1, max_size=12), st.floats(0.2, 1))
def test_damage_gives_pixels_or_a_client_error(
    seed: bytes, edits: list[tuple[float, int, bool]], kept: float
) -> None:
    data = bytearray(seed[: int(len(seed) * kept)] if kept < 0.5 else seed)
    for place, value, in_header in edits:
        data[int(place * min(len(data), 300 if in_header else len(data)))] = value
    try:
        pixels = decode_image(bytes(data), 16)
    except ClientError as e:
        assert e.message.startswith("Missing or invalid 'image': ")
    else:
        assert pixels.shape == (16, 16, 3)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([s[:12] for s in SEEDS]), st.binary(max_size=200))
def test_noise_gives_pixels_or_a_client_error(magic: bytes, noise: bytes) -> None:
    with pytest.raises(ClientError):
        decode_image(magic + noise, 16)
