"""The body of POST /v1/embeddings to a typed request. Pure.

OpenAI's API knows strings and lists of tokens; tokens of another model's tokenizer mean nothing here. What
it has no words for, images, is written as in its chat messages: a content part with a data URI, or in short
the data URI alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hailo_clip.api.body import shown
from hailo_clip.api.fields import MAX_IMAGES, MAX_PROMPT_BYTES, Body, Picture, text_fault
from hailo_clip.api.openai_errors import InvalidParameter, ModelNotFound

MAX_INPUTS = 256

FLOAT = "float"
BASE64 = "base64"

_IMAGE = "data:image/"
_REMOTE = ("http://", "https://")
_FORMS = 'a string, {"type": "text", "text": ...} or {"type": "image_url", "image_url": {"url": "data:..."}}'
_TOKENS = "token ids are not taken, those of another model mean nothing to this one; send text"


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """POST /v1/embeddings: texts and images in the client's order, and how it wants their vectors."""

    inputs: tuple[str | Picture, ...]
    encoding: str = FLOAT


def embeddings_request(body: Body, model: str, dimension: int) -> EmbeddingsRequest:
    """`body` of a request to the service that serves `model`, whose embeddings are `dimension` long.

    Raises:
        InvalidParameter: 400, or 404 when another model is asked for.
    """
    _check_model(body.get("model"), model)
    inputs = _inputs(body.get("input"))
    _check_dimensions(body.get("dimensions"), dimension)
    encoding = body.get("encoding_format")
    if encoding not in (None, FLOAT, BASE64):
        fault = f'must be "{FLOAT}" or "{BASE64}", is {shown(encoding)}'
        raise InvalidParameter(f"Invalid 'encoding_format': {fault}", "encoding_format")
    return EmbeddingsRequest(inputs, encoding or FLOAT)


def _check_model(wanted: object, served: str) -> None:
    if not isinstance(wanted, str):
        found = "it is missing" if wanted is None else f"must be a string, is {shown(wanted)}"
        raise InvalidParameter(f"Missing or invalid 'model': {found}; this service has {served!r}", "model")
    if wanted != served:
        fault = f"The model {wanted[:64]!r} is not served here; this service has {served!r}"
        raise ModelNotFound(fault, "model")


def _check_dimensions(wanted: object, dimension: int) -> None:
    if wanted is not None and (isinstance(wanted, bool) or wanted != dimension):
        fault = f"embeddings of this model have {dimension} and are not cut, is {shown(wanted)}"
        raise InvalidParameter(f"Invalid 'dimensions': {fault}", "dimensions")


def _inputs(value: object) -> tuple[str | Picture, ...]:
    if value is None:
        raise _fault("input", "it is missing")
    if not isinstance(value, list):
        return (_input(value, "input"),)
    if not 1 <= len(value) <= MAX_INPUTS:
        raise _fault("input", f"must have 1 to {MAX_INPUTS} entries, has {len(value)}")
    if _is_token(value[0]):
        raise _fault("input", _TOKENS)
    inputs = tuple(_input(entry, f"input[{i}]") for i, entry in enumerate(value))
    images = sum(isinstance(entry, Picture) for entry in inputs)
    if images > MAX_IMAGES:
        raise _fault("input", f"must have at most {MAX_IMAGES} images, has {images}")
    return inputs


def _input(value: object, field: str) -> str | Picture:
    match value:
        case str() if value[: len(_IMAGE)].lower() == _IMAGE:
            return Picture(field, base64=value)
        case str():
            return _text(value, field)
        case {"type": "text", **part}:
            return _text(part.get("text"), f"{field}.text")
        case {"type": "image_url", **part}:
            return _image(part.get("image_url"), f"{field}.image_url")
        case list() if value and all(map(_is_token, value)):
            raise _fault(field, _TOKENS)
        case _:
            raise _fault(field, f"must be {_FORMS}; is {shown(value)}")


def _text(value: object, field: str) -> str:
    fault = text_fault(value)
    if isinstance(value, str) and len(value) > MAX_PROMPT_BYTES:
        fault += "; an image must be a data URI (data:image/...;base64,...)"
    if fault:
        raise _fault(field, fault)
    return str(value)


def _image(value: object, field: str) -> Picture:
    url: Any = value.get("url") if isinstance(value, dict) else None
    if not isinstance(url, str):
        raise _fault(field, 'must be {"url": "data:image/...;base64,..."}, is ' + shown(value))
    start = url[: len(_IMAGE)].lower()
    if start.startswith(_REMOTE):
        raise _fault(f"{field}.url", "URLs are not fetched; send the image itself as a data URI")
    if start != _IMAGE:
        raise _fault(f"{field}.url", f"must be a data URI that starts with {_IMAGE!r}, is {shown(url)}")
    return Picture(f"{field}.url", base64=url)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fault(field: str, what: str) -> InvalidParameter:
    return InvalidParameter(f"Missing or invalid '{field}': {what}", "input")
