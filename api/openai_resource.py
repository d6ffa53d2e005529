"""POST /v1/embeddings: the embeddings endpoint that OpenAI's clients know, with images besides."""

from __future__ import annotations

import base64
from typing import Any

from hailo_clip.api.answer import Embeddings
from hailo_clip.api.call import call_of
from hailo_clip.api.fields import Picture
from hailo_clip.api.openai_errors import InvalidParameter
from hailo_clip.api.openai_input import BASE64, EmbeddingsRequest, embeddings_request
from hailo_clip.api.respond import Request, Response, answer_json
from hailo_clip.api.service import Embedded, Service
from hailo_clip.shared.errors import ClientError


class EmbeddingsResource:
    """POST /v1/embeddings: texts and images, in OpenAI's shapes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_post(self, req: Request, resp: Response) -> None:
        """One embedding an input, each of length 1; all of them or an error."""
        call = call_of(req.scope)
        body = await self._service.json_body(req, call)
        manifest = self._service.manifest
        wanted = embeddings_request(body, manifest.name, manifest.dimension)
        pictures = [entry for entry in wanted.inputs if isinstance(entry, Picture)]
        texts = [entry for entry in wanted.inputs if isinstance(entry, str)]
        try:
            embedded = await self._service.embed(call, pictures, texts)
        except ClientError as error:
            if error.http_status != ClientError.http_status:
                raise
            raise InvalidParameter(error.message, "input") from error  # one of the images is none
        answer_json(resp, _answer(wanted, embedded, manifest.name))


def _answer(wanted: EmbeddingsRequest, embedded: Embedded, model: str) -> dict[str, Any]:
    images, texts = iter(embedded.images), iter(embedded.texts)
    rows = [next(images if isinstance(entry, Picture) else texts) for entry in wanted.inputs]
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(row, wanted.encoding)}
        for i, row in enumerate(rows)
    ]
    # The tokens that the text network was given; images have none.
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _encoded(row: Embeddings, encoding: str) -> Embeddings | str:
    """`row` as it is, or as base64 of its little-endian float32."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode() if encoding == BASE64 else row
