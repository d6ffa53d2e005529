"""Request bodies to typed requests; pure, and the only place that knows what a client may send.

Keys that an endpoint does not know are ignored: clients of the specification may send more than it names.
Every other deviation is a `ClientError` that names the field, what was found and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hailo_clip.api.body import shown
from hailo_clip.shared.errors import ClientError

MAX_PROMPTS = 256
MAX_PROMPT_BYTES = 16 << 10
DEFAULT_TOP_K = 3
DEFAULT_THRESHOLD = 0.0

Body = Mapping[str, Any]

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it came: exactly one of `base64` (a data URI or bare) and `data` (the file's bytes).

    `field` is what the client calls it, for error messages.
    """

    field: str
    base64: str | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """POST /v1/classify. `top_k` is at least 1 and may exceed the prompts; `threshold` is in [0, 1]."""

    picture: Picture
    prompts: tuple[str, ...]
    top_k: int = DEFAULT_TOP_K
    threshold: float = DEFAULT_THRESHOLD


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """POST /v1/embed/image."""

    picture: Picture


@dataclass(frozen=True, slots=True)
class TextRequest:
    """POST /v1/embed/text."""

    text: str


def classify_request(body: Body) -> ClassifyRequest:
    """`body` of POST /v1/classify. Raises `ClientError`."""
    return ClassifyRequest(
        picture=picture(body, "image"),
        prompts=prompts(body, "prompts"),
        top_k=whole_number(body, "top_k", 1, DEFAULT_TOP_K),
        threshold=number(body, "threshold", 0.0, 1.0, DEFAULT_THRESHOLD),
    )


def image_request(body: Body) -> ImageRequest:
    """`body` of POST /v1/embed/image. Raises `ClientError`."""
    return ImageRequest(picture(body, "image"))


def text_request(body: Body) -> TextRequest:
    """`body` of POST /v1/embed/text. Raises `ClientError`."""
    value = body.get("text", _ABSENT)
    fault = _text_fault(value)
    if fault:
        raise ClientError(f"Missing or invalid 'text': {fault}")
    return TextRequest(value)


def picture(body: Body, field: str) -> Picture:
    """The base64 image in `field`; whether it decodes is found out later. Raises `ClientError`."""
    value = body.get(field, _ABSENT)
    if not isinstance(value, str):
        found = "it is missing" if value is _ABSENT else f"must be a base64 string, is {shown(value)}"
        raise ClientError(f"Missing or invalid '{field}': {found}")
    if not value.strip():
        raise ClientError(f"Missing or invalid '{field}': must be a base64 string, is empty")
    return Picture(field, base64=value)


def prompts(body: Body, field: str) -> tuple[str, ...]:
    """The non-empty list of prompts in `field`; duplicates are fine. Raises `ClientError`."""
    value = body.get(field, _ABSENT)
    start = f"Missing or invalid '{field}' array"
    if value is _ABSENT:
        raise ClientError(start)
    if not isinstance(value, list):
        raise ClientError(f"{start}: must be an array of 1 to {MAX_PROMPTS} strings, is {shown(value)}")
    if not 1 <= len(value) <= MAX_PROMPTS:
        raise ClientError(f"{start}: must have 1 to {MAX_PROMPTS} strings, has {len(value)}")
    for i, text in enumerate(value):
        fault = _text_fault(text)
        if fault:
            raise ClientError(f"{start}: {field}[{i}] {fault}")
    return tuple(value)


def whole_number(body: Body, field: str, low: int, default: int) -> int:
    """The integer of at least `low` in `field`; 3.0 counts as 3. Raises `ClientError`."""
    value = body.get(field, _ABSENT)
    if value is _ABSENT:
        return default
    if not _is_number(value) or value != math.floor(value) or value < low:
        raise ClientError(f"Invalid '{field}': must be an integer of at least {low}, is {shown(value)}")
    return int(value)


def number(body: Body, field: str, low: float, high: float, default: float) -> float:
    """The number in [`low`, `high`] in `field`. Raises `ClientError`."""
    value = body.get(field, _ABSENT)
    if value is _ABSENT:
        return default
    if not _is_number(value) or not low <= value <= high:
        allowed = f"a number from {low:g} to {high:g}"
        raise ClientError(f"Invalid '{field}': must be {allowed}, is {shown(value)}")
    return float(value)


def _is_number(value: object) -> bool:
    """True for a finite number; JSON's true and false are none, though Python thinks so."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text_fault(value: object) -> str:
    """What is wrong with a prompt, or an empty text."""
    if value is _ABSENT:
        return "it is missing"
    if not isinstance(value, str):
        return f"must be a string, is {shown(value)}"
    if not value.strip():
        return "must not be blank"
    # A character takes at most 4 bytes, so most prompts need no encoding to be measured.
    if len(value) * 4 > MAX_PROMPT_BYTES and len(value.encode("utf-8", "surrogatepass")) > MAX_PROMPT_BYTES:
        return f"must be at most {MAX_PROMPT_BYTES >> 10} KiB of UTF-8, is longer"
    return ""
