"""GET /v1/models: the model that is served, in OpenAI's list shape and with what an index must know of it."""

from __future__ import annotations

from typing import Any

from hailo_clip.api.respond import Request, Response, answer_json
from hailo_clip.api.service import Service
from hailo_clip.shared.errors import NotFound
from hailo_clip.shared.manifest import MANIFEST_NAME, Manifest

OWNER = "hailo-clip"


class ModelsResource:
    """GET /v1/models and GET /v1/models/{name}."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = created(service.manifest)

    async def on_get(self, req: Request, resp: Response) -> None:
        """All models: the one that is served."""
        answer_json(resp, {"object": "list", "data": [self._model()]})

    async def on_get_one(self, req: Request, resp: Response, name: str) -> None:
        """The model of that name, or 404."""
        served = self._service.manifest.name
        if name != served:
            raise NotFound(f"The model {name[:64]!r} is not served here; this service has {served!r}")
        answer_json(resp, self._model())

    on_head = on_get
    on_head_one = on_get_one

    def _model(self) -> dict[str, Any]:
        manifest, health = self._service.manifest, self._service.gateway.health
        return {
            "id": manifest.name,
            "object": "model",
            "created": self._created,
            "owned_by": OWNER,
            "title": manifest.title,
            "licence": manifest.licence,
            "dimension": manifest.dimension,
            "image_size": manifest.image.size,
            "context_length": manifest.text.context_length,
            "logit_scale": manifest.logit_scale,
            "fingerprint": manifest.fingerprint(health.encoder) if health.encoder else None,
            "backend": health.encoder or None,
            "ready": health.ready,
        }


def created(manifest: Manifest) -> int:
    """When the model's package was written here, as Unix time; 0 for a model without files."""
    return 0 if manifest.directory is None else int(manifest.path(MANIFEST_NAME).stat().st_mtime)
