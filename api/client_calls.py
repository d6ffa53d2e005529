"""The calls of the client: each a request, and how its answer is read. No I/O but reading image files.

Both clients send the same calls; what differs is only how they wait.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import orjson

from hailo_clip.api import client_read as read
from hailo_clip.api.client_images import ImageLike, image_bytes
from hailo_clip.api.client_results import (
    Classification,
    Classifications,
    Embedding,
    Embeddings,
    Health,
    LabelSet,
    LabelSetSummary,
    Model,
    Readiness,
)

T = TypeVar("T")

ScoreMode = Literal["cosine", "softmax"]

TEXTS = frozenset(("prompts", "templates", "negative_prompts"))
"""Fields that hold a user's words."""

JSON = "application/json"
FILE = "application/octet-stream"


class Terms(TypedDict, total=False):
    """What every call takes.

    Attributes:
        deadline_s: seconds after which the answer is of no use; the client's own when None.
        request_id: under which the service logs the request, 1 to 128 of letters, digits and ._~:/+=@-;
            a random one when None.
    """

    deadline_s: float | None
    request_id: str | None


class ClassifyOptions(Terms, total=False):
    """What classifying takes besides images and prompts; None leaves it to the service.

    Attributes:
        label_set: the name of a stored set, instead of prompts.
        top_k: how many labels at most, 3 by default.
        threshold: least score, 0 by default.
        score_mode: "cosine" by default, or "softmax".
        templates: such as "a photo of {}"; a prompt's vector is the mean over them.
        negative_prompts: take part in a softmax and are never shown.
    """

    label_set: str | None
    top_k: int | None
    threshold: float | None
    score_mode: ScoreMode | None
    templates: Sequence[str] | None
    negative_prompts: Sequence[str] | None


class LabelSetOptions(Terms, total=False):
    """What storing a label set takes besides its prompts; both as in `ClassifyOptions`."""

    templates: Sequence[str] | None
    negative_prompts: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call.

    Attributes:
        method, path, body, content_type: of the HTTP request.
        read: turns its answer into the result; raises `UnexpectedAnswer`.
        pinned: whether a pinned model fingerprint is asked for.
        answers: statuses that `read` understands; any other is an error.
        patient: whether it may be sent again.
    """

    method: str
    path: str
    read: Callable[[read.Reply], T]
    body: bytes = b""
    content_type: str = ""
    pinned: bool = False
    answers: tuple[int, ...] = (200,)
    patient: bool = True


def parted(options: Mapping[str, Any]) -> tuple[Terms, dict[str, Any]]:
    """The terms among `options`, and the others."""
    terms: Any = {name: options[name] for name in Terms.__optional_keys__ & options.keys()}
    return terms, {name: value for name, value in options.items() if name not in terms}


def classify(image: ImageLike, prompts: Sequence[str] | None = None, **options: Any) -> Call[Classification]:
    """POST /v1/classify with one image: as the body where no texts go along, for URLs end up in logs."""
    fields = _classify_fields(prompts, **options)
    data = image_bytes(image)
    if fields.keys() & TEXTS:
        return _post("/v1/classify", {"image": _base64(data), **fields}, read.classification)
    return Call("POST", f"/v1/classify?{urlencode(fields)}", read.classification, data, FILE, pinned=True)


def classify_many(
    images: Sequence[ImageLike], prompts: Sequence[str] | None = None, **options: Any
) -> Call[Classifications]:
    """POST /v1/classify with a list of images."""
    fields = _classify_fields(prompts, **options)
    return _post("/v1/classify", {"images": _files(images), **fields}, read.classifications)


def embed_image(image: ImageLike) -> Call[Embedding]:
    """POST /v1/embed/image with the image as the body."""
    return Call("POST", "/v1/embed/image", read.embedding, image_bytes(image), FILE, pinned=True)


def embed_images(images: Sequence[ImageLike]) -> Call[Embeddings]:
    """POST /v1/embed/image with a list."""
    return _post("/v1/embed/image", {"images": _files(images)}, read.embeddings)


def embed_text(text: str) -> Call[Embedding]:
    """POST /v1/embed/text."""
    return _post("/v1/embed/text", {"text": _text(text, "text")}, read.embedding)


def embed_texts(texts: Sequence[str]) -> Call[Embeddings]:
    """POST /v1/embed/text with a list."""
    return _post("/v1/embed/text", {"texts": _texts(texts, "texts")}, read.embeddings)


def put_label_set(
    name: str,
    prompts: Sequence[str],
    *,
    templates: Sequence[str] | None = None,
    negative_prompts: Sequence[str] | None = None,
) -> Call[LabelSet]:
    """PUT /v1/label-sets/{name}."""
    given = {"prompts": prompts, "templates": templates, "negative_prompts": negative_prompts}
    data = orjson.dumps(_lists(given))
    return Call("PUT", _label_set_path(name), read.label_set, data, JSON, pinned=True, answers=(200, 201))


def get_label_set(name: str) -> Call[LabelSet]:
    """GET /v1/label-sets/{name}."""
    return Call("GET", _label_set_path(name), read.label_set)


def list_label_sets() -> Call[tuple[LabelSetSummary, ...]]:
    """GET /v1/label-sets."""
    return Call("GET", "/v1/label-sets", read.label_sets)


def delete_label_set(name: str) -> Call[None]:
    """DELETE /v1/label-sets/{name}."""
    return Call("DELETE", _label_set_path(name), read.nothing, answers=(204,))


def models() -> Call[tuple[Model, ...]]:
    """GET /v1/models."""
    return Call("GET", "/v1/models", read.models)


def health() -> Call[Health]:
    """GET /health: what is asked is how things are, so 503 is an answer and nothing is sent again."""
    return Call("GET", "/health", read.health, answers=(200, 503), patient=False)


def ready() -> Call[Readiness]:
    """GET /readyz?verbose, on the same terms as `health`."""
    return Call("GET", "/readyz?verbose=true", read.readiness, answers=(200, 503), patient=False)


def _post(path: str, body: dict[str, Any], reader: Callable[[read.Reply], T]) -> Call[T]:
    try:
        data = orjson.dumps(body)
    except TypeError as e:  # such as an integer of more than 64 bits
        raise ValueError(f"this can't be sent as JSON: {e}") from None
    return Call("POST", path, reader, data, JSON, pinned=True)


def _classify_fields(
    prompts: Sequence[str] | None,
    *,
    label_set: str | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    score_mode: ScoreMode | None = None,
    templates: Sequence[str] | None = None,
    negative_prompts: Sequence[str] | None = None,
) -> dict[str, Any]:
    lists = {"prompts": prompts, "templates": templates, "negative_prompts": negative_prompts}
    rest = {"label_set": label_set, "top_k": top_k, "threshold": threshold, "score_mode": score_mode}
    return _lists(lists) | {field: value for field, value in rest.items() if value is not None}


def _lists(given: Mapping[str, Sequence[str] | None]) -> dict[str, list[str]]:
    """Those that are given, by field."""
    return {field: _texts(texts, field) for field, texts in given.items() if texts is not None}


def _texts(texts: Sequence[str], field: str) -> list[str]:
    """`texts` as a list; a string alone would be taken for a list of its letters."""
    if isinstance(texts, str):
        raise TypeError(f"{field} must be a list of strings, is the string {texts[:40]!r}")
    return [_text(text, field) for text in texts]


def _text(text: str, field: str) -> str:
    """`text`, which must be sendable: half a surrogate pair is what undecodable bytes become in Python."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field} has a text that is not valid Unicode: {text[:40]!a}") from None
    return text


def _files(images: Sequence[ImageLike]) -> list[str]:
    return [_base64(image_bytes(image)) for image in images]


def _label_set_path(name: str) -> str:
    if not name.strip("."):  # "", "." and ".." would name another place in a URL
        raise ValueError(f"a label set can't be named {name!r}")
    return f"/v1/label-sets/{quote(name, safe='')}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
