"""Label sets by namespace and name: bounded, and the same for every frontend.

A set is its definition (prompts, templates, negative prompts) and the matrix that a frontend made of it. When
another model is served than the matrix was made with, the definition stays and the matrix is stale: the
frontend that needs it makes it anew and puts it back, unless the set was changed meanwhile.

Nothing is dropped to make room: a set that does not fit is refused.

A change is worked out first (`plan`) and made later (`apply`), so that in between it can be put on the disk
and be dropped when the disk does not take it. `Change.file` and `LabelStore.load` carry a set across restarts
in this layout:

    magic (8) | SHA-256 of the rest (32)
    | msgpack [namespace, name, prompts, templates, negatives, model, fingerprint, matrix]

Pure: labelfiles.py reads and writes the files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgpack
import numpy as np

from hailo_clip.broker.policy import Policy
from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.codec import ProtocolError, decode_from_frontend, encode
from hailo_clip.shared.errors import HailoClipError, LimitReached, ModelMismatch, ServiceError
from hailo_clip.shared.label_messages import (
    DropLabels,
    GetLabels,
    LabelChange,
    LabelRequest,
    Labels,
    ListLabels,
    PutLabels,
)
from hailo_clip.shared.messages import Refused

MAGIC = b"HCPLABL1"

Key = tuple[str, str]  # (namespace, name)

_OVERHEAD = 100  # bytes of Python objects a text, measured with sys.getsizeof
_SHORTEST, _LONGEST = 0.99, 1.01  # the square of a row's length


@dataclass(frozen=True, slots=True)
class _Stored:
    """One label set: what was put, without its frame, and the matrix.

    `version` is a digest of it all, `dimension` the D of its matrix, `size` its memory in bytes, about.
    """

    put: PutLabels
    matrix: bytes
    version: str
    dimension: int
    size: int

    @property
    def key(self) -> Key:
        return self.put.namespace, self.put.name

    @property
    def definition(self) -> tuple[tuple[str, ...], ...]:
        return self.put.prompts, self.put.templates, self.put.negatives


@dataclass(frozen=True, slots=True)
class Change:
    """What a request makes of one set.

    Attributes:
        answer: to the request, once the change is made.
        old, new: the set before and after, None where there is none.
        renews: only the matrix is another one, which may get lost: it is made again from the definition.
    """

    answer: Labels
    key: Key
    old: _Stored | None
    new: _Stored | None
    renews: bool = False

    def file(self) -> bytes | None:
        """The set's file after the change; None when it is to be gone."""
        return _dump(self.new)

    def former_file(self) -> bytes | None:
        """The set's file before the change; None when there was none."""
        return _dump(self.old)


class LabelStore:
    """See the module docstring.

    Attributes:
        bytes: memory of all sets, about.
    """

    def __init__(self, policy: Policy) -> None:
        self.bytes = 0
        self._policy = policy
        self._sets: dict[Key, _Stored] = {}

    def __len__(self) -> int:
        return len(self._sets)

    def answer(self, request: LabelRequest) -> Labels | Refused:
        """Carry `request` out at once, or refuse it and change nothing."""
        match request:
            case GetLabels():
                return self._get(request)
            case ListLabels():
                return self._list(request)
        planned = self.plan(request)
        if not isinstance(planned, Change):
            return planned
        self.apply(planned)
        return planned.answer

    def plan(self, request: LabelChange) -> Change | Labels | Refused:
        """What `request` is to change; or its answer, where it changes nothing."""
        try:
            return self._put(request) if isinstance(request, PutLabels) else self._drop(request)
        except HailoClipError as error:
            return Refused(request.request_id, error.to_wire())

    def apply(self, change: Change) -> None:
        """Make a change that was planned, with no other made meanwhile."""
        self.bytes += (change.new.size if change.new else 0) - (change.old.size if change.old else 0)
        if change.new is None:
            del self._sets[change.key]
        else:
            self._sets[change.key] = change.new

    def load(self, data: bytes) -> Key:
        """Take over the set in a file; its key.

        Raises:
            ValueError: the file is damaged; the message says how.
            LimitReached: there is no place for the set.
        """
        stored = _parse(data)
        if stored.dimension != self._policy.dimension and stored.put.fingerprint == self._policy.fingerprint:
            raise ValueError("its matrix does not fit its model")
        self.apply(self._change(Labels(0, lm.CREATED), stored))
        return stored.key

    def check_invariants(self) -> None:
        """Raise AssertionError unless the books agree. For tests."""
        assert self.bytes == sum(stored.size for stored in self._sets.values())
        assert self.bytes <= self._policy.max_label_bytes
        assert len(self) <= self._policy.max_label_sets
        assert all(key == stored.key for key, stored in self._sets.items())

    def _put(self, put: PutLabels) -> Change | Labels:
        if put.fingerprint != self._policy.fingerprint:
            raise ModelMismatch("the label set was made with another model than is served", retry_after_s=1.0)
        fresh = _stored(put, bytes(put.frames[0]))
        if fresh is None or fresh.dimension != self._policy.dimension:
            raise ServiceError("the matrix of the label set does not fit its prompts")
        old = self._sets.get(fresh.key)
        if put.expects and (old is None or old.version != put.expects):
            return Labels(put.request_id, lm.CONFLICT)
        answer = _about(put.request_id, lm.CREATED if old is None else lm.REPLACED, fresh)
        return self._change(answer, fresh, renewing=bool(put.expects))

    def _get(self, get: GetLabels) -> Labels:
        found = self._sets.get((get.namespace, get.name))
        if found is None:
            return Labels(get.request_id, lm.MISSING)
        if found.put.fingerprint != self._policy.fingerprint:
            return _about(get.request_id, lm.STALE, found)
        if found.version == get.version:
            return Labels(get.request_id, lm.UNCHANGED, found.version)
        return _about(get.request_id, lm.FOUND, found, found.matrix)

    def _drop(self, drop: DropLabels) -> Change | Labels:
        found = self._sets.get((drop.namespace, drop.name))
        if found is None:
            return Labels(drop.request_id, lm.MISSING)
        return Change(Labels(drop.request_id, lm.DROPPED), found.key, found, None)

    def _list(self, wanted: ListLabels) -> Labels:
        own = (s.put for s in self._sets.values() if s.put.namespace == wanted.namespace)
        listing = sorted((put.name, len(put.prompts), len(put.negatives)) for put in own)
        return Labels(wanted.request_id, lm.LISTED, listing=tuple(listing))

    def _change(self, answer: Labels, fresh: _Stored, renewing: bool = False) -> Change:
        """To keep `fresh` in place of what has its key. Raises `LimitReached`."""
        old = self._sets.get(fresh.key)
        most, room = self._policy.max_label_sets, self._policy.max_label_bytes
        if old is None and len(self) >= most:
            raise LimitReached(
                f"There is no place for another label set: {len(self)} of {most} are kept; delete one first"
            )
        total = self.bytes + fresh.size - (old.size if old else 0)
        if total > room:
            raise LimitReached(
                f"There is no place for a label set of {fresh.size} bytes: of {room}, "
                f"{max(0, room - total + fresh.size)} are free; delete another one first"
            )
        renews = renewing and old is not None and old.definition == fresh.definition
        return Change(answer, fresh.key, old, fresh, renews)


def _about(request_id: int, outcome: str, stored: _Stored, *frames: bytes) -> Labels:
    put = stored.put
    return Labels(
        request_id,
        outcome,
        version=stored.version,
        model=put.model,
        fingerprint=put.fingerprint,
        dimension=stored.dimension,
        prompts=put.prompts,
        templates=put.templates,
        negatives=put.negatives,
        frames=frames,
    )


def _stored(put: PutLabels, matrix: bytes) -> _Stored | None:
    """The set to keep; None when `matrix` is not one row of length 1 for each prompt."""
    texts = (*put.prompts, *put.templates, *put.negatives)
    rows = len(put.prompts) + len(put.negatives)
    dimension, rest = divmod(len(matrix), rows * 4)
    if rest or not dimension:
        return None
    values = np.frombuffer(matrix, "<f4").reshape(rows, dimension)
    if not all(_SHORTEST < square < _LONGEST for square in np.einsum("ij,ij->i", values, values).tolist()):
        return None
    kept = PutLabels(
        0, put.namespace, put.name, put.prompts, put.templates, put.negatives, put.model, put.fingerprint, ""
    )
    version = hashlib.blake2b(_body(kept, matrix), digest_size=16).hexdigest()
    size = len(matrix) + sum(_OVERHEAD + len(text.encode()) for text in texts)
    return _Stored(kept, matrix, version, dimension, size)


def _dump(stored: _Stored | None) -> bytes | None:
    if stored is None:
        return None
    body = _body(stored.put, stored.matrix)
    return MAGIC + hashlib.sha256(body).digest() + body


def _body(put: PutLabels, matrix: bytes) -> bytes:
    definition = (put.namespace, put.name, put.prompts, put.templates, put.negatives)
    return bytes(msgpack.packb((*definition, put.model, put.fingerprint, matrix)))


def _parse(data: bytes) -> _Stored:
    """The set in a file. Raises ValueError."""
    start = len(MAGIC)
    body = data[start + 32 :]
    if data[:start] != MAGIC or hashlib.sha256(body).digest() != data[start : start + 32]:
        raise ValueError("the checksum does not match")
    try:
        *definition, matrix = msgpack.unpackb(body, use_list=False)
        namespace, name, prompts, templates, negatives, model, fingerprint = definition
        put = PutLabels(
            0, namespace, name, prompts, templates, negatives, model, fingerprint, "", frames=(matrix,)
        )
        sound = decode_from_frontend(encode(put)) == put  # the codec knows what is one
    except (ProtocolError, ValueError, TypeError, OverflowError, msgpack.UnpackException) as e:
        raise ValueError(f"it holds no label set ({type(e).__name__})") from None
    stored = _stored(put, matrix) if sound and isinstance(matrix, bytes) else None
    if stored is None:
        raise ValueError("its matrix does not fit its prompts")
    return stored
