"""Which items go where and when: work-conserving, staged late, bounded per device, fair, one kind a batch."""

from __future__ import annotations

import pytest

from hailo_clip.broker.work import Send
from hailo_clip.shared import messages as m
from hailo_clip.shared.messages import Kind
from tests.doubles.broker_world import World, image, prompt


def payloads(batch: m.Batch) -> list[bytes]:
    return [bytes(f) for f in batch.frames]


def images(*numbers: int) -> list[bytes]:
    return [image(n).payload for n in numbers]


def busy_until(world: World, device: str = "d0") -> float:
    return world.scheduler.pool.devices[device].busy_until


def lead(world: World) -> float:
    return world.scheduler.policy.stage_lead_s


# At low load: at once, without waiting for company


def test_an_idle_device_gets_a_lone_item_at_once():
    world = World()
    worker = world.worker()
    key = world.submit(image(1))
    assert [payloads(b) for b in worker.batches] == [images(1)]
    assert worker.batches[0].traces == (f"trace-{key[1]}",)
    world.answer(worker)
    assert world.reply(key).cached == 0


def test_what_waits_when_a_worker_gets_ready_goes_at_once():
    world = World()
    busy = world.worker("w0", "d0")
    world.submit(image(1))
    world.submit(image(2))
    late = world.worker("w1", "d1")
    assert [payloads(b) for b in busy.batches] == [images(1)]
    assert [payloads(b) for b in late.batches] == [images(2)]


def test_several_idle_devices_split_what_waits():
    world = World(max_depth=100)
    workers = [world.worker(f"w{i}", f"d{i}") for i in range(3)]
    world.submit(*map(image, range(8)))
    assert [len(w.batches[0].frames) for w in workers] == [3, 3, 2]
    assert all(len(w.batches) == 1 for w in workers)


def test_a_batch_is_not_larger_than_its_worker_or_the_policy_allows():
    world = World(max_batch=4, max_depth=100)
    small, large = world.worker("w0", "d0", max_batch=2), world.worker("w1", "d1", max_batch=64)
    world.submit(*map(image, range(20)))
    assert len(small.batches[0].frames) == 2
    assert len(large.batches[0].frames) == 4


# Single flight


@pytest.mark.parametrize("tenants", [("anna", "anna", "anna"), ("anna", "ben", "cleo")])
def test_a_prompt_that_several_wait_for_is_run_once(tenants):
    world = World(cache_entries=0)
    worker = world.worker()
    running = world.submit(image(1))
    waiting = [world.submit(prompt(5, 6), tenant=t) for t in tenants]
    waiting.append(world.submit(prompt(5, 6), prompt(5, 6), prompt(7), tenant="dora"))
    world.answer(worker)
    assert [payloads(b) for b in worker.batches] == [[prompt(5, 6).payload, prompt(7).payload]]
    world.answer_all()
    for key in (running, *waiting):
        world.reply(key)
    assert world.metric("prompt_single_flight_total") == 4


def test_a_prompt_joins_the_one_that_runs_and_takes_no_place():
    world = World(max_depth=1)
    worker = world.worker()
    first = world.submit(prompt(5))
    joined = world.submit(prompt(5), tenant="ben")
    assert world.scheduler.ledger.waiting == 0 and len(worker.batches) == 1
    world.answer(worker)
    world.reply(first)
    world.reply(joined)
    assert worker.batches == []


def test_equal_images_are_not_shared():
    world = World()
    worker = world.worker()
    keys = [world.submit(image(1)) for _ in range(2)]
    world.answer_all()
    assert len(world.sent) == 2 and worker.batches == []
    for key in keys:
        world.reply(key)


def test_a_shared_prompt_outlives_the_request_that_brought_it():
    world = World()
    worker = world.worker()
    world.submit(image(1))
    first, second = world.submit(prompt(5)), world.submit(prompt(5), tenant="ben")
    world.cancel(first)
    world.answer(worker)
    world.answer(worker)
    world.reply(second)
    assert world.unanswered(first)


def test_a_prompt_nobody_waits_for_any_more_is_not_run():
    world = World()
    worker = world.worker()
    world.submit(image(1))
    keys = [world.submit(prompt(5), tenant=t) for t in ("anna", "ben")]
    for key in keys:
        world.cancel(key)
    world.answer(worker)
    assert worker.batches == [] and not world.scheduler.ledger.flights


# Staging: as late as the device allows


def test_the_next_batch_is_staged_shortly_before_the_running_one_should_end():
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(image(0))
    world.submit(*map(image, range(1, 21)))
    due = busy_until(world) - lead(world)
    assert len(worker.batches) == 1  # although a full batch waits
    assert world.scheduler.wake_at(world.now) == due
    world.now = due - 0.0005
    world.flush()
    late = world.submit(image(50), tenant="ben")
    assert len(worker.batches) == 1
    world.now = due
    world.flush()
    assert [len(b.frames) for b in worker.batches] == [1, 8]
    assert image(50).payload in payloads(worker.batches[1]), "a late tenant's item still joined, in its turn"
    world.answer(worker)
    world.answer(worker)
    world.reply(late)


def test_a_partial_batch_is_staged_too_so_that_the_device_never_runs_dry():
    world = World()
    worker = world.worker()
    world.submit(image(0))
    world.submit(image(1))
    world.now = busy_until(world) - lead(world)
    world.flush()
    assert [payloads(b) for b in worker.batches] == [images(0), images(1)]


def test_a_result_that_comes_early_frees_the_device_at_once():
    world = World()
    worker = world.worker()
    world.submit(image(0))
    world.submit(image(1))
    world.answer(worker)
    assert [payloads(b) for b in worker.batches] == [images(1)]


def test_a_device_that_is_late_gets_its_next_batch_all_the_same():
    world = World()
    worker = world.worker()
    world.submit(image(0))
    world.after(0.5)
    world.submit(image(1))
    assert len(worker.batches) == 2
    world.submit(image(2))
    assert len(worker.batches) == 2  # and no third one


# Deadlines: no device time for what can't be answered in time


def at_staging(world: World) -> None:
    """Time passes until the next batch is due."""
    world.now = busy_until(world) - lead(world)
    world.flush()


def test_what_would_be_answered_too_late_gives_its_place_in_the_batch_to_what_would_not():
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(*map(image, range(8)))
    takes = busy_until(world) - world.now
    hopeless = world.submit(image(10), ttl=takes + 0.02)  # by itself within reach, in a batch of 8 not
    patient = [world.submit(image(20 + i)) for i in range(8)]
    at_staging(world)
    code, text, _ = world.refused(hopeless)
    assert code == "deadline_exceeded"
    assert text.startswith("the deadline comes in 0.026 s, an answer would take another 0.057")
    assert payloads(worker.batches[1]) == images(*range(20, 28))
    world.answer_all()
    assert all(world.reply(key) for key in patient)
    assert world.metric("finished_total", "expired") == 1


def test_an_idle_device_runs_what_its_estimate_calls_too_late():
    world = World()
    worker = world.worker()
    key = world.submit(image(1), ttl=0.001)
    assert [payloads(b) for b in worker.batches] == [images(1)]
    world.answer(worker, device_s=0.0005)
    world.reply(key)


def test_only_those_who_are_in_a_hurry_give_a_shared_prompt_up():
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(*(prompt(1, i) for i in range(8)))
    takes = busy_until(world) - world.now
    hurried = world.submit(prompt(2), ttl=takes + 0.03)
    patient = world.submit(prompt(2), *(prompt(3, i) for i in range(7)), tenant="ben")
    at_staging(world)
    assert world.refused(hurried)[0] == "deadline_exceeded"
    assert prompt(2).payload in payloads(worker.batches[1])
    world.answer_all()
    world.reply(patient)


def test_a_request_of_many_items_is_given_up_whole():
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(*map(image, range(8)))
    takes = busy_until(world) - world.now
    key = world.submit(image(10), image(11), prompt(1), ttl=takes + 0.06)
    world.scheduler.costs.observe(Kind.IMAGE, 2, 1.0)  # meanwhile images turn out to take far longer
    at_staging(world)
    assert world.refused(key)[0] == "deadline_exceeded"
    assert len(worker.batches) == 1
    assert not world.scheduler.ledger.waiting_jobs[Kind.TEXT]
    world.scheduler.check_invariants()


def test_as_many_make_it_as_a_smaller_batch_can_take():
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(*map(image, range(8)))
    takes = busy_until(world) - world.now
    hurried = [world.submit(image(10 + i), ttl=takes + 0.027) for i in range(4)]
    others = [world.submit(image(20 + i), ttl=takes + 0.045) for i in range(3)]
    at_staging(world)
    late = [key for key in (*hurried, *others) if not world.unanswered(key)]
    assert late
    assert set(late) <= set(hurried)
    assert {world.refused(key)[0] for key in late} <= {"deadline_exceeded", "deadline_unreachable"}
    assert len(worker.batches[1].frames) == 7 - len(late)
    world.answer_all()
    assert all(world.reply(key) for key in others)


def test_a_list_is_given_up_while_some_of_its_items_are_to_be_sent_again():
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(image(100), image(101))
    key = world.submit(*map(image, range(30)), ttl=0.215)
    at_staging(world)
    world.tell(worker, m.Failed(worker.epoch, "the device was lost", True))
    worker.batches.clear()
    world.after(0.1)
    worker = world.worker("w1")
    for _ in range(10):
        at_staging(world)
        world.after(lead(world))
        if worker.batches:
            world.answer(worker, device_s=0.05)
        world.scheduler.check_invariants()
    assert world.refused(key)[0] == "deadline_exceeded"
    world.answer_all()
    assert not world.scheduler.ledger.requests


@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.TEXT])
def test_an_estimate_that_is_too_high_is_mended_while_the_other_kind_keeps_the_device_busy(kind: Kind):
    """All clients of one kind are in a hurry, and it seems to take far too long: it is tried now and then."""
    world = World(max_depth=1000, cache_entries=0)
    worker = world.worker()
    hurried, patient = (image, prompt) if kind is Kind.IMAGE else (prompt, image)
    other = Kind.TEXT if kind is Kind.IMAGE else Kind.IMAGE
    for _ in range(200):
        world.scheduler.costs.observe(kind, 1, 1.0)
    keys = []
    for step in range(1500):
        while world.scheduler.ledger.waiting_jobs[other] < 8:
            world.submit(patient(next(world._numbers)))
        keys.append(world.submit(hurried(100_000 + step), ttl=0.4, tenant="hurry"))
        world.after(0.05)
        world.tell(worker, m.Beat(worker.epoch))
        if worker.batches:
            world.answer(worker, device_s=0.05)
    answered = [isinstance(world.answers.get(key, [None])[0], m.Reply) for key in keys]
    assert 0 < sum(answered[:200]) < 100
    assert sum(answered[-200:]) > 150


def test_of_two_busy_devices_the_one_that_ends_first_is_next():
    world = World(max_depth=100)
    slow = world.worker("w0", "d0")
    world.submit(*map(image, range(8)))
    quick = world.worker("w1", "d1")
    world.submit(image(10))
    world.submit(image(11))
    assert busy_until(world, "d1") < busy_until(world, "d0")
    world.now = busy_until(world, "d1") - lead(world)
    world.flush()
    assert [payloads(b) for b in quick.batches] == [images(10), images(11)]
    assert len(slow.batches) == 1


def test_a_batch_staged_with_another_worker_begins_when_the_device_is_free():
    """Were it taken to run since it was sent, each batch would be staged earlier than the one before."""
    world = World(max_depth=100)
    crew = [world.worker(f"w{i}", "d0") for i in range(2)]
    for i in range(6):
        world.submit(image(i))
    for turn in range(4):
        runs, waits = crew[turn % 2], crew[1 - turn % 2]
        ends = busy_until(world)
        world.now = ends - lead(world)
        world.flush()
        assert len(runs.batches) == len(waits.batches) == 1
        estimate = world.scheduler.costs.batch(Kind.IMAGE, len(waits.batches[0].frames))
        world.submit(image(10 + turn))
        world.now = ends
        world.answer(runs)
        assert busy_until(world) == pytest.approx(ends + estimate, abs=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_device_never_holds_more_than_its_limit_whatever_its_workers(workers, limit):
    world = World(max_depth=1000, max_batch=2, inflight_per_device=limit)
    crew = [world.worker(f"w{i}", "d0") for i in range(workers)]
    for i in range(100):
        world.submit(image(i))
        world.after(0.004)
        held = [len(w.batches) for w in crew]
        assert sum(held) <= limit and max(held) <= 2
    assert sum(held) == min(limit, 2 * workers)
    world.answer_all()
    assert len(world.answers) == 100


def test_workers_of_one_device_take_turns():
    world = World(max_depth=100, max_batch=1)
    crew = [world.worker(f"w{i}", "d0") for i in range(2)]
    for i in range(2):
        world.submit(image(i))
    world.after(1.0)
    assert [len(w.batches) for w in crew] == [1, 1]


def test_a_suspended_device_gets_nothing_and_no_share_of_what_waits():
    world = World()
    suspended, sound = world.worker("w0", "d0"), world.worker("w1", "d1")
    world.known(suspended).breaker.suspended_until = world.now + 3.0
    world.submit(*map(image, range(8)))
    assert suspended.batches == [] and [len(b.frames) for b in sound.batches] == [8]
    world.submit(image(9))
    world.live(2.75, [suspended, sound])
    assert suspended.batches == []
    world.submit(*map(image, range(10, 14)))
    world.live(0.5, [suspended, sound])
    assert [payloads(b) for b in suspended.batches] == [images(10, 11, 12, 13)]


# Kinds and order within a batch


def test_kinds_are_not_mixed():
    world = World(max_depth=100)
    world.worker()
    world.submit(image(0))
    for i in range(20):
        world.submit(image(1 + i), prompt(1, i), tenant=f"t{i % 3}")
    world.answer_all()
    assert len(world.answers) == 21
    for _, batch in world.sent:
        sizes = {len(f) for f in batch.frames}
        assert sizes == ({12} if batch.kind == Kind.IMAGE else {8})
    assert max(len(b.frames) for _, b in world.sent) == 8


def test_a_batch_is_filled_in_fair_order():
    world = World(max_depth=100)
    worker = world.worker()
    world.submit(image(0), tenant="zoe")
    for i in range(20):
        world.submit(image(100 + i), tenant="anna")
    for i in range(2):
        world.submit(image(200 + i), tenant="ben")
    world.submit(image(300), tenant="cleo")
    world.answer(worker)
    assert payloads(worker.batches[0]) == images(100, 200, 300, 101, 201, 102, 103, 104)


def test_bulk_yields_by_weight_and_does_not_starve():
    world = World(max_depth=1000, max_batch=1)
    worker = world.worker()
    world.submit(image(0), tenant="zoe")
    for i in range(40):
        world.submit(image(100 + i), tenant="anna", bulk=True)
        world.submit(image(200 + i), tenant="anna")
    world.answer(worker)
    for _ in range(33):
        world.answer(worker)
    bulk = [i for i, (_, b) in enumerate(world.sent[1:]) if payloads(b)[0] < image(200).payload]
    assert len(bulk) in (3, 4, 5)


# The prompt cache on the way


def test_answered_prompts_are_cached_and_images_are_not():
    world = World()
    worker = world.worker()
    world.submit(image(1), prompt(1), prompt(2))
    world.answer_all()
    assert len(world.scheduler.cache) == 2
    key = world.submit(image(2), prompt(2), prompt(1), tenant="ben")
    assert [Kind(b.kind) for b in worker.batches] == [Kind.IMAGE]
    world.after(0.02)
    world.answer(worker)
    reply = world.reply(key)
    assert reply.cached == 2 and reply.device_s == pytest.approx(0.01)


def test_without_a_cache_every_prompt_is_run():
    world = World(cache_entries=0)
    world.worker()
    for _ in range(2):
        world.submit(prompt(1))
        world.answer_all()
    assert len(world.sent) == 2 and len(world.scheduler.cache) == 0


# Cancelling


def test_a_client_that_leaves_takes_its_waiting_items_along():
    world = World()
    worker = world.worker()
    running, waiting = world.submit(image(1)), world.submit(image(2), prompt(2))
    world.cancel(waiting)
    world.cancel(waiting)
    world.cancel(running)
    world.answer(worker)
    assert worker.batches == [] and world.answers == {}
    assert world.metric("finished_total", "cancelled") == 2
    world.scheduler.check_invariants()


def test_times_of_a_reply_add_up():
    world = World()
    worker = world.worker()
    first, second = world.submit(image(1)), world.submit(image(2))
    world.after(0.1)
    world.answer(worker, device_s=0.08)
    world.after(0.1)
    world.answer(worker, device_s=0.07)
    assert world.reply(first).device_s == pytest.approx(0.08)
    reply = world.reply(second)
    assert reply.device_s == pytest.approx(0.07)
    assert reply.queue_s == pytest.approx(0.13)


def test_an_answer_does_not_wait_for_what_its_result_teaches():
    world = World()
    worker = world.worker()
    world.submit(image(1))
    before = world.scheduler.costs.batch(Kind.IMAGE, 1)
    world.now += 1.0
    result = worker.result(worker.batches.pop(), device_s=1.0)
    world.scheduler.from_worker(world.now, worker.peer, result)
    (answer,) = world.scheduler.answers()
    assert isinstance(answer, Send)
    assert isinstance(answer.message, m.Reply)
    assert world.scheduler.costs.batch(Kind.IMAGE, 1) == before
    assert world.scheduler.flush(world.now) == []
    assert world.scheduler.costs.batch(Kind.IMAGE, 1) > 2 * before
