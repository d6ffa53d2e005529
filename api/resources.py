"""The endpoints: each turns a request into calls of `Service` and the result into the promised JSON."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi
import orjson

from hailo_clip.api import validation
from hailo_clip.api.answer import Embeddings
from hailo_clip.api.call import call_of
from hailo_clip.api.health import Health, refusal_of
from hailo_clip.api.problems import JSON, retry_after
from hailo_clip.api.ranking import cosine_scores, ranked
from hailo_clip.api.service import Service

Request = falcon.asgi.Request
Response = falcon.asgi.Response


def add_routes(app: falcon.asgi.App[Any, Any], service: Service) -> None:
    """Put every endpoint into `app`."""
    app.add_route("/health", HealthResource(service))
    app.add_route("/livez", LiveResource())
    app.add_route("/readyz", ReadyResource(service))
    app.add_route("/v1/classify", ClassifyResource(service))
    app.add_route("/v1/embed/image", EmbedImageResource(service))
    app.add_route("/v1/embed/text", EmbedTextResource(service))


def answer_json(resp: Response, value: dict[str, Any]) -> None:
    """Answer with `value`, in which numpy arrays and numbers may stand; float32 keeps its short digits."""
    resp.content_type = JSON
    resp.data = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def answer_health(resp: Response, health: Health, value: dict[str, Any]) -> None:
    """Answer with `value`: 200 while the service is ready, else 503 with a Retry-After."""
    resp.cache_control = ("no-store",)
    refusal = refusal_of(health)
    if refusal is not None:
        resp.status = falcon.HTTP_503
        resp.set_header("Retry-After", retry_after(refusal) or "1")
    answer_json(resp, value)


def status_word(health: Health) -> str:
    """`health` in the words of /health: healthy, starting, unhealthy or draining."""
    if health.ready:
        return "healthy"
    return health.status if health.status in ("starting", "draining") else "unhealthy"


class HealthResource:
    """GET /health: the specification's shape, with the truth in it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: Response) -> None:
        """200 while a worker is ready whose canary passed, else 503 and the reason."""
        health = self._service.gateway.health
        value: dict[str, Any] = {
            "status": status_word(health),
            "service": "hailo-clip",
            "model_loaded": health.ready,
            "model": self._service.manifest.name,
            "backend": health.encoder or None,
        }
        if not health.ready:
            value["reason"] = health.reason or health.status
        answer_health(resp, health, value)

    on_head = on_get


class LiveResource:
    """GET /livez: this process answers; says nothing of device or queue."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Always 200."""
        resp.cache_control = ("no-store",)
        answer_json(resp, {"status": "alive"})

    on_head = on_get


class ReadyResource:
    """GET /readyz: whether requests are taken."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: Response) -> None:
        """200 while a worker is ready whose canary passed, else 503 and the reason."""
        health = self._service.gateway.health
        value = {"status": "ready"}
        if not health.ready:
            value = {"status": "not ready", "reason": health.reason or health.status}
        answer_health(resp, health, value)

    on_head = on_get


class ClassifyResource:
    """POST /v1/classify: an image against prompts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_post(self, req: Request, resp: Response) -> None:
        """The best prompts, by cosine."""
        call = call_of(req.scope)
        wanted = validation.classify_request(await self._service.json_body(req, call))
        embedded = await self._service.embed(call, [wanted.picture], wanted.prompts)
        scores = cosine_scores(embedded.images[0], embedded.texts)
        answer_json(
            resp,
            {
                "classifications": ranked(wanted.prompts, scores, wanted.top_k, wanted.threshold),
                "inference_time_ms": round(sum(call.timings.values()) * 1e3, 1),
                "model": self._service.manifest.name,
            },
        )


class EmbedImageResource:
    """POST /v1/embed/image: an image's embedding."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_post(self, req: Request, resp: Response) -> None:
        """The embedding, of length 1."""
        call = call_of(req.scope)
        wanted = validation.image_request(await self._service.json_body(req, call))
        embedded = await self._service.embed(call, [wanted.picture], [])
        answer_json(resp, _embedding(embedded.images[0], self._service.manifest.name))


class EmbedTextResource:
    """POST /v1/embed/text: a text's embedding."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_post(self, req: Request, resp: Response) -> None:
        """The embedding, of length 1."""
        call = call_of(req.scope)
        wanted = validation.text_request(await self._service.json_body(req, call))
        embedded = await self._service.embed(call, [], [wanted.text])
        answer_json(resp, _embedding(embedded.texts[0], self._service.manifest.name))


def _embedding(vector: Embeddings, model: str) -> dict[str, Any]:
    return {"embedding": vector, "dimension": len(vector), "model": model}
