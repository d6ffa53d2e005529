"""Request bodies to typed requests; pure, and the only place that knows which fields an endpoint takes.

Keys that an endpoint does not know are ignored: clients of the specification may send more than it names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hailo_clip.api import fields
from hailo_clip.api.body import shown
from hailo_clip.api.fields import Body, Picture
from hailo_clip.shared.errors import ClientError

MAX_TEXTS = 1024
"""Most texts that prompts, negative prompts and templates may come to in one request."""

LABEL_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

DEFAULT_TOP_K = 3
DEFAULT_THRESHOLD = 0.0

COSINE = "cosine"
SOFTMAX = "softmax"


@dataclass(frozen=True, slots=True)
class Labels:
    """What an image is compared with.

    Attributes:
        prompts: 1 or more.
        templates: each with one ``{}``; none means that the prompts stand for themselves.
        negatives: prompts that take part in a softmax and are never shown.
    """

    prompts: tuple[str, ...]
    templates: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """POST /v1/classify.

    Attributes:
        pictures: 1 or more; `many`: they came as a list, and the answer is one.
        labels: given in the request, or the name of a stored label set.
        top_k: at least 1, may exceed the prompts. threshold: in [0, 1].
        score_mode: `COSINE` or `SOFTMAX`.
    """

    pictures: tuple[Picture, ...]
    labels: Labels | str
    many: bool = False
    top_k: int = DEFAULT_TOP_K
    threshold: float = DEFAULT_THRESHOLD
    score_mode: str = COSINE


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """POST /v1/embed/image. `many`: the pictures came as a list, and the answer is one."""

    pictures: tuple[Picture, ...]
    many: bool = False


@dataclass(frozen=True, slots=True)
class TextRequest:
    """POST /v1/embed/text. `many`: the texts came as a list, and the answer is one."""

    texts: tuple[str, ...]
    many: bool = False


def classify_request(body: Body) -> ClassifyRequest:
    """`body` of POST /v1/classify. Raises `ClientError`."""
    wanted = image_request(body)
    mode = fields.choice(body, "score_mode", (COSINE, SOFTMAX))
    labels = _label_set(body) if "label_set" in body else labels_of(body)
    if isinstance(labels, Labels) and labels.negatives and mode != SOFTMAX:
        raise ClientError(
            "Invalid 'negative_prompts': they only change softmax scores; set 'score_mode' to \"softmax\""
        )
    return ClassifyRequest(
        pictures=wanted.pictures,
        labels=labels,
        many=wanted.many,
        top_k=fields.whole_number(body, "top_k", 1, DEFAULT_TOP_K),
        threshold=fields.number(body, "threshold", 0.0, 1.0, DEFAULT_THRESHOLD),
        score_mode=mode,
    )


def image_request(body: Body) -> ImageRequest:
    """`body` of POST /v1/embed/image. Raises `ClientError`."""
    fields.not_both(body, "image", "images")
    if "images" in body:
        return ImageRequest(fields.pictures(body, "images"), many=True)
    return ImageRequest((fields.picture(body, "image"),))


def text_request(body: Body) -> TextRequest:
    """`body` of POST /v1/embed/text. Raises `ClientError`."""
    fields.not_both(body, "text", "texts")
    if "texts" in body:
        return TextRequest(fields.prompts(body, "texts"), many=True)
    return TextRequest((fields.text(body, "text"),))


def labels_of(body: Body) -> Labels:
    """Prompts, templates and negative prompts. Raises `ClientError`."""
    prompts = fields.prompts(body, "prompts")
    templates = fields.templates(body, "templates")
    negatives = fields.prompts(body, "negative_prompts") if "negative_prompts" in body else ()
    count = (len(prompts) + len(negatives)) * max(1, len(templates))
    if count > MAX_TEXTS:
        raise ClientError(
            f"Invalid 'templates': {len(prompts) + len(negatives)} prompts in {len(templates)} templates "
            f"are {count} texts, at most {MAX_TEXTS} are allowed"
        )
    return Labels(prompts, templates, negatives)


def label_set_name(value: object, field: str = "label_set") -> str:
    """The name of a label set. Raises `ClientError`."""
    if not isinstance(value, str) or not LABEL_SET_NAME.fullmatch(value):
        allowed = "1 to 64 letters, digits, '.', '_' and '-', the first one a letter or digit"
        raise ClientError(f"Invalid '{field}': must be {allowed}; is {shown(value)}")
    return value


def _label_set(body: Body) -> str:
    for other in ("prompts", "templates", "negative_prompts"):
        fields.not_both(body, "label_set", other)
    return label_set_name(body["label_set"])
