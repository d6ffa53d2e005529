"""Flask with a lock around the device, one request at a time: how a service for one device often begins.

Run by gunicorn with threads: ``gunicorn -k gthread hailo_clip.ops.bench.peers.flask_server:app``.
"""

from __future__ import annotations

import threading
from typing import Any

import flask
import numpy as np
import orjson

from hailo_clip.ops.bench.peers.job import MODEL, Embeddings, Prompts, answer, encoder, pixels

app = flask.Flask(__name__)
_lock = threading.RLock()
_encoder = encoder()
_prompts = Prompts()


def _image(image: str) -> Embeddings:
    pixel_values = pixels(image)
    with _lock:
        row: Embeddings = _encoder.encode_images(pixel_values[None])[0]
    return row


def _text(prompt: str) -> Embeddings:
    ids = _prompts.ids([prompt])
    with _lock:
        row: Embeddings = _encoder.encode_tokens(ids)[0]
    return row


def _json(data: bytes) -> Any:
    return flask.Response(data, mimetype="application/json")


@app.post("/v1/embed/image")  # type: ignore[untyped-decorator]  # flask is not installed where types are checked
def embed_image() -> Any:
    """An image's embedding."""
    return _json(answer(_image(orjson.loads(flask.request.get_data())["image"])))


@app.post("/v1/classify")  # type: ignore[untyped-decorator]
def classify() -> Any:
    """The best three prompts; each prompt is encoded every time."""
    body = orjson.loads(flask.request.get_data())
    image = _image(body["image"])
    scores = np.stack([_text(prompt) for prompt in body["prompts"]]) @ image
    best = [
        {"text": body["prompts"][i], "score": float(scores[i]), "rank": rank + 1}
        for rank, i in enumerate(np.argsort(-scores)[:3])
    ]
    return _json(orjson.dumps({"classifications": best, "model": MODEL}))
