"""Whose image is decoded next: fair in thread time, bounded, books that agree after any history."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hailo_clip.api.turns import Job, Turns


def simulate(costs: dict[str, float], weights: dict[str, float], seconds: float) -> dict[str, float]:
    """Thread time by tenant when each always has jobs waiting, of its own cost."""
    turns, used, now = Turns(1, 64), dict.fromkeys(costs, 0.0), 0.0
    for tenant in costs:
        for _ in range(4):
            turns.enter(Job(tenant, weights[tenant]))
    while now < seconds:
        job = turns.next()
        assert job is not None
        now += costs[job.tenant]
        used[job.tenant] += costs[job.tenant]
        turns.enter(Job(job.tenant, weights[job.tenant]))
        turns.finished(job, costs[job.tenant])
        turns.check_invariants()
    return used


def test_thread_time_is_shared_by_weight_whatever_the_jobs_cost() -> None:
    used = simulate({"big": 0.5, "small": 0.01, "paying": 0.05}, {"big": 1, "small": 1, "paying": 2}, 200)
    total = sum(used.values())
    assert used["big"] / total == pytest.approx(1 / 4, abs=0.01)
    assert used["small"] / total == pytest.approx(1 / 4, abs=0.01)
    assert used["paying"] / total == pytest.approx(2 / 4, abs=0.01)


def test_a_newcomer_waits_for_one_job_of_a_flood_and_idling_earns_nothing() -> None:
    turns = Turns(1, 16)
    for _ in range(10):
        turns.enter(Job("flood"))
    for _ in range(3):
        job = turns.next()
        assert job is not None
        turns.finished(job, 1.0)
    light = [Job("light") for _ in range(4)]
    for job in light:
        turns.enter(job)
    order = []
    for _ in range(6):
        job = turns.next()
        assert job is not None
        order.append(job.tenant)
        turns.finished(job, 1.0)
    assert order[:2] in (["light", "flood"], ["flood", "light"])
    assert Counter(order) == {"light": 3, "flood": 3}


def test_the_newest_of_who_has_most_makes_room_for_who_has_less() -> None:
    turns = Turns(1, 3)
    flood = [Job("flood") for _ in range(4)]
    assert [turns.enter(job) for job in flood[:1]] == [None]
    assert turns.next() is flood[0]
    assert [turns.enter(job) for job in flood[1:]] == [None] * 3
    again = Job("flood")
    assert turns.enter(again) is again
    assert turns.enter(Job("light")) is flood[3]
    equal = Job("light")
    assert turns.enter(equal) is equal  # two each would be no better
    assert len(turns) == 4


def test_books_agree_after_any_history() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        turns, waiting, running = Turns(rng.randint(1, 3), rng.randint(0, 5)), [], []
        for _ in range(80):
            match rng.randrange(4):
                case 0 | 1:
                    job = Job(rng.choice("abc"), rng.choice((0.5, 1, 4)))
                    waiting.append(job)
                    refused = turns.enter(job)
                    if refused is not None:
                        waiting.remove(refused)
                    while (started := turns.next()) is not None:
                        waiting.remove(started)
                        running.append(started)
                case 2 if running:
                    turns.finished(running.pop(rng.randrange(len(running))), rng.random())
                    while (started := turns.next()) is not None:
                        waiting.remove(started)
                        running.append(started)
                case 3 if waiting:
                    turns.leave(waiting.pop(rng.randrange(len(waiting))))
            turns.check_invariants()
            assert len(turns) == len(waiting) + len(running)
