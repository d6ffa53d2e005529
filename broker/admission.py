"""Who is let in: the checks on a request at arrival, and what a refusal says.

In this order: draining, another model, malformed items, no live worker, deadline gone, queue full (with
push-out of the most over-share tenant), deadline out of reach. A request that needs no device (every
prompt cached) takes no place in the queue.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from hailo_clip.broker.costs import CostModel
from hailo_clip.broker.fairqueue import KINDS
from hailo_clip.broker.ledger import Ledger
from hailo_clip.broker.policy import Policy
from hailo_clip.broker.pool import Pool
from hailo_clip.broker.quarantine import QUARANTINED, Quarantine, digest
from hailo_clip.broker.work import Request
from hailo_clip.shared.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    Draining,
    HailoClipError,
    ModelMismatch,
    Quarantined,
    QueueFull,
    ServiceError,
    Unavailable,
)
from hailo_clip.shared.messages import Buffer, Kind, Submit

RETRY_WHEN_DOWN_S = 2.0
_LONGEST_RETRY_S = 60.0


class Demand(NamedTuple):
    """What a request asks of the devices.

    Attributes:
        nbytes: payload of its items.
        added_s: device seconds by which the whole backlog grows.
        own_s: device seconds by which its flow's own line grows: with prompts that others wait for, too.
    """

    nbytes: int
    added_s: float
    own_s: float


class Admission:
    """See the module docstring."""

    def __init__(
        self, policy: Policy, ledger: Ledger, pool: Pool, costs: CostModel, quarantine: Quarantine
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._pool = pool
        self._costs = costs
        self._quarantine = quarantine
        self._drained: float | None = None
        self._pace: float | None = None
        self.draining = False

    def admit(self, now: float, frontend: bytes, submit: Submit) -> HailoClipError | None:
        """Take the request in and place its items, or say why not (nothing has changed then)."""
        refusal = self._refusal(now, submit)
        if refusal is not None:
            return refusal
        flow = (submit.tenant, submit.bulk)
        weight = submit.weight * (self._policy.bulk_share if submit.bulk else 1.0)
        hits = self._hits(submit)
        needed = [i for i, hit in enumerate(hits) if hit is None]
        if needed:
            refusal = self._capacity(now, submit, needed, flow, weight)
            if refusal is not None:
                return refusal
        self._open(now, frontend, submit, flow, weight, hits)
        return None

    def departed(self, now: float, count: int) -> None:
        """`count` requests left the queue for a device: the drain rate is measured here.

        Only the time from one departure to the next counts, and only while somebody waited throughout: what
        is dispatched at once tells nothing about how fast a queue drains.
        """
        if count and self._drained is not None:
            interval = (now - self._drained) / count
            self._pace = interval if self._pace is None else self._pace + 0.2 * (interval - self._pace)
        if not self._ledger.waiting:
            self._drained = None
        elif count:
            self._drained = now

    def retry_after(self, now: float) -> float:
        """Seconds in which the waiting requests should be gone, from the measured drain rate."""
        if self._pace is None:
            return max(1.0, min(_LONGEST_RETRY_S, self._queue_s(now)))
        return max(1.0, min(_LONGEST_RETRY_S, self._pace * self._ledger.waiting))

    def _refusal(self, now: float, submit: Submit) -> HailoClipError | None:
        """Why nobody's request of this form can be taken now."""
        if self.draining:
            return Draining("the service is shutting down", retry_after_s=RETRY_WHEN_DOWN_S)
        if submit.fingerprint != self._policy.fingerprint:
            theirs, ours = submit.fingerprint, self._policy.fingerprint
            text = f"prepared for model fingerprint {theirs}, the broker serves {self._policy.model} ({ours})"
            return ModelMismatch(text, retry_after_s=RETRY_WHEN_DOWN_S)
        malformed = self._malformed(submit)
        if malformed is not None:
            return malformed
        if not self._pool.any_ready(now):
            return Unavailable("no worker is ready", retry_after_s=RETRY_WHEN_DOWN_S)
        if submit.ttl_s <= 0:
            return DeadlineExceeded("the deadline had passed when the request arrived")
        return None

    def _malformed(self, submit: Submit) -> HailoClipError | None:
        """A payload that is not of the model's shape: a frontend's fault, kept from the workers."""
        for kind, frame in zip(submit.kinds, submit.frames, strict=True):
            n = len(frame)
            if kind == Kind.IMAGE and n != self._policy.image_bytes:
                return ServiceError(
                    f"an image item has {n} bytes, the model takes {self._policy.image_bytes}"
                )
            if kind == Kind.TEXT and (n % 4 or not 4 <= n <= 4 * self._policy.max_tokens):
                return ServiceError(
                    f"a text item has {n} bytes, at most {self._policy.max_tokens} int32 ids fit"
                )
        return None

    def _hits(self, submit: Submit) -> list[bytes | HailoClipError | None]:
        """Per item: its cached embedding, the quarantine's refusal, or None where a device is needed."""
        return [self._hit(KINDS[k], f) for k, f in zip(submit.kinds, submit.frames, strict=True)]

    def _hit(self, kind: Kind, frame: Buffer) -> bytes | HailoClipError | None:
        if self._quarantine and self._quarantine.holds(digest(kind, frame)):
            return Quarantined(QUARANTINED)
        return self._ledger.cache.get(bytes(frame)) if kind is Kind.TEXT else None

    def _capacity(
        self, now: float, submit: Submit, needed: list[int], flow: Hashable, weight: float
    ) -> HailoClipError | None:
        """Why the queue has no place for this request; pushes others out where that is fair."""
        demand = self._demand(submit, needed, flow)
        wait = self._wait(now, submit.ttl_s, demand, flow, weight)
        if wait > submit.ttl_s:
            text = f"the estimated wait of {wait:.1f} s is beyond the deadline of {submit.ttl_s:.1f} s"
            return DeadlineUnreachable(text, retry_after_s=self.retry_after(now))
        victims = self._room(flow, demand.own_s / weight, demand.nbytes)
        if victims is None:
            text = f"{self._ledger.waiting} requests wait, at most {self._policy.max_depth} may"
            if self._ledger.waiting < self._policy.max_depth:
                mib = self._policy.max_bytes / (1 << 20)
                text = (
                    f"the waiting requests hold {self._ledger.waiting_bytes} bytes, at most {mib:g} MiB may"
                )
            return QueueFull(text, retry_after_s=self.retry_after(now))
        for victim in victims:
            self._ledger.push_out(victim, self.retry_after(now))
        return None

    def _room(self, flow: Hashable, span: float, nbytes: int) -> list[Request] | None:
        """Whom to push out so that a request of `nbytes` fits: nobody, one request, or None: no way."""
        if self._fits(0, 0, nbytes):
            return []
        victim = self._ledger.tenants.victim(flow, span)
        if victim is not None and self._fits(1, victim.nbytes, nbytes):
            return [victim]
        return None

    def _fits(self, less: int, less_bytes: int, nbytes: int) -> bool:
        held = self._ledger.waiting_bytes - less_bytes
        return self._ledger.waiting - less < self._policy.max_depth and (
            held == 0 or held + nbytes <= self._policy.max_bytes
        )

    def _demand(self, submit: Submit, needed: list[int], flow: Hashable) -> Demand:
        """What the items `needed` ask of the devices; equal prompts are one job, whoever asked first."""
        nbytes, added_s, own_s = 0, 0.0, 0.0
        keys: set[bytes] = set()
        for i in needed:
            kind, frame = KINDS[submit.kinds[i]], submit.frames[i]
            nbytes += len(frame)
            job = None
            if kind is Kind.TEXT:
                key = bytes(frame)
                if key in keys:
                    continue
                keys.add(key)
                job = self._ledger.flights.get(key)
            if job is None:
                added_s += self._costs.item(kind)
            if job is None or not (job.dispatches or job.stands_in(flow)):
                own_s += self._costs.item(kind)
        return Demand(nbytes, added_s, own_s)

    def _wait(self, now: float, enough: float, demand: Demand, flow: Hashable, weight: float) -> float:
        """Estimated seconds until the last item of a request of this demand is done.

        Under fair queueing nobody waits for more than the whole backlog, nor for more than its own
        backlog at its own share of the devices. When the first is no more than `enough`, it will do.
        """
        queue, devices, free_in = self._ledger.queue, self._pool.able_devices, self._pool.free_in(now)
        wait = (self._backlog_s() + demand.added_s) / devices + free_in
        if wait <= enough:
            return wait
        at_share = (queue.backlog(flow) + demand.own_s) / queue.share(flow, weight)
        return min(wait, at_share / devices + free_in)

    def _queue_s(self, now: float) -> float:
        return self._backlog_s() / self._pool.able_devices + self._pool.free_in(now)

    def _backlog_s(self) -> float:
        """Device seconds of all jobs that wait, each once, however many requests and tenants wait for it."""
        return sum(count * self._costs.item(kind) for kind, count in self._ledger.waiting_jobs.items())

    def _open(
        self,
        now: float,
        frontend: bytes,
        submit: Submit,
        flow: Hashable,
        weight: float,
        hits: list[bytes | HailoClipError | None],
    ) -> None:
        count = len(submit.kinds)
        request = Request(
            key=(frontend, submit.request_id),
            trace=submit.trace,
            tenant=submit.tenant,
            flow=flow,
            weight=weight,
            arrived=now,
            deadline=now + submit.ttl_s,
            results=[None] * count,
            errors=[None] * count,
            unsettled=count,
        )
        ledger = self._ledger
        ledger.open(request)
        for i, hit in enumerate(hits):
            kind = KINDS[submit.kinds[i]]
            if isinstance(hit, HailoClipError):
                ledger.refused(request, i, hit.to_wire())
            elif hit is not None:
                ledger.cached(request, i, hit)
                ledger.metrics.count("prompt_cache_hits_total")
            else:
                if kind is Kind.TEXT:
                    ledger.metrics.count("prompt_cache_misses_total")
                ledger.place(request, i, kind, submit.frames[i], len(submit.frames[i]))
        ledger.opened(now, request)
