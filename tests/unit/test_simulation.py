"""Fairness and efficiency of the real scheduler in simulated time."""

from __future__ import annotations

import random

import pytest

from tests.doubles.simulation import IMAGE_S, Client, Simulation, closed_loop, jain, p99

FULL = IMAGE_S[0] + 8 * IMAGE_S[1]
LIMIT = 8 / FULL  # images a second of one device in batches of 8: 157


def once_a_second(sim, client, seconds, images=1, seed=1):
    rng = random.Random(seed)
    for i in range(1, seconds):
        sim.at(i + rng.random() * 0.9, lambda: sim.submit(client, images))


def flood(sim, tenants, rate, seconds, seed=2):
    """Open-loop Poisson arrivals of each tenant at `rate` a second."""
    rng = random.Random(seed)

    def arrive(tenant):
        sim.submit(tenant)
        sim.at(sim.now + rng.expovariate(rate), lambda: arrive(tenant))

    for tenant in tenants:
        sim.at(rng.expovariate(rate), lambda t=tenant: arrive(t))


def test_one_device_reaches_its_limit_in_full_batches():
    sim = Simulation(max_depth=64)
    closed_loop(sim, {Client("a"): 32})
    sim.run(20.0)
    assert sim.served / 20.0 >= 0.98 * LIMIT


def test_more_workers_on_one_device_do_not_split_its_batches():
    sim = Simulation(workers=4, max_depth=64)
    closed_loop(sim, {Client("a"): 32})
    sim.run(20.0)
    assert sim.served / 20.0 >= 0.98 * LIMIT


def test_two_devices_do_twice_as_much():
    sim = Simulation(devices=2, max_depth=64)
    closed_loop(sim, {Client("a"): 64})
    sim.run(20.0)
    assert sim.served / 20.0 >= 1.96 * LIMIT


def test_a_single_request_is_never_delayed_for_company():
    sim = Simulation()
    client = Client("a")
    once_a_second(sim, client, 20)
    sim.run(20.0)
    assert client.latencies == pytest.approx([sum(IMAGE_S)] * len(client.latencies))


@pytest.mark.parametrize("outstanding", [(8, 8, 8, 8), (4, 16, 32, 64)])
def test_jain_over_backlogged_tenants(outstanding):
    tenants = [Client(f"t{i}") for i in range(4)]
    sim = Simulation()
    closed_loop(sim, dict(zip(tenants, outstanding, strict=True)))
    sim.run(60.0)
    assert jain([float(t.items) for t in tenants]) >= 0.99


def test_jain_with_requests_of_different_sizes():
    tenants = [Client(f"t{i}") for i in range(4)]
    sim = Simulation()
    closed_loop(sim, dict.fromkeys(tenants, 16), dict(zip(tenants, (1, 2, 8, 32), strict=True)))
    sim.run(60.0)
    assert jain([float(t.items) for t in tenants]) >= 0.99


def test_weights_are_honoured_within_3_percent():
    tenants = [Client("one", 1.0), Client("two", 2.0), Client("five", 5.0)]
    sim = Simulation()
    closed_loop(sim, dict.fromkeys(tenants, 40))
    sim.run(120.0)
    total = sum(t.items for t in tenants)
    for tenant in tenants:
        assert tenant.items / total == pytest.approx(tenant.weight / 8, rel=0.03)


def test_bulk_yields_to_interactive_but_does_not_starve():
    interactive, bulk = Client("a"), Client("b", bulk=True)
    sim = Simulation()
    closed_loop(sim, {interactive: 40, bulk: 40})
    sim.run(60.0)
    assert bulk.items / (interactive.items + bulk.items) == pytest.approx(0.1 / 1.1, rel=0.05)


def light_tenant_p99(max_batch, flooded, seconds=61, **changes):
    """p99 of a tenant at one request a second, alone or while 4 others flood at 10 times capacity."""
    sim = Simulation(max_batch=max_batch, max_depth=10, **changes)
    light = Client("light")
    once_a_second(sim, light, seconds)
    if flooded:
        full = IMAGE_S[0] + max_batch * IMAGE_S[1]
        flood(sim, [Client(f"flood{i}") for i in range(4)], 10 * max_batch / full / 4, seconds)
    sim.run(seconds + 5.0)
    assert not light.refused
    assert len(light.latencies) == seconds - 1
    return p99(light.latencies)


def test_a_light_tenant_keeps_its_p99_within_twice_solo_under_flood():
    # Batches of one, staged at the last moment: the running batch is all that can be in the way.
    solo = light_tenant_p99(1, flooded=False, stage_lead_s=0.0)
    flooded = light_tenant_p99(1, flooded=True, stage_lead_s=0.0)
    assert flooded <= 2 * solo


def test_a_light_tenant_waits_for_no_more_than_one_full_batch_under_flood():
    # With batches of 8 nothing can beat the rest of the running batch plus the light tenant's own.
    flooded = light_tenant_p99(8, flooded=True)
    assert flooded <= 2 * FULL + 0.006 + 1e-9


def test_a_flood_of_equal_prompts_does_not_hide_behind_single_flight():
    tenants = [Client("a"), Client("b")]
    sim = Simulation(max_depth=500)
    closed_loop(sim, {tenants[0]: 200, tenants[1]: 1})
    sim.run(30.0)
    # A tenant with one request outstanding gets every turn it asks for: one batch of waiting a request.
    assert p99(tenants[1].latencies) <= 2 * FULL + 0.006 + 1e-9


def test_goodput_at_five_times_overload():
    sim = Simulation(max_depth=10)
    flood(sim, [Client(f"t{i}") for i in range(10)], 5 * LIMIT / 10, 60)
    sim.run(60.0)
    assert sim.served / 60.0 >= 0.95 * LIMIT
    sim.scheduler.check_invariants()


def test_a_thousand_tenants_and_64_devices():
    sim = Simulation(devices=64, max_depth=5000)
    tenants = [Client(f"t{i}") for i in range(1000)]
    closed_loop(sim, dict.fromkeys(tenants, 2))
    sim.run(3.0)
    assert sim.served / 3.0 >= 0.95 * 64 * LIMIT
    assert jain([float(t.items) for t in tenants]) >= 0.99
    sim.scheduler.check_invariants()
