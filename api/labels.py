"""The endpoints of stored label sets: /v1/label-sets and /v1/label-sets/{name}."""

from __future__ import annotations

from typing import Any

import falcon

from hailo_clip.api import validation
from hailo_clip.api.call import Call, call_of
from hailo_clip.api.labelsets import LabelSets
from hailo_clip.api.respond import Request, Response, answer_json
from hailo_clip.api.service import Service
from hailo_clip.api.terms import deadline_s
from hailo_clip.shared.label_messages import CREATED, Labels


class LabelSetsResource:
    """GET /v1/label-sets: which there are."""

    def __init__(self, sets: LabelSets) -> None:
        self._sets = sets

    async def on_get(self, req: Request, resp: Response) -> None:
        """Names and counts of the client's label sets, by name."""
        call = _bodiless(req)
        listing = await self._sets.list(call, call.namespace)
        sets = [{"name": name, "prompts": n, "negative_prompts": k} for name, n, k in listing]
        answer_json(resp, {"label_sets": sets})

    on_head = on_get


class LabelSetResource:
    """/v1/label-sets/{name}: one label set."""

    def __init__(self, service: Service, sets: LabelSets) -> None:
        self._service, self._sets = service, sets

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Embed a label set and keep it, in place of one of that name."""
        call = call_of(req.scope)
        name = validation.label_set_name(name, "name")
        wanted = validation.labels_of(await self._service.json_body(req, call))
        stored = await self._sets.put(call, call.namespace, name, wanted)
        resp.status = falcon.HTTP_201 if stored.outcome == CREATED else falcon.HTTP_200
        answer_json(resp, _shown(name, stored))

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        """A label set's definition, and the model that its matrix was made with."""
        call = _bodiless(req)
        name = validation.label_set_name(name, "name")
        answer_json(resp, _shown(name, await self._sets.describe(call, call.namespace, name)))

    on_head = on_get

    async def on_delete(self, req: Request, resp: Response, name: str) -> None:
        """Forget a label set."""
        call = _bodiless(req)
        await self._sets.drop(call, call.namespace, validation.label_set_name(name, "name"))
        resp.status = falcon.HTTP_204


def _bodiless(req: Request) -> Call:
    """The call of a request whose body, if any, is of no interest."""
    call = call_of(req.scope)
    call.deadline_s = deadline_s(req.get_header("x-deadline-ms"))
    return call


def _shown(name: str, stored: Labels) -> dict[str, Any]:
    return {
        "name": name,
        "prompts": stored.prompts,
        "templates": stored.templates,
        "negative_prompts": stored.negatives,
        "dimension": stored.dimension,
        "model": stored.model,
        "model_fingerprint": stored.fingerprint,
    }
