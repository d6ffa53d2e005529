"""What must be true for a frontend to take requests, one check at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hailo_clip.api.health import Link
from hailo_clip.shared.messages import Pong


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness; `reason` is why it does not hold, empty when it does."""

    name: str
    ok: bool
    reason: str


def checks_of(link: Link, pong: Pong | None, expected: str) -> tuple[Check, ...]:
    """The conditions of readiness, which all hold exactly when `health_of` says "ready".

    A full queue is none of them: it is the queue's own refusals that tell clients to wait, and a frontend
    that was taken out of a load balancer for it would lose the requests that it could still answer.

    Args:
        link: "new" until the first `Pong`, then "up" or "down".
        pong: the last one.
        expected: fingerprint of this frontend's model under the encoder that `pong` names.
    """
    if pong is None or link != "up":
        broker = "the broker does not answer" if link == "down" else "the broker has not answered yet"
        rest = tuple(_check(name, "unknown without the broker") for name in ("model", "workers", "intake"))
        return (_check("broker", broker), *rest)
    model = f"the broker serves {pong.model} {pong.fingerprint}, this frontend prepares for {expected}"
    draining = pong.state == "draining"
    working = pong.state == "ready" or (draining and pong.ready_workers > 0)
    return (
        _check("broker", ""),
        _check("model", "" if pong.fingerprint == expected else model),
        _check("workers", "" if working else pong.reason or "no worker is ready"),
        _check("intake", pong.reason or "the service is shutting down" if draining else ""),
    )


def _check(name: str, reason: str) -> Check:
    return Check(name, not reason, reason)
