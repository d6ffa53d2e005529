"""What a frontend knows of the service, and the refusal that follows from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hailo_clip.shared.errors import Draining, ModelMismatch, ServiceError, Unavailable
from hailo_clip.shared.messages import Pong

Link = Literal["new", "up", "down"]

MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Health:
    """The service's state as far as this frontend can tell.

    Attributes:
        status: "ready", "starting", "unhealthy", "draining", or `MISMATCH`: ready, but for another model.
        reason: why it is not ready, empty when it is.
        encoder: what the workers run, empty while unknown.
        ready_workers: workers that passed their canary, as of the last `Pong`.
        fingerprint: of the model that the workers run, empty while unknown.
    """

    status: str
    reason: str
    encoder: str
    ready_workers: int
    fingerprint: str = ""

    @property
    def ready(self) -> bool:
        """True while requests are taken."""
        return self.status == "ready"


def health_of(link: Link, pong: Pong | None, expected: str) -> Health:
    """The health that the link's state and the last `Pong` show.

    Args:
        link: "new" until the first `Pong`, then "up" or "down".
        pong: the last one.
        expected: fingerprint of this frontend's model under the encoder that `pong` names.
    """
    encoder = pong.encoder if pong else ""
    if link == "new" or pong is None:
        return Health("starting", "the broker has not answered yet", encoder, 0)
    if link == "down":
        return Health("unhealthy", "the broker does not answer", encoder, 0)
    if pong.state == "ready" and pong.fingerprint != expected:
        reason = f"this frontend's model is {expected}, the broker's {pong.model} is {pong.fingerprint}"
        return Health(MISMATCH, reason, encoder, pong.ready_workers)
    return Health(pong.state, pong.reason, encoder, pong.ready_workers, pong.fingerprint)


def refusal_of(health: Health) -> ServiceError | None:
    """The 503 for a request that arrives in this state, or None when it can be taken."""
    match health.status:
        case "ready":
            return None
        case "draining":
            return Draining("the service is shutting down", retry_after_s=5.0)
        case "starting":
            return Unavailable(because("the service is starting", health.reason), retry_after_s=2.0)
        case "mismatch":
            return ModelMismatch(health.reason, retry_after_s=5.0)
        case _:
            return Unavailable(because("the service cannot answer now", health.reason), retry_after_s=2.0)


def because(what: str, reason: str) -> str:
    """`what`, followed by its reason where there is one."""
    return f"{what}: {reason}" if reason else what
