"""The overload contract of docs/overload.md, line by line, in simulated time."""

from __future__ import annotations

import random
from functools import cache

import pytest

from hailo_clip.broker.work import Send
from hailo_clip.shared import messages as m
from tests.doubles.simulation import IMAGE, IMAGE_S, UNIT, Client, Simulation, p99

LIMIT = 8 / (IMAGE_S[0] + 8 * IMAGE_S[1])
SECONDS = 40
LOADS = (0.5, 2.0, 5.0)


@cache
def loaded(factor: float) -> tuple[Simulation, list[Client], Client]:
    """Ten clients with Poisson arrivals of `factor` times the limit, and a light one at 1 request/s."""
    sim = Simulation(max_depth=10)
    rng = random.Random(7)
    clients = [Client(f"t{i}") for i in range(10)]
    light = Client("light")

    def arrive(client: Client) -> None:
        if sim.now < SECONDS:
            sim.submit(client)
            sim.at(sim.now + rng.expovariate(factor * LIMIT / 10), lambda: arrive(client))

    for client in clients:
        sim.at(rng.expovariate(factor * LIMIT / 10), lambda c=client: arrive(c))  # type: ignore[misc]
    for second in range(1, SECONDS):
        sim.at(second + rng.random() * 0.9, lambda: sim.submit(light))
    sim.run(SECONDS + 2.0)
    return sim, clients, light


@pytest.mark.parametrize("factor", LOADS)
def test_goodput(factor):
    sim, clients, _ = loaded(factor)
    if factor < 1:
        assert sim.served == sum(c.items for c in clients) + SECONDS - 1
        assert not any(c.refused for c in clients)
    else:
        assert sim.served / SECONDS >= 0.95 * LIMIT


@pytest.mark.parametrize("factor", LOADS)
def test_refusals(factor):
    _, clients, _ = loaded(factor)
    refused = [r for c in clients for r in c.refused]
    assert bool(refused) == (factor > 1)
    for refusal in refused:
        code, _, retry_after_s = refusal.error
        assert code == "queue_full"
        assert retry_after_s is not None
        assert retry_after_s >= 1


@pytest.mark.parametrize("factor", LOADS)
def test_accepted_requests_are_answered_soon(factor):
    _, clients, _ = loaded(factor)
    assert p99([latency for c in clients for latency in c.latencies]) < 0.2


@pytest.mark.parametrize("factor", LOADS)
def test_a_light_client_is_never_refused(factor):
    _, _, light = loaded(factor)
    assert len(light.latencies) == SECONDS - 1
    assert not light.refused


@pytest.mark.parametrize("factor", LOADS)
def test_every_request_gets_one_answer(factor):
    # The simulation raises KeyError on a second answer to any request.
    sim, _, _ = loaded(factor)
    assert not sim._requests
    sim.scheduler.check_invariants()
    assert not sim.scheduler.ledger.requests


def test_retry_after_is_honest():
    # A queue of 1,000 in a steady overload: what is said is the time in which it drains, within 30 percent.
    sim = Simulation(max_depth=1000)
    client = Client("a")
    for _ in range(1200):
        sim.at(0.0, lambda: sim.submit(client))
    flooders = [Client("b"), Client("c")]
    for i in range(600):  # and more keep coming, to be refused
        sim.at(i * 0.005, lambda i=i: sim.submit(flooders[i % 2]))  # type: ignore[misc]
    sim.run(3.0)
    said, waiting = sim.scheduler.admission.retry_after(sim.now), sim.scheduler.ledger.waiting
    began = sim.now
    while sim.scheduler.ledger.waiting:
        sim.run(sim.now + 0.01)
    assert waiting > 300
    assert sim.now - began == pytest.approx(said, rel=0.3)


def backlogged(count: int = 100, **changes: object) -> tuple[Simulation, Client]:
    """A simulation in which `count` images of one client were just submitted."""
    sim = Simulation(**{"max_depth": 1000, **changes})  # type: ignore[arg-type]
    client = Client("a")
    for _ in range(count):
        sim.submit(client)
    sim._act()
    return sim, client


def test_a_deadline_out_of_reach_is_refused_at_arrival():
    sim, client = backlogged(400)
    sim.submit(client, ttl_s=0.5)
    sim._act()
    assert [r.error[0] for r in client.refused] == ["deadline_unreachable"]


def test_expired_requests_do_not_run():
    sim, _ = backlogged(8)
    late = Client("late")
    sim.submit(late, ttl_s=0.11)  # reachable by the estimate; then the device is made to hang
    sim._events = [e for e in sim._events if e[2].__name__ != "finish"]
    sim.run(0.3)
    assert [r.error[0] for r in late.refused] == ["deadline_exceeded"]
    assert sim.scheduler.metrics.value("batches_total", "image") == 1 + (sim.scheduler.ledger.waiting > 0)
    assert late.latencies == []


def in_time(load: float, within_s: float, ttl_s: float) -> float:
    """The part of Poisson arrivals at `load` times the limit that is answered `within_s`, in a deep queue."""
    sim, client, rng, seconds, sent = Simulation(max_depth=64), Client("a"), random.Random(5), 120, 0

    def arrive() -> None:
        nonlocal sent
        if sim.now < seconds:
            sent += 1
            sim.submit(client, ttl_s=ttl_s)
            sim.at(sim.now + rng.expovariate(load * LIMIT), arrive)

    sim.at(0.0, arrive)
    sim.run(seconds + 2.0)
    assert not sim._requests
    return sum(latency <= within_s for latency in client.latencies) / sent


def test_no_device_time_goes_to_what_comes_too_late():
    assert in_time(0.88, 0.15, ttl_s=30.0) < 0.985
    assert in_time(0.88, 0.15, ttl_s=0.15) >= 0.99
    assert in_time(2.0, 0.15, ttl_s=30.0) < 0.01
    assert in_time(2.0, 0.15, ttl_s=0.15) >= 0.95 / 2.0


def test_bytes_are_bounded():
    sim, client = backlogged(60, max_bytes=20 * len(IMAGE))
    assert sim.scheduler.ledger.waiting_bytes <= 20 * len(IMAGE)
    assert {r.error[0] for r in client.refused} == {"queue_full"}
    assert "bytes" in client.refused[0].error[1]


def waiting_items(sim: Simulation) -> int:
    return sum(sim.scheduler.ledger.waiting_jobs.values())


def test_lists_are_bounded_by_their_items():
    sim, client = backlogged(8, max_depth=10)
    for i in range(12):
        sim.submit(Client(f"other {i}") if i else client, images=64)
        sim._act()
    assert sim.scheduler.ledger.waiting == 2  # 8 places are below 10, 16 are not
    assert waiting_items(sim) == 2 * 64
    sim.submit(client, images=9)
    sim._act()
    code, text, retry_after_s = client.refused[-1].error
    assert (code, retry_after_s) == ("queue_full", 1.0)
    assert "16 places" in text
    assert "more than 8 is taken while that is less than 10" in text


def test_a_single_image_gets_in_among_long_lists():
    sim, flooder = backlogged(8, max_depth=10)
    for _ in range(2):
        sim.submit(flooder, images=64)
    light = Client("light")
    for second in range(20):
        sim.at(second * 0.05, lambda: sim.submit(light, images=1 + 7 * (len(light.latencies) % 2)))
    sim.run(2.0)
    assert len(light.latencies) == 20
    assert not light.refused


def test_the_flooder_makes_room():
    sim, flooder = backlogged(40, max_depth=10)
    other = Client("b")
    refused = len(flooder.refused)
    sim.submit(other)
    sim._act()
    assert not other.refused
    assert len(flooder.refused) == refused + 1
    assert "pushed out" in flooder.refused[-1].error[1]
    assert sim.scheduler.ledger.waiting == 10


def test_equal_tenants_do_not_thrash():
    sim = Simulation(max_depth=10)
    for name in "abcdefghij" * 3:
        sim.submit(Client(name))
    sim._act()
    before = sim.scheduler.metrics.value("rejected_total", "pushed_out")
    for name in "abcdefghij" * 10:
        sim.submit(Client(name))
        sim._act()
    assert sim.scheduler.metrics.value("rejected_total", "pushed_out") - before <= 10


def test_503_when_nobody_can_answer():
    sim, client = backlogged(0)
    for worker in list(sim.scheduler.pool.workers.values()):
        sim.scheduler.from_worker(sim.now, worker.peer, m.Failed(worker.hello.epoch, "the device is gone"))
    sim.submit(client)
    sim._act()
    code, _, retry_after_s = client.refused[0].error
    assert code == "unavailable"
    assert retry_after_s is not None


def test_cached_prompts_are_answered_under_any_load():
    sim, _ = backlogged(60, max_depth=10, cache_entries=10)
    ids = b"\1\0\0\0"
    sim.scheduler.cache.put(ids, UNIT)
    submit = m.Submit(9999, "t", "other", 1.0, False, 5.0, "fp", (1,), (ids,))
    sim.scheduler.from_frontend(sim.now, b"frontend", submit)
    (answer,) = [a for a in sim.scheduler.flush(sim.now) if isinstance(a, Send)]
    assert answer.message == m.Reply(9999, (None,), 0.0, 0.0, 1, (UNIT,))
