"""The endpoints that monitoring asks: /health, /livez and /readyz."""

from __future__ import annotations

from typing import Any

import falcon

from hailo_clip.api.health import Health, refusal_of
from hailo_clip.api.problems import retry_after
from hailo_clip.api.readiness import Check
from hailo_clip.api.respond import Request, Response, answer_json
from hailo_clip.api.service import Service


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


def _shown(check: Check) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": check.name, "ok": check.ok}
    return facts if check.ok else {**facts, "reason": check.reason}


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
        """200 while a worker is ready whose canary passed, else 503 and the reason; ?verbose: each check."""
        health = self._service.gateway.health
        value: dict[str, Any] = {"status": "ready"}
        if not health.ready:
            value = {"status": "not ready", "reason": health.reason or health.status}
        if req.get_param_as_bool("verbose", default=False):
            value["checks"] = [_shown(check) for check in self._service.gateway.checks()]
        answer_health(resp, health, value)

    on_head = on_get
