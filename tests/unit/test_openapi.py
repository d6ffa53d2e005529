"""The OpenAPI document: it describes every endpoint there is, and its schemas say what the checks do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import falcon.inspect
import pytest

from hailo_clip.api import forms, openapi_schemas
from hailo_clip.api.fields import templates, text_fault
from hailo_clip.api.openapi import document, operations
from hailo_clip.api.openapi_causes import causes
from hailo_clip.api.openapi_parts import Facts
from hailo_clip.shared.errors import ClientError
from tests.doubles.frontend import Frontend, configured

PAGE_PARTS = ("/docs/docs.css", "/docs/docs.js", "/docs/try.js", "/docs/example.jpg")


@pytest.fixture(scope="module")
def frontend() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as running:
        yield running


@pytest.fixture(scope="module")
def served(frontend: Frontend) -> dict[str, Any]:
    return frontend.request("GET", "/openapi.json").json


def test_every_route_is_described_and_nothing_else(frontend: Frontend, served: dict[str, Any]) -> None:
    routes = {
        (route.path, method.method.lower())
        for route in falcon.inspect.inspect_routes(frontend.app)
        for method in route.methods
        if not method.internal and method.method not in ("HEAD", "OPTIONS")
    }
    described = {(path, method) for path, item in served["paths"].items() for method in item}
    assert described | {(path, "get") for path in PAGE_PARTS} == routes


def test_every_get_is_a_head_too(frontend: Frontend) -> None:
    for route in falcon.inspect.inspect_routes(frontend.app):
        methods = {method.method for method in route.methods}
        assert ("GET" in methods) == ("HEAD" in methods), route.path


def test_references_lead_somewhere(served: dict[str, Any]) -> None:
    found = list(references(served))
    assert len(found) > 100
    for reference in found:
        node: Any = served
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_every_cause_is_met_somewhere_or_everywhere() -> None:
    facts = Facts("0", keys=True)
    met = {name for operation in operations(facts) for name in operation.problems}
    without_operation = {"path", "method", "key"}  # of no operation, or of all that want keys
    everywhere = {cause.name for cause in causes(facts) if cause.everywhere}
    assert met | without_operation | everywhere == {cause.name for cause in causes(facts)}


def test_blank_is_what_the_check_calls_blank() -> None:
    text = re.compile(openapi_schemas.TEXT["pattern"])
    for code in range(sys.maxunicode + 1):
        assert bool(text.search(chr(code))) == (text_fault(chr(code)) == ""), hex(code)


@pytest.mark.parametrize(
    "given", ["{}", "a {} b", "{{}}", "{}}{", "{ {}", "", "{", "a", "{}{}", "{} {}", "{{}{}}"]
)
def test_a_template_is_what_the_check_calls_one(given: str) -> None:
    try:
        templates({"templates": [given]}, "templates")
        taken = True
    except ClientError:
        taken = False
    assert taken == bool(re.search(openapi_schemas.TEMPLATE["pattern"], given))


def test_fields_of_forms_are_those_described() -> None:
    described = openapi_schemas.CLASSIFY_FORM["properties"]
    assert described.keys() == forms.LISTS | forms.SINGLES
    assert {k for k, v in described.items() if v["type"] == "array"} == forms.LISTS
    assert {k for k, v in described.items() if v["type"] in ("integer", "number")} == forms.NUMBERS


def test_keys_are_asked_for_where_they_are_in_use() -> None:
    keyed, plain = document(Facts("0", keys=True)), document(Facts("0"))
    assert keyed["security"] and "security" not in plain
    assert plain["paths"]["/v1/classify"]["post"]["responses"].keys().isdisjoint({"401"})
    assert "401" in keyed["paths"]["/v1/classify"]["post"]["responses"]
    assert keyed["paths"]["/health"]["get"]["security"] == []
    assert "security" in keyed["paths"]["/metrics"]["get"]
    closed = document(Facts("0", keys=True, open_metrics=False))
    assert "security" not in closed["paths"]["/metrics"]["get"]
    assert "401" in closed["paths"]["/metrics"]["get"]["responses"]


def test_limits_are_the_configured_ones() -> None:
    described = document(Facts("0", model="m", dimension=7, max_body_mib=3))
    assert described["components"]["schemas"]["Embedding"]["maxItems"] == 7
    assert described["components"]["schemas"]["EmbeddingsRequest"]["properties"]["model"]["const"] == "m"
    assert "3 MiB" in described["components"]["responses"]["RequestEntityTooLarge"]["description"]
