"""The part of the wire protocol that is about label sets; messages.py says how messages look.

A frontend makes a set's matrix and the broker keeps it, so that every frontend sees the same sets:

- matrix: float32 ``[n + k, D]``, little-endian, one frame: of the n prompts, then of the k negative prompts

Every `LabelRequest` has one answer: `Labels`, or `Refused` (messages.py) when it could not be carried out.
All of them may be sent again: what they make of the sets is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CREATED = "created"
REPLACED = "replaced"
CONFLICT = "conflict"
FOUND = "found"
UNCHANGED = "unchanged"
STALE = "stale"
DROPPED = "dropped"
MISSING = "missing"
LISTED = "listed"

OUTCOMES = frozenset((CREATED, REPLACED, CONFLICT, FOUND, UNCHANGED, STALE, DROPPED, MISSING, LISTED))


@dataclass(frozen=True, slots=True)
class PutLabels:
    """Keep this label set, in place of one of the same name.

    Attributes:
        request_id: unique among the requests of the frontend, those to embed included.
        namespace: whose set it is. name: within the namespace.
        prompts, templates, negatives: its definition.
        model, fingerprint: what the matrix was made with.
        expects: the version that is to be replaced, and no other; empty: whatever is there.
        frames: the matrix.
    """

    request_id: int
    namespace: str
    name: str
    prompts: tuple[str, ...]
    templates: tuple[str, ...]
    negatives: tuple[str, ...]
    model: str
    fingerprint: str
    expects: str
    frames: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class GetLabels:
    """Give this label set; `version` is the one that the frontend has, empty for none."""

    request_id: int
    namespace: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class DropLabels:
    """Forget this label set."""

    request_id: int
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ListLabels:
    """Name all label sets of this namespace."""

    request_id: int
    namespace: str


@dataclass(frozen=True, slots=True)
class Labels:
    """What became of a `LabelRequest`.

    Attributes:
        request_id: of the request.
        outcome: `CREATED` or `REPLACED`: it is kept; `CONFLICT`: the version there is another than the one
            that was to be replaced; `FOUND`: here it is; `UNCHANGED`: the frontend has it; `STALE`: here is
            its definition, its matrix is of another model than the broker serves; `DROPPED`; `MISSING`:
            there is none of that name; `LISTED`.
        version: of the set: a digest of definition, model and matrix; empty where there is none.
        model, fingerprint: what its matrix was made with. dimension: the D of it.
        prompts, templates, negatives: its definition, unless the frontend has it.
        listing: name, count of prompts and of negative prompts of each set, by name.
        frames: the matrix, where it was found.
    """

    request_id: int
    outcome: str
    version: str = ""
    model: str = ""
    fingerprint: str = ""
    dimension: int = 0
    prompts: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    listing: tuple[tuple[str, int, int], ...] = ()
    frames: tuple[Any, ...] = ()


LabelChange = PutLabels | DropLabels
LabelRequest = LabelChange | GetLabels | ListLabels
