"""What the OpenAPI document is made of: the facts that differ between services, and small builders. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the document says of one service.

    Attributes:
        version: of hailo-clip.
        model: the name of the model served. dimension: of its embeddings.
        max_body_mib: largest request body. request_timeout_s: the service's own deadline.
        keys: whether API keys are asked for. open_metrics: whether /metrics needs none then.
    """

    version: str
    model: str = "clip-resnet-50x4"
    dimension: int = 640
    max_body_mib: int = 20
    request_timeout_s: float = 30.0
    keys: bool = False
    open_metrics: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """One successful answer of an operation.

    Attributes:
        description: when it is given.
        schema: name of its schema; empty for no body. kind: its media type.
        headers: names in `openapi_headers.RESPONSE`.
        examples: values by name; a request example of that name gets such an answer.
    """

    description: str
    schema: str = ""
    kind: str = JSON
    headers: tuple[str, ...] = ()
    examples: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """One form of an operation's body: its media type, its schema, and examples by name (OpenAPI's)."""

    kind: str
    schema: Json
    examples: Mapping[str, Json] = field(default_factory=dict)
    encoding: Json | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        method: in lower case. path: with its parameters in braces. name: its operationId.
        group: the heading it stands under.
        summary: one line. description: the rest, Markdown.
        answers: by status. problems: what else may come, names in `openapi_causes.CAUSES`.
        parameters: OpenAPI's, or references to them. bodies: the forms its body may have.
        shape: the schema of its errors.
        open: it needs no API key.
    """

    method: str
    path: str
    name: str
    group: str
    summary: str
    description: str
    answers: Mapping[int, Answer]
    problems: tuple[str, ...] = ()
    parameters: Sequence[Json] = ()
    bodies: Sequence[Body] = ()
    shape: str = "Problem"
    open: bool = False


def ref(section: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def schema(name: str) -> Json:
    """A reference to a schema."""
    return ref("schemas", name)


def an_object(properties: Json, required: Sequence[str] | None = None, **more: Any) -> Json:
    """The schema of an object; all properties are required unless `required` names those that are."""
    needed = list(properties if required is None else required)
    made: Json = {"type": "object", "properties": properties}
    return {**made, **({"required": needed} if needed else {}), **more}


def an_array(items: Json, least: int, most: int, description: str = "") -> Json:
    """The schema of an array with bounds."""
    made: Json = {"type": "array", "items": items, "minItems": least, "maxItems": most}
    return {**made, "description": description} if description else made


def parameter(name: str, where: str, description: str, kind: Json, **more: Any) -> Json:
    """A parameter; one in the path is required."""
    made: Json = {"name": name, "in": where, "description": description, "schema": kind, **more}
    return {**made, "required": True} if where == "path" else made


def example(summary: str, value: object) -> Json:
    """An OpenAPI example object."""
    return {"summary": summary, "value": value}
