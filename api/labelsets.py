"""Stored label sets as this frontend uses them: the broker keeps them, this has what was used of late.

The broker is asked at every use, so that a set that changed is never used as it was; what it answers of a set
that is held here already is small. A set whose matrix was made with another model than is served is embedded
again, by one request at a time, and put back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from hailo_clip.api.answer import Embeddings
from hailo_clip.api.call import Call
from hailo_clip.api.service import Service
from hailo_clip.api.validation import Labels as Definition
from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.errors import DeadlineExceeded, NotFound, ServiceError, Unavailable
from hailo_clip.shared.label_messages import DropLabels, GetLabels, Labels, ListLabels, PutLabels

MAX_HELD_BYTES = 32 << 20
"""Of sets held here: over 600 of 20 prompts at 640 dimensions."""

ATTEMPTS = 3
"""Times that a set is asked for which changes again and again meanwhile."""

Key = tuple[str, str]  # (namespace, name)

Embed = Callable[[Call, Definition], Awaitable[Embeddings]]
"""Makes float32 ``[n + k, D]`` of prompts and negative prompts; `call.fingerprint` is then the model's."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A stored set, ready to compare images with.

    Attributes:
        name: within its namespace.
        prompts: n of them. negatives: k of them, in templates or not.
        matrix: float32 ``[n + k, D]``, rows of length 1: of the prompts, then of the negative prompts.
        fingerprint: of the model that the matrix was made with: the one served when the set was asked for.
    """

    name: str
    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    matrix: Embeddings
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Held:
    version: str
    labels: LabelSet
    size: int


class LabelSets:
    """Puts, gets, drops and lists label sets.

    Args:
        service: for the broker and the limits.
        embed: makes vectors, through the queue.
    """

    def __init__(self, service: Service, embed: Embed) -> None:
        self._service, self._embed = service, embed
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._bytes = 0
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def get(self, call: Call, namespace: str, name: str) -> LabelSet:
        """The set of that name, embedded with the model that is served.

        Raises:
            NotFound: there is none.
            ServiceError: 429, 500, 503 or 504.
        """
        key = (namespace, name)
        found = await self._fetch(call, key)
        if isinstance(found, LabelSet):
            return found
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(self._left(call)):
                await lock.acquire()
        except TimeoutError:
            raise DeadlineExceeded("the label set was not embedded again before the deadline") from None
        try:
            return await self._renewed(call, key)
        finally:
            lock.release()

    async def put(self, call: Call, namespace: str, name: str, definition: Definition) -> Labels:
        """Embed `definition` and keep it; outcome `CREATED` or `REPLACED`.

        Raises:
            ClientError: 400, there is no place for it; 409.
            ServiceError: 429, 500, 503 or 504.
        """
        return await self._put(call, (namespace, name), definition, "")

    async def describe(self, call: Call, namespace: str, name: str) -> Labels:
        """The set's definition and what its matrix was made with, whatever model is served.

        Raises:
            NotFound: there is none.
            ServiceError: 429, 503 or 504.
        """
        return self._there(await self._ask(call, GetLabels(0, namespace, name, "")), name)

    async def drop(self, call: Call, namespace: str, name: str) -> None:
        """Forget the set of that name.

        Raises:
            NotFound: there is none.
            ServiceError: 429, 503 or 504.
        """
        self._forget((namespace, name))
        self._there(await self._ask(call, DropLabels(0, namespace, name)), name)

    async def list(self, call: Call, namespace: str) -> tuple[tuple[str, int, int], ...]:
        """Name, count of prompts and of negative prompts of each set, by name.

        Raises:
            ServiceError: 429, 503 or 504.
        """
        return (await self._ask(call, ListLabels(0, namespace))).listing

    async def _renewed(self, call: Call, key: Key) -> LabelSet:
        """The set, which was stale a moment ago; only one request at a time does this."""
        for _ in range(ATTEMPTS):
            found = await self._fetch(call, key)
            if isinstance(found, LabelSet):
                return found
            definition = Definition(found.prompts, found.templates, found.negatives)
            await self._put(call, key, definition, found.version)
        raise Unavailable(f"label set {key[1]!r} changes all the time", retry_after_s=1.0)

    async def _fetch(self, call: Call, key: Key) -> LabelSet | Labels:
        """The set; or what the broker says of it when its matrix is of another model."""
        held = self._held.get(key)
        answer = await self._ask(call, GetLabels(0, *key, held.version if held else ""))
        if answer.outcome == lm.UNCHANGED and held is not None:
            if key in self._held:
                self._held.move_to_end(key)
            return held.labels
        if answer.outcome == lm.MISSING:
            self._forget(key)
        self._there(answer, key[1])
        if answer.outcome == lm.STALE:
            return answer
        if answer.outcome != lm.FOUND or not answer.frames:
            raise ServiceError(f"the broker answered {answer.outcome!r} for a label set")
        return self._hold(key, answer)

    async def _put(self, call: Call, key: Key, definition: Definition, expects: str) -> Labels:
        vectors = await self._embed(call, definition)
        put = PutLabels(
            0,
            *key,
            definition.prompts,
            definition.templates,
            definition.negatives,
            self._service.manifest.name,
            call.fingerprint,
            expects,
            frames=(np.ascontiguousarray(vectors, dtype="<f4").tobytes(),),
        )
        return await self._ask(call, put)

    async def _ask(self, call: Call, wanted: lm.LabelRequest) -> Labels:
        answer = await self._service.gateway.labels(wanted, self._left(call))
        call.account("queue")
        return answer

    def _left(self, call: Call) -> float:
        return call.left(self._service.config.queue.request_timeout_s)

    def _there(self, answer: Labels, name: str) -> Labels:
        if answer.outcome == lm.MISSING:
            raise NotFound(f"There is no label set {name!r}")
        return answer

    def _hold(self, key: Key, answer: Labels) -> LabelSet:
        rows = len(answer.prompts) + len(answer.negatives)
        matrix = np.frombuffer(answer.frames[0], "<f4")
        dimension = self._service.manifest.dimension
        if matrix.size != rows * dimension:
            raise ServiceError(f"the broker answered {matrix.size} numbers for {rows} rows of {dimension}")
        found = LabelSet(
            key[1], answer.prompts, answer.negatives, matrix.reshape(rows, dimension), answer.fingerprint
        )
        size = matrix.nbytes + sum(map(len, (*answer.prompts, *answer.negatives)))
        self._forget(key)
        self._held[key] = _Held(answer.version, found, size)
        self._bytes += size
        while self._bytes > MAX_HELD_BYTES:
            self._forget(next(iter(self._held)))
        return found

    def _forget(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= held.size
