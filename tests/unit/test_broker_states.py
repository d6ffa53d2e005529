"""The three tables: each (state, event) pair is legal or refused unchanged, and the stated rules hold."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

from hailo_clip.broker.breaker import Breaker
from hailo_clip.broker.pool import Device
from hailo_clip.broker.pool import Worker as PoolWorker
from hailo_clip.broker.states import (
    JOB,
    REQUEST,
    WORKER,
    IllegalTransition,
    JobEvent,
    JobState,
    RequestEvent,
    RequestState,
    WorkerEvent,
    WorkerState,
    step,
)
from hailo_clip.broker.work import Job, Request
from hailo_clip.shared.messages import Hello, Kind

R, RE, J, JE, W, WE = RequestState, RequestEvent, JobState, JobEvent, WorkerState, WorkerEvent

# What may follow what, written out once more: a change of a table must be meant.
LEGAL: dict[type[Enum], dict[tuple[Enum, Enum], Enum]] = {
    R: {
        (R.WAITING, RE.DISPATCHED): R.RUNNING,
        (R.WAITING, RE.PUSH_OUT): R.PUSHED_OUT,
        **{(s, RE.COMPLETED): R.ANSWERED for s in (R.WAITING, R.RUNNING)},
        **{(s, RE.ALL_FAILED): R.FAILED for s in (R.WAITING, R.RUNNING)},
        **{(s, RE.DEADLINE): R.EXPIRED for s in (R.WAITING, R.RUNNING)},
        **{(s, RE.CANCEL): R.CANCELLED for s in (R.WAITING, R.RUNNING)},
    },
    J: {
        (J.WAITING, JE.DISPATCH): J.RUNNING,
        (J.RUNNING, JE.SUCCEED): J.DONE,
        (J.RUNNING, JE.SPOIL): J.SPOILED,
        (J.WAITING, JE.SPOIL): J.SPOILED,
        (J.RUNNING, JE.RETRY): J.WAITING,
        (J.WAITING, JE.ABANDON): J.DROPPED,
        (J.RUNNING, JE.ABANDON): J.DROPPED,
    },
    W: {
        (W.LOADING, WE.PASSED): W.READY,
        (W.READY, WE.PASSED): W.READY,
        **{(s, WE.STOP): W.STOPPING for s in (W.LOADING, W.READY, W.STOPPING)},
        **{
            (s, e): W.GONE
            for s in (W.LOADING, W.READY, W.STOPPING)
            for e in WE
            if e not in (WE.PASSED, WE.STOP)
        },
    },
}
START: dict[type[Enum], Enum] = {R: R.WAITING, J: J.WAITING, W: W.LOADING}
TERMINAL: dict[type[Enum], set[Enum]] = {
    R: {R.ANSWERED, R.FAILED, R.EXPIRED, R.CANCELLED, R.PUSHED_OUT},
    J: {J.DONE, J.SPOILED, J.DROPPED},
    W: {W.GONE},
}
EVENTS: dict[type[Enum], type[Enum]] = {R: RE, J: JE, W: WE}
TABLES: dict[type[Enum], Any] = {R: REQUEST, J: JOB, W: WORKER}


def request(state: RequestState) -> Request:
    return Request((b"f", 1), "t", "anna", "anna", 1.0, 0.0, 1.0, [None], [None], state=state)


def job(state: JobState) -> Job:
    return Job(Kind.TEXT, b"ids!", 4, b"ids!", state=state)


def worker(state: WorkerState) -> PoolWorker:
    hello = Hello("w", "e", 1, "d", "emulated", "m", "f", 4, 8, 1.0)
    return PoolWorker(hello, b"p", 0.0, 1.0, Breaker(), Device("d"), state=state)


HOLDERS: dict[type[Enum], Callable[[Any], Any]] = {R: request, J: job, W: worker}
PAIRS = [(state, event) for states in EVENTS for state in states for event in EVENTS[states]]


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda e: f"{type(e).__name__}.{e.name}")
def test_each_pair_is_legal_or_refused_unchanged(state: Enum, event: Enum):
    holder = HOLDERS[type(state)](state)
    after = LEGAL[type(state)].get((state, event))
    if after is not None:
        holder.advance(event)
        assert holder.state is after
        return
    with pytest.raises(IllegalTransition) as refusal:
        holder.advance(event)
    assert holder.state is state
    assert state.name in str(refusal.value) and event.name in str(refusal.value)


@pytest.mark.parametrize("states", TABLES)
def test_every_state_has_a_row_and_only_terminal_ones_are_empty(states: type[Enum]):
    table = TABLES[states]
    assert set(table) == set(states)
    assert {s for s, row in table.items() if not row} == TERMINAL[states]


@pytest.mark.parametrize("states", TABLES)
def test_every_state_can_be_reached_and_every_event_can_happen(states: type[Enum]):
    table = TABLES[states]
    reached, todo = {START[states]}, [START[states]]
    while todo:
        new = set(table[todo.pop()].values()) - reached
        reached |= new
        todo += new
    assert reached == set(states)
    assert {event for row in table.values() for event in row} == set(EVENTS[states])


def test_from_every_state_an_end_can_be_reached():
    for states, table in TABLES.items():
        for state in states:
            seen, todo = {state}, [state]
            while todo:
                new = set(table[todo.pop()].values()) - seen
                seen |= new
                todo += new
            assert seen & TERMINAL[states], state


def test_only_retry_leads_back_to_waiting():
    back = [(s, e) for s, row in JOB.items() for e, after in row.items() if after is JobState.WAITING]
    assert back == [(JobState.RUNNING, JobEvent.RETRY)]


def test_only_waiting_requests_can_be_pushed_out():
    assert [s for s, row in REQUEST.items() if RequestEvent.PUSH_OUT in row] == [RequestState.WAITING]


def test_a_foreign_event_is_refused_too():
    with pytest.raises(IllegalTransition, match="allow RETRY"):
        step(REQUEST, RequestState.WAITING, JobEvent.RETRY)  # type: ignore[misc]
