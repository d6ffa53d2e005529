"""Which requests wait, by flow, and which of them makes room when the queue is full.

Whoever would be served last gives way to an arriving request that would be served clearly before it: the
places in the queue are shared out by the same virtual time as the devices. A flow's last waiting item ends
at its tail tag (`FairQueue.tail`); the newest request of the flow with the greatest tail goes, if that tail
lies behind the arriving request's own by more than half of its cost. So a tenant that used little lately
gets in, whatever the number of those that flood; tenants that are equal never push each other out.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Hashable

from hailo_clip.broker.work import Request, RequestKey

MARGIN = 0.5  # of the arriving request's cost


class Tenants:
    """Waiting requests by flow; finding the one to push out costs O(log flows).

    Args:
        tail: the tail tag of a flow, see `FairQueue.tail`.
    """

    def __init__(self, tail: Callable[[Hashable], float]) -> None:
        self.requests = 0
        self.places = 0
        self.bytes = 0
        self._tail = tail
        self._flows: dict[Hashable, dict[RequestKey, Request]] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._grown: dict[Hashable, None] = {}  # flows to be noted in the heap, in order of arrival
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self.counts())

    def add(self, request: Request) -> None:
        """`request` waits; its items stand in the fair queue already."""
        self._flows.setdefault(request.flow, {})[request.key] = request
        self.requests += 1
        self.places += request.places
        self.bytes += request.nbytes
        self._grown[request.flow] = None

    def discard(self, request: Request) -> None:
        """`request` waits no longer; unknown ones are fine."""
        waiting = self._flows.get(request.flow)
        if waiting is None or waiting.pop(request.key, None) is None:
            return
        self.requests -= 1
        self.places -= request.places
        self.bytes -= request.nbytes
        if not waiting:
            del self._flows[request.flow]
            self._grown.pop(request.flow, None)

    def victim(self, arriving: Hashable, span: float) -> Request | None:
        """Which request should make room for an arriving one; None: none should.

        Args:
            arriving: its flow.
            span: its cost divided by its weight: what it moves its flow's tail by.
        """
        last = self._last()
        if last is None or last == arriving:
            return None
        if self._tail(last) <= self._tail(arriving) + span * (1 + MARGIN):
            return None
        return next((r for r in reversed(self._flows[last].values()) if not r.dispatched), None)

    def counts(self) -> dict[str, int]:
        """Waiting requests by tenant."""
        return dict(Counter(r.tenant for waiting in self._flows.values() for r in waiting.values()))

    def check_invariants(self) -> None:
        """Raise AssertionError unless the sums agree. For tests."""
        assert all(self._flows.values())
        assert self.requests == sum(len(waiting) for waiting in self._flows.values())
        assert self.places == sum(r.places for w in self._flows.values() for r in w.values())
        assert self.bytes == sum(r.nbytes for w in self._flows.values() for r in w.values())
        assert self._grown.keys() <= self._flows.keys()
        assert set(self._flows) <= self._grown.keys() | {flow for _, _, flow in self._heap}

    def _note(self, flow: Hashable) -> None:
        heapq.heappush(self._heap, (-self._tail(flow), next(self._order), flow))
        if len(self._heap) > 64 + 4 * len(self._flows):
            self._heap = [(-self._tail(f), next(self._order), f) for f in self._flows]
            heapq.heapify(self._heap)

    def _last(self) -> Hashable | None:
        """The flow with the greatest tail; tails that moved since they were noted are noted anew."""
        for flow in self._grown:
            self._note(flow)
        self._grown.clear()
        while self._heap:
            noted, _, flow = self._heap[0]
            if flow not in self._flows:
                heapq.heappop(self._heap)
            elif -noted > self._tail(flow):
                heapq.heapreplace(self._heap, (-self._tail(flow), next(self._order), flow))
            else:
                return flow
        return None
