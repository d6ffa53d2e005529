"""The label sets of the fake broker: no limits and no files, and what a test wants to go wrong does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.label_messages import (
    DropLabels,
    GetLabels,
    LabelRequest,
    Labels,
    ListLabels,
    PutLabels,
)
from hailo_clip.shared.messages import Refused, WireError


@dataclass
class FakeLabels:
    """Label sets by namespace and name.

    Attributes:
        refusal: what every request gets, if there is any.
        before_put: called before each set is kept.
        mute: nothing is answered.
    """

    refusal: WireError | None = None
    before_put: Callable[[PutLabels], None] | None = None
    mute: bool = False

    def __post_init__(self) -> None:
        self.sets: dict[tuple[str, str], Labels] = {}
        self._versions = itertools.count(1)

    def put(self, put: PutLabels) -> None:
        """Keep a set."""
        rows = len(put.prompts) + len(put.negatives)
        self.sets[put.namespace, put.name] = Labels(
            0,
            lm.FOUND,
            version=f"v{next(self._versions)}",
            model=put.model,
            fingerprint=put.fingerprint,
            dimension=len(put.frames[0]) // rows // 4,
            prompts=put.prompts,
            templates=put.templates,
            negatives=put.negatives,
            frames=(bytes(put.frames[0]),),
        )

    def answer(self, request: LabelRequest, fingerprint: str) -> list[Labels | Refused]:
        """What a broker says that serves the model of `fingerprint`."""
        if self.mute:
            return []
        if self.refusal is not None:
            return [Refused(request.request_id, self.refusal)]
        return [replace(self._outcome(request, fingerprint), request_id=request.request_id)]

    def _outcome(self, request: LabelRequest, fingerprint: str) -> Labels:
        if isinstance(request, ListLabels):
            own = [(name, s) for (space, name), s in sorted(self.sets.items()) if space == request.namespace]
            listing = tuple((name, len(s.prompts), len(s.negatives)) for name, s in own)
            return Labels(0, lm.LISTED, listing=listing)
        key = request.namespace, request.name
        if isinstance(request, PutLabels) and self.before_put is not None:
            self.before_put(request)
        found = self.sets.get(key)
        match request:
            case PutLabels():
                if request.expects and (found is None or found.version != request.expects):
                    return Labels(0, lm.CONFLICT)
                self.put(request)
                outcome = lm.CREATED if found is None else lm.REPLACED
                return replace(self.sets[key], outcome=outcome, frames=())
            case GetLabels() if found is not None:
                if found.fingerprint != fingerprint:
                    return replace(found, outcome=lm.STALE, frames=())
                return Labels(0, lm.UNCHANGED, found.version) if found.version == request.version else found
            case DropLabels() if found is not None:
                del self.sets[key]
                return Labels(0, lm.DROPPED)
        return Labels(0, lm.MISSING)
