"""Who is let in: the checks on a request at arrival, and what a refusal says.

In this order: draining, another model, malformed items, no live worker, deadline gone, deadline out of
reach, queue full (with push-out of the most over-share tenant). A request that needs no device (every
prompt cached) takes no place in the queue.

A request takes one place for every `max_batch` items that need a device, so that lists don't slip past the
bound that single items meet. The bound on places holds for lists alone (more than one place): one that is
partly dispatched can't be pushed out, so it would else lock out everybody who sends single items.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple

from hailo_clip.broker.costs import TRUST_S, CostModel
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
from hailo_clip.shared.messages import Buffer, Kind, Submit, WireError

Item = tuple[Kind, Buffer]
"""Kind and payload; a prompt's payload is `bytes`, its key in the cache and in single flight."""

_NOTHING = {Kind.IMAGE: 0, Kind.TEXT: 0}
RETRY_WHEN_DOWN_S = 2.0
_LONGEST_RETRY_S = 60.0


class Demand(NamedTuple):
    """What a request asks of the devices.

    Attributes:
        places: it takes in the queue: one for each batch that its items make.
        nbytes: payload of its items.
        added: items by which the whole backlog grows, by kind.
        own_s: device seconds by which its flow's own line grows: with prompts that others wait for, too.
    """

    places: int
    nbytes: int
    added: dict[Kind, int]
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
        self._tried = dict.fromkeys(Kind, -math.inf)
        self.draining = False

    def admit(self, now: float, frontend: bytes, submit: Submit) -> HailoClipError | None:
        """Take the request in and place its items, or say why not (nothing has changed then)."""
        refusal = self._refusal(now, submit)
        if refusal is not None:
            return refusal
        flow = (submit.tenant, submit.bulk)
        weight = submit.weight * (self._policy.bulk_share if submit.bulk else 1.0)
        items = [_item(k, frame) for k, frame in zip(submit.kinds, submit.frames, strict=True)]
        hits = [self._hit(item) for item in items]
        needed = [item for item, hit in zip(items, hits, strict=True) if hit is None]
        places = 1
        if needed:
            demand = self._demand(needed, flow)
            places = demand.places
            refusal = self._capacity(now, submit.ttl_s, demand, flow, weight)
            if refusal is not None:
                return refusal
        count = len(items)
        results: list[Buffer | None] = [None] * count
        errors: list[WireError | None] = [None] * count
        key = (frontend, submit.request_id)
        request = Request(
            key, submit.trace, submit.tenant, flow, weight, now, now + submit.ttl_s, results, errors
        )
        request.places, request.unsettled = places, count
        self._open(now, request, items, hits)
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

    def _hit(self, item: Item) -> bytes | HailoClipError | None:
        """The item's cached embedding, the quarantine's refusal, or None when a device is needed."""
        kind, payload = item
        if self._quarantine and self._quarantine.holds(digest(kind, payload)):
            return Quarantined(QUARANTINED)
        return self._ledger.cache.get(payload) if kind is Kind.TEXT else None

    def _capacity(
        self, now: float, ttl_s: float, demand: Demand, flow: Hashable, weight: float
    ) -> HailoClipError | None:
        """Why the queue has no place for this request; pushes others out where that is fair."""
        wait = self._wait(now, ttl_s, demand, flow, weight)
        if wait > ttl_s and not self._on_trial(now, demand):
            text = f"the estimated wait of {wait:.3g} s is beyond the deadline of {ttl_s:.3g} s"
            return DeadlineUnreachable(text, retry_after_s=self.retry_after(now))
        if self._fits(demand):
            return None
        victim = self._ledger.tenants.victim(flow, demand.own_s / weight)
        if victim is None or not self._fits(demand, without=victim):
            return QueueFull(self._full(demand), retry_after_s=self.retry_after(now))
        text = f"pushed out of the full queue ({self._limits()}) by a client that uses less than its share"
        self._ledger.push_out(victim, QueueFull(text, retry_after_s=self.retry_after(now)))
        return None

    def _on_trial(self, now: float, demand: Demand) -> bool:
        """Whether to let it in all the same, as the estimate that calls it too late may be out of date.

        One a second of each kind.
        """
        kinds = [
            kind
            for kind, items in demand.added.items()
            if items and self._costs.doubtful(now, kind) and now >= self._tried[kind] + TRUST_S
        ]
        self._tried.update(dict.fromkeys(kinds, now))
        return bool(kinds)

    def _fits(self, demand: Demand, without: Request | None = None) -> bool:
        """Whether there is room for a request, if the waiting one `without` went."""
        waiting = self._ledger.tenants
        requests, places, held = waiting.requests, waiting.places, waiting.bytes
        if without is not None:
            requests, places, held = requests - 1, places - without.places, held - without.nbytes
        depth = self._policy.max_depth
        if requests >= depth or (demand.places > 1 and places >= depth):
            return False
        return held == 0 or held + demand.nbytes <= self._policy.max_bytes

    def _full(self, demand: Demand) -> str:
        """Which bound the waiting requests have come to."""
        waiting, policy = self._ledger.tenants, self._policy
        if waiting.requests >= policy.max_depth:
            return f"{waiting.requests} requests wait, at most {policy.max_depth} may"
        if demand.places > 1 and waiting.places >= policy.max_depth:
            return (
                f"the waiting requests take {waiting.places} places, one for every {policy.max_batch} items; "
                f"one of more than {policy.max_batch} is taken while that is less than {policy.max_depth}"
            )
        mib = policy.max_bytes / (1 << 20)
        return f"the waiting requests hold {waiting.bytes} bytes, at most {mib:g} MiB may"

    def _limits(self) -> str:
        mib = self._policy.max_bytes / (1 << 20)
        return f"{self._policy.max_depth} requests, {mib:g} MiB"

    def _demand(self, needed: list[Item], flow: Hashable) -> Demand:
        """What the items `needed` ask of the devices; equal prompts are one job, whoever asked first."""
        nbytes, own_s = 0, 0.0
        added = {Kind.IMAGE: 0, Kind.TEXT: 0}
        keys: set[bytes] = set()
        for kind, payload in needed:
            nbytes += len(payload)
            job = None
            if kind is Kind.TEXT:
                if payload in keys:
                    continue
                keys.add(payload)
                job = self._ledger.flights.get(payload)
            if job is None:
                added[kind] += 1
            if job is None or not (job.dispatches or job.stands_in(flow)):
                own_s += self._costs.item(kind)
        jobs = added[Kind.IMAGE] + added[Kind.TEXT]
        return Demand(max(1, -(-jobs // self._policy.max_batch)), nbytes, added, own_s)

    def _wait(self, now: float, enough: float, demand: Demand, flow: Hashable, weight: float) -> float:
        """Estimated seconds until the last item of a request of this demand is done.

        Under fair queueing nobody waits for more than the whole backlog, nor for more than its own
        backlog at its own share of the devices, and at least for the batch that its items are in. When the
        first is no more than `enough`, it will do.
        """
        queue, devices, free_in = self._ledger.queue, self._pool.able_devices(now), self._pool.free_in(now)
        wait = self._backlog_s(devices, demand.added) + free_in
        if wait <= enough:
            return wait
        at_share = (queue.backlog(flow) + demand.own_s) / queue.share(flow, weight)
        return min(wait, max(at_share / devices, self._batch_s(devices, demand.added)) + free_in)

    def _batch_s(self, devices: int, added: Mapping[Kind, int]) -> float:
        """Seconds of the batch of which `added` items are, filled with what waits."""
        waiting = self._ledger.waiting_jobs
        sizes = {kind: -(-(waiting[kind] + items) // devices) for kind, items in added.items() if items}
        most = self._policy.max_batch
        return max((self._costs.batch(kind, min(size, most)) for kind, size in sizes.items()), default=0.0)

    def _queue_s(self, now: float) -> float:
        return self._backlog_s(self._pool.able_devices(now)) + self._pool.free_in(now)

    def _backlog_s(self, devices: int, added: Mapping[Kind, int] = _NOTHING) -> float:
        """Seconds in which the devices are through with all that waits, and with `added` items.

        A job counts once, however many requests and tenants wait for it.
        """
        waiting = self._ledger.waiting_jobs
        images, texts = waiting[Kind.IMAGE] + added[Kind.IMAGE], waiting[Kind.TEXT] + added[Kind.TEXT]
        return self._span_s(Kind.IMAGE, images, devices) + self._span_s(Kind.TEXT, texts, devices)

    def _span_s(self, kind: Kind, jobs: int, devices: int) -> float:
        """Seconds that the devices take for so many jobs: in full batches, or else in one each."""
        each = -(-jobs // devices)
        if each >= self._policy.max_batch:
            return jobs / devices * self._costs.item(kind)
        return self._costs.batch(kind, each) if each else 0.0

    def _open(
        self, now: float, request: Request, items: list[Item], hits: list[bytes | HailoClipError | None]
    ) -> None:
        """Take `request` in, and settle or place its items."""
        ledger = self._ledger
        ledger.open(request)
        for i, hit in enumerate(hits):
            kind, payload = items[i]
            if hit is None:
                if kind is Kind.TEXT:
                    ledger.metrics.count("prompt_cache_misses_total")
                ledger.place(request, i, kind, payload)
            elif isinstance(hit, bytes):
                ledger.cached(request, i, hit)
                ledger.metrics.count("prompt_cache_hits_total")
            else:
                ledger.refused(request, i, hit.to_wire())
        ledger.opened(now, request)


def _item(kind: int, frame: Buffer) -> Item:
    """An item as the broker holds it: a prompt as bytes, which are its key, an image as it came."""
    return (Kind.TEXT, bytes(frame)) if kind else (Kind.IMAGE, frame)
