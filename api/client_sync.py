"""The client for programs without an event loop; `AsyncClient` does the same for those with one."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing
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


class Client:
    """A service, as functions. Threads may share one; a context manager.

    Every call takes `deadline_s` and `request_id` (see `Terms`) and raises `RequestFailed`, or `ValueError`,
    `TypeError` or `OSError` for arguments that can't be sent.

    Args:
        url: of the service.
        api_key: sent with every request.
        model_fingerprint: of the only model whose answers are wanted; another one's raise `ModelChanged`.
        deadline_s: seconds for a call and all its attempts together, where the call does not say.
        retry: when a call is sent again.
        transport: how requests travel, e.g. ``httpx.HTTPTransport(uds=...)`` for a socket file.
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
        transport: httpx.BaseTransport | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._settings = Settings(url, api_key, model_fingerprint, deadline_s, retry)
        self._http = httpx.Client(transport=transport, verify=verify, trust_env=self._settings.takes_proxies)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The service's, without a slash at its end."""
        return self._settings.base_url

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def classify(
        self,
        image: ImageLike,
        prompts: Sequence[str] | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> Classification:
        """The prompts, or the labels of a stored set, that fit `image` best; see `ClassifyOptions`."""
        return self._run(calls.classify, options, image, prompts)

    def classify_many(
        self,
        images: Sequence[ImageLike],
        prompts: Sequence[str] | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> Classifications:
        """The same of up to 64 images in one request; one that fails has its error in its place."""
        return self._run(calls.classify_many, options, images, prompts)

    def embed_image(self, image: ImageLike, **terms: Unpack[Terms]) -> Embedding:
        """The embedding of an image."""
        return self._run(calls.embed_image, terms, image)

    def embed_images(self, images: Sequence[ImageLike], **terms: Unpack[Terms]) -> Embeddings:
        """The embeddings of up to 64 images in one request."""
        return self._run(calls.embed_images, terms, images)

    def embed_text(self, text: str, **terms: Unpack[Terms]) -> Embedding:
        """The embedding of a text."""
        return self._run(calls.embed_text, terms, text)

    def embed_texts(self, texts: Sequence[str], **terms: Unpack[Terms]) -> Embeddings:
        """The embeddings of up to 256 texts in one request."""
        return self._run(calls.embed_texts, terms, texts)

    def put_label_set(
        self, name: str, prompts: Sequence[str], **options: Unpack[LabelSetOptions]
    ) -> LabelSet:
        """Store prompts, and templates and negative prompts, under a name; what was there is replaced."""
        return self._run(calls.put_label_set, options, name, prompts)

    def get_label_set(self, name: str, **terms: Unpack[Terms]) -> LabelSet:
        """The label set of this name. Raises `NotFound`."""
        return self._run(calls.get_label_set, terms, name)

    def list_label_sets(self, **terms: Unpack[Terms]) -> tuple[LabelSetSummary, ...]:
        """All label sets."""
        return self._run(calls.list_label_sets, terms)

    def delete_label_set(self, name: str, **terms: Unpack[Terms]) -> None:
        """Remove a label set. Raises `NotFound`, also where the answer to a first attempt was lost."""
        self._run(calls.delete_label_set, terms, name)

    def models(self, **terms: Unpack[Terms]) -> tuple[Model, ...]:
        """The models that the service runs."""
        return self._run(calls.models, terms)

    def health(self, **terms: Unpack[Terms]) -> Health:
        """How the service is; asked once."""
        return self._run(calls.health, terms)

    def ready(self, **terms: Unpack[Terms]) -> Readiness:
        """Whether it takes requests, check by check; asked once."""
        return self._run(calls.ready, terms)

    def _run(self, make: Callable[..., Call[T]], options: Any, *given: object) -> T:
        now = time.monotonic()
        terms, rest = calls.parted(options)
        exchange = Exchange(make(*given, **rest), self._settings, terms, now)
        while (pause := self._send(exchange)) is not None:
            time.sleep(pause)
        return exchange.result

    def _send(self, exchange: Exchange[T]) -> float | None:
        """One attempt: None, or the seconds until the next one."""
        attempt = exchange.attempt(time.monotonic())
        try:
            with closing(self._http.send(request_of(attempt), stream=True)) as response:
                body = self._body(response, exchange.deadline)
        except httpx.RequestError as e:
            return exchange.lost(why(e), time.monotonic())
        return exchange.answered(response.status_code, response.headers, body, time.monotonic())

    def _body(self, response: httpx.Response, deadline: float) -> bytes:
        """The answer's body, read no longer than until the deadline, however slowly it comes."""
        parts = []
        for part in response.iter_bytes():
            parts.append(part)
            if time.monotonic() >= deadline:
                raise httpx.ReadTimeout("the answer took too long")
        return b"".join(parts)
