"""The endpoints about the service itself, as the OpenAPI document describes them. Pure."""

from __future__ import annotations

from typing import Any

from falcon.constants import FALSE_STRINGS, TRUE_STRINGS

from hailo_clip.api import openapi_examples as examples
from hailo_clip.api.openapi_parts import JSON, Answer, Facts, Operation, parameter, ref
from hailo_clip.shared.metrics import CONTENT_TYPE

MODELS, HEALTH, DOCS = "Models", "Health and metrics", "Documentation"

_ID = (ref("parameters", "RequestId"),)


def operations(facts: Facts) -> tuple[Operation, ...]:
    """All of them."""
    return (*_models(facts), *_health(facts), *_docs())


def _models(facts: Facts) -> tuple[Operation, ...]:
    name = parameter(
        "name", "path", "The model's name.", {"type": "string"}, examples={"served": {"value": facts.model}}
    )
    return (
        _get(
            "/v1/models",
            "listModels",
            MODELS,
            "The model that is served",
            "OpenAI's list of models, with what an index must know of one.",
            Answer("One model.", "Models", examples=examples.MODELS),
        ),
        _get(
            "/v1/models/{name}",
            "getModel",
            MODELS,
            "One model",
            "The model of that name, if it is served.",
            Answer("The model.", "Model", examples=examples.ONE_MODEL),
            problems=("model",),
            parameters=(name, *_ID),
        ),
    )


def _health(facts: Facts) -> tuple[Operation, ...]:
    down = ("RetryAfter",)
    verbose = parameter(
        "verbose",
        "query",
        "List each check.",
        {"type": "string", "enum": ["", *sorted(TRUE_STRINGS), *sorted(FALSE_STRINGS)]},
        allowEmptyValue=True,
        examples={"verbose": {"value": "true"}},
    )
    health = _get(
        "/health",
        "health",
        HEALTH,
        "Whether it can answer",
        "200 only while a worker is ready that has proven its model on golden inputs.",
        Answer("It can.", "Health", examples=examples.HEALTH),
        down=Answer("It can't now; `reason` says why.", "Health", JSON, down, examples.UNHEALTHY),
        open=True,
    )
    live = _get(
        "/livez",
        "livez",
        HEALTH,
        "Whether the process answers",
        "Says nothing of device or queue: a restart of this process mends neither.",
        Answer("It does.", "Live", examples=examples.LIVE),
        open=True,
    )
    ready = _get(
        "/readyz",
        "readyz",
        HEALTH,
        "Whether requests are taken",
        "As /health, for load balancers; with `?verbose` it lists each check.",
        Answer("They are.", "Ready", examples=examples.READY),
        down=Answer("They are not; `reason` says why.", "Ready", JSON, down, examples.NOT_READY),
        parameters=(verbose, *_ID),
        open=True,
    )
    metrics = _get(
        "/metrics",
        "metrics",
        HEALTH,
        "Metrics for Prometheus",
        "The broker's numbers, the same from every process. While the broker does not answer: "
        "`hailo_clip_up 0`.",
        Answer("Prometheus' text format.", "Metrics", CONTENT_TYPE),
        open=facts.open_metrics,
    )
    return (health, live, ready, metrics)


def _docs() -> tuple[Operation, ...]:
    etag = ("ETag",)
    known = parameter(
        "If-None-Match", "header", "An ETag of an earlier answer: 304 while it holds.", {"type": "string"}
    )
    same = Answer("Nothing changed since the ETag that was sent.", headers=etag)
    document = Answer("OpenAPI 3.1.", "Document", headers=etag)
    page = Answer("HTML.", "Page", "text/html; charset=utf-8", etag)
    return (
        Operation(
            "get",
            "/openapi.json",
            "openapi",
            DOCS,
            "This document",
            "The API as an OpenAPI document.",
            {200: document, 304: same},
            parameters=(known, *_ID),
            open=True,
        ),
        Operation(
            "get",
            "/docs",
            "docs",
            DOCS,
            "This document to read and try out",
            "A page that needs nothing from elsewhere; its parts lie below /docs/.",
            {200: page, 304: same},
            parameters=(known, *_ID),
            open=True,
        ),
    )


def _get(
    path: str,
    name: str,
    group: str,
    summary: str,
    description: str,
    answer: Answer,
    *,
    down: Answer | None = None,
    **more: Any,
) -> Operation:
    answers = {200: answer} if down is None else {200: answer, 503: down}
    return Operation("get", path, name, group, summary, description, answers, **{"parameters": _ID, **more})
