"""How a resource answers in JSON."""

from __future__ import annotations

from typing import Any

import falcon.asgi
import orjson

from hailo_clip.api.problems import JSON

Request = falcon.asgi.Request
Response = falcon.asgi.Response


def answer_json(resp: Response, value: dict[str, Any]) -> None:
    """Answer with `value`, in which numpy arrays and numbers may stand; float32 keeps its short digits."""
    resp.content_type = JSON
    resp.data = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
