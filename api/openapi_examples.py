"""The examples of the OpenAPI document: a small photo, and what the model `demo` answers about it. Pure.

The tests send every request example and compare what comes back, with `demo` down to the scores.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from hailo_clip.api.openapi_parts import Facts, Json, example

PHOTO_FILE = Path(__file__).parent / "data" / "example.jpg"
PHOTO_PATH = "/docs/example.jpg"

PHOTO = "data:image/jpeg;base64," + base64.b64encode(PHOTO_FILE.read_bytes()).decode()
PROMPTS = ["a cat", "a dog", "a cup of coffee"]

FINGERPRINT = "671c44ce405581cdb5af23d44ae28413"
"""Of `demo` on ONNX Runtime."""

NO_IMAGE = "aGVsbG8="

CLASSIFY: dict[str, Json] = {
    "photo": example("Which sentence fits best", {"image": PHOTO, "prompts": PROMPTS, "top_k": 2}),
    "softmax": example(
        "Probabilities, with templates and something to reject",
        {
            "image": PHOTO,
            "prompts": PROMPTS,
            "top_k": 2,
            "score_mode": "softmax",
            "templates": ["a photo of {}", "{}"],
            "negative_prompts": ["an empty room"],
        },
    ),
    "list": example(
        "Several images, of which one is none",
        {"images": [PHOTO, NO_IMAGE], "prompts": PROMPTS, "top_k": 1},
    ),
}


def _ranked(*scores: tuple[str, float]) -> list[Json]:
    return [{"text": text, "score": score, "rank": i + 1} for i, (text, score) in enumerate(scores)]


def _timed(**fields: Any) -> Json:
    return {**fields, "inference_time_ms": 17.6, "model": "demo"}


CLASSIFY_ANSWERS: dict[str, Json] = {
    "photo": example(
        "The two best", _timed(classifications=_ranked(("a cat", 0.6995629), ("a dog", 0.38293272)))
    ),
    "softmax": example(
        "Probabilities", _timed(classifications=_ranked(("a cat", 0.9978072), ("a dog", 0.0021253244)))
    ),
    "list": example(
        "One result an image",
        _timed(
            results=[
                {"classifications": _ranked(("a cat", 0.6995629))},
                {
                    "error": "Missing or invalid 'images[1]': it is not an image in a format taken here "
                    "(JPEG, PNG, WebP, GIF, BMP, TIFF)"
                },
            ]
        ),
    ),
}

EMBED_IMAGE: dict[str, Json] = {
    "photo": example("One image", {"image": PHOTO}),
    "list": example("Several images", {"images": [PHOTO, PHOTO]}),
}
FILE: dict[str, Json] = {"file": {"summary": "The photo as a file", "externalValue": PHOTO_PATH}}

EMBED_TEXT: dict[str, Json] = {
    "text": example("One text", {"text": "person wearing red shirt"}),
    "list": example("Several texts", {"texts": ["a cat", "a dog"]}),
}

LABEL_SET: dict[str, Json] = {
    "ppe": example(
        "A set for work safety",
        {
            "prompts": ["a person wearing a helmet", "a person without a helmet"],
            "templates": ["a photo of {}"],
            "negative_prompts": ["an empty building site"],
        },
    )
}


def label_set_answer() -> Json:
    """The answer to `LABEL_SET`."""
    return example(
        "The set",
        {"name": "ppe", **LABEL_SET["ppe"]["value"], "dimension": 384, "model": "demo"}
        | {"model_fingerprint": FINGERPRINT},
    )


LABEL_SETS: dict[str, Json] = {
    "one": example("One set", {"label_sets": [{"name": "ppe", "prompts": 2, "negative_prompts": 1}]})
}


def embeddings(facts: Facts) -> dict[str, Json]:
    """Bodies of POST /v1/embeddings."""
    return {
        "text": example("One text", {"model": facts.model, "input": "a cat"}),
        "mixed": example(
            "A text and an image, packed",
            {
                "model": facts.model,
                "input": ["a cat", {"type": "image_url", "image_url": {"url": PHOTO}}],
                "encoding_format": "base64",
            },
        ),
    }


MODEL: Json = {
    "id": "demo",
    "object": "model",
    "created": 1795551620,
    "owned_by": "hailo-clip",
    "title": "EfficientNet-Lite0 and all-MiniLM-L6-v2, joined by ConSE",
    "licence": "Apache-2.0 (weights), MIT (class names and descriptions); texts in LICENSES.txt",
    "dimension": 384,
    "image_size": 224,
    "context_length": 256,
    "logit_scale": 20.0,
    "fingerprint": FINGERPRINT,
    "backend": "onnx",
    "ready": True,
}
MODELS: dict[str, Json] = {"demo": example("One model", {"object": "list", "data": [MODEL]})}
ONE_MODEL: dict[str, Json] = {"demo": example("The model", MODEL)}
HEALTH: dict[str, Json] = {
    "healthy": example(
        "Healthy",
        {
            "status": "healthy",
            "service": "hailo-clip",
            "model_loaded": True,
            "model": "demo",
            "backend": "onnx",
        },
    )
}
UNHEALTHY: dict[str, Json] = {
    "starting": example(
        "Still loading",
        {
            "status": "starting",
            "service": "hailo-clip",
            "model_loaded": False,
            "model": "demo",
            "backend": None,
            "reason": "the broker has not answered yet",
        },
    )
}
LIVE: dict[str, Json] = {"alive": example("Alive", {"status": "alive"})}
READY: dict[str, Json] = {
    "ready": example("Ready", {"status": "ready"}),
    "verbose": example(
        "With ?verbose",
        {
            "status": "ready",
            "checks": [{"name": name, "ok": True} for name in ("broker", "model", "workers", "intake")],
        },
    ),
}
NOT_READY: dict[str, Json] = {
    "starting": example("Not ready", {"status": "not ready", "reason": "the broker has not answered yet"})
}
