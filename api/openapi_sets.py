"""The endpoints of label sets, as the OpenAPI document describes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hailo_clip.api import openapi_examples as examples
from hailo_clip.api.openapi_causes import INFERENCE
from hailo_clip.api.openapi_headers import ON_INFERENCE, ON_REQUEST
from hailo_clip.api.openapi_parts import JSON, Answer, Body, Operation, parameter, ref, schema
from hailo_clip.api.openapi_schemas import NAME

GROUP = "Label sets"
PATH = "/v1/label-sets"
NAMED = PATH + "/{name}"

_NAME = parameter("name", "path", "The label set's name.", NAME, examples={"ppe": {"value": "ppe"}})
_ASKED = (ref("parameters", "RequestId"), ref("parameters", "Deadline"))
_BROKER = ("field", "queue-full", "starting", "deadline")


def operations() -> tuple[Operation, ...]:
    """All of them."""
    stored = {"ppe": examples.label_set_answer()}
    return (
        Operation(
            "get",
            PATH,
            "listLabelSets",
            GROUP,
            "All label sets",
            "Names and sizes, by name. With API keys a tenant sees its own sets; without, all clients share "
            "them.",
            {200: Answer("The sets.", "LabelSets", examples=examples.LABEL_SETS)},
            _BROKER,
            _ASKED,
        ),
        Operation(
            "put",
            NAMED,
            "putLabelSet",
            GROUP,
            "Store a label set",
            "Embeds prompts, in templates or not, and negative prompts once and keeps them, across restarts "
            "too; "
            "`label_set` in a classification names them. Replaces a set of that name. After a change of the "
            "model "
            "a set is embedded again when it is next used.",
            {
                200: Answer(
                    "It replaced one of that name.", "LabelSet", "application/json", ON_INFERENCE, stored
                ),
                201: Answer("It is new.", "LabelSet", "application/json", ON_INFERENCE, stored),
            },
            (*INFERENCE, "many-sets", "not-stored"),
            (_NAME, *ON_REQUEST),
            (Body(JSON, schema("LabelSetRequest"), examples.LABEL_SET),),
        ),
        _one(
            "get",
            "getLabelSet",
            "A label set",
            "Its definition, and the model that embedded it.",
            {200: Answer("The set.", "LabelSet", examples=stored)},
        ),
        _one(
            "delete",
            "deleteLabelSet",
            "Forget a label set",
            "It can't be used any more.",
            {204: Answer("It is gone.")},
            "not-stored",
        ),
    )


def _one(
    method: str, name: str, summary: str, description: str, answers: Mapping[int, Answer], *more: str
) -> Operation:
    causes = (*_BROKER, "label-set", *more)
    return Operation(method, NAMED, name, GROUP, summary, description, answers, causes, (_NAME, *_ASKED))
