"""Who makes room in a full queue: whoever would be served last, and never for an equal."""

from __future__ import annotations

import itertools
from collections.abc import Hashable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hailo_clip.broker.fairqueue import Entry, FairQueue
from hailo_clip.broker.tenants import MARGIN, Tenants
from hailo_clip.broker.work import Request
from hailo_clip.shared.messages import Kind


class Line:
    """Waiting requests of one or more images in a fair queue; an image costs one second."""

    def __init__(self) -> None:
        self.queue: FairQueue[Request] = FairQueue(lambda kind: 1.0)
        self.tenants = Tenants(self.queue.tail)
        self.entries: dict[Request, list[Entry[Request]]] = {}
        self.numbers = itertools.count()

    def wait(self, flow: Hashable, weight: float = 1.0, images: int = 1) -> Request:
        request = Request(
            (b"f", next(self.numbers)), "t", str(flow), flow, weight, 0.0, 1.0, [None], [None], nbytes=images
        )
        places = [self.queue.push(flow, weight, Kind.IMAGE, request) for _ in range(images)]
        self.entries[request] = places
        self.tenants.add(request)
        return request

    def serve(self) -> None:
        request = self.queue.take(Kind.IMAGE)
        if request is None:
            return
        request.dispatched += 1
        if not any(e.live for e in self.entries[request]):
            self.leave(request)

    def leave(self, request: Request) -> None:
        for entry in self.entries.pop(request):
            self.queue.kill(entry)
        self.tenants.discard(request)


def line(names: str) -> tuple[Line, list[Request]]:
    """One waiting request for each letter, whose flow it is."""
    found = Line()
    return found, [found.wait(name) for name in names]


def test_the_newest_request_of_whoever_would_be_served_last_goes():
    waiting, requests = line("abaaab")
    assert waiting.tenants.victim("newcomer", 1.0) is requests[4]


@pytest.mark.parametrize(
    ("names", "arriving"),
    [
        ("", "a"),
        ("a", "b"),  # both would have one
        ("aab", "b"),  # b would have two as well
        ("aaa", "a"),  # nobody pushes out their own
        ("aab", "a"),
        ("aabb", "b"),
        ("aaabb", "b"),  # b would have three as well
    ],
)
def test_equals_do_not_push_each_other_out(names, arriving):
    assert line(names)[0].tenants.victim(arriving, 1.0) is None


@pytest.mark.parametrize(
    ("names", "arriving", "index"), [("aa", "b", 1), ("aaab", "b", 2), ("bbaabb", "a", 5)]
)
def test_who_would_be_served_clearly_before_pushes_out(names, arriving, index):
    waiting, requests = line(names)
    assert waiting.tenants.victim(arriving, 1.0) is requests[index]


def test_weights_and_costs_count_not_numbers():
    waiting = Line()
    for _ in range(4):
        waiting.wait("heavy", weight=4.0)
    light = waiting.wait("light", weight=0.5)
    assert waiting.tenants.victim("newcomer", 1.0) is light
    large = Line()
    for _ in range(3):
        large.wait("small")
    big = large.wait("big", images=6)
    assert large.tenants.victim("newcomer", 1.0) is big
    assert large.tenants.victim("newcomer", 6.0) is None


def test_who_used_much_lately_gets_no_place_for_being_absent_from_the_queue():
    waiting = Line()
    for _ in range(5):
        waiting.wait("greedy")
    waiting.wait("modest")
    for _ in range(6):
        waiting.serve()
    waiting.wait("modest")
    waiting.wait("modest")
    assert waiting.tenants.victim("greedy", 1.0) is None
    assert waiting.tenants.victim("newcomer", 1.0) is not None


def test_what_was_partly_dispatched_stays():
    waiting, requests = line("aaa")
    requests[2].dispatched = 1
    assert waiting.tenants.victim("b", 1.0) is requests[1]
    for request in requests:
        request.dispatched = 1
    assert waiting.tenants.victim("b", 1.0) is None


def test_discarding_twice_counts_once():
    waiting, requests = line("ab")
    waiting.leave(requests[0])
    waiting.tenants.discard(requests[0])
    assert (waiting.tenants.requests, waiting.tenants.bytes, len(waiting.tenants)) == (1, 1, 1)
    assert waiting.tenants.counts() == {"b": 1}


class Model(RuleBasedStateMachine):
    """Beside a search through all flows; costs are constant, as tails are noted when a request comes."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()

    @rule(
        flow=st.sampled_from("abcd"),
        weight=st.sampled_from([1.0, 0.1, 3.0]),
        images=st.integers(1, 4),
        times=st.integers(1, 20),
    )
    def wait(self, flow: str, weight: float, images: int, times: int) -> None:
        for _ in range(times):
            self.line.wait(flow, weight, images)

    @rule(times=st.integers(1, 20))
    def serve(self, times: int) -> None:
        for _ in range(times):
            self.line.serve()

    @precondition(lambda self: self.line.entries)
    @rule(pick=st.integers(0, 99), times=st.integers(1, 20))
    def leave(self, pick: int, times: int) -> None:
        for _ in range(min(times, len(self.line.entries))):
            self.line.leave(list(self.line.entries)[pick % len(self.line.entries)])

    @rule()
    def settle(self) -> None:
        self.line.queue.settle()

    @rule(arriving=st.sampled_from("abcde"), span=st.sampled_from([0.3, 1.0, 10.0]))
    def ask(self, arriving: str, span: float) -> None:
        tails = {flow: self.line.queue.tail(flow) for flow in {r.flow for r in self.line.entries}}
        last = max(tails.values(), default=0.0)
        found = self.line.tenants.victim(arriving, span)
        if not tails or last <= self.line.queue.tail(arriving) + span * (1 + MARGIN):
            assert found is None
            return
        candidates = []
        for flow in (f for f, tail in tails.items() if tail == last):
            whole = [r for r in self.line.entries if r.flow == flow and not r.dispatched]
            candidates.append(whole[-1] if whole else None)
        assert found in candidates

    @invariant()
    def sums_agree(self) -> None:
        self.line.tenants.check_invariants()
        self.line.queue.check_invariants()
        waiting = list(self.line.entries)
        assert self.line.tenants.requests == len(waiting)
        assert self.line.tenants.bytes == sum(r.nbytes for r in waiting)
        assert len(self.line.tenants._heap) <= 64 + 4 * 4 + 1
        assert sum(self.line.tenants.counts().values()) == len(waiting)


Model.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase
