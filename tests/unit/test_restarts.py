"""The restart policy: soon the first time, ever later while a child keeps dying, then afresh."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.ops.restarts import Policy, Restarts

POLICY = Policy(first_s=0.2, factor=2.0, longest_s=30.0, stable_s=30.0)


def test_the_delay_doubles_up_to_the_longest() -> None:
    delays = [POLICY.delay(n) for n in range(1, 11)]
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0])
    assert POLICY.delay(10**9) == 30.0


def test_a_child_that_keeps_dying_young_waits_ever_longer() -> None:
    restarts, now, delays = Restarts(POLICY), 0.0, []
    for _ in range(4):
        restarts.started(now)
        now += 29.9
        delays.append(restarts.died(now))
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6])


def test_a_child_that_was_sound_starts_afresh() -> None:
    restarts = Restarts(POLICY)
    for _ in range(8):
        restarts.started(0.0)
        restarts.died(0.0)
    restarts.started(100.0)
    assert restarts.died(130.0) == 0.2
    restarts.started(131.0)
    assert restarts.died(131.5) == 0.4


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100)), max_size=50))
def test_a_delay_is_never_below_the_first_nor_above_the_longest(lives: list[tuple[float, float]]) -> None:
    restarts = Restarts(POLICY)
    for start, lived in lives:
        restarts.started(start)
        delay = restarts.died(start + lived)
        assert math.isfinite(delay)
        assert POLICY.first_s <= delay <= POLICY.longest_s
