"""One request to the broker that has no answer yet, and what becomes of it when the broker is lost. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hailo_clip.shared.errors import Draining, HailoClipError, ModelMismatch, Unavailable
from hailo_clip.shared.label_messages import LabelRequest, PutLabels
from hailo_clip.shared.messages import Pong, Submit

MAX_SENDS = 3

Request = Submit | LabelRequest


@dataclass(slots=True)
class Waiting:
    """A request without an answer: what was sent, until when, in which session, how large, how often."""

    request: Request
    ttl_s: float
    deadline: float
    session: int
    size: int
    sends: int = 1

    def again(self, pong: Pong, left_s: float) -> Request | HailoClipError | None:
        """What to send in the new session that `pong` began, or the error that ends this; None: wait."""
        request = self.request
        if isinstance(request, Submit):
            if pong.state == "draining":
                return Draining("the broker was lost, and is shutting down", retry_after_s=5.0)
            if pong.state != "ready":
                return None
            if request.fingerprint != pong.fingerprint:
                return ModelMismatch("the broker restarted with another model", retry_after_s=1.0)
            request = dataclasses.replace(request, ttl_s=left_s)
        if self.sends == MAX_SENDS:
            text = f"the broker, or the connection to it, was lost {MAX_SENDS} times"
            return Unavailable(text, retry_after_s=2.0)
        return request


def size_of(request: Request) -> int:
    """Bytes that `request` holds, about."""
    match request:
        case Submit():
            return sum(len(frame) for frame in request.frames)
        case PutLabels():
            texts = (*request.prompts, *request.templates, *request.negatives)
            return sum(map(len, request.frames)) + sum(map(len, texts))
        case _:
            return 0
