"""A weighted fair queue over tenants, in units of device time.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing: A Scheduling Algorithm for
Integrated Services Packet Switching Networks", SIGCOMM 1996). Each flow has a start tag S, the virtual
time at which its next item may begin:

- a flow that becomes backlogged: ``S = max(V, S)``, so that idle time earns no credit;
- after one of its items is taken: ``S += cost / weight``, the item's finish tag;
- the backlogged flow with the least S goes next, and V becomes that S.

While two flows are both backlogged, the device time they got, each divided by its weight, differs by at
most one item's cost of each. Costs come from the caller at the moment an item is taken, so that a
corrected estimate counts at once. An item may stand in several flows (a prompt that several tenants wait
for): whoever's turn comes first takes it and pays, and `kill` removes the others' entries.

Each decision costs O(log flows). Pure: no clock, no I/O.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hailo_clip.shared.messages import Kind

T = TypeVar("T")
KINDS = (Kind.IMAGE, Kind.TEXT)
IDLE_KEPT = 4096
"""Most idle flows whose tags are remembered in one busy period (tenants may be client addresses)."""


@dataclass(slots=True, eq=False)
class Flow(Generic[T]):
    """One tenant's line in one class: its tag, weight, and entries by kind in order of arrival."""

    key: Hashable
    weight: float
    order: int
    start: float = 0.0
    lines: tuple[deque[Entry[T]], deque[Entry[T]]] = field(default_factory=lambda: (deque(), deque()))
    live: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def backlogged(self) -> bool:
        """True while a live entry is in it."""
        return self.live[0] > 0 or self.live[1] > 0


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One item's place in one flow; dead once it was taken or killed."""

    item: T
    kind: Kind
    flow: Flow[T]
    order: int
    live: bool = True


class FairQueue(Generic[T]):
    """See the module docstring. `cost(kind)` is the device time, in seconds, that one item is charged."""

    def __init__(self, cost: Callable[[Kind], float]) -> None:
        self._cost = cost
        self._flows: dict[Hashable, Flow[T]] = {}
        self._heaps: tuple[list[tuple[float, int, Flow[T]]], ...] = ([], [])
        self._virtual = 0.0
        self._order = 0
        self._live = [0, 0]
        self._dead = 0
        self._active = 0
        self._active_weight = 0.0
        self._forget_at = 64

    def __len__(self) -> int:
        """Live entries over all flows."""
        return self._live[0] + self._live[1]

    def push(self, key: Hashable, weight: float, kind: Kind, item: T) -> Entry[T]:
        """Put `item` at the end of the line of flow `key`, whose weight is now `weight`."""
        self._order += 1
        flow = self._flows.get(key)
        if flow is None:
            self._forget_idle_flows()
            flow = self._flows[key] = Flow(key, weight, self._order)
        if flow.backlogged:
            self._active_weight -= flow.weight
        else:
            flow.start = max(self._virtual, flow.start)
            self._active += 1
        self._active_weight += weight
        flow.weight = weight
        entry = Entry(item, kind, flow, self._order)
        flow.lines[kind].append(entry)
        flow.live[kind] += 1
        self._live[kind] += 1
        if flow.live[kind] == 1:
            self._index(flow, kind)
        return entry

    def kill(self, entry: Entry[T]) -> None:
        """Take `entry` out without charging anyone. A dead entry is left as it is."""
        if entry.live:
            self._retire(entry)
            self._dead += 1
            if self._dead > 64 + len(self):
                self._compact()

    def head(self) -> Kind | None:
        """The kind of the item whose turn it is, None when nothing waits."""
        tops = [(flow.start, flow.order, kind) for kind in KINDS if (flow := self._top(kind)) is not None]
        if not tops:
            return None
        if len(tops) == 2 and tops[0][:2] == tops[1][:2]:  # one flow, both kinds: its older item
            flow = self._flow_at(Kind.IMAGE)
            return min(KINDS, key=lambda kind: self._front(flow, kind).order)
        return min(tops)[2]

    def peek(self, kind: Kind) -> T | None:
        """The item that `take` would give, which stays where it is."""
        flow = self._top(kind)
        return self._front(flow, kind).item if flow is not None else None

    def take(self, kind: Kind) -> T | None:
        """The item of this kind whose turn it is, charged to its flow; None when there is none."""
        flow = self._top(kind)
        if flow is None:
            return None
        entry = self._front(flow, kind)
        flow.lines[kind].popleft()
        self._virtual = max(self._virtual, flow.start)
        flow.start += self._cost(kind) / flow.weight
        self._retire(entry)
        for k in KINDS:
            if flow.live[k]:
                self._index(flow, k)
        return entry.item

    def settle(self) -> None:
        """The busy period is over (nothing waits, nothing runs): every flow begins anew as equal."""
        if len(self) == 0:
            self._flows.clear()
            for heap in self._heaps:
                heap.clear()
            self._virtual, self._dead, self._forget_at = 0.0, 0, 64
            self._active, self._active_weight = 0, 0.0

    def backlog(self, key: Hashable) -> float:
        """Device time of what waits in flow `key`, in seconds."""
        flow = self._flows.get(key)
        return sum(flow.live[kind] * self._cost(kind) for kind in KINDS) if flow else 0.0

    def tail(self, key: Hashable) -> float:
        """The tag at which the last waiting item of flow `key` ends, or where its next item would begin."""
        flow = self._flows.get(key)
        if flow is None:
            return self._virtual
        start = flow.start if flow.backlogged else max(self._virtual, flow.start)
        return start + self.backlog(key) / flow.weight

    def share(self, key: Hashable, weight: float) -> float:
        """The part of all device time, 0 to 1, that flow `key` has or would have when backlogged."""
        flow = self._flows.get(key)
        others = self._active_weight - (flow.weight if flow and flow.backlogged else 0.0)
        return weight / (weight + max(0.0, others))

    def flows(self) -> dict[Hashable, tuple[int, int]]:
        """Live entries (images, texts) of each backlogged flow."""
        return {key: (f.live[0], f.live[1]) for key, f in self._flows.items() if f.backlogged}

    def check_invariants(self) -> None:
        """Raise AssertionError unless the counts equal what the lines hold. For tests."""
        for kind in KINDS:
            for flow in self._flows.values():
                assert flow.live[kind] == sum(e.live for e in flow.lines[kind])
            assert self._live[kind] == sum(f.live[kind] for f in self._flows.values())
            indexed = {id(f) for s, _, f in self._heaps[kind] if s == f.start}
            assert all(id(f) in indexed for f in self._flows.values() if f.live[kind])
        active = [f for f in self._flows.values() if f.backlogged]
        assert self._active == len(active)
        assert abs(self._active_weight - sum(f.weight for f in active)) < 1e-6 * max(1, len(active))

    def _retire(self, entry: Entry[T]) -> None:
        entry.live = False
        flow = entry.flow
        flow.live[entry.kind] -= 1
        self._live[entry.kind] -= 1
        if not flow.backlogged:
            self._active -= 1
            self._active_weight = self._active_weight - flow.weight if self._active else 0.0

    def _index(self, flow: Flow[T], kind: Kind) -> None:
        """Note the flow's tag in the kind's heap; drops what it holds in vain once that is most of it."""
        heap = self._heaps[kind]
        heapq.heappush(heap, (flow.start, flow.order, flow))
        if len(heap) > 64 + 4 * self._active:
            heap[:] = {f: (s, o, f) for s, o, f in heap if s == f.start and f.live[kind]}.values()
            heapq.heapify(heap)

    def _top(self, kind: Kind) -> Flow[T] | None:
        """The flow whose turn it is among those with this kind; drops what the heap holds in vain."""
        heap = self._heaps[kind]
        while heap:
            start, _, flow = heap[0]
            if start == flow.start and flow.live[kind]:
                return flow
            heapq.heappop(heap)
        return None

    def _flow_at(self, kind: Kind) -> Flow[T]:
        flow = self._top(kind)
        assert flow is not None
        return flow

    def _front(self, flow: Flow[T], kind: Kind) -> Entry[T]:
        """The oldest live entry; there is one."""
        line = flow.lines[kind]
        while not line[0].live:
            line.popleft()
            self._dead -= 1
        return line[0]

    def _forget_idle_flows(self) -> None:
        """Drop flows whose tag no longer says anything and, where very many are left, those that owe least.

        What is looked at here at least doubled since the last time, so that this costs O(1) a flow.
        """
        if len(self._flows) < self._forget_at:
            return
        busy = [f for f in self._flows.values() if f.backlogged]
        owing = [f for f in self._flows.values() if not f.backlogged and f.start > self._virtual]
        owing.sort(key=lambda f: f.start, reverse=True)
        self._flows = {f.key: f for f in (*busy, *owing[:IDLE_KEPT])}
        self._forget_at = 64 + 2 * len(self._flows)

    def _compact(self) -> None:
        """Drop dead entries, so that cancelled work holds no memory."""
        for flow in self._flows.values():
            for line in flow.lines:
                kept = [e for e in line if e.live]
                line.clear()
                line.extend(kept)
        self._dead = 0
