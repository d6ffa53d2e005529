"""The frontend's state machine under any order of events: every request is settled once, and in time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hailo_clip.api.inflight import MARGIN_S, Action, Inflight, Outcome, Send, Settle
from hailo_clip.api.waiting import MAX_SENDS
from hailo_clip.shared.errors import QueueFull, Unavailable
from hailo_clip.shared.label_messages import GetLabels, Labels
from hailo_clip.shared.messages import Ping, Pong, Reply, Submit

WANTED = Submit(0, "r-1", "10.0.0.1", 1.0, False, 0.0, "", (1,), (b"ids!",))
ASKED = GetLabels(0, "acme", "ppe", "")
READY = Pong(1, "epoch-1", "ready", "", 2, "m", "print-onnx", "onnx")


class Chaos(RuleBasedStateMachine):
    """Any order of events: requests, answers, doubles, restarts, silence, cancels, time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.epoch, self.seq = 1, 0
        self.inflight = Inflight(lambda encoder: f"print-{encoder}", 5, 30)
        self.deadlines: dict[int, float] = {}
        self.asks: set[int] = set()
        self.outcomes: dict[int, Outcome | None] = {}
        self.sends: dict[int, list[tuple[int, float]]] = {}
        self._do(self.inflight.start(self.now))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Settle):
                assert action.request_id not in self.outcomes, "settled twice"
                assert self.now <= self.deadlines[action.request_id] + MARGIN_S + 1e-6
                self.outcomes[action.request_id] = action.outcome
            elif isinstance(action, Send) and isinstance(action.message, Submit):
                sends = self.sends.setdefault(action.message.request_id, [])
                sends.append((self.epoch, self.now + action.message.ttl_s))
            elif isinstance(action, Send) and isinstance(action.message, GetLabels):
                sends = self.sends.setdefault(action.message.request_id, [])
                sends.append((self.epoch, self.deadlines[action.message.request_id]))
            elif isinstance(action, Send) and isinstance(action.message, Ping):
                self.seq = action.message.seq

    @rule(ttl=st.sampled_from([0.5, 3.0, 30.0]), size=st.integers(0, 12))
    def submit(self, ttl: float, size: int) -> None:
        before = len(self.inflight)
        try:
            request_id, actions = self.inflight.submit(self.now, ttl, replace(WANTED, frames=(b"x" * size,)))
        except (Unavailable, QueueFull):
            assert len(self.inflight) == before
            return
        assert request_id not in self.deadlines
        self.deadlines[request_id] = self.now + ttl
        self._do(actions)

    @rule(ttl=st.sampled_from([0.5, 3.0, 30.0]))
    def ask(self, ttl: float) -> None:
        before = len(self.inflight)
        try:
            request_id, actions = self.inflight.submit(self.now, ttl, ASKED)
        except (Unavailable, QueueFull):
            assert len(self.inflight) == before
            return
        self.deadlines[request_id] = self.now + ttl
        self.asks.add(request_id)
        self._do(actions)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.deadlines:  # answered or not: late and doubled replies are part of life
            request_id = data.draw(st.sampled_from(sorted(self.deadlines)))
            answer: Reply | Labels = Reply(request_id, (None,), 0.0, 0.0, 0, (b"\0" * 4,))
            if request_id in self.asks:
                answer = Labels(request_id, "missing")
            self._do(self.inflight.received(self.now, answer))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = sorted(self.deadlines.keys() - self.outcomes.keys())
        if waiting:
            request_id = data.draw(st.sampled_from(waiting))
            self._do(self.inflight.cancel(request_id))
            self.outcomes[request_id] = None

    @rule(state=st.sampled_from(["ready", "ready", "ready", "starting", "unhealthy", "draining"]))
    def pong(self, state: str) -> None:
        message = replace(READY, seq=self.seq, session=f"epoch-{self.epoch}", state=state)
        self._do(self.inflight.received(self.now, message))

    @rule()
    def the_broker_restarts_or_forgets_this_frontend(self) -> None:
        self.epoch += 1

    @rule(seconds=st.floats(0.01, 5.0))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.inflight.next_wake() <= until:
            self.now = max(self.now, self.inflight.next_wake())
            self._do(self.inflight.tick(self.now))
            assert self.inflight.next_wake() > self.now, "woken for nothing"
        self.now = until

    @invariant()
    def holds(self) -> None:
        self.inflight.validate()
        assert len(self.inflight) == len(self.deadlines.keys() - self.outcomes.keys())
        for request_id, sends in self.sends.items():
            assert len(sends) <= MAX_SENDS
            assert all(until == pytest.approx(self.deadlines[request_id], abs=1e-6) for _, until in sends)

    def teardown(self) -> None:
        self.wait(30.0 + MARGIN_S + 1.0)
        assert self.deadlines.keys() == self.outcomes.keys(), "a request was never settled"


TestChaos = Chaos.TestCase
TestChaos.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
