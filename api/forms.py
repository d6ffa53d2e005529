"""Fields that come in a form or a query instead of JSON; pure.

They are text, so what they mean follows from their names: a field that is a list in JSON is repeated, a
number is written as in JSON. What comes out is judged like any JSON object.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import falcon
import orjson
from falcon.media.multipart import MultipartForm, MultipartParseOptions

from hailo_clip.shared.errors import ClientError

LISTS = frozenset(("images", "prompts", "templates", "negative_prompts"))
NUMBERS = frozenset(("top_k", "threshold"))
SINGLES = NUMBERS | {"image", "label_set", "score_mode"}
FILE_TYPES = ("image/", "application/octet-stream")
"""Media types of parts that are files, also without a file's name."""

MAX_PARTS = 1024
MAX_PART_HEADER_BYTES = 8 << 10


def file_fields(data: bytes, query: str) -> dict[str, Any]:
    """The fields of a request whose body is an image file and whose other fields are in its query.

    Raises:
        ClientError: the query is no list of fields.
    """
    return fields_of([*query_pairs(query), ("image", data)])


def form_fields(data: bytes, content_type: str) -> dict[str, Any]:
    """The fields of a multipart/form-data body; parts with a file name are files, others are text.

    Raises:
        ClientError: it is not valid, or has too many parts.
    """
    boundary = falcon.parse_header(content_type)[1].get("boundary", "")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, section 5.1.1
        raise ClientError("The multipart body's Content-Type must name a boundary of 1 to 70 characters")
    options = MultipartParseOptions()
    options.max_body_part_count = MAX_PARTS
    options.max_body_part_buffer_size = len(data)
    options.max_body_part_headers_size = MAX_PART_HEADER_BYTES
    try:
        form = MultipartForm(io.BytesIO(data), boundary.encode(), len(data), options)
        return fields_of(_parts(form))
    except falcon.HTTPError as e:
        raise ClientError(f"The multipart body is not valid: {e.description or e.title}") from e
    except UnicodeDecodeError:
        raise ClientError("The multipart body is not valid: a part's headers are not ASCII") from None


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Names and values of a query string. Raises `ClientError`."""
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARTS)
    except UnicodeDecodeError:
        raise ClientError("The query must be percent-encoded UTF-8") from None
    except ValueError:
        raise ClientError(f"The query must have at most {MAX_PARTS} fields") from None


def fields_of(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, Any]:
    """Values by name: lists for `LISTS`, numbers for `NUMBERS` where they are some.

    Fields that no endpoint knows may come as often as they like: they are ignored anyway.

    Raises:
        ClientError: one of `SINGLES` is given twice.
    """
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in LISTS:
            fields.setdefault(name, []).append(value)
        elif name in SINGLES and name in fields:
            more = "; for several images, name them 'images'" if name == "image" else ""
            raise ClientError(f"Invalid '{name}': it is given more than once{more}")
        else:
            fields[name] = _number(value) if name in NUMBERS else value
    return fields


def _parts(form: MultipartForm) -> Iterator[tuple[str, str | bytes]]:
    for part in form:
        name = part.name
        if name is None:
            raise ClientError("The multipart body has a part without a name")
        data = part.get_data()
        # Clients that send a file from memory may leave its name out, but not its media type.
        if part.filename is not None or part.content_type.lower().startswith(
            ("image/", "application/octet-stream")
        ):
            yield name, data
        else:
            yield name, _text(name, data)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ClientError(f"Invalid '{name[:40]}': must be UTF-8") from None


def _number(value: str | bytes) -> object:
    """The JSON number in `value`, else `value` itself, for the check that follows to refuse."""
    try:
        number = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return number if isinstance(number, (int, float)) and not isinstance(number, bool) else value
