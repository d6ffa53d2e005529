"""The cost model: learns launch and item cost, stays positive, and does not swing on equal batches."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.broker.costs import LONGEST_S, OTHER, SEEDS, CostModel
from hailo_clip.shared.messages import Kind

KINDS = list(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_at_its_seed(kind):
    a, b = SEEDS[kind]
    model = CostModel(8)
    assert model.batch(kind, 1) == pytest.approx(a + b)
    assert model.batch(kind, 8) == pytest.approx(a + 8 * b)
    assert model.item(kind) == pytest.approx(a / 8 + b)
    model.observe(kind, 4, a + 4 * b)
    assert model.batch(kind, 3) == pytest.approx(a + 3 * b)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_it_learns_both_costs(scale):
    a, b = 0.02 * scale, 0.003 * scale
    model, dice = CostModel(8), random.Random(1)
    for _ in range(400):
        n = dice.randint(1, 8)
        model.observe(Kind.IMAGE, n, (a + b * n) * dice.uniform(0.95, 1.05))
    for n in (1, 4, 8):
        assert model.batch(Kind.IMAGE, n) == pytest.approx(a + b * n, rel=0.05)
    assert model.item(Kind.IMAGE) == pytest.approx(a / 8 + b, rel=0.05)


def test_it_follows_a_device_that_becomes_slower():
    model, dice = CostModel(8), random.Random(2)
    for factor in (1.0, 3.0):
        for _ in range(300):
            n = dice.randint(1, 8)
            model.observe(Kind.TEXT, n, factor * (0.015 + 0.012 * n))
    assert model.batch(Kind.TEXT, 8) == pytest.approx(3 * (0.015 + 0.012 * 8), rel=0.03)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_processor_is_known_by_its_canary(n):
    """6 s an image, 300 times what a Hailo takes: the first batch of 8 is not expected in 51 ms."""
    model, text = CostModel(8), CostModel(8).batch(Kind.TEXT, 8)
    model.measured(Kind.IMAGE, n, 6.0 * n)
    assert model.batch(Kind.IMAGE, n) == pytest.approx(6.0 * n)
    assert model.batch(Kind.IMAGE, 8) == pytest.approx(48.0)
    assert model.batch(Kind.TEXT, 8) == text


def test_a_hailo_that_others_used_during_the_canary_is_still_a_hailo():
    a, b = SEEDS[Kind.IMAGE]
    model = CostModel(8)
    model.measured(Kind.IMAGE, 2, 0.9 * OTHER * (a + 2 * b))
    assert model.batch(Kind.IMAGE, 8) == pytest.approx(a + 8 * b)


def test_the_latest_canary_counts_until_there_is_a_batch():
    model = CostModel(8)
    model.measured(Kind.IMAGE, 1, 1e300)
    assert model.batch(Kind.IMAGE, 1) == pytest.approx(LONGEST_S)
    model.measured(Kind.IMAGE, 1, 2.0)
    assert model.batch(Kind.IMAGE, 1) == pytest.approx(2.0)
    model.observe(Kind.IMAGE, 1, 1.9)
    learned = model.batch(Kind.IMAGE, 1)
    model.measured(Kind.IMAGE, 1, 200.0)
    assert model.batch(Kind.IMAGE, 1) == learned


def test_kinds_are_learned_apart():
    model = CostModel(8)
    before = model.batch(Kind.TEXT, 5)
    for n in (1, 8) * 50:
        model.observe(Kind.IMAGE, n, 1.0 * n)
    assert model.batch(Kind.TEXT, 5) == before


@pytest.mark.parametrize("n", [1, 4, 8])
@pytest.mark.parametrize("batches", [10, 100, 1000, 1500, 1800, 2500, 20_000])
def test_equal_batches_leave_the_rest_near_the_seed(n, batches):
    """A day of full batches must not make the estimate for a lone item a matter of rounding errors."""
    a, b = SEEDS[Kind.IMAGE]
    model, dice = CostModel(8), random.Random(3)
    for _ in range(batches):
        model.observe(Kind.IMAGE, n, (a + b * n) * dice.uniform(0.9, 1.1))
        assert model.batch(Kind.IMAGE, n) == pytest.approx(a + b * n, rel=0.12)
    for size in (1, 8):
        assert model.batch(Kind.IMAGE, size) == pytest.approx(a + b * size, rel=0.25)


observations = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.integers(1, 64), st.one_of(st.floats(0, 100), st.sampled_from([0.0, 1e6]))
    ),
    max_size=60,
)


@given(observations, st.integers(1, 64))
def test_whatever_is_measured_costs_stay_positive_and_grow_with_the_batch(seen, max_batch):
    model = CostModel(max_batch)
    for kind, n, seconds in seen:
        model.observe(kind, n, seconds)
        for k in KINDS:
            estimates = [model.batch(k, i) for i in (1, 2, 8, 64)]
            assert 0 < estimates[0] < estimates[1] < estimates[2] < estimates[3] < 1e9
            assert 0 < model.item(k) <= model.batch(k, 1) * 1.0000001


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0.001, 1.0)), min_size=30, max_size=60))
def test_estimates_are_of_the_size_of_what_was_measured(seen):
    """No estimate within the sizes seen is beyond the largest and smallest measurement or seed."""
    model = CostModel(8)
    for n, seconds in seen:
        model.observe(Kind.IMAGE, n, seconds)
    assert 0 < model.batch(Kind.IMAGE, 8) < 2.0
    assert 0 < model.batch(Kind.IMAGE, 1) < 2.0
