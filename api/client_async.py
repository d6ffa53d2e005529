"""The client for programs with an event loop (asyncio); it does what `Client` does."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar, Unpack

import httpx

from hailo_clip.api import client_calls as calls
from hailo_clip.api.client_calls import Call, ClassifyOptions, LabelSetOptions, Terms
from hailo_clip.api.client_exchange import DEFAULT_DEADLINE_S, DEFAULT_URL, Exchange, Settings
from hailo_clip.api.client_http import request_of, why
from hailo_clip.api.client_images import ImageLike
from hailo_clip.api.client_results import (
    Classification,
    Classifications,
    Embedding,
    Embeddings,
    Health,
    LabelSet,
    LabelSetSummary,
    Model,
    Readiness,
)
from hailo_clip.api.client_retry import DEFAULT_RETRY, RetryPolicy

T = TypeVar("T")


class AsyncClient:
    """A service, as coroutines. Tasks of one event loop may share one; an async context manager.

    Every call takes `deadline_s` and `request_id` (see `Terms`) and raises `RequestFailed`, or `ValueError`,
    `TypeError` or `OSError` for arguments that can't be sent.

    Args:
        url: of the service.
        api_key: sent with every request.
        model_fingerprint: of the only model whose answers are wanted; another one's raise `ModelChanged`.
        deadline_s: seconds for a call and all its attempts together, where the call does not say.
        retry: when a call is sent again.
        transport: how requests travel, e.g. ``httpx.AsyncHTTPTransport(uds=...)`` for a socket file.
        verify: for https: whether, or by which context, the service's certificate is checked.

    Raises:
        ValueError: one of them can't be.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        model_fingerprint: str | None = None,
        deadline_s: float = DEFAULT_DEADLINE_S,
        retry: RetryPolicy = DEFAULT_RETRY,
        transport: httpx.AsyncBaseTransport | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._settings = Settings(url, api_key, model_fingerprint, deadline_s, retry)
        self._http = httpx.AsyncClient(
            transport=transport, verify=verify, trust_env=self._settings.takes_proxies
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """The service's, without a slash at its end."""
        return self._settings.base_url

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def classify(
        self,
        image: ImageLike,
        prompts: Sequence[str] | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> Classification:
        """The prompts, or the labels of a stored set, that fit `image` best; see `ClassifyOptions`."""
        return await self._run(calls.classify, options, image, prompts)

    async def classify_many(
        self,
        images: Sequence[ImageLike],
        prompts: Sequence[str] | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> Classifications:
        """The same of up to 64 images in one request; one that fails has its error in its place."""
        return await self._run(calls.classify_many, options, images, prompts)

    async def embed_image(self, image: ImageLike, **terms: Unpack[Terms]) -> Embedding:
        """The embedding of an image."""
        return await self._run(calls.embed_image, terms, image)

    async def embed_images(self, images: Sequence[ImageLike], **terms: Unpack[Terms]) -> Embeddings:
        """The embeddings of up to 64 images in one request."""
        return await self._run(calls.embed_images, terms, images)

    async def embed_text(self, text: str, **terms: Unpack[Terms]) -> Embedding:
        """The embedding of a text."""
        return await self._run(calls.embed_text, terms, text)

    async def embed_texts(self, texts: Sequence[str], **terms: Unpack[Terms]) -> Embeddings:
        """The embeddings of up to 256 texts in one request."""
        return await self._run(calls.embed_texts, terms, texts)

    async def put_label_set(
        self, name: str, prompts: Sequence[str], **options: Unpack[LabelSetOptions]
    ) -> LabelSet:
        """Store prompts, and templates and negative prompts, under a name; what was there is replaced."""
        return await self._run(calls.put_label_set, options, name, prompts)

    async def get_label_set(self, name: str, **terms: Unpack[Terms]) -> LabelSet:
        """The label set of this name. Raises `NotFound`."""
        return await self._run(calls.get_label_set, terms, name)

    async def list_label_sets(self, **terms: Unpack[Terms]) -> tuple[LabelSetSummary, ...]:
        """All label sets."""
        return await self._run(calls.list_label_sets, terms)

    async def delete_label_set(self, name: str, **terms: Unpack[Terms]) -> None:
        """Remove a label set. Raises `NotFound`, also where the answer to a first attempt was lost."""
        await self._run(calls.delete_label_set, terms, name)

    async def models(self, **terms: Unpack[Terms]) -> tuple[Model, ...]:
        """The models that the service runs."""
        return await self._run(calls.models, terms)

    async def health(self, **terms: Unpack[Terms]) -> Health:
        """How the service is; asked once."""
        return await self._run(calls.health, terms)

    async def ready(self, **terms: Unpack[Terms]) -> Readiness:
        """Whether it takes requests, check by check; asked once."""
        return await self._run(calls.ready, terms)

    async def _run(self, make: Callable[..., Call[T]], options: Any, *given: object) -> T:
        now = time.monotonic()
        terms, rest = calls.parted(options)
        call = await asyncio.to_thread(make, *given, **rest)  # reads files, encodes pictures
        exchange = Exchange(call, self._settings, terms, now)
        while (pause := await self._send(exchange)) is not None:
            await asyncio.sleep(pause)
        return exchange.result

    async def _send(self, exchange: Exchange[T]) -> float | None:
        """One attempt: None, or the seconds until the next one."""
        attempt = exchange.attempt(time.monotonic())
        try:
            async with asyncio.timeout(attempt.timeout_s):
                response = await self._http.send(request_of(attempt))
        except (httpx.RequestError, TimeoutError) as e:
            return exchange.lost(why(e), time.monotonic())
        return exchange.answered(response.status_code, response.headers, response.content, time.monotonic())
