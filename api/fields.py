"""The checks on single fields of a request; pure, and shared by all endpoints.

Every deviation is a `ClientError` that names the field, what was found and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hailo_clip.api.body import shown
from hailo_clip.shared.errors import ClientError

MAX_PROMPTS = 256
MAX_PROMPT_BYTES = 16 << 10
MAX_IMAGES = 64
MAX_TEMPLATES = 100

Body = Mapping[str, Any]
"""A request's fields by name: JSON values, or bytes where a file was sent."""

ABSENT = object()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it came: exactly one of `base64` (a data URI or bare) and `data` (the file's bytes).

    `field` is what the client calls it, for error messages.
    """

    field: str
    base64: str | None = None
    data: bytes | None = None


def picture(body: Body, field: str) -> Picture:
    """The image in `field`; whether it decodes is found out later. Raises `ClientError`."""
    value = body.get(field, ABSENT)
    if value is ABSENT:
        raise ClientError(f"Missing or invalid '{field}': it is missing")
    return _picture(value, field)


def pictures(body: Body, field: str) -> tuple[Picture, ...]:
    """The non-empty list of images in `field`. Raises `ClientError`."""
    values = _array(body, field, MAX_IMAGES, "images in base64")
    return tuple(_picture(value, f"{field}[{i}]") for i, value in enumerate(values))


def _picture(value: object, field: str) -> Picture:
    start = f"Missing or invalid '{field}'"
    if isinstance(value, bytes):
        if not value:
            raise ClientError(f"{start}: must be an image file, is empty")
        return Picture(field, data=value)
    if not isinstance(value, str):
        raise ClientError(f"{start}: must be a base64 string, is {shown(value)}")
    if not value.strip():
        raise ClientError(f"{start}: must be a base64 string, is empty")
    return Picture(field, base64=value)


def text(body: Body, field: str) -> str:
    """The text in `field`, not blank. Raises `ClientError`."""
    value = body.get(field, ABSENT)
    fault = text_fault(value)
    if fault:
        raise ClientError(f"Missing or invalid '{field}': {fault}")
    return str(value)


def prompts(body: Body, field: str) -> tuple[str, ...]:
    """The non-empty list of prompts in `field`; duplicates are fine. Raises `ClientError`."""
    values = _array(body, field, MAX_PROMPTS)
    for i, value in enumerate(values):
        fault = text_fault(value)
        if fault:
            raise ClientError(f"Missing or invalid '{field}' array: {field}[{i}] {fault}")
    return tuple(values)


def templates(body: Body, field: str) -> tuple[str, ...]:
    """The list of templates in `field`, each with one ``{}``; empty when absent. Raises `ClientError`."""
    if field not in body:
        return ()
    values = _array(body, field, MAX_TEMPLATES)
    for i, value in enumerate(values):
        fault = text_fault(value)
        if not fault and value.count("{}") != 1:
            fault = f"must hold {{}} once, for the prompt, holds it {value.count('{}')} times"
        if fault:
            raise ClientError(f"Missing or invalid '{field}' array: {field}[{i}] {fault}")
    return tuple(values)


def whole_number(body: Body, field: str, low: int, default: int) -> int:
    """The integer of at least `low` in `field`; 3.0 counts as 3. Raises `ClientError`."""
    value = body.get(field, ABSENT)
    if value is ABSENT:
        return default
    if not _is_number(value) or value != math.floor(value) or value < low:
        raise ClientError(f"Invalid '{field}': must be an integer of at least {low}, is {shown(value)}")
    return int(value)


def number(body: Body, field: str, low: float, high: float, default: float) -> float:
    """The number in [`low`, `high`] in `field`. Raises `ClientError`."""
    value = body.get(field, ABSENT)
    if value is ABSENT:
        return default
    if not _is_number(value) or not low <= value <= high:
        allowed = f"a number from {low:g} to {high:g}"
        raise ClientError(f"Invalid '{field}': must be {allowed}, is {shown(value)}")
    return float(value)


def choice(body: Body, field: str, allowed: tuple[str, ...]) -> str:
    """One of `allowed` in `field`; the first one when absent. Raises `ClientError`."""
    value = body.get(field, ABSENT)
    if value is ABSENT:
        return allowed[0]
    if value not in allowed:
        words = " or ".join(f'"{word}"' for word in allowed)
        raise ClientError(f"Invalid '{field}': must be {words}, is {shown(value)}")
    return str(value)


def not_both(body: Body, one: str, other: str) -> None:
    """Refuse a body that has two fields of which one excludes the other. Raises `ClientError`."""
    if one in body and other in body:
        raise ClientError(f"Invalid '{other}': give '{one}' or '{other}', not both")


def text_fault(value: object) -> str:
    """What is wrong with a prompt, or an empty text."""
    if value is ABSENT:
        return "it is missing"
    if not isinstance(value, str):
        return f"must be a string, is {shown(value)}"
    if not value.strip():
        return "must not be blank"
    # A character takes at most 4 bytes, so most prompts need no encoding to be measured.
    if len(value) * 4 > MAX_PROMPT_BYTES and len(value.encode("utf-8", "surrogatepass")) > MAX_PROMPT_BYTES:
        return f"must be at most {MAX_PROMPT_BYTES >> 10} KiB of UTF-8, is longer"
    return ""


def _array(body: Body, field: str, most: int, of: str = "strings") -> list[Any]:
    value = body.get(field, ABSENT)
    start = f"Missing or invalid '{field}' array"
    if value is ABSENT:
        raise ClientError(start)
    if not isinstance(value, list):
        raise ClientError(f"{start}: must be an array of 1 to {most} {of}, is {shown(value)}")
    if not 1 <= len(value) <= most:
        raise ClientError(f"{start}: must have 1 to {most} {of}, has {len(value)}")
    return value


def _is_number(value: Any) -> bool:
    """True for a finite number; JSON's true and false are none, though Python thinks so."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
