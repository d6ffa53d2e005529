"""Who is let in: the bounds, what a refusal says, who makes room, and an honest Retry-After."""

from __future__ import annotations

from typing import Any

import pytest

from hailo_clip.broker.quarantine import digest
from hailo_clip.shared import messages as m
from hailo_clip.shared.messages import Kind
from tests.doubles.broker_world import MAX_TOKENS, Item, PaperWorker, World, image, prompt


def full(depth: int = 3, **changes: Any) -> tuple[World, PaperWorker, list[tuple[bytes, int]]]:
    """A broker whose device is busy and whose queue is full of anna's images."""
    world = World(max_depth=depth, **changes)
    worker = world.worker()
    world.submit(image(0), tenant="zoe")
    waiting = [world.submit(image(i + 1)) for i in range(depth)]
    assert world.scheduler.ledger.waiting == depth
    return world, worker, waiting


# What is refused whoever asks


def test_while_draining_new_requests_are_refused_and_accepted_ones_answered():
    world, _, waiting = full()
    world.scheduler.from_frontend(world.now, b"operator", m.Control(1, "drain"))
    late = world.submit(image(9))
    code, text, retry_after = world.refused(late)
    assert (code, text) == ("draining", "the service is shutting down") and retry_after is not None
    world.answer_all()
    for key in waiting:
        world.reply(key)
    world.scheduler.from_frontend(world.now, b"f", m.Ping(7))
    world.flush()
    assert (world.pongs[-1].seq, world.pongs[-1].state) == (7, "draining")


def test_inputs_for_another_model_are_refused_with_both_named():
    world = World()
    world.worker()
    code, text, retry_after = world.refused(world.submit(image(1), fingerprint="0" * 32))
    assert code == "model_mismatch" and retry_after is not None
    assert "0" * 32 in text and "f" * 32 in text and "paper" in text


@pytest.mark.parametrize(
    ("kind", "size"),
    [(Kind.IMAGE, n) for n in (0, 1, 11, 13, 24)]
    + [(Kind.TEXT, n) for n in (0, 1, 3, 5, 4 * MAX_TOKENS - 1, 4 * MAX_TOKENS + 4, 4000)],
)
def test_a_payload_of_the_wrong_size_never_reaches_a_worker(kind, size):
    world = World()
    worker = world.worker()
    code, text, _ = world.refused(world.submit(image(1), Item(kind, b"x" * size), prompt(1)))
    assert code == "internal" and f"{size} bytes" in text
    assert worker.batches == [] and world.metric("rejected_total", "internal") == 1
    assert world.metric("accepted_total") == 0


@pytest.mark.parametrize("count", [1, MAX_TOKENS])
def test_the_shortest_and_the_longest_prompt_are_fine(count):
    world = World()
    world.worker()
    key = world.submit(prompt(*range(count)))
    world.answer_all()
    world.reply(key)


@pytest.mark.parametrize("state", ["none", "loading", "leaving", "suspended"])
def test_without_a_ready_worker_requests_are_refused(state):
    world = World()
    if state != "none":
        worker = world.worker(ready=state != "loading")
        if state == "leaving":
            world.tell(worker, m.Leave(worker.epoch))
        if state == "suspended":
            world.known(worker).breaker.suspended_until = world.now + 5.0
    code, text, retry_after = world.refused(world.submit(image(1)))
    assert (code, text) == ("unavailable", "no worker is ready") and retry_after is not None


@pytest.mark.parametrize("ttl", [0.0, -3.0])
def test_a_deadline_that_has_passed_is_a_504(ttl):
    world = World()
    worker = world.worker()
    assert world.refused(world.submit(image(1), ttl=ttl))[0] == "deadline_exceeded"
    assert worker.batches == []


def test_a_repeated_id_is_ignored_while_the_first_is_in_flight():
    world, _, waiting = full()
    first = waiting[0]
    world.submit(image(77), number=first[1], tenant="ben", ttl=0.001)
    assert world.scheduler.ledger.waiting == 3 and world.unanswered(first)
    world.answer_all()
    world.reply(first)
    again = world.submit(image(78), number=first[1])
    assert again == first and len(world.answers[first]) == 1
    world.answer_all()
    assert len(world.answers[first]) == 2


def test_equal_ids_of_two_frontends_are_two_requests():
    world = World()
    world.worker()
    keys = [world.submit(image(i), frontend=b"f%d" % i, number=5) for i in range(2)]
    world.answer_all()
    for key in keys:
        world.reply(key)


# The bounds


def test_depth_counts_requests_that_wait():
    world, worker, waiting = full(3)
    code, text, retry_after = world.refused(world.submit(image(50)))
    assert (code, text) == ("queue_full", "3 requests wait, at most 3 may")
    assert retry_after is not None and retry_after >= 1
    world.answer(worker)  # three go together: the queue is empty
    assert world.scheduler.ledger.waiting == 0
    more = [world.submit(image(60 + i)) for i in range(4)]
    assert world.refused(more.pop())[0] == "queue_full"
    world.answer_all()
    for key in (*waiting, *more):
        world.reply(key)


@pytest.mark.parametrize(
    ("items", "places"),
    [
        ([image(1)], 1),
        ([image(i) for i in range(8)], 1),
        ([image(i) for i in range(9)], 2),
        ([image(i) for i in range(64)], 8),
        ([image(1), *(prompt(2, i) for i in range(7))], 1),
        ([image(1), *(prompt(2, i) for i in range(8))], 2),
        ([image(1), *[prompt(2)] * 30], 1),  # equal prompts are one
        ([image(1), *(prompt(1, i) for i in range(64))], 1),  # cached
        ([image(1), *(prompt(3, i) for i in range(64))], 1),  # in flight for another
        ([prompt(3, i) for i in range(64)], 1),
    ],
)
def test_a_request_takes_a_place_for_every_batch_of_items_that_need_a_device(items, places):
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(*(prompt(1, i) for i in range(64)))
    world.answer_all()
    world.submit(image(100), *(prompt(3, i) for i in range(64)))
    before = world.scheduler.ledger.tenants.places
    key = world.submit(*items, tenant="ben")
    assert world.scheduler.ledger.tenants.places - before == places
    world.cancel(key)
    assert world.scheduler.ledger.tenants.places == before and worker.batches


def test_a_list_needs_one_free_place_a_single_only_that_few_requests_wait():
    world = World(max_depth=5)
    worker = world.worker()
    world.submit(image(0))
    first = world.submit(*(image(100 + i) for i in range(32)))
    assert world.scheduler.ledger.tenants.places == 4
    second = world.submit(*(image(200 + i) for i in range(32)))
    code, text, retry_after = world.refused(world.submit(*(image(300 + i) for i in range(9))))
    assert code == "queue_full" and retry_after is not None
    assert "take 8 places" in text and "less than 5" in text
    singles = [world.submit(image(400 + i)) for i in range(4)]
    assert [world.unanswered(key) for key in singles] == [True] * 3 + [False]
    assert world.refused(singles[3])[1] == "5 requests wait, at most 5 may"
    while world.scheduler.ledger.tenants.places >= 5:
        world.answer(worker)
    assert world.unanswered(world.submit(*(image(300 + i) for i in range(9))))
    world.answer_all()
    for key in (first, second, *singles[:3]):
        world.reply(key)


def test_any_list_fits_an_empty_queue():
    world = World(max_depth=1)
    worker = world.worker()
    world.submit(image(0))
    key = world.submit(*(image(1 + i) for i in range(64)))
    assert world.unanswered(key) and worker.batches
    world.answer_all()
    world.reply(key)


def test_a_request_partly_dispatched_still_waits():
    world = World(max_depth=1, max_batch=2)
    worker = world.worker()
    large = world.submit(*map(image, range(5)))
    assert len(worker.batches) == 1 and world.scheduler.ledger.waiting == 1
    assert world.refused(world.submit(image(9)))[0] == "queue_full"
    world.answer(worker)
    world.answer(worker)
    assert world.scheduler.ledger.waiting == 0  # its last item runs
    assert world.unanswered(large)
    world.answer(worker)
    world.reply(large)


def test_places_that_this_round_freed_can_be_used_in_it():
    """A result and a request that come together: the result's device takes the waiting ones first."""
    world, worker, _ = full(3)
    batch = worker.batches.pop(0)
    world.scheduler.from_worker(world.now, worker.peer, worker.result(batch))
    key = world.submit(image(50))
    assert world.unanswered(key)


def test_bytes_are_bounded_too_and_the_refusal_says_so():
    world, _, _ = full(3, max_bytes=40)  # three images of 12 bytes wait
    world.cancel((b"frontend-0", 5))
    assert world.scheduler.ledger.waiting_bytes == 24
    code, text, retry_after = world.refused(world.submit(image(50), image(51)))
    assert code == "queue_full" and "24 bytes" in text and retry_after is not None
    assert world.unanswered(world.submit(image(52)))
    assert world.scheduler.ledger.waiting_bytes == 36


def test_one_request_over_the_byte_limit_is_taken_when_nothing_else_waits():
    world = World(max_bytes=20)
    worker = world.worker()
    world.submit(image(0))
    large = world.submit(image(1), image(2))
    assert world.unanswered(large)
    assert world.refused(world.submit(image(3)))[0] == "queue_full"
    world.answer(worker)
    assert world.scheduler.ledger.waiting_bytes == 0


def test_cached_prompts_take_no_place_and_no_device():
    world, worker, _ = full(3)
    world.answer_all()
    warm = world.submit(prompt(1), prompt(2))
    world.answer_all()
    assert world.reply(warm).cached == 0
    world.submit(image(40))
    for i in range(3):
        world.submit(image(41 + i))
    hit = world.submit(prompt(2), prompt(1), prompt(2), ttl=0.0001)
    reply = world.reply(hit)
    assert (reply.cached, reply.device_s, reply.queue_s) == (3, 0.0, 0.0)
    assert world.refused(world.submit(prompt(1), prompt(3)))[0] == "queue_full"
    assert world.metric("prompt_cache_hits_total") == 3
    assert len(worker.batches) == 1


def test_a_quarantined_input_takes_no_place_and_is_no_cache_hit():
    world, _, _ = full(3)
    for item in (prompt(6), image(66)):
        world.scheduler.quarantine.add(world.now, digest(item.kind, item.payload))
    key = world.submit(prompt(6), image(66))
    reply = world.reply(key)
    assert [e[0] for e in reply.errors if e] == ["quarantined"] * 2 and reply.frames == ()
    assert world.metric("prompt_cache_hits_total") == 0
    assert world.metric("finished_total", "failed") == 1


def test_of_a_mixed_request_only_what_needs_a_device_waits():
    world = World()
    worker = world.worker()
    world.submit(prompt(1))
    world.answer_all()
    key = world.submit(prompt(1), image(1), prompt(1))
    assert [len(b.frames) for b in worker.batches] == [1]
    world.answer_all()
    assert world.reply(key).cached == 2


# Who makes room


def test_the_newest_request_of_the_flooder_makes_room_for_another_tenant():
    world, _, waiting = full(3)
    key = world.submit(image(50), tenant="ben")
    assert world.unanswered(key)
    code, text, retry_after = world.refused(waiting[2])
    assert code == "queue_full" and "pushed out" in text and "(3 requests, 256 MiB)" in text
    assert retry_after is not None and retry_after >= 1
    assert world.unanswered(waiting[0]) and world.unanswered(waiting[1])
    assert world.metric("finished_total", "pushed_out") == 1
    assert world.metric("rejected_total", "pushed_out") == 1
    world.answer_all()
    for left in (key, *waiting[:2]):
        world.reply(left)


def test_a_flooder_pushes_nobody_out():
    world, _, _ = full(3)
    ben = world.submit(image(50), tenant="ben")
    assert world.refused(world.submit(image(51)))[0] == "queue_full"
    assert world.unanswered(ben)


def test_a_request_partly_dispatched_is_not_pushed_out():
    world = World(max_depth=1, max_batch=1)
    world.worker()
    large = world.submit(image(1), image(2), image(3))
    assert world.refused(world.submit(image(9), tenant="ben"))[0] == "queue_full"
    assert world.unanswered(large)


def test_a_list_makes_room_for_a_list():
    world = World(max_depth=4)
    world.worker()
    world.submit(image(0), tenant="zoe")
    anna = [world.submit(*(image(100 * n + i) for i in range(24))) for n in (1, 2)]
    ben = world.submit(*(image(500 + i) for i in range(9)), tenant="ben")
    assert world.unanswered(ben) and world.unanswered(anna[0])
    assert "pushed out" in world.refused(anna[1])[1]
    assert world.scheduler.ledger.tenants.places == 3 + 2


def test_bytes_make_room_too():
    world = World(max_depth=10, max_bytes=36)
    world.worker()
    world.submit(image(0), tenant="zoe")
    anna = [world.submit(image(i)) for i in (1, 2, 3)]
    assert world.unanswered(world.submit(image(50), tenant="ben"))
    assert world.refused(anna[2])[0] == "queue_full"
    assert world.scheduler.ledger.waiting_bytes == 36


def test_a_request_too_large_even_then_pushes_nobody_out():
    world = World(max_depth=10, max_bytes=36)
    world.worker()
    world.submit(image(0), tenant="zoe")
    anna = [world.submit(image(i)) for i in (1, 2, 3)]
    assert world.refused(world.submit(image(50), image(51), tenant="ben"))[0] == "queue_full"
    assert all(world.unanswered(key) for key in anna)


# Deadlines out of reach


def queued(world: World, count: int, tenant: str = "anna") -> list[tuple[bytes, int]]:
    return [world.submit(image(1000 + i), tenant=tenant) for i in range(count)]


def test_a_deadline_out_of_reach_is_refused_at_arrival():
    world = World(max_depth=1000)
    world.worker()
    queued(world, 100)
    waiting = world.scheduler.ledger.waiting
    code, text, retry_after = world.refused(world.submit(image(1), ttl=0.3))
    assert code == "deadline_unreachable" and "0.3 s" in text and retry_after is not None
    assert world.scheduler.ledger.waiting == waiting
    assert world.unanswered(world.submit(image(2), ttl=3.0))


def test_once_a_second_an_idle_device_tries_what_its_estimate_calls_out_of_reach():
    """Where all clients are in a hurry, nothing else would ever tell that the device is well again."""
    world = World(cache_entries=0)
    worker = world.worker()
    for _ in range(200):
        world.submit(image(1))
        world.after(2.0)
        world.answer(worker, device_s=2.0)
    outcomes = []
    for i in range(300):
        key = world.submit(image(i), ttl=0.1)
        if worker.batches:
            world.after(0.016)
            world.answer(worker, device_s=0.016)
        outcomes.append(isinstance(world.only(key), m.Reply))
        world.after(0.25)
        world.tell(worker, m.Beat(worker.epoch))
    assert 0.2 < sum(outcomes[:40]) / 40 < 0.3
    assert all(outcomes[-40:])


def test_a_busy_device_tries_nothing_that_is_out_of_reach():
    world = World(max_depth=1000)
    world.worker()
    queued(world, 8)
    assert world.refused(world.submit(image(1), ttl=0.01))[0] == "deadline_unreachable"


def test_the_launch_of_a_batch_that_is_not_full_counts():
    world = World(max_depth=1000)
    world.worker()
    world.submit(*map(image, range(100, 108)))
    running = world.scheduler.pool.devices["d0"].busy_until - world.now
    assert world.refused(world.submit(image(1), ttl=running + 0.01))[0] == "deadline_unreachable"
    assert world.unanswered(world.submit(image(2), ttl=running + 0.02))


def test_a_device_whose_worker_is_suspended_brings_no_deadline_within_reach():
    world = World(cache_entries=0)
    good = world.worker("w0", "d0")
    for i in range(3):
        bad = world.worker("w1", "d1")
        world.submit(image(50 + i))
        world.die(bad)
        world.answer_all()
    bad = world.worker("w1", "d1")
    assert not world.known(bad).can_work(world.now)
    world.submit(*map(image, range(100, 108)))
    assert len(good.batches) == 1
    pool = world.scheduler.pool
    assert pool.free_in(world.now) > 0.04
    assert pool.able_devices(world.now) == 1
    assert world.refused(world.submit(image(1), ttl=0.04))[0] == "deadline_unreachable"
    world.now = world.known(bad).breaker.suspended_until
    assert pool.able_devices(world.now) == 2
    assert pool.free_in(world.now) == 0.0


def test_what_is_given_up_does_not_count_as_departed():
    world = World(max_depth=1000)
    worker = world.worker()
    queued(world, 8)
    takes = world.scheduler.pool.devices["d0"].busy_until - world.now
    hopeless = [world.submit(image(2000 + i), ttl=takes + 0.02) for i in range(8)]
    queued(world, 1, tenant="patient")
    world.now += takes - world.scheduler.policy.stage_lead_s
    world.flush()
    given_up = sum(not world.unanswered(key) for key in hopeless)
    assert given_up
    assert world.scheduler.ledger.departures == 1 + len(worker.batches[1].frames)


def test_a_flood_of_others_does_not_put_a_deadline_out_of_reach():
    """Under fair queueing ben waits for his own share, not for anna's backlog."""
    world = World(max_depth=1000)
    world.worker()
    queued(world, 100)
    assert world.unanswered(world.submit(image(1), ttl=0.3, tenant="ben"))


def test_more_devices_bring_a_deadline_within_reach_but_only_ready_ones():
    def with_devices(ready: int, loading: int) -> str | None:
        world = World(max_depth=1000)
        for i in range(ready):
            world.worker(f"w{i}", f"d{i}")
        for i in range(loading):
            world.hello(f"l{i}", f"e{i}")
        queued(world, 100)
        key = world.submit(image(1), ttl=0.3)
        return None if world.unanswered(key) else world.refused(key)[0]

    assert with_devices(1, 0) == "deadline_unreachable"
    assert with_devices(4, 0) is None
    assert with_devices(1, 3) == "deadline_unreachable"


@pytest.mark.parametrize("tenants", [1, 14])
def test_prompts_that_many_ask_for_are_counted_once(tenants):
    """14 cameras with the same 256 prompts: 256 x 13.6 ms, whoever asks, and not 14 times that."""
    world = World(max_depth=1000)
    world.worker()
    world.submit(image(0))
    prompts = [prompt(1, i) for i in range(256)]
    for camera in range(14):
        tenant = f"camera {camera % tenants}"
        assert world.unanswered(world.submit(image(1 + camera), *prompts, tenant=tenant, ttl=4.0))
        key = world.submit(image(99), *prompts, prompts[0], tenant=tenant, ttl=3.0)
        assert world.refused(key)[0] == "deadline_unreachable"
    assert sum(world.scheduler.ledger.waiting_jobs.values()) == 256 + 14
    world.answer_all()


def test_equal_prompts_of_one_tenant_stand_in_its_line_once():
    """ben's own backlog at half the device: 2 x 32 x 13.6 ms, however often he asks."""
    world = World(max_depth=1000)
    world.worker()
    queued(world, 1000)
    prompts = [prompt(1, i) for i in range(32)]
    keys = [world.submit(*prompts, tenant="ben", ttl=1.0) for _ in range(4)]
    assert all(world.unanswered(key) for key in keys)
    assert world.scheduler.ledger.queue.flows()[("ben", False)] == (0, 32)
    world.cancel(keys[0])
    assert world.scheduler.ledger.queue.flows()[("ben", False)] == (0, 32)
    assert world.unanswered(world.submit(*prompts, tenant="cleo", ttl=1.5))
    for key in keys[1:]:
        world.cancel(key)
    assert ("ben", False) not in world.scheduler.ledger.queue.flows()
    world.answer_all()


def test_prompts_that_run_already_ask_for_no_device_time():
    world = World(max_depth=1000)
    worker = world.worker()
    running = [prompt(1, i) for i in range(8)]
    world.submit(*running)
    key = world.submit(*running, tenant="ben", ttl=0.115)  # one batch of prompts takes 109 ms
    assert world.unanswered(key) and len(worker.batches) == 1
    assert world.refused(world.submit(prompt(2), tenant="ben", ttl=0.115))[0] == "deadline_unreachable"


# Retry-After


class Overload:
    """One slow device and more requests than it can do; steps of 10 ms."""

    def __init__(self, batch_s: float, max_batch: int = 4, depth: int = 16) -> None:
        self.world = World(max_depth=depth, max_batch=max_batch)
        self.worker = self.world.worker(max_batch=max_batch)
        self.batch_s = batch_s
        self.ends: float | None = None
        self.sent = 0

    def run(self, seconds: float, per_second: float) -> None:
        world = self.world
        begin, sent = world.now, 0
        while world.now < begin + seconds:
            world.now += 0.01
            while sent < (world.now - begin) * per_second:
                sent += 1
                self.sent += 1
                world.post(image(self.sent), ttl=1000.0)
            world.scheduler.from_worker(world.now, self.worker.peer, m.Beat(self.worker.epoch))
            world.scheduler.from_frontend(world.now, b"frontend-0", m.Ping(1))
            world.flush()
            if self.ends is None and self.worker.batches:
                self.ends = world.now + self.batch_s
            if self.ends is not None and world.now >= self.ends:
                world.answer(self.worker, device_s=self.batch_s)
                self.ends = world.now + self.batch_s if self.worker.batches else None

    def refused(self) -> float:
        """The Retry-After of the next request that is refused."""
        for _ in range(100):
            self.sent += 1
            key = self.world.submit(image(self.sent), ttl=1000.0)
            if not self.world.unanswered(key):
                retry_after = self.world.refused(key)[2]
                assert retry_after is not None
                return retry_after
        raise AssertionError("nobody is refused")

    def drain_time(self) -> float:
        """How long it takes until nothing waits, when nobody comes any more."""
        begin = self.world.now
        while self.world.scheduler.ledger.waiting:
            self.run(0.01, 0.0)
            assert self.world.now < begin + 1000
        return self.world.now - begin


@pytest.mark.parametrize("batch_s", [0.5, 2.0, 4.0])
def test_retry_after_is_the_time_the_queue_takes_to_drain(batch_s):
    load = Overload(batch_s, depth=40)
    load.run(25 * batch_s, per_second=3 * 4 / batch_s)
    assert load.refused() == pytest.approx(load.drain_time(), rel=0.3)


def test_retry_after_is_right_when_an_overload_begins_after_an_hour_of_light_load():
    """What is dispatched at once tells nothing about how fast a queue drains."""
    load = Overload(2.0, depth=40)
    for _ in range(60):
        load.run(4.0, per_second=0.25)
    load.run(12.0, per_second=6.0)
    assert load.refused() == pytest.approx(load.drain_time(), rel=0.3)


def test_a_pause_in_which_nobody_waited_does_not_count_as_draining():
    load = Overload(1.0, depth=40)
    load.run(60.0, per_second=12.0)
    before = load.refused()
    for key in list(load.world.scheduler.ledger.requests):  # the clients go: the queue is empty
        load.world.cancel(key)
    load.run(500.0, per_second=0.0)
    load.run(8.0, per_second=12.0)
    assert load.refused() == pytest.approx(before, rel=0.3)


def test_before_anything_was_measured_the_cost_model_answers():
    world = World(max_depth=400)
    world.worker()
    queued(world, 401)
    retry_after = world.refused(world.submit(image(1), tenant="anna"))[2]
    item = world.scheduler.costs.item(Kind.IMAGE)
    assert retry_after == pytest.approx(400 * item, rel=0.05)


def test_retry_after_is_at_least_one_second_and_at_most_a_minute():
    load = Overload(0.1)
    load.run(5.0, per_second=200.0)
    assert load.refused() == 1.0
    load = Overload(4.0, depth=100)
    load.run(40.0, per_second=10.0)
    assert load.refused() == 60.0


# Expiry


def test_what_expired_is_answered_and_never_run_also_when_the_broker_was_late():
    """After a stall come a result, and a request that finds the queue full of expired ones."""
    world = World(max_depth=2, max_batch=1)
    worker = world.worker(max_batch=1)
    world.submit(image(0), ttl=0.5)
    expired = [world.submit(image(i), ttl=0.5) for i in (1, 2)]
    world.now += 5.0
    batch = worker.batches.pop(0)
    world.scheduler.from_worker(world.now, worker.peer, worker.result(batch))
    fresh = world.submit(image(3))
    assert [world.refused(key)[0] for key in expired] == ["deadline_exceeded"] * 2
    assert [bytes(f) for b in worker.batches for f in b.frames] == [image(3).payload]
    world.answer_all()
    world.reply(fresh)


def test_a_request_expires_at_its_deadline_waiting_or_running():
    world = World(inflight_per_device=1)
    worker = world.worker()
    running, waiting = world.submit(image(1), ttl=2.0), world.submit(image(2), ttl=2.5)
    world.after(1.999)
    assert world.unanswered(running)
    assert world.scheduler.wake_at(world.now) <= 1002.0
    world.after(0.001)
    code, text, _ = world.refused(running)
    assert code == "deadline_exceeded" and "while running" in text
    world.after(0.5)
    assert "waiting in the queue" in world.refused(waiting)[1]
    world.answer(worker)
    assert len(world.answers[running]) == 1 and worker.batches == []
    assert world.metric("finished_total", "expired") == 2
