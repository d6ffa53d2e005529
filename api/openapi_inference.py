"""The endpoints that embed and classify, as the OpenAPI document describes them. Pure."""

from __future__ import annotations

from hailo_clip.api import openapi_examples as examples
from hailo_clip.api.openapi_causes import INFERENCE
from hailo_clip.api.openapi_headers import ON_INFERENCE, ON_REQUEST
from hailo_clip.api.openapi_parts import JSON, Answer, Body, Facts, Json, Operation, parameter, schema
from hailo_clip.api.openapi_schemas import CLASSIFY_FORM, EMBED_FORM, FILE, OPTIONS

FORM = "multipart/form-data"
FILES = ("image/*", "application/octet-stream")
GROUP = "Images and texts"

REPEATED: Json = {
    name: {"style": "form", "explode": True} for name, kind in OPTIONS.items() if kind["type"] == "array"
}
"""How lists are written in a form: a part for each entry."""

_IN_QUERY = "Only with an image as the body. "
_EXAMPLES: dict[str, Json] = {
    "prompts": {"file": {"value": examples.PROMPTS}},
    "top_k": {"file": {"value": 2}},
}

QUERY = tuple(
    parameter(
        name,
        "query",
        _IN_QUERY + ("Repeat it for several. " if kind["type"] == "array" else "") + kind["description"],
        {k: v for k, v in kind.items() if k != "description"},
        **({"style": "form", "explode": True} if kind["type"] == "array" else {}),
        **({"examples": _EXAMPLES[name]} if name in _EXAMPLES else {}),
    )
    for name, kind in OPTIONS.items()
)
"""The options of a classification in the query."""


def operations(facts: Facts) -> tuple[Operation, ...]:
    """All of them."""
    return (*_classify(), *_embed(), _openai(facts))


def _classify() -> tuple[Operation, ...]:
    return (
        Operation(
            "post",
            "/v1/classify",
            "classify",
            GROUP,
            "Which prompts fit an image best",
            "Compares one image, or each of a list, with prompts or with a stored label set. The image "
            "comes as "
            "base64 in JSON, as a file in a form, or alone as the body with all other fields in the query. "
            "A bad "
            "image in a list does not fail the others. Equal scores keep the prompts' order.",
            {
                200: Answer(
                    "The best prompts; `results` when `images` were given.",
                    "ClassifyAnswer",
                    headers=ON_INFERENCE,
                    examples=examples.CLASSIFY_ANSWERS,
                )
            },
            (*INFERENCE, "label-set"),
            (*ON_REQUEST, *QUERY),
            (
                Body(JSON, schema("ClassifyRequest"), examples.CLASSIFY),
                Body(FORM, CLASSIFY_FORM, encoding=REPEATED),
                *(Body(kind, FILE, examples.FILE) for kind in FILES),
            ),
        ),
    )


def _embed() -> tuple[Operation, ...]:
    described = "The embedding, of length 1; `results` when a list was given."
    answer = Answer(described, "EmbedAnswer", headers=ON_INFERENCE)
    return (
        Operation(
            "post",
            "/v1/embed/image",
            "embedImage",
            GROUP,
            "The embedding of an image",
            "Of one image, or of each in a list. The image comes as base64 in JSON, as a file in a form, or "
            "alone as "
            "the body. A bad image in a list does not fail the others.",
            {200: answer},
            INFERENCE,
            ON_REQUEST,
            (
                Body(JSON, schema("EmbedImageRequest"), examples.EMBED_IMAGE),
                Body(FORM, EMBED_FORM),
                *(Body(kind, FILE, examples.FILE) for kind in FILES),
            ),
        ),
        Operation(
            "post",
            "/v1/embed/text",
            "embedText",
            GROUP,
            "The embedding of a text",
            "Of one text, or of each in a list. Embeddings of texts that were asked for before come from a "
            "cache.",
            {200: answer},
            INFERENCE,
            ON_REQUEST,
            (Body(JSON, schema("EmbedTextRequest"), examples.EMBED_TEXT),),
        ),
    )


def _openai(facts: Facts) -> Operation:
    return Operation(
        "post",
        "/v1/embeddings",
        "embeddings",
        GROUP,
        "Embeddings as OpenAI's clients ask for them",
        "Texts and images, in OpenAI's shapes; its errors too. One that fails fails the request. Where "
        "OpenAI's API "
        "has no words for images they are written as in its chat messages.",
        {200: Answer("One embedding an input.", "EmbeddingsAnswer", headers=ON_INFERENCE)},
        ("parameter", "model", *(cause for cause in INFERENCE if cause != "field")),
        ON_REQUEST,
        (Body(JSON, schema("EmbeddingsRequest"), examples.embeddings(facts)),),
        shape="OpenAIProblem",
    )
