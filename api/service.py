"""What the resources work with: the way from a request to its embeddings."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import falcon.asgi
import numpy as np

from hailo_clip.api.answer import Embeddings
from hailo_clip.api.body import ByteBudget, MediaKind, check_length, media_kind, parse_object, read_body
from hailo_clip.api.call import Call
from hailo_clip.api.fields import Body, Picture
from hailo_clip.api.forms import file_fields, form_fields
from hailo_clip.api.gateway import Gateway
from hailo_clip.api.intake import Asker, Intake
from hailo_clip.api.refusals import Refusals
from hailo_clip.api.terms import deadline_s, require_fingerprint
from hailo_clip.shared.config import Config
from hailo_clip.shared.errors import ClientError, HailoClipError, QueueFull
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Buffer, Kind

T = TypeVar("T")
Faults = tuple[HailoClipError | None, ...]

TOKEN_BYTES = 4
"""Of a token id on the wire, see messages.py."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of one request, in its order.

    Attributes:
        images: float32 ``[i, D]``. texts: float32 ``[t, D]``. The row of an item that failed is zero.
        image_faults: one entry an image: None, or why it has no embedding. text_faults: the same of texts.
        tokens: of all texts as the model takes them, cut to its length, start and end token included.
    """

    images: Embeddings
    texts: Embeddings
    image_faults: Faults
    text_faults: Faults
    tokens: int = 0

    def whole(self) -> Embedded:
        """These embeddings, if no item failed. Raises the first error otherwise."""
        for fault in (*self.image_faults, *self.text_faults):
            if fault is not None:
                raise fault
        return self


@dataclass(frozen=True, slots=True)
class Service:
    """One frontend process: its configuration, model, broker client, decoders and memory bound."""

    config: Config
    manifest: Manifest
    gateway: Gateway
    intake: Intake
    budget: ByteBudget
    refusals: Refusals = field(default_factory=Refusals)

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
            ClientError: 400, 408, 409, 413 or 415.
            ServiceError: 429 or 503.
        """
        _, data = await self._body(req, call, files=False)
        return parse_object(data)

    async def fields(self, req: falcon.asgi.Request, call: Call) -> Body:
        """The request's fields: a JSON object, a form with files, or an image with a query.

        Raises:
            ClientError: 400, 408, 409, 413 or 415.
            ServiceError: 429 or 503.
        """
        kind, data = await self._body(req, call, files=True)
        match kind:
            case "form":
                return form_fields(data, req.content_type or "")
            case "file":
                return file_fields(data, req.query_string)
            case "json":
                return parse_object(data)

    async def embed(self, call: Call, pictures: Sequence[Picture], texts: Sequence[str]) -> Embedded:
        """The embeddings of images and texts, all of them.

        Raises:
            ClientError: an image is none (nothing is run then), or 409.
            ServiceError: 429, 500, 503 or 504; an item that failed fails the request.
        """
        images = await self._noting_refusals(call, self.intake.images(pictures, self._asker(call)))
        for image in images:
            if isinstance(image, ClientError):
                raise image
        return (await self._embed(call, images, texts)).whole()

    async def embed_each(self, call: Call, pictures: Sequence[Picture], texts: Sequence[str]) -> Embedded:
        """The embeddings of images and texts; what is wrong with one stands in the answer.

        Raises:
            ClientError: 409.
            ServiceError: 429, 503 or 504.
        """
        images = await self._noting_refusals(call, self.intake.images(pictures, self._asker(call)))
        return await self._embed(call, images, texts)

    async def _embed(
        self, call: Call, images: Sequence[Buffer | ClientError], texts: Sequence[str]
    ) -> Embedded:
        """Texts that mean the same tokens are sent once."""
        image_faults: list[HailoClipError | None] = [
            image if isinstance(image, ClientError) else None for image in images
        ]
        good = [i for i, fault in enumerate(image_faults) if fault is None]
        if images and not good:  # no text is of use without an image
            call.account("decode")
            none = self._no_rows(len(images)), self._no_rows(len(texts))
            return Embedded(*none, tuple(image_faults), (None,) * len(texts))
        ids = await self.intake.prompts(texts, self._asker(call))
        place = {unique: len(good) + i for i, unique in enumerate(dict.fromkeys(ids))}
        items: list[tuple[Kind, Buffer]] = [(Kind.IMAGE, images[i]) for i in good]
        items += [(Kind.TEXT, unique) for unique in place]
        call.account("decode")
        rows, faults = await self._noting_refusals(call, self._run(call, items))
        image_rows = rows[: len(good)]
        if len(good) < len(images):
            image_rows = self._no_rows(len(images))
            image_rows[good] = rows[: len(good)]
        for i, fault in zip(good, faults, strict=False):
            image_faults[i] = fault
        order = [place[i] for i in ids]
        text_faults = tuple(faults[i] for i in order)
        tokens = sum(map(len, ids)) // TOKEN_BYTES
        text_rows = rows[order] if order else self._no_rows(0)
        return Embedded(image_rows, text_rows, tuple(image_faults), text_faults, tokens)

    def _no_rows(self, count: int) -> Embeddings:
        return np.zeros((count, self.manifest.dimension), dtype=np.float32)

    async def _body(self, req: falcon.asgi.Request, call: Call, files: bool) -> tuple[MediaKind, bytes]:
        """The body's kind and bytes, when nothing known before it forbids to read it."""
        check_length(req.content_length, self.max_body)
        kind = media_kind(req.content_type, req.get_header("content-encoding"), files)
        call.deadline_s = deadline_s(req.get_header("x-deadline-ms"))
        call.required_fingerprint = req.get_header("x-require-model-fingerprint", default="")
        self.gateway.require_ready()
        call.fingerprint = self.gateway.health.fingerprint
        require_fingerprint(call.required_fingerprint, call.fingerprint)
        if files:  # what needs no image may be answered from the cache
            self.refusals.check(call.tenant, perf_counter())
        data = await read_body(req.stream, call, self.max_body, self.budget)
        call.account("receive")
        call.received = perf_counter()
        return kind, data

    async def _noting_refusals(self, call: Call, work: Awaitable[T]) -> T:
        """What `work` gives; if the queue is full, the tenant's next requests are told so unread."""
        try:
            return await work
        except QueueFull as refusal:
            self.refusals.note(call.tenant, perf_counter(), refusal)
            raise

    def _asker(self, call: Call) -> Asker:
        return Asker(call.tenant, call.weight, call.left(self.config.queue.request_timeout_s))

    async def _run(self, call: Call, items: Sequence[tuple[Kind, Buffer]]) -> tuple[Embeddings, Faults]:
        """Rows and faults of `items`, from the broker."""
        call.fingerprint = self.gateway.health.fingerprint
        require_fingerprint(call.required_fingerprint, call.fingerprint)
        if not items:
            return self._no_rows(0), ()
        call.items += len(items)
        answer = await self.gateway.submit(
            items,
            tenant=call.tenant,
            deadline_s=call.left(self.config.queue.request_timeout_s),
            trace=call.request_id,
            weight=call.weight,
            bulk=call.bulk,
        )
        # All that was not device time is waiting, whoever waited for whom: so the stages add up.
        call.account("queue", answer.device_s)
        return answer.embeddings, answer.errors
