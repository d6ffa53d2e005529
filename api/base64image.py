"""An image in a JSON string: base64, plain or as a data URI."""

from __future__ import annotations

import re

import pybase64

from hailo_clip.shared.errors import ClientError

_DATA_URI = re.compile(r"\s{0,16}data:([^,;]{0,128})((?:;[^,;]{0,128}){0,16}),", re.IGNORECASE)
_WHITE_SPACE = b" \t\r\n\v\f"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def decode_base64_image(text: str, field: str = "image") -> bytes:
    """The bytes of an image given as base64 with or without a data URI's head.

    The head may name any image type or none, since the bytes themselves tell the format. White space
    anywhere, the URL-safe alphabet and missing padding are fine.

    Args:
        text: of any length; what is plain base64 is decoded without a copy.
        field: the request's field, for the error.

    Raises:
        ClientError: it is empty, not base64, or a data URI that is not one of a base64 image.
    """
    head = _DATA_URI.match(text)
    if head is not None:
        _check_head(head, field)
        text = text[head.end() :]
    try:
        data = _decode(text)
    except ValueError as e:
        raise _fault(field, "it is not valid base64") from e
    if not data:
        raise _fault(field, "it is empty")
    return data


def _check_head(head: re.Match[str], field: str) -> None:
    media_type, parameters = head[1].strip().lower(), head[2].lower().split(";")
    if media_type and not media_type.startswith("image/"):
        raise _fault(field, f"the data URI's media type is {media_type[:40]!r}, not image/*")
    if parameters[-1].strip() != "base64":
        raise _fault(field, "the data URI is not marked ;base64")


def _decode(text: str) -> bytes:
    """Bytes of `text`. Raises `ValueError`."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:  # a stricter reading than RFC 4648 asks for: tidy up and try once more
        tidy = text.encode("ascii").translate(_URL_SAFE, _WHITE_SPACE)
    unpadded = tidy.rstrip(b"=")
    if len(tidy) - len(unpadded) > 2:
        raise ValueError("too much padding")
    return pybase64.b64decode(unpadded + b"=" * (-len(unpadded) % 4), validate=True)


def _fault(field: str, what: str) -> ClientError:
    return ClientError(f"Missing or invalid '{field}': {what}")
