"""Images in JSON: all the ways in which clients write base64, and none of those in which they don't."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.api.base64image import decode_base64_image
from hailo_clip.api.image import decode_base64_image as same
from hailo_clip.shared.errors import ClientError

DATA = bytes(range(256)) * 3 + b"\xfb\xff\xbf\xff"  # has every character of the alphabet, and padding
PLAIN = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        URL_SAFE,
        PLAIN.rstrip("="),
        URL_SAFE.rstrip("="),
        base64.encodebytes(DATA).decode(),
        base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
        f"  {PLAIN}\n",
        " ".join(PLAIN),
        f"data:image/jpeg;base64,{PLAIN}",
        f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
        f"data:image/svg+xml;charset=utf-8;name=a.svg;base64,{PLAIN}",
        f"data:;base64,{PLAIN}",
        f"\n data:image/webp;base64,\n{base64.encodebytes(DATA).decode()}",
        f"data:image/jpeg;base64,{URL_SAFE.rstrip('=')}",
    ],
    ids=lambda t: t[:24].encode("unicode_escape").decode(),
)
def test_what_clients_send(text: str) -> None:
    assert decode_base64_image(text) == DATA


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("====", "not valid base64"),
        ("data:image/jpeg;base64,", "it is empty"),
        ("a photo of a cat!", "not valid base64"),
        (PLAIN[:-3], "not valid base64"),
        (f"{PLAIN}===", "not valid base64"),
        (f"{PLAIN[:40]}={PLAIN[40:]}", "not valid base64"),
        (f"{PLAIN[:40]}*{PLAIN[40:]}", "not valid base64"),
        (f"{PLAIN[:40]}\0{PLAIN[40:]}", "not valid base64"),
        (f"{PLAIN[:40]}é{PLAIN[40:]}", "not valid base64"),
        (f"{PLAIN}\ud800", "not valid base64"),
        ("猫", "not valid base64"),
        (f"data:text/plain;base64,{PLAIN}", "media type is 'text/plain', not image/*"),
        (f"data:image/jpeg,{PLAIN}", "not marked ;base64"),
        (f"data:image/jpeg;base64;q=1,{PLAIN}", "not marked ;base64"),
        (f"data:image/jpeg;base64{PLAIN}", "not valid base64"),
        (f"http://example.com/{PLAIN}", "not valid base64"),
    ],
    ids=lambda t: t[:24].encode("unicode_escape").decode(),
)
def test_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ClientError) as caught:
        decode_base64_image(text, "images[3]")
    assert caught.value.message.startswith("Missing or invalid 'images[3]': ")
    assert expected in caught.value.message
    assert caught.value.http_status == 400


def test_a_large_image() -> None:
    data = os.urandom(6_000_001)
    text = base64.b64encode(data).decode()
    assert decode_base64_image(text) == data
    assert decode_base64_image(f"data:image/jpeg;base64,{text}") == data


@given(st.binary(min_size=1, max_size=64), st.lists(st.integers(0, 90), max_size=4))
def test_white_space_may_stand_anywhere(data: bytes, places: list[int]) -> None:
    text = base64.b64encode(data).decode()
    for place in places:
        text = f"{text[:place]}\n{text[place:]}"
    assert decode_base64_image(text) == data


@given(st.text(alphabet=st.characters(codec=None), max_size=60))
def test_any_string_gives_bytes_or_a_client_error(text: str) -> None:
    try:
        assert decode_base64_image(text)
    except ClientError as e:
        assert e.message.startswith("Missing or invalid 'image': ")


def test_the_image_module_offers_it() -> None:
    assert same is decode_base64_image
