"""The headers of requests and answers, as the OpenAPI document describes them. Pure."""

from __future__ import annotations

from hailo_clip.api.openapi_parts import Facts, Json, parameter, ref


def parameters(facts: Facts) -> dict[str, Json]:
    """Request headers by the name under which operations refer to them."""
    most = f"{facts.request_timeout_s:g} s"
    return {
        "RequestId": parameter(
            "X-Request-Id",
            "header",
            "The client's id for this request, 1 to 128 of `A-Z a-z 0-9 . _ ~ : / + = @ -`. It stands in "
            "all logs "
            "and comes back in the answer. Any other is replaced by a random one.",
            {"type": "string", "examples": ["camera-7.000123"]},
        ),
        "Deadline": parameter(
            "X-Deadline-Ms",
            "header",
            "Milliseconds from the request's arrival within which the answer is of use. What can't be "
            "answered by "
            f"then is refused (429) or given up (504). More than the service's own limit ({most}) is cut to "
            "it.",
            {"type": "integer", "minimum": 1, "maximum": 999_999_999_999, "examples": [1500]},
        ),
        "RequireFingerprint": parameter(
            "X-Require-Model-Fingerprint",
            "header",
            "The fingerprint of the model whose embeddings are wanted, as `X-Model-Fingerprint` and "
            "/v1/models give "
            "it. If another model is served, the answer is 409: so an index never mixes embeddings.",
            {"type": "string"},
        ),
    }


ON_REQUEST = tuple(ref("parameters", name) for name in ("RequestId", "Deadline", "RequireFingerprint"))
"""The headers of an inference request."""

RESPONSE: dict[str, Json] = {
    "RequestId": {
        "description": "The request's id, the client's own where it sent one.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "ServerTiming": {
        "description": "Milliseconds by stage, which add up to the time in the service: `receive` (of the "
        "body), "
        "`decode` (image, prompts), `queue`, `device`.",
        "schema": {
            "type": "string",
            "examples": ["receive;dur=0.21, decode;dur=3.10, queue;dur=1.02, device;dur=12.4"],
        },
    },
    "ModelFingerprint": {
        "description": "Hash over all that determines an embedding: weights, preprocessing, tokenizer, "
        "encoder. "
        "Embeddings under different fingerprints must not be compared.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "RetryAfter": {
        "description": "Seconds after which a retry may succeed.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 3600},
    },
    "ShouldRetry": {
        "description": "Tells OpenAI's clients, which repeat a 409 otherwise, that a repetition is no help.",
        "required": True,
        "schema": {"type": "string", "enum": ["false"]},
    },
    "WWWAuthenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string", "examples": ['Bearer realm="hailo-clip"']},
    },
    "ETag": {
        "description": "Names this version; sent back in If-None-Match it gives 304 until the content "
        "changes.",
        "required": True,
        "schema": {"type": "string"},
    },
}

NAMES = {
    "RequestId": "X-Request-Id",
    "ServerTiming": "Server-Timing",
    "ModelFingerprint": "X-Model-Fingerprint",
    "RetryAfter": "Retry-After",
    "ShouldRetry": "X-Should-Retry",
    "WWWAuthenticate": "WWW-Authenticate",
    "ETag": "ETag",
}
"""What they are called in an answer."""

ON_INFERENCE = ("ServerTiming", "ModelFingerprint")


def headers(*names: str) -> Json:
    """The headers of an answer; every one has the request's id."""
    return {NAMES[name]: ref("headers", name) for name in ("RequestId", *names)}
