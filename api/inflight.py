"""The client of the broker as a pure state machine: which requests wait, and what the broker is up to.

Rules (time is an argument, `Inflight.next_wake` says when to call `tick`):

- A `Ping` goes out every `PING_S` (every `PING_SOON_S` while the service is not ready). A ping that stays
  unanswered for `LIVENESS_S` makes the link "down"; a `Pong` makes it "up".
- A request is taken only while the link is up and the broker says "ready"; anything else is a 503 at once.
  One about label sets needs no worker, so it is taken whatever the broker says, if it says something.
- A session is one uninterrupted acquaintance with one broker, seen from here: it changes when the session
  that the `Pong` names does (the broker restarted, the connection to it broke, or it gave this frontend
  up) and when the link comes up. Requests are idempotent, so one that is still unanswered in a new
  session is sent again, once, with the time that is left to it, as soon as that broker is ready; but not
  more than `MAX_SENDS` times in all (see waiting.py), lest a request that kills brokers kills them until
  its deadline.
- Every request is settled exactly once: by its answer, by `cancel`, or `MARGIN_S` after its deadline.
  Whatever comes for a request that is not waiting is dropped and counted.
- A frontend that ends (`end`) waits for answers, but not for another broker: once the link is down, what
  still waits is settled.
- While the link is not up the socket is opened anew every `REOPEN_S`, so that what piled up in it does
  not reach the next broker.

======  =====================  ======
link    on                     becomes
======  =====================  ======
new     Pong                   up
up      LIVENESS_S of silence  down
down    Pong                   up
======  =====================  ======
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from hailo_clip.api.counts import HttpCounts
from hailo_clip.api.health import Health, Link, because, health_of, refusal_of
from hailo_clip.api.readiness import Check, checks_of
from hailo_clip.api.waiting import Request, Waiting, size_of
from hailo_clip.shared.errors import (
    DeadlineExceeded,
    Draining,
    HailoClipError,
    QueueFull,
    Unavailable,
    from_wire,
)
from hailo_clip.shared.label_messages import Labels
from hailo_clip.shared.messages import Cancel, Ping, Pong, Refused, Reply, Status, Submit, ToFrontend

PING_S = 1.0
PING_SOON_S = 0.25
LIVENESS_S = 3.0
REOPEN_S = 10.0
MARGIN_S = 0.5

NEVER = float("inf")
CLOSING = "this frontend is shutting down"

Outcome = Reply | Labels | HailoClipError


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to the broker."""

    message: Request | Cancel | Ping


@dataclass(frozen=True, slots=True)
class Settle:
    """`outcome` is the answer to `request_id`, which no longer waits."""

    request_id: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Reopen:
    """Close the socket, with all that is queued in it, and connect anew."""


Action = Send | Settle | Reopen


class Inflight:
    """Requests in flight at one broker.

    Args:
        fingerprint_of: the fingerprint of this frontend's model for an encoder's name.
        max_requests: most requests waiting at once; one more is a 429.
        max_bytes: most payload bytes waiting at once.
    """

    def __init__(self, fingerprint_of: Callable[[str], str], max_requests: int, max_bytes: int) -> None:
        self.counts = HttpCounts()
        self.dropped = 0
        self._fingerprint_of = fingerprint_of
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._link: Link = "new"
        self._pong: Pong | None = None
        self._health = health_of("new", None, "")
        self._session = 0
        self._seq = 0
        self._last_id = 0
        self._bytes = 0
        self._waiting: dict[int, Waiting] = {}
        self._next_ping = 0.0
        self._next_reopen = NEVER
        self._next_expiry = NEVER
        self._unanswered_since: float | None = None
        self._ending = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def health(self) -> Health:
        """The service's state as far as this frontend can tell."""
        return self._health

    @property
    def linked(self) -> bool:
        """True while the broker answers."""
        return self._link == "up"

    def checks(self) -> tuple[Check, ...]:
        """What `health` comes from, one condition at a time."""
        return checks_of(self._link, self._pong, self._expected())

    # Events

    def start(self, now: float) -> list[Action]:
        """The socket is open."""
        self._next_ping, self._next_reopen = now, now + REOPEN_S
        return self.tick(now)

    def submit(self, now: float, ttl_s: float, wanted: Request) -> tuple[int, list[Action]]:
        """Take a request; `wanted` needs no request_id yet, and a `Submit` no ttl_s and fingerprint.

        Returns:
            Its id, and what to do.

        Raises:
            ServiceError: it can't be taken (503, 429 or 504); nothing changed.
        """
        refusal = refusal_of(self._health)
        if refusal is not None and (isinstance(wanted, Submit) or not self.linked):
            raise refusal
        if ttl_s <= 0:
            raise DeadlineExceeded("the deadline passed before the inputs were ready")
        size = size_of(wanted)
        if len(self._waiting) >= self._max_requests or self._bytes + size > self._max_bytes:
            text = (
                f"{len(self._waiting)} requests of {self._bytes} bytes wait here already, "
                f"at most {self._max_requests} of {self._max_bytes} bytes may"
            )
            raise QueueFull(text, retry_after_s=1.0)
        self._last_id += 1
        request: Request
        if isinstance(wanted, Submit):
            served = self._pong.fingerprint if self._pong else ""
            w = wanted  # spelt out: dataclasses.replace takes ten times as long
            request = Submit(
                self._last_id, w.trace, w.tenant, w.weight, w.bulk, ttl_s, served, w.kinds, w.frames
            )
        else:
            request = dataclasses.replace(wanted, request_id=self._last_id)
        self._waiting[self._last_id] = Waiting(request, ttl_s, now + ttl_s, self._session, size)
        self._bytes += size
        self._next_expiry = min(self._next_expiry, now + ttl_s + MARGIN_S)
        return self._last_id, [Send(request)]

    def cancel(self, request_id: int) -> list[Action]:
        """The client of `request_id` went away."""
        if self._forget(request_id) is None:
            return []
        return [Send(Cancel(request_id))] if self._link == "up" else []

    def unsendable(self, request_id: int) -> list[Action]:
        """The socket would not take request `request_id`."""
        if self._forget(request_id) is None:
            return []
        error = Unavailable("the connection to the broker is congested", retry_after_s=1.0)
        return [Settle(request_id, error)]

    def received(self, now: float, message: ToFrontend) -> list[Action]:
        """A message of the broker arrived."""
        if isinstance(message, Pong):
            return self._on_pong(now, message)
        if isinstance(message, Status) or self._forget(message.request_id) is None:
            self.dropped += 1
            return []
        outcome = from_wire(*message.error) if isinstance(message, Refused) else message
        return [Settle(message.request_id, outcome)]

    def tick(self, now: float) -> list[Action]:
        """Time passed: ping, notice silence, expire."""
        actions: list[Action] = []
        if now >= self._silent_at():
            self._link, self._next_reopen = "down", now + REOPEN_S
            self.counts.put_back()
            self._look()
            actions += self._without_broker()
        if now >= self._next_reopen and self._link != "up":
            self._next_reopen = now + REOPEN_S
            actions.append(Reopen())
        if now >= self._next_ping:
            actions.append(self._ping(now))
        if now >= self._next_expiry:
            actions += self._expire(now)
        return actions

    def end(self) -> list[Action]:
        """This frontend was told to end; what it has may still be answered."""
        self._ending = True
        return self._without_broker()

    def stop(self) -> list[Action]:
        """This frontend ends: every waiting request is answered now."""
        error = Draining(CLOSING, retry_after_s=1.0)
        return [a for request_id in list(self._waiting) for a in self._settle(request_id, error)]

    def next_wake(self) -> float:
        """When `tick` wants to be called next, at the latest."""
        reopen = NEVER if self._link == "up" else self._next_reopen
        return min(self._next_ping, self._next_expiry, self._silent_at(), reopen)

    def validate(self) -> None:
        """Assert the invariants; tests call it after every step."""
        assert self._bytes == sum(w.size for w in self._waiting.values())
        assert len(self._waiting) <= self._max_requests
        assert self._bytes <= self._max_bytes
        assert all(w.session <= self._session for w in self._waiting.values())
        assert all(w.deadline + MARGIN_S >= self._next_expiry for w in self._waiting.values())
        assert (self._link == "new") == (self._session == 0)

    # Inside

    def _without_broker(self) -> list[Action]:
        """When this frontend ends and there is no broker, nobody is left to wait for one."""
        if not self._ending or self._link == "up":
            return []
        error = Unavailable("the broker is gone, and this frontend is shutting down", retry_after_s=1.0)
        return [a for request_id in list(self._waiting) for a in self._settle(request_id, error)]

    def _silent_at(self) -> float:
        """When the link is given up unless the broker answers before."""
        if self._link != "up" or self._unanswered_since is None:
            return NEVER
        return self._unanswered_since + LIVENESS_S

    def _on_pong(self, now: float, pong: Pong) -> list[Action]:
        before, self._pong = self._pong, pong
        forgotten = before is not None and before.session != pong.session
        self.counts.confirm(pong.seq, alone=forgotten)
        if self._link != "up" or forgotten:
            self._session += 1
        self._link, self._unanswered_since = "up", None
        self._look()
        self._next_ping = min(self._next_ping, now + self._ping_every())
        return self._resend(now, pong)

    def _resend(self, now: float, pong: Pong) -> list[Action]:
        """What to do about requests of an earlier session, now that this broker spoke."""
        actions: list[Action] = []
        for request_id, waiting in list(self._waiting.items()):
            left = waiting.deadline - now
            if waiting.session == self._session or left <= 0:
                continue
            match waiting.again(pong, left):
                case None:
                    pass
                case HailoClipError() as error:
                    actions += self._settle(request_id, error)
                case request:
                    waiting.session = self._session
                    waiting.sends += 1
                    actions.append(Send(request))
        return actions

    def _ping_every(self) -> float:
        return PING_S if self._health.ready else PING_SOON_S

    def _ping(self, now: float) -> Send:
        self._seq += 1
        self._next_ping = now + self._ping_every()
        if self._unanswered_since is None:
            self._unanswered_since = now
        report = self.counts.take(self._seq) if self._link == "up" else ()
        return Send(Ping(self._seq, report, self._pong.session if self._pong else ""))

    def _expire(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for request_id, waiting in list(self._waiting.items()):
            if now >= waiting.deadline + MARGIN_S:
                actions += self._settle(request_id, self._too_late(waiting))
        deadlines = (w.deadline for w in self._waiting.values())
        self._next_expiry = min(deadlines, default=NEVER) + MARGIN_S
        return actions

    def _too_late(self, waiting: Waiting) -> HailoClipError:
        if self._link != "up":
            return Unavailable("the broker stopped answering before the deadline", retry_after_s=2.0)
        if waiting.session != self._session:
            reason = self._pong.reason if self._pong else ""
            lost = because("the broker was lost and was not ready again before the deadline", reason)
            return Unavailable(lost, retry_after_s=2.0)
        return DeadlineExceeded(f"no answer within {waiting.ttl_s:.3g} s")

    def _settle(self, request_id: int, error: HailoClipError) -> list[Action]:
        return [Settle(request_id, error)] if self._forget(request_id) else []

    def _forget(self, request_id: int) -> Waiting | None:
        waiting = self._waiting.pop(request_id, None)
        if waiting is not None:
            self._bytes -= waiting.size
        return waiting

    def _look(self) -> None:
        """Bring `health` up to date."""
        self._health = health_of(self._link, self._pong, self._expected())

    def _expected(self) -> str:
        return self._fingerprint_of(self._pong.encoder) if self._pong else ""
