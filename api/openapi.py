"""The OpenAPI 3.1 document of a service, put together from openapi_*.py. Pure.

One source for three readers: /openapi.json, the page at /docs, and docs/api.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from hailo_clip.api import openapi_inference, openapi_sets, openapi_status
from hailo_clip.api.openapi_answers import answers
from hailo_clip.api.openapi_causes import Cause, causes
from hailo_clip.api.openapi_headers import RESPONSE, headers, parameters
from hailo_clip.api.openapi_parts import JSON, Answer, Body, Facts, Json, Operation, ref, schema
from hailo_clip.api.openapi_schemas import requests
from hailo_clip.shared.errors import FingerprintConflict

INFO = (
    "CLIP on a Hailo-10H as a REST service: images and sentences in, best sentence or embedding out.\n\n"
    'Keys that a body has beyond those described are ignored. Errors are JSON, `{"error": "..."}`, and name '
    "the field, what is wrong with it and what is allowed; those of /v1/embeddings have OpenAI's shape. "
    "Images by "
    "URL are not fetched: a service that fetches what strangers name reads its own network for them."
)

RESPONDERS = ("options", "head")
"""Methods that every path has, or every path with GET, without being described."""


def operations(facts: Facts) -> tuple[Operation, ...]:
    """Every endpoint of the service."""
    return (
        *openapi_inference.operations(facts),
        *openapi_sets.operations(),
        *openapi_status.operations(facts),
    )


def document(facts: Facts) -> Json:
    """The whole document."""
    shared = _Responses(facts)
    paths: Json = {}
    groups: dict[str, None] = {}
    for operation in operations(facts):
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, shared, facts)
        groups[operation.group] = None
    security: Json = {"security": [{"bearer": []}, {"header": []}]} if facts.keys else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hailo-clip",
            "version": facts.version,
            "description": INFO,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": group} for group in groups],
        **security,
        "paths": paths,
        "components": {
            "schemas": {**requests(facts), **answers(facts)},
            "parameters": parameters(facts),
            "headers": RESPONSE,
            "responses": dict(sorted(shared.made.items())),
            **({"securitySchemes": _SCHEMES} if facts.keys else {}),
        },
    }


_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer hc_...`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`X-API-Key: hc_...`"},
}


class _Responses:
    """The answers that say that something went wrong; equal ones are written once."""

    def __init__(self, facts: Facts) -> None:
        self._facts, self._causes = facts, causes(facts)
        self._names: dict[tuple[str, ...], str] = {}
        self.made: Json = {}

    def of(self, operation: Operation) -> dict[int, list[Cause]]:
        """What may go wrong with a request, by status."""
        wanted = set(operation.problems)
        if self._facts.keys and not operation.open:
            wanted.add("key")
        found: dict[int, list[Cause]] = {}
        for cause in self._causes:
            if cause.everywhere or cause.name in wanted:
                found.setdefault(cause.status, []).append(cause)
        return found

    def reference(self, status: int, found: list[Cause], shape: str) -> Json:
        """A reference to the answer for these causes."""
        key = (shape, *(cause.name for cause in found))
        if key not in self._names:
            base = HTTPStatus(status).phrase.replace(" ", "").replace("-", "")
            taken = sum(name.startswith(base) for name in self.made)
            self._names[key] = base + (str(taken + 1) if taken else "")
            self.made[self._names[key]] = problem(status, found, shape)
        return ref("responses", self._names[key])


def problem(status: int, found: Iterable[Cause], shape: str) -> Json:
    """The answer of one status, with an example for each of its causes."""
    found = tuple(found)
    more = {401: ("WWWAuthenticate",), 429: ("RetryAfter",), 503: ("RetryAfter",)}.get(status, ())
    if status == FingerprintConflict.http_status and shape == "OpenAIProblem":
        more = ("ShouldRetry",)
    shown = {cause.name: {"summary": cause.when, "value": cause.body(shape)} for cause in found}
    return {
        "description": " Or: ".join(cause.when for cause in found),
        "headers": headers(*more),
        "content": {JSON: {"schema": schema(shape), "examples": shown}},
    }


def _operation(operation: Operation, shared: _Responses, facts: Facts) -> Json:
    problems = shared.of(operation)
    responses = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    for status, found in problems.items():
        if status in operation.answers:
            responses[str(status)] = _either(responses[str(status)], problem(status, found, operation.shape))
        else:
            responses[str(status)] = shared.reference(status, found, operation.shape)
    made: Json = {
        "operationId": operation.name,
        "tags": [operation.group],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": list(operation.parameters),
        "responses": dict(sorted(responses.items())),
    }
    if operation.bodies:
        made["requestBody"] = {"required": True, "content": {b.kind: _body(b) for b in operation.bodies}}
    if facts.keys and operation.open:
        made["security"] = []
    return made


def _body(body: Body) -> Json:
    made: Json = {"schema": body.schema}
    if body.examples:
        made["examples"] = dict(body.examples)
    if body.encoding:
        made["encoding"] = body.encoding
    return made


def _answer(answer: Answer) -> Json:
    made: Json = {"description": answer.description, "headers": headers(*answer.headers)}
    if answer.schema:
        content: Json = {"schema": schema(answer.schema)}
        if answer.examples:
            content["examples"] = dict(answer.examples)
        made["content"] = {answer.kind: content}
    return made


def _either(answer: Json, other: Json) -> Json:
    """One answer that may be two."""
    one, two = (each["content"][JSON] for each in (answer, other))
    content = {
        "schema": {"oneOf": [one["schema"], two["schema"]]},
        "examples": {**one.get("examples", {}), **two["examples"]},
    }
    return {
        "description": f"{answer['description']} Or: {other['description']}",
        "headers": {**other["headers"], **answer["headers"]},
        "content": {JSON: content},
    }
