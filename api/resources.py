"""The endpoints: each turns a request into calls of `Service` and the result into the promised JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import falcon.asgi

from hailo_clip.api import validation
from hailo_clip.api.answer import Embeddings
from hailo_clip.api.call import call_of
from hailo_clip.api.classifier import Classifier, Compared
from hailo_clip.api.docs_resource import add_docs
from hailo_clip.api.health_resource import HealthResource, LiveResource, ReadyResource
from hailo_clip.api.labels import LabelSetResource, LabelSetsResource
from hailo_clip.api.metrics_resource import MetricsResource
from hailo_clip.api.models_resource import ModelsResource
from hailo_clip.api.openai_resource import EmbeddingsResource
from hailo_clip.api.ranking import cosine_scores, ranked, softmax_scores
from hailo_clip.api.respond import Request, Response, answer_json
from hailo_clip.api.service import Faults, Service
from hailo_clip.api.validation import SOFTMAX, ClassifyRequest


def add_routes(app: falcon.asgi.App[Any, Any], service: Service) -> None:
    """Put every endpoint into `app`."""
    app.add_route("/health", HealthResource(service))
    app.add_route("/livez", LiveResource())
    app.add_route("/readyz", ReadyResource(service))
    app.add_route("/metrics", MetricsResource(service))
    models = ModelsResource(service)
    app.add_route("/v1/models", models)
    app.add_route("/v1/models/{name}", models, suffix="one")
    classifier = Classifier(service)
    app.add_route("/v1/classify", ClassifyResource(service, classifier))
    app.add_route("/v1/label-sets", LabelSetsResource(classifier.sets))
    app.add_route("/v1/label-sets/{name}", LabelSetResource(service, classifier.sets))
    app.add_route("/v1/embed/image", EmbedImageResource(service))
    app.add_route("/v1/embed/text", EmbedTextResource(service))
    app.add_route("/v1/embeddings", EmbeddingsResource(service))
    add_docs(app, service)


class ClassifyResource:
    """POST /v1/classify: an image, or several, against prompts."""

    def __init__(self, service: Service, classifier: Classifier) -> None:
        self._service, self._classifier = service, classifier

    async def on_post(self, req: Request, resp: Response) -> None:
        """The best prompts, by cosine or softmax."""
        call = call_of(req.scope)
        wanted = validation.classify_request(await self._service.fields(req, call))
        compared = await self._classifier.compare(call, wanted.pictures, wanted.labels, each=wanted.many)
        results = [{"classifications": self._best(wanted, compared, image)} for image in compared.images]
        answer = _results(results, compared.image_faults) if wanted.many else results[0]
        more = {"inference_time_ms": call.inference_ms(), "model": self._service.manifest.name}
        answer_json(resp, answer | more)

    def _best(self, wanted: ClassifyRequest, compared: Compared, image: Embeddings) -> list[dict[str, Any]]:
        if wanted.score_mode == SOFTMAX:
            scores = softmax_scores(image, compared.vectors, self._service.manifest.logit_scale)
        else:
            scores = cosine_scores(image, compared.vectors)
        shown = scores[: len(compared.prompts)]  # negative prompts come last
        return ranked(compared.prompts, shown, wanted.top_k, wanted.threshold)


class EmbedImageResource:
    """POST /v1/embed/image: an image's embedding, or those of several."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_post(self, req: Request, resp: Response) -> None:
        """The embeddings, of length 1."""
        call = call_of(req.scope)
        wanted = validation.image_request(await self._service.fields(req, call))
        if wanted.many:
            embedded = await self._service.embed_each(call, wanted.pictures, [])
            answer = _embeddings(embedded.images, embedded.image_faults)
        else:
            answer = {"embedding": (await self._service.embed(call, wanted.pictures, [])).images[0]}
        answer_json(resp, answer | _model(self._service))


class EmbedTextResource:
    """POST /v1/embed/text: a text's embedding, or those of several."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_post(self, req: Request, resp: Response) -> None:
        """The embeddings, of length 1."""
        call = call_of(req.scope)
        wanted = validation.text_request(await self._service.json_body(req, call))
        if wanted.many:
            embedded = await self._service.embed_each(call, [], wanted.texts)
            answer = _embeddings(embedded.texts, embedded.text_faults)
        else:
            answer = {"embedding": (await self._service.embed(call, [], wanted.texts)).texts[0]}
        answer_json(resp, answer | _model(self._service))


def _model(service: Service) -> dict[str, Any]:
    return {"dimension": service.manifest.dimension, "model": service.manifest.name}


def _embeddings(rows: Embeddings, faults: Faults) -> dict[str, Any]:
    return _results([{"embedding": row} for row in rows], faults)


def _results(results: Sequence[dict[str, Any]], faults: Faults) -> dict[str, Any]:
    """The answers to a list of items; an item that failed has its error in its place."""
    each = zip(results, faults, strict=True)
    return {"results": [result if fault is None else {"error": fault.message} for result, fault in each]}
