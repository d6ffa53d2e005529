"""Prompts to vectors, and images against them.

A prompt in templates is one vector: the mean of its texts' embeddings, of length 1 again (Radford et al.
2021, section 3.1.4). Such vectors are remembered, so that a prompt in 80 templates costs its 80 passes once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hailo_clip.api.answer import Embeddings
from hailo_clip.api.call import Call
from hailo_clip.api.fields import Picture
from hailo_clip.api.labelsets import LabelSets
from hailo_clip.api.service import Embedded, Faults, Service
from hailo_clip.api.validation import Labels
from hailo_clip.shared.errors import ModelMismatch, ServiceError

REMEMBERED = 4096
"""Vectors of prompts in templates that are kept: 10 MiB at 640 dimensions."""

_SHORTEST = 1e-3
"""A mean of unit vectors that is shorter points nowhere in particular."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Images and what they are compared with.

    Attributes:
        images: float32 ``[i, D]``; the row of an image that failed is zero.
        image_faults: one entry an image: None, or why it has no embedding.
        prompts: n of them.
        vectors: float32 ``[n + k, D]``: of the n prompts, then of the k negative prompts.
    """

    images: Embeddings
    image_faults: Faults
    prompts: tuple[str, ...]
    vectors: Embeddings


class Classifier:
    """Embeds images and labels together, in one request to the broker.

    Attributes:
        sets: the stored label sets.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.sets = LabelSets(service, self.vectors)
        self._known: OrderedDict[bytes, Embeddings] = OrderedDict()

    async def compare(
        self, call: Call, pictures: Sequence[Picture], labels: Labels | str, each: bool = False
    ) -> Compared:
        """Embeddings of `pictures` and the vectors of `labels`.

        Args:
            call: the request.
            pictures: may be none.
            labels: prompts, in templates or not, and negative prompts; or the name of a label set.
            each: whether an image that fails is reported in the answer; else it fails the request.

        Raises:
            ClientError: 404, 409, or an image is none.
            ServiceError: 429, 500, 503 or 504.
        """
        if isinstance(labels, str):
            return await self._compare_stored(call, pictures, labels, each)
        embedded, vectors = await self._vectors(call, pictures, labels, each)
        return Compared(embedded.images, embedded.image_faults, labels.prompts, vectors)

    async def _compare_stored(
        self, call: Call, pictures: Sequence[Picture], name: str, each: bool
    ) -> Compared:
        """The same with a stored label set, which costs no text pass."""
        stored = await self.sets.get(call, call.namespace, name)
        embedded = await self._embed(call, pictures, (), each)
        if call.fingerprint != stored.fingerprint:
            raise _model_changed()
        return Compared(embedded.images, embedded.image_faults, stored.prompts, stored.matrix)

    async def vectors(self, call: Call, labels: Labels) -> Embeddings:
        """The vectors of `labels`, float32 ``[n + k, D]``: of its prompts, then of its negative prompts.

        Raises:
            ClientError: 409.
            ServiceError: 429, 500, 503 or 504.
        """
        return (await self.compare(call, (), labels)).vectors

    async def _vectors(
        self, call: Call, pictures: Sequence[Picture], labels: Labels, each: bool
    ) -> tuple[Embedded, Embeddings]:
        """`pictures` embedded, and the vectors of `labels`: all zero where every picture failed."""
        prompts = [*labels.prompts, *labels.negatives]
        if not labels.templates:
            embedded = await self._embed(call, pictures, prompts, each)
            return embedded, embedded.texts
        fingerprint = self._service.gateway.health.fingerprint
        keys = {prompt: _key(fingerprint, labels.templates, prompt) for prompt in prompts}
        known = {prompt: self._known.get(key) for prompt, key in keys.items()}
        missing = [prompt for prompt, vector in known.items() if vector is None]
        texts = [template.replace("{}", prompt) for prompt in missing for template in labels.templates]
        embedded = await self._embed(call, pictures, texts, each)
        if pictures and None not in embedded.image_faults:  # then no text was embedded either
            none = np.zeros((len(prompts), self._service.manifest.dimension), dtype=np.float32)
            return embedded, none
        if call.fingerprint != fingerprint:
            raise _model_changed()
        count = len(labels.templates)
        fresh = {p: mean_vector(embedded.texts[i * count : (i + 1) * count]) for i, p in enumerate(missing)}
        vectors = {prompt: fresh[prompt] if old is None else old for prompt, old in known.items()}
        self._remember({keys[prompt]: vector for prompt, vector in vectors.items()})
        return embedded, np.stack([vectors[prompt] for prompt in prompts])

    async def _embed(
        self, call: Call, pictures: Sequence[Picture], texts: Sequence[str], each: bool
    ) -> Embedded:
        if not each:
            return await self._service.embed(call, pictures, texts)
        embedded = await self._service.embed_each(call, pictures, texts)
        for fault in embedded.text_faults:
            if fault is not None:
                raise fault
        return embedded

    def _remember(self, vectors: dict[bytes, Embeddings]) -> None:
        for key, vector in vectors.items():
            self._known[key] = vector
            self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def mean_vector(rows: Embeddings) -> Embeddings:
    """The direction that `rows`, float32 ``[n, D]`` of length 1, have in common: float32 ``[D]``, length 1.

    Raises:
        ServiceError: they have none.
    """
    mean: Embeddings = rows.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if length < _SHORTEST:
        raise ServiceError("the embeddings of a prompt's templates cancel each other out")
    return (mean / length).astype(np.float32)


def _model_changed() -> ModelMismatch:
    return ModelMismatch("the model changed while the request ran", retry_after_s=1.0)


def _key(fingerprint: str, templates: Sequence[str], prompt: str) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    for part in (fingerprint, *templates, prompt):
        data = part.encode("utf-8", "surrogatepass")
        whole.update(len(data).to_bytes(4, "little") + data)
    return whole.digest()
