"""What the resources work with: the way from a request to its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import falcon.asgi

from hailo_clip.api.answer import Embeddings
from hailo_clip.api.body import ByteBudget, check_length, parse_object, read_body, require_json
from hailo_clip.api.call import Call
from hailo_clip.api.gateway import Gateway
from hailo_clip.api.intake import Intake
from hailo_clip.api.validation import Picture
from hailo_clip.shared.config import Config
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Buffer, Kind


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of one request: `images` float32 ``[i, D]`` and `texts` float32 ``[t, D]``, in its order."""

    images: Embeddings
    texts: Embeddings


@dataclass(frozen=True, slots=True)
class Service:
    """One frontend process: its configuration, model, broker client, decoders and memory bound."""

    config: Config
    manifest: Manifest
    gateway: Gateway
    intake: Intake
    budget: ByteBudget

    @property
    def max_body(self) -> int:
        """Most bytes of a request body."""
        return self.config.server.max_body_mib << 20

    async def start(self) -> None:
        """Open threads and sockets, in the process and event loop that use them."""
        self.intake.start()
        await self.gateway.start()

    async def close(self) -> None:
        """Answer what waits, then let go of all that `start` opened."""
        await self.gateway.close()
        self.intake.close()

    async def json_body(self, req: falcon.asgi.Request, call: Call) -> dict[str, Any]:
        """The request's JSON object; cheap checks come first, see body.py.

        Raises:
            ClientError: 400, 408, 413 or 415.
            ServiceError: 429 or 503.
        """
        check_length(req.content_length, self.max_body)
        require_json(req.content_type, req.get_header("content-encoding"))
        self.gateway.require_ready()
        data = await read_body(req.stream, call, self.max_body, self.budget)
        call.received = perf_counter()
        return parse_object(data)

    async def embed(self, call: Call, pictures: Sequence[Picture], texts: Sequence[str]) -> Embedded:
        """The embeddings of images and texts; texts that mean the same tokens are sent once.

        Raises:
            ClientError: an image is none.
            ServiceError: 429, 500, 503 or 504; an item that failed fails the request.
        """
        ids = await self.intake.prompts(texts)
        images = [await self.intake.image(picture) for picture in pictures]
        place = {unique: i for i, unique in enumerate(dict.fromkeys(ids))}
        items: list[tuple[Kind, Buffer]] = [(Kind.IMAGE, image) for image in images]
        items += [(Kind.TEXT, unique) for unique in place]
        prepared = perf_counter()
        limit_s = self.config.queue.request_timeout_s
        deadline_s = min(limit_s, call.deadline_s or limit_s) - (prepared - call.received)
        call.items, call.timings["decode"] = len(items), prepared - call.received
        answer = await self.gateway.submit(
            items,
            tenant=call.tenant,
            deadline_s=deadline_s,
            trace=call.request_id,
            weight=call.weight,
            bulk=call.bulk,
        )
        waited = perf_counter() - prepared
        # All that was not device time is waiting, whoever waited for whom: so the stages add up.
        call.timings["queue"] = max(0.0, waited - answer.device_s)
        call.timings["device"] = min(answer.device_s, waited)
        image_rows = answer.rows(slice(0, len(images)))
        text_rows = answer.rows(slice(len(images), None))
        return Embedded(image_rows, text_rows[[place[i] for i in ids]])
