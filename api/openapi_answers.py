"""The schemas of answers. Pure."""

from __future__ import annotations

from hailo_clip.api.fields import MAX_IMAGES, MAX_PROMPTS
from hailo_clip.api.models_resource import OWNER
from hailo_clip.api.openai_input import MAX_INPUTS
from hailo_clip.api.openapi_parts import Facts, Json, an_array, an_object, schema
from hailo_clip.api.openapi_schemas import NAME

_STRING: Json = {"type": "string"}
_MODEL: Json = {"type": "string", "description": "The name of the model that answered."}
_NULLABLE: Json = {"type": ["string", "null"]}


def answers(facts: Facts) -> Json:
    """Schemas of JSON answers."""
    dimension: Json = {"const": facts.dimension, "description": "Numbers in an embedding."}
    fingerprint: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
    time: Json = {
        "type": "number",
        "minimum": 0,
        "description": "Milliseconds from the complete body to the answer, waiting included.",
    }
    ranks = an_array(schema("Classification"), 0, MAX_PROMPTS, "The best prompts, best first.")
    classified = an_object({"classifications": ranks})
    vector = {"embedding": schema("Embedding")}
    tail = {"dimension": dimension, "model": _MODEL}
    return {
        "Problem": an_object({"error": {"type": "string", "minLength": 1}}),
        "OpenAIProblem": _openai_problem(),
        "Embedding": an_array({"type": "number"}, facts.dimension, facts.dimension, "Of length 1."),
        "Classification": an_object(
            {
                "text": {"type": "string", "description": "The prompt."},
                "score": {"type": "number", "minimum": 0, "maximum": 1},
                "rank": {"type": "integer", "minimum": 1, "maximum": MAX_PROMPTS},
            }
        ),
        "ClassifyAnswer": {
            "oneOf": [
                an_object({"classifications": ranks, "inference_time_ms": time, "model": _MODEL}),
                an_object({"results": _each(classified), "inference_time_ms": time, "model": _MODEL}),
            ]
        },
        "EmbedAnswer": {
            "oneOf": [an_object({**vector, **tail}), an_object({"results": _each(an_object(vector)), **tail})]
        },
        "LabelSet": an_object(
            {
                "name": NAME,
                "prompts": an_array(_STRING, 1, MAX_PROMPTS),
                "templates": {"type": "array", "items": _STRING},
                "negative_prompts": {"type": "array", "items": _STRING},
                "dimension": {"type": "integer", "minimum": 1},
                "model": {"type": "string", "description": "The model that embedded it."},
                "model_fingerprint": fingerprint,
            }
        ),
        "LabelSets": an_object(
            {
                "label_sets": {
                    "type": "array",
                    "items": an_object(
                        {
                            "name": NAME,
                            "prompts": {"type": "integer", "minimum": 1, "description": "How many."},
                            "negative_prompts": {"type": "integer", "minimum": 0, "description": "How many."},
                        }
                    ),
                }
            }
        ),
        "Metrics": {"type": "string", "description": "Prometheus' text format, see docs/metrics.md."},
        "Document": {"type": "object", "required": ["openapi", "info", "paths", "components"]},
        "Page": _STRING,
        **_openai(fingerprint),
        **_status(),
    }


def _each(good: Json) -> Json:
    described = "In the request's order; an item that failed has its error in its place."
    return an_array({"oneOf": [good, schema("Problem")]}, 1, max(MAX_IMAGES, MAX_PROMPTS), described)


def _openai_problem() -> Json:
    fields = {
        "message": {"type": "string", "minLength": 1},
        "type": _STRING,
        "param": _NULLABLE,
        "code": _NULLABLE,
    }
    return an_object({"error": an_object(fields)})


def _openai(fingerprint: Json) -> Json:
    """Schemas of /v1/embeddings and /v1/models."""
    count: Json = {"type": "integer", "minimum": 0}
    packed: Json = {"type": "string", "contentEncoding": "base64"}
    item = an_object(
        {
            "object": {"const": "embedding"},
            "index": {"type": "integer", "minimum": 0, "maximum": MAX_INPUTS - 1},
            "embedding": {"oneOf": [schema("Embedding"), packed]},
        }
    )
    return {
        "EmbeddingsAnswer": an_object(
            {
                "object": {"const": "list"},
                "data": an_array(item, 1, MAX_INPUTS),
                "model": _MODEL,
                "usage": an_object({"prompt_tokens": count, "total_tokens": count}),
            }
        ),
        "Model": an_object(
            {
                "id": {"type": "string", "description": "The model's name."},
                "object": {"const": "model"},
                "created": {**count, "description": "Unix time at which the model was installed."},
                "owned_by": {"const": OWNER},
                "title": _STRING,
                "licence": _STRING,
                "dimension": {"type": "integer", "minimum": 1},
                "image_size": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Side of the model's input, pixels.",
                },
                "context_length": {"type": "integer", "minimum": 1, "description": "Most tokens of a text."},
                "logit_scale": {
                    "type": "number",
                    "description": "What cosines are multiplied by for a softmax.",
                },
                "fingerprint": {
                    "oneOf": [fingerprint, {"type": "null"}],
                    "description": "null: no worker yet.",
                },
                "backend": {**_NULLABLE, "description": "hailo, onnx or emulated; null: no worker yet."},
                "ready": {"type": "boolean"},
            }
        ),
        "Models": an_object({"object": {"const": "list"}, "data": an_array(schema("Model"), 1, 1)}),
    }


def _status() -> Json:
    reason: Json = {"type": "string", "description": "Why it is not ready."}
    check = an_object({"name": _STRING, "ok": {"type": "boolean"}, "reason": _STRING}, ("name", "ok"))
    return {
        "Health": an_object(
            {
                "status": {"enum": ["healthy", "starting", "unhealthy", "draining"]},
                "service": {"const": "hailo-clip"},
                "model_loaded": {"type": "boolean"},
                "model": _STRING,
                "backend": {**_NULLABLE, "description": "hailo, onnx or emulated; null: not known yet."},
                "reason": reason,
            },
            ("status", "service", "model_loaded", "model", "backend"),
        ),
        "Live": an_object({"status": {"const": "alive"}}),
        "Ready": an_object(
            {
                "status": {"enum": ["ready", "not ready"]},
                "reason": reason,
                "checks": {"type": "array", "items": check, "description": "With `?verbose`."},
            },
            ("status",),
        ),
    }
