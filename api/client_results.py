"""What the client's calls return: frozen, typed, and with what is needed to trace an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hailo_clip.api.client_errors import ItemFailed

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an answer comes from.

    Attributes:
        model: its name.
        model_fingerprint: changes whenever embeddings are no longer comparable; empty where the service
            named none.
        request_id: under which the service logged the request.
    """

    model: str
    model_fingerprint: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A prompt with its score in [0, 1] and its rank, 1 for the best."""

    text: str
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item of a list has no result. `index`: its place in the list, from 0."""

    index: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(Origin):
    """The best prompts for an image, best first; empty when none reaches the threshold.

    `inference_time_ms` is the request's: that of all its images.
    """

    labels: tuple[Label, ...]
    inference_time_ms: float

    @property
    def best(self) -> Label | None:
        """The first label, None when there is none."""
        return self.labels[0] if self.labels else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifications(Origin):
    """One result an image, in order: a `Classification`, or an `ItemError` where the image failed."""

    results: tuple[Classification | ItemError, ...]
    inference_time_ms: float

    def __iter__(self) -> Iterator[Classification | ItemError]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Origin):
    """`vector`: float32 ``[D]`` of length 1, read-only."""

    vector: Vectors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embeddings(Origin):
    """The embeddings of a list of items, in order.

    Attributes:
        vectors: float32 ``[n, D]``, rows of length 1, read-only; the row of an item that failed is NaN.
        errors: one entry an item: None, or why it failed.
    """

    vectors: Vectors
    errors: tuple[ItemError | None, ...]

    def whole(self) -> Vectors:
        """`vectors`, if no item failed. Raises `ItemFailed` otherwise, with the first one's message."""
        for error in self.errors:
            if error is not None:
                message = f"item {error.index}: {error.message}"
                raise ItemFailed(message, reason=error.message, request_id=self.request_id)
        return self.vectors

    def __len__(self) -> int:
        return len(self.errors)


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A stored label set. `model_fingerprint`: of the model that its vectors were computed with."""

    name: str
    prompts: tuple[str, ...]
    templates: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    dimension: int
    model: str
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class LabelSetSummary:
    """A line of the list of label sets: how many prompts and negative prompts it has."""

    name: str
    prompts: int
    negative_prompts: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the service runs.

    Attributes:
        id: its name.
        dimension: of its embeddings.
        image_size: pixels a side of what the encoder sees.
        context_length: most tokens of a text.
        logit_scale: by which cosines are multiplied before a softmax.
        fingerprint: changes whenever embeddings are no longer comparable; empty while no worker is there.
        backend: what computes them (an emulator's mean nothing); empty while no worker is there.
        ready: whether it answers now.
    """

    id: str
    dimension: int
    image_size: int
    context_length: int
    logit_scale: float
    fingerprint: str
    backend: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Health:
    """GET /health; true while the service is healthy.

    Attributes:
        status: healthy, starting, unhealthy or draining.
        model: its name.
        backend: what computes embeddings; empty where none is there yet.
        reason: why it is not healthy, empty when it is.
        answer: all that the service said.
    """

    status: str
    model: str
    backend: str
    reason: str
    answer: Mapping[str, Any]

    def __bool__(self) -> bool:
        return self.status == "healthy"


@dataclass(frozen=True, slots=True)
class Check:
    """One of the things that must be well for the service to be ready."""

    name: str
    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """GET /readyz?verbose; true while requests are taken. `reason`: empty then."""

    ready: bool
    reason: str
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return self.ready
