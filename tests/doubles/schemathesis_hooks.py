"""What schemathesis must know to make requests that the API's description can't put into a schema.

- what an image is: strings of the formats "image" and "image-uri", and bodies that are files;
- the query of a classification counts only where the body is a file, and then it must hold what is compared;
- deadlines that no answer can keep.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis.core.parameters import ParameterLocation
from schemathesis.transport.serialization import Binary

from hailo_clip.api.validation import MAX_TEXTS

CLASSIFY = "/v1/classify"
LISTS = ("prompts", "negative_prompts", "templates")
PATIENCE_MS = 20_000
FORM = "multipart/form-data"
Case = schemathesis.Case[Any]

FILE_KINDS = ("image/*", "application/octet-stream")


def files() -> list[bytes]:
    """Small image files of every format."""
    made = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        out = io.BytesIO()
        Image.new("RGB", (5, 3), "teal").save(out, kind)
        made.append(out.getvalue())
    return made


IMAGES = files()
FILES = st.sampled_from(IMAGES)
URIS = FILES.map(lambda data: "data:image/*;base64," + base64.b64encode(data).decode())
PLAIN = FILES.map(lambda data: base64.b64encode(data).decode())

schemathesis.openapi.format("image", PLAIN | URIS)
schemathesis.openapi.format("image-uri", URIS)
schemathesis.openapi.format("binary", FILES.map(Binary))
for _kind in FILE_KINDS:
    schemathesis.openapi.media_type(_kind, FILES)


@schemathesis.deserializer("text/html")
def html(context: Any, response: schemathesis.Response) -> str:
    """A page, for its schema: a string."""
    return response.text


@schemathesis.hook
def before_call(context: Any, case: Case, kwargs: dict[str, Any]) -> None:
    """A deadline of milliseconds is rightly answered by 504, and checks take that for the server's fault."""
    given = str(case.headers.get("X-Deadline-Ms", ""))
    if given.isdigit() and 0 < int(given) < PATIENCE_MS:
        case.headers["X-Deadline-Ms"] = str(PATIENCE_MS)


@schemathesis.hook
def filter_case(context: Any, case: Case) -> bool:
    """Leave out what is wrong by the schema and rightly not looked at.

    A query beside a body that is no file; lists with wrong images, each of which is its own error and not the
    request's; and in forms, where all is text, values of other types.
    """
    if is_wrong(case, ParameterLocation.BODY):
        images = case.body.get("images") if isinstance(case.body, dict) else None
        if isinstance(images, list):
            return not all(isinstance(image, str) for image in images)
        if case.media_type == FORM:
            return isinstance(case.body, dict) and "images" not in case.body
    if too_many_texts(case.body) or too_many_texts(case.query):
        return False
    return case.path != CLASSIFY or is_file(case) or not is_wrong(case, ParameterLocation.QUERY)


@schemathesis.hook
def map_case(context: Any, case: Case) -> Case:
    """Give forms, and the query beside a file, fields that can stand together; empty other queries."""
    if case.path == CLASSIFY and not is_wrong(case, ParameterLocation.QUERY):
        case.query = meaningful(dict(case.query or {})) if is_file(case) else {}
    if case.media_type == FORM and isinstance(case.body, dict) and not is_wrong(case, ParameterLocation.BODY):
        body = meaningful(case.body) if case.path == CLASSIFY else case.body
        if "images" in body:
            body = {k: v for k, v in body.items() if k != "image"}
        elif "image" not in body:
            body = {**body, "image": Binary(IMAGES[0])}
        case.body = body
        # Else what was changed here is judged anew, and whatever has files is found wrong.
        case._record_starting_state()
    return case


def is_file(case: Case) -> bool:
    """Whether the body is an image file."""
    return (case.media_type or "").startswith(("image/", "application/octet-stream"))


def is_wrong(case: Case, where: ParameterLocation) -> bool:
    """Whether something there is meant to be refused."""
    return case.meta is not None and case.meta.is_negative_at(where)


def too_many_texts(fields: object) -> bool:
    """Whether prompts times templates are more than may be."""
    if not isinstance(fields, dict):
        return False
    count = {k: len(v) if isinstance(v := fields.get(k), list) else 0 for k in LISTS}
    return (count["prompts"] + count["negative_prompts"]) * max(1, count["templates"]) > MAX_TEXTS


def meaningful(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields`, less or more than they are, so that they can stand together."""
    if "label_set" in fields and "prompts" not in fields:
        return {k: v for k, v in fields.items() if k not in ("prompts", "templates", "negative_prompts")}
    softmax = {"score_mode": "softmax"} if "negative_prompts" in fields else {}
    others = {k: v for k, v in fields.items() if k != "label_set"}
    return {"prompts": ["a cat"], **others, **softmax}
