"""Start-time fair queueing: order, weights, idle flows, shared items, and nothing left behind."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hailo_clip.broker.fairqueue import IDLE_KEPT, Entry, FairQueue
from hailo_clip.shared.messages import Kind

IMAGE, TEXT = Kind.IMAGE, Kind.TEXT


def queue(image_s: float = 1.0, text_s: float = 2.0) -> FairQueue[str]:
    return FairQueue(lambda kind: image_s if kind is IMAGE else text_s)


def drain(q: FairQueue[str], kind: Kind = IMAGE) -> list[str]:
    taken = []
    while (item := q.take(kind)) is not None:
        taken.append(item)
    return taken


def fill(q: FairQueue[str], flow: str, count: int, weight: float = 1.0, kind: Kind = IMAGE) -> None:
    for i in range(count):
        q.push(flow, weight, kind, f"{flow}{i}")


# Order


def test_one_flow_is_first_come_first_served():
    q = queue()
    fill(q, "a", 5)
    assert drain(q) == ["a0", "a1", "a2", "a3", "a4"]


def test_equal_flows_take_turns_whoever_came_first_with_however_much():
    q = queue()
    fill(q, "a", 4)
    fill(q, "b", 2)
    fill(q, "c", 2)
    assert drain(q) == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "a3"]


def test_an_empty_queue_has_no_head_and_gives_nothing():
    q = queue()
    assert q.head() is None and q.take(IMAGE) is None and q.take(TEXT) is None
    assert len(q) == 0 and q.flows() == {}


def test_weights_set_the_shares():
    q = queue()
    fill(q, "light", 100, weight=1.0)
    fill(q, "heavy", 300, weight=3.0)
    first = Counter(q.take(IMAGE)[0] for _ in range(200))  # type: ignore[index]
    assert abs(first["h"] - 150) <= 1 and abs(first["l"] - 50) <= 1


def test_shares_are_of_device_time_not_of_items():
    q = queue(image_s=1.0, text_s=4.0)
    fill(q, "pictures", 400)
    fill(q, "words", 100, kind=TEXT)
    spent = {IMAGE: 0.0, TEXT: 0.0}
    for _ in range(200):
        kind = q.head()
        assert kind is not None
        q.take(kind)
        spent[kind] += 1.0 if kind is IMAGE else 4.0
    assert abs(spent[IMAGE] - spent[TEXT]) <= 5.0


def test_a_weight_that_changes_counts_from_then_on_also_in_a_busy_flow():
    q = queue()
    fill(q, "a", 200, weight=1.0)
    fill(q, "b", 200, weight=1.0)
    q.push("b", 3.0, IMAGE, "b-last")
    assert q.share("b", 3.0) == pytest.approx(0.75)
    first = Counter(q.take(IMAGE)[0] for _ in range(100))  # type: ignore[index]
    assert abs(first["b"] - 75) <= 1
    q.check_invariants()


def test_a_flow_that_was_idle_gains_no_credit():
    q = queue()
    q.push("sleeper", 1.0, IMAGE, "s-early")
    fill(q, "busy", 300)
    for _ in range(201):
        q.take(IMAGE)
    fill(q, "sleeper", 100)
    first = Counter(q.take(IMAGE)[0] for _ in range(50))  # type: ignore[index]
    assert abs(first["s"] - 25) <= 1


def test_a_flow_that_was_served_ahead_pays_back_even_after_a_pause():
    """Coming back at once must not be a way to jump the line."""
    q = queue()
    fill(q, "crowd", 50)
    served = 0
    for i in range(50):
        q.push("hopper", 1.0, IMAGE, f"h{i}")
        served += q.take(IMAGE) == f"h{served}"
    assert 24 <= served <= 26


def test_a_flow_of_tiny_weight_is_slow_but_not_starved():
    q = queue()
    fill(q, "tiny", 2, weight=0.01)
    fill(q, "big", 300)
    order = [q.take(IMAGE) for _ in range(302)]
    assert order.index("tiny0") <= 1
    assert 95 <= order.index("tiny1") <= 105


# Kinds


def test_head_tells_the_kind_whose_turn_it_is():
    q = queue()
    q.push("a", 1.0, TEXT, "a-text")
    q.push("b", 1.0, IMAGE, "b-image")
    q.push("a", 1.0, IMAGE, "a-image")
    assert q.head() is TEXT
    q.take(TEXT)
    assert q.head() is IMAGE
    assert q.take(IMAGE) == "b-image"
    assert q.take(IMAGE) == "a-image"
    assert q.head() is None


@pytest.mark.parametrize("first", [IMAGE, TEXT])
def test_within_one_flow_the_older_item_is_the_head(first):
    q = queue()
    q.push("a", 1.0, first, "older")
    q.push("a", 1.0, Kind(1 - first), "newer")
    assert q.head() is first


def test_taking_one_kind_charges_the_other_too():
    q = queue(image_s=5.0)
    q.push("a", 1.0, IMAGE, "a-image")
    q.push("a", 1.0, TEXT, "a-text")
    q.push("b", 1.0, TEXT, "b-text")
    q.take(IMAGE)
    assert q.take(TEXT) == "b-text"
    assert q.take(TEXT) == "a-text"


def test_a_cost_that_changes_counts_at_once():
    cost = {IMAGE: 1.0, TEXT: 1.0}
    q: FairQueue[str] = FairQueue(lambda kind: cost[kind])
    fill(q, "pictures", 100)
    fill(q, "words", 100, kind=TEXT)

    def texts(count: int) -> int:
        found = 0
        for _ in range(count):
            kind = q.head()
            assert kind is not None
            q.take(kind)
            found += kind is TEXT
        return found

    assert abs(texts(20) - 10) <= 1
    cost[TEXT] = 3.0
    assert abs(texts(40) - 10) <= 1
    assert q.backlog("words") == q.flows()["words"][1] * 3.0


# Killing and sharing


def test_a_killed_item_is_not_charged():
    q = queue()
    entries = [q.push("a", 1.0, IMAGE, f"a{i}") for i in range(3)]
    fill(q, "b", 3)
    q.kill(entries[0])
    q.kill(entries[0])
    assert len(q) == 5 and q.flows()["a"] == (2, 0)
    assert drain(q) == ["a1", "b0", "a2", "b1", "b2"]


def test_killing_an_item_that_was_taken_changes_nothing():
    q = queue()
    entry = q.push("a", 1.0, IMAGE, "a0")
    q.push("a", 1.0, IMAGE, "a1")
    assert q.take(IMAGE) == "a0"
    q.kill(entry)
    q.check_invariants()
    assert len(q) == 1 and q.take(IMAGE) == "a1"


def test_an_item_in_two_flows_is_paid_by_whose_turn_comes_first():
    q = queue()
    q.push("a", 1.0, TEXT, "a-own")
    shared = [q.push("a", 1.0, TEXT, "shared"), q.push("b", 1.0, TEXT, "shared")]
    q.push("b", 1.0, TEXT, "b-own")
    assert q.take(TEXT) == "a-own"
    assert q.take(TEXT) == "shared"  # b's turn: b pays
    for entry in shared:
        q.kill(entry)
    q.push("a", 1.0, TEXT, "a-more")
    assert drain(q, TEXT) == ["a-more", "b-own"]
    q.check_invariants()


# Estimates


def test_backlog_and_share():
    q = queue(image_s=1.0, text_s=2.0)
    fill(q, "a", 3)
    q.push("b", 3.0, TEXT, "b0")
    assert q.backlog("a") == 3.0 and q.backlog("b") == 2.0
    assert q.backlog("nobody") == 0.0
    assert q.share("a", 1.0) == 0.25 and q.share("b", 3.0) == 0.75
    assert q.share("newcomer", 4.0) == 0.5
    drain(q), drain(q, TEXT)
    assert q.share("a", 1.0) == 1.0


# Nothing left behind


def sizes(q: FairQueue[str]) -> int:
    """Everything the queue holds, live or not."""
    lines = sum(len(line) for flow in q._flows.values() for line in flow.lines)
    return len(q._flows) + lines + sum(map(len, q._heaps))


def test_cancelled_items_are_let_go():
    q = queue()
    fill(q, "standing", 3)
    for i in range(5000):
        q.kill(q.push(f"flow{i % 7}", 1.0, IMAGE, "gone"))
        q.check_invariants() if i % 500 == 0 else None
    assert sizes(q) < 1000
    assert drain(q) == ["standing0", "standing1", "standing2"]


def test_one_hit_tenants_are_forgotten_although_the_queue_never_empties():
    """Tenants may be client addresses: a million of them in one busy hour must not stay."""
    q = queue()
    fill(q, "standing", 1, weight=1e-6)
    q.push("standing", 1e-6, IMAGE, "for ever")
    for i in range(30_000):
        q.push(f"address{i}", 1.0, IMAGE, f"item{i}")
        q.take(IMAGE)
    assert len(q) == 2
    assert sizes(q) < 64 + 3 * IDLE_KEPT


def test_of_very_many_idle_flows_those_that_owe_most_are_remembered():
    q = queue()
    q.push("standing", 1.0, IMAGE, "for ever")
    for i in range(3 * IDLE_KEPT):
        weight = 0.5 if i % 1000 == 0 else 1.0
        q.push(f"address{i}", weight, IMAGE, "item")
        q.take(IMAGE)
    assert {f"address{i}" for i in range(0, 3 * IDLE_KEPT, 1000)} <= set(q._flows)


def test_forgetting_costs_little_a_decision():
    """Idle flows whose tags still count are not looked at again for every item taken."""
    q = queue()
    q.push("standing", 1.0, IMAGE, "for ever")
    looked_at = 0
    for i in range(4000):
        before = q._flows
        q.push(f"address{i}", 1.0, IMAGE, f"item{i}")
        looked_at += len(before) if q._flows is not before else 0
        q.take(IMAGE)
    assert 0 < looked_at < 4 * 4000


def test_the_end_of_a_busy_period_makes_all_equal():
    q = queue()
    fill(q, "a", 50)
    drain(q)
    q.settle()
    assert sizes(q) == 0
    fill(q, "b", 2)
    fill(q, "a", 2)
    assert drain(q) == ["b0", "a0", "b1", "a1"]


def test_settle_does_nothing_while_something_waits():
    q = queue()
    fill(q, "a", 2)
    q.take(IMAGE)
    q.settle()
    assert drain(q) == ["a1"]


# Against a reference


@dataclass
class PlainFlow:
    """A flow of the reference: everything in one list."""

    weight: float
    order: int
    start: float = 0.0
    line: list[tuple[int, Kind, int]] = field(default_factory=list)  # (order, kind, item), all live


class Model(RuleBasedStateMachine):
    """The queue beside a plain reference that looks at everything each time."""

    def __init__(self) -> None:
        super().__init__()
        self.cost = {IMAGE: 1.0, TEXT: 2.0}
        self.queue: FairQueue[int] = FairQueue(lambda kind: self.cost[kind])
        self.flows: dict[str, PlainFlow] = {}
        self.entries: dict[int, list[tuple[str, int, Kind, Entry[int]]]] = {}
        self.virtual = 0.0
        self.numbers = itertools.count(1)
        self.orders = itertools.count(1)

    def turn(self, kind: Kind) -> str | None:
        """Whose turn it is: the least start tag, then the older flow."""
        waiting = [k for k, f in self.flows.items() if any(e[1] is kind for e in f.line)]
        return min(waiting, key=lambda k: (self.flows[k].start, self.flows[k].order), default=None)

    @rule(
        flows=st.sets(st.sampled_from("abcde"), min_size=1, max_size=3),
        kind=st.sampled_from([IMAGE, TEXT]),
        weight=st.sampled_from([1.0, 0.25, 4.0]),
    )
    def push(self, flows: set[str], kind: Kind, weight: float) -> None:
        """One item, in one flow or several."""
        item = next(self.numbers)
        for key in sorted(flows):
            order = next(self.orders)
            flow = self.flows.setdefault(key, PlainFlow(weight, order))
            if not flow.line:
                flow.start = max(flow.start, self.virtual)
            flow.weight = weight
            flow.line.append((order, kind, item))
            entry = self.queue.push(key, weight, kind, item)
            self.entries.setdefault(item, []).append((key, order, kind, entry))

    @precondition(lambda self: self.entries)
    @rule(pick=st.integers(0, 99), every=st.booleans())
    def kill(self, pick: int, every: bool) -> None:
        """One place of an item, or all of them."""
        item = list(self.entries)[pick % len(self.entries)]
        places = self.entries[item]
        for key, order, kind, entry in places if every else places[:1]:
            self.queue.kill(entry)
            self.flows[key].line.remove((order, kind, item))
        self.entries[item] = [] if every else places[1:]
        if not self.entries[item]:
            del self.entries[item]

    @rule(kind=st.sampled_from([IMAGE, TEXT]))
    def take(self, kind: Kind) -> None:
        key = self.turn(kind)
        item = self.queue.take(kind)
        if key is None:
            assert item is None
            return
        flow = self.flows[key]
        expected = next(e for e in flow.line if e[1] is kind)
        assert item == expected[2]
        self.virtual = max(self.virtual, flow.start)
        flow.start += self.cost[kind] / flow.weight
        for place, order, k, entry in self.entries.pop(expected[2]):
            self.queue.kill(entry)
            self.flows[place].line.remove((order, k, expected[2]))

    @rule(kind=st.sampled_from([IMAGE, TEXT]), cost=st.sampled_from([0.5, 1.0, 3.0]))
    def cost_changes(self, kind: Kind, cost: float) -> None:
        self.cost[kind] = cost

    @rule(times=st.integers(10, 60))
    def many_cancelled(self, times: int) -> None:
        """Enough to make it compact."""
        for _ in range(times):
            self.queue.kill(self.queue.push("a", self._weight("a"), IMAGE, 0))
            flow = self.flows.setdefault("a", PlainFlow(1.0, next(self.orders)))
            if not flow.line:
                flow.start = max(flow.start, self.virtual)

    def _weight(self, key: str) -> float:
        return self.flows[key].weight if key in self.flows else 1.0

    @rule()
    def settle(self) -> None:
        self.queue.settle()
        if not self.entries:
            self.flows.clear()
            self.virtual = 0.0

    @invariant()
    def head_is_right(self) -> None:
        turns = {kind: self.turn(kind) for kind in (IMAGE, TEXT)}
        heads = [
            (self.flows[k].start, self.flows[k].order, kind) for kind, k in turns.items() if k is not None
        ]
        if not heads:
            assert self.queue.head() is None
        elif len(heads) == 2 and turns[IMAGE] == turns[TEXT]:
            key = turns[IMAGE]
            assert key is not None
            assert self.queue.head() is min(self.flows[key].line)[1]
        else:
            assert self.queue.head() is min(heads)[2]

    @invariant()
    def books_agree(self) -> None:
        self.queue.check_invariants()
        live = [e for f in self.flows.values() for e in f.line]
        assert len(self.queue) == len(live)
        busy = {k: f for k, f in self.flows.items() if f.line}
        assert set(self.queue.flows()) == set(busy)
        for key, flow in busy.items():
            share = flow.weight / sum(f.weight for f in busy.values())
            assert self.queue.share(key, flow.weight) == pytest.approx(share)
            assert self.queue.backlog(key) == pytest.approx(sum(self.cost[e[1]] for e in flow.line))


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestModel = Model.TestCase
