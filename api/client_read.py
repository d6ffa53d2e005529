"""The service's answers as typed results. Pure.

An answer that lacks something is `UnexpectedAnswer`: then it is another program that answers at the URL. What
an answer has besides is ignored, so that a newer service does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import orjson

from hailo_clip.api.client_errors import UnexpectedAnswer
from hailo_clip.api.client_results import (
    Check,
    Classification,
    Classifications,
    Embedding,
    Embeddings,
    Health,
    ItemError,
    Label,
    LabelSet,
    LabelSetSummary,
    Model,
    Readiness,
    Vectors,
)

T = TypeVar("T")
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, whole. `url`: the service's; `headers`: by lower-case name."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def _reader(read: Callable[[Reply, Facts], T]) -> Callable[[Reply], T]:
    """`read`, given the JSON object in the body; whatever it misses there is an `UnexpectedAnswer`."""

    @wraps(read)
    def checked(reply: Reply) -> T:
        try:
            facts = orjson.loads(reply.body)
            if not isinstance(facts, dict):
                raise TypeError("no object")
            return read(reply, facts)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise UnexpectedAnswer(
                f"what answers at {reply.url} is no hailo-clip service",
                status=reply.status,
                request_id=reply.headers.get("x-request-id", ""),
            ) from e

    return checked


@_reader
def classification(reply: Reply, facts: Facts) -> Classification:
    """An answer of POST /v1/classify."""
    return _classification(reply, facts, facts)


@_reader
def classifications(reply: Reply, facts: Facts) -> Classifications:
    """An answer of POST /v1/classify to a list of images."""
    results = tuple(
        ItemError(i, item["error"]) if "error" in item else _classification(reply, facts, item)
        for i, item in enumerate(facts["results"])
    )
    return Classifications(
        results=results, inference_time_ms=facts["inference_time_ms"], **_origin(reply, facts)
    )


@_reader
def embedding(reply: Reply, facts: Facts) -> Embedding:
    """An answer of POST /v1/embed/image or /v1/embed/text."""
    vector = np.array(facts["embedding"], dtype=np.float32)
    if vector.shape != (facts["dimension"],):
        raise ValueError("not as long as it says")
    return Embedding(vector=_frozen(vector), **_origin(reply, facts))


@_reader
def embeddings(reply: Reply, facts: Facts) -> Embeddings:
    """An answer of the same endpoints to a list."""
    results = facts["results"]
    vectors = np.full((len(results), facts["dimension"]), np.nan, dtype=np.float32)
    errors: list[ItemError | None] = [None] * len(results)
    for i, item in enumerate(results):
        if "error" in item:
            errors[i] = ItemError(i, item["error"])
        else:
            vectors[i] = np.array(item["embedding"], dtype=np.float32).reshape(vectors.shape[1])
    return Embeddings(vectors=_frozen(vectors), errors=tuple(errors), **_origin(reply, facts))


@_reader
def label_set(reply: Reply, facts: Facts) -> LabelSet:
    """An answer of /v1/label-sets/{name}."""
    return LabelSet(
        name=facts["name"],
        prompts=tuple(facts["prompts"]),
        templates=tuple(facts["templates"]),
        negative_prompts=tuple(facts["negative_prompts"]),
        dimension=facts["dimension"],
        model=facts["model"],
        model_fingerprint=facts["model_fingerprint"],
    )


@_reader
def label_sets(reply: Reply, facts: Facts) -> tuple[LabelSetSummary, ...]:
    """An answer of GET /v1/label-sets."""
    return tuple(
        LabelSetSummary(entry["name"], entry["prompts"], entry["negative_prompts"])
        for entry in facts["label_sets"]
    )


@_reader
def models(reply: Reply, facts: Facts) -> tuple[Model, ...]:
    """An answer of GET /v1/models."""
    return tuple(
        Model(
            id=entry["id"],
            dimension=entry["dimension"],
            image_size=entry["image_size"],
            context_length=entry["context_length"],
            logit_scale=entry["logit_scale"],
            fingerprint=entry["fingerprint"] or "",
            backend=entry["backend"] or "",
            ready=entry["ready"],
        )
        for entry in facts["data"]
    )


@_reader
def health(reply: Reply, facts: Facts) -> Health:
    """An answer of GET /health."""
    return Health(
        status=facts["status"],
        model=facts["model"],
        backend=facts["backend"] or "",
        reason=facts.get("reason", ""),
        answer=facts,
    )


@_reader
def readiness(reply: Reply, facts: Facts) -> Readiness:
    """An answer of GET /readyz?verbose."""
    checks = tuple(Check(c["name"], c["ok"], c.get("reason", "")) for c in facts["checks"])
    return Readiness(facts["status"] == "ready", facts.get("reason", ""), checks)


def nothing(reply: Reply) -> None:
    """An answer without a body."""


def _classification(reply: Reply, facts: Facts, item: Facts) -> Classification:
    labels = tuple(Label(entry["text"], entry["score"], entry["rank"]) for entry in item["classifications"])
    return Classification(
        labels=labels, inference_time_ms=facts["inference_time_ms"], **_origin(reply, facts)
    )


def _origin(reply: Reply, facts: Facts) -> dict[str, str]:
    return {
        "model": facts["model"],
        "model_fingerprint": reply.headers.get("x-model-fingerprint", ""),
        "request_id": reply.headers.get("x-request-id", ""),
    }


def _frozen(vectors: Vectors) -> Vectors:
    vectors.setflags(write=False)
    return vectors
