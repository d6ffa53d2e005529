"""When workers, batches and inputs fail: nothing is lost, nothing runs for ever, the culprit is found."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hailo_clip.broker.quarantine import digest
from hailo_clip.broker.recovery import MAX_LOSSES
from hailo_clip.shared import messages as m
from tests.doubles.broker_world import (
    DIMENSION,
    ENCODER_ERROR,
    FRONTEND,
    PaperWorker,
    World,
    embedding,
    image,
    prompt,
)

Key = tuple[bytes, int]


def payloads(batch: m.Batch) -> list[bytes]:
    return [bytes(f) for f in batch.frames]


def codes(reply: m.Reply) -> list[str | None]:
    return [e[0] if e is not None else None for e in reply.errors]


def staged(world: World) -> None:
    """Let the running batches almost end, so that the next ones are staged behind them."""
    world.now = max(d.busy_until for d in world.scheduler.pool.devices.values())
    world.flush()


def one_batch(count: int = 4, **changes: object) -> tuple[World, PaperWorker, list[Key]]:
    """A world whose only worker has one batch of `count` single-image requests."""
    world = World(**{"max_depth": 100, **changes})  # type: ignore[arg-type]
    worker = world.worker()
    world.submit(image(0))
    keys = [world.submit(image(i + 1)) for i in range(count)]
    world.answer(worker)
    assert [len(b.frames) for b in worker.batches] == [count]
    world.answers.clear()
    world.sent.clear()
    return world, worker, keys


def lose(world: World, worker: PaperWorker, how: str) -> None:
    """The worker goes in one of the many ways."""
    match how:
        case "unreachable":
            world.die(worker)
        case "silent":
            world.live(3.5)
        case "failed":
            world.tell(worker, m.Failed(worker.epoch, "device gone"))
        case "device lost":
            world.tell(worker, m.Failed(worker.epoch, "no answer", device_fault=True))
        case "left with work":
            world.tell(worker, m.Bye(worker.epoch))
        case "superseded":
            world.hello(worker.hello.worker)
        case "registered anew":
            world.hello(worker.hello.worker, peer=worker.peer)
        case "faulty":
            batch = worker.batches[0]
            nan = np.full((len(batch.frames), DIMENSION), np.nan, np.float32).tobytes()
            world.tell(worker, worker.result(batch, frames=(nan,)))
    worker.batches.clear()


# Losing a worker


WAYS = ["unreachable", "silent", "failed", "device lost", "left with work", "superseded"]


@pytest.mark.parametrize("how", [*WAYS, "registered anew", "faulty"])
def test_whatever_becomes_of_a_worker_its_items_are_answered_by_another(how):
    world, worker, keys = one_batch()
    lose(world, worker, how)
    assert not world.registered(worker)
    assert all(world.unanswered(key) for key in keys)
    other = world.worker("w1", "d1")
    world.answer_all()
    for key in keys:
        world.reply(key)
    assert {w.hello.worker for w, _ in world.sent} == {other.hello.worker}
    assert world.metric("retries_total", "lost") == len(keys)
    assert len(world.scheduler.quarantine) == 0


@pytest.mark.parametrize(("how", "final"), [("silent", False), ("superseded", True), ("faulty", True)])
def test_who_may_still_be_alive_is_fenced(how, final):
    world, worker, _ = one_batch()
    lose(world, worker, how)
    assert [fence.final for fence in worker.fences()] == [final]
    lost = world.scheduler.recovery.lost_workers(world.now)
    assert (("w0", worker.hello.pid) in lost) == (how != "superseded")


@pytest.mark.parametrize("how", ["unreachable", "failed", "device lost", "left with work"])
def test_who_is_gone_is_not(how):
    world, worker, _ = one_batch()
    lose(world, worker, how)
    assert worker.fences() == []
    assert world.scheduler.recovery.lost_workers(world.now) == []


def test_a_lost_process_id_is_forgotten_when_it_registers_or_after_a_minute():
    world, worker, _ = one_batch()
    lose(world, worker, "silent")
    world.hello("w0", pid=worker.hello.pid)
    assert world.scheduler.recovery.lost_workers(world.now) == []
    world, worker, _ = one_batch()
    lose(world, worker, "silent")
    assert world.scheduler.recovery.lost_workers(world.now + 59.0) == [("w0", worker.hello.pid)]
    assert world.scheduler.recovery.lost_workers(world.now + 60.5) == []


def test_a_worker_elsewhere_with_the_same_process_id_saves_no_lost_one():
    world, worker, _ = one_batch()
    lose(world, worker, "silent")
    world.hello("w9", "d9", pid=worker.hello.pid)
    assert world.scheduler.recovery.lost_workers(world.now) == [("w0", worker.hello.pid)]


def test_a_lost_device_accuses_no_item():
    world, worker, keys = one_batch(2)
    for again in range(8):  # far more often than a batch may kill its worker
        world.after(0.01)
        lose(world, worker, "device lost")
        worker = world.worker(f"again {again}")
        assert [len(b.frames) for b in worker.batches] == [2]  # together, for there is no culprit to find
    assert all(world.unanswered(key) for key in keys)
    world.answer(worker)
    for key in keys:
        world.reply(key)
    assert len(world.scheduler.quarantine) == 0
    assert world.metric("retries_total", "lost") == 16


def test_what_waits_for_a_lost_device_waits_until_its_deadline():
    world, worker, keys = one_batch(1)
    lose(world, worker, "device lost")
    assert world.scheduler.health(world.now) == ("unhealthy", "worker w0: no answer")
    world.live(60.0)
    assert [world.refused(key)[0] for key in keys] == ["deadline_exceeded"]


def test_the_running_batch_is_split_the_staged_one_comes_back_whole():
    world, worker, keys = one_batch(3)
    more = [world.submit(image(20 + i)) for i in range(5)]
    staged(world)
    assert [len(b.frames) for b in worker.batches] == [3, 5]
    world.sent.clear()
    world.die(worker)
    world.worker("w1", "d1")
    world.answer_all()
    assert [len(b.frames) for _, b in world.sent] == [1, 1, 1, 5]
    assert payloads(world.sent[-1][1]) == [image(20 + i).payload for i in range(5)]
    for key in (*keys, *more):
        world.reply(key)


def test_items_of_a_lost_batch_go_first():
    world, worker, _ = one_batch(2)
    world.die(worker)
    second = world.worker("w1", "d1")
    assert payloads(second.batches[0]) == [image(1).payload]
    world.submit(image(50), tenant="ben")
    world.answer(second)
    assert payloads(second.batches[0]) == [image(2).payload]


def test_a_cancelled_item_is_not_run_again():
    world, worker, keys = one_batch(2)
    world.cancel(keys[0])
    world.die(worker)
    world.worker("w1", "d1")
    world.answer_all()
    assert [payloads(b) for _, b in world.sent] == [[image(2).payload]]
    assert world.unanswered(keys[0])


def test_an_item_that_expires_while_it_waits_for_its_second_run_is_not_run():
    world = World()
    worker = world.worker()
    key = world.submit(image(1), ttl=2.0)
    world.die(worker)
    world.live(2.0)
    second = world.worker("w1", "d1")
    assert world.refused(key)[0] == "deadline_exceeded"
    assert second.batches == []
    world.scheduler.check_invariants()


def test_a_prompt_waiting_for_its_second_run_can_be_joined():
    world = World(inflight_per_device=1)
    first_worker, second_worker = world.worker("w0", "d0"), world.worker("w1", "d1")
    first = world.submit(prompt(5))
    world.submit(image(1))
    world.die(first_worker)
    assert len(second_worker.batches) == 1  # and the prompt waits
    second = world.submit(prompt(5), tenant="ben")
    assert world.scheduler.ledger.waiting == 0
    world.answer_all()
    world.reply(first)
    world.reply(second)
    assert len(world.sent) == 3


# At most two runs; the poison item


def serve_with_poison(
    world: World, poison: set[bytes], keys: list[Key], limit: int = 400, *, late: bool = False
) -> int:
    """Workers that die of `poison` and are started again, until all keys are answered; how often one died.

    When `late`, a worker reports a batch only after the next one that it has: the report dies with it.
    """
    deaths = 0
    for _ in range(limit):
        if all(key in world.answers for key in keys):
            return deaths
        alive = [w for w in world.workers.values() if world.registered(w)]
        if not alive:
            alive = [world.worker("w0", "d0")]
        worker = alive[0]
        if not worker.batches:
            world.live(0.25, alive)
        elif any(poison & set(payloads(batch)) for batch in worker.batches[: 1 + late]):
            deaths += 1
            world.die(worker)
        else:
            world.answer(worker)
    raise AssertionError("not answered")


def test_only_the_poison_item_fails_and_its_batchmates_answer():
    """With a single worker, which it kills twice."""
    world, _, keys = one_batch(8)
    deaths = serve_with_poison(world, {image(3).payload}, keys)
    assert deaths == 2
    for i, key in enumerate(keys):
        assert codes(world.reply(key)) == (["inference_failed"] if i == 2 else [None])
    error = world.reply(keys[2]).errors[0]
    assert error is not None and error[1].startswith("Failed to encode image") and "2 times" in error[1]
    assert world.metric("quarantined_total") == 1
    assert world.metric("finished_total", "failed") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_before_it_reported_what_it_did_accuses_nobody_else(workers):
    """Eight prompts of one request, the sixth kills: the one before it is done and not yet reported."""
    world = World()
    for i in range(workers):
        world.worker(f"w{i}")
    items = [prompt(i) for i in range(8)]
    key = world.submit(*items)
    deaths = serve_with_poison(world, {items[5].payload}, [key], late=True)
    assert codes(world.reply(key)) == [None] * 5 + ["inference_failed"] + [None] * 2
    assert deaths == 2 and len(world.scheduler.quarantine) == 1


def test_a_suspect_runs_when_its_worker_has_nothing_else():
    world, worker, _ = one_batch(2, max_batch=2)
    world.die(worker)
    busy, idle = world.worker("w1", "d1"), world.worker("w2", "d2")
    assert [payloads(w.batches[0]) for w in (busy, idle)] == [[image(1).payload], [image(2).payload]]
    world.submit(image(20))
    staged(world)
    assert [len(w.batches) for w in (busy, idle)] == [1, 1]
    world.answer(idle)
    assert [payloads(b) for b in idle.batches] == [[image(20).payload]]
    world.die(busy)  # a suspect again, but for nothing that the other does
    assert [len(w.batches) for w in (busy, idle)] == [0, 1]


def test_a_suspect_does_not_wait_behind_a_batch_at_its_worker():
    world, worker, keys = one_batch(1)
    later = world.submit(image(20))
    staged(world)
    assert len(worker.batches) == 2
    world.answer(worker, errors=[ENCODER_ERROR])
    assert [payloads(b) for b in worker.batches] == [[image(20).payload]]
    world.answer(worker)
    assert [payloads(b) for b in worker.batches] == [[image(1).payload]]
    world.answer_all()
    for key in (*keys, later):
        world.reply(key)


def test_an_item_of_a_larger_request_fails_alone_too():
    world = World()
    world.worker()
    key = world.submit(prompt(1), image(1), image(2), image(3), prompt(2))
    serve_with_poison(world, {image(2).payload}, [key])
    assert codes(world.reply(key)) == [None, None, "inference_failed", None, None]
    assert world.metric("finished_total", "answered") == 1


def test_a_poison_prompt_fails_everyone_who_waits_for_it_and_no_one_else():
    world = World()
    world.worker()
    world.submit(image(0))
    keys = [world.submit(prompt(6), tenant=t) for t in ("anna", "ben")]
    other = world.submit(prompt(7))
    serve_with_poison(world, {prompt(6).payload}, [*keys, other])
    for key in keys:
        assert codes(world.reply(key)) == ["inference_failed"]
    assert codes(world.reply(other)) == [None]
    assert world.scheduler.cache.get(prompt(6).payload) is None


def test_the_poison_is_refused_for_a_minute_and_then_tried_again():
    world, _, keys = one_batch(2)
    serve_with_poison(world, {image(1).payload}, keys)
    worker = world.worker()
    again = world.submit(image(1), image(9))
    assert [payloads(b) for b in worker.batches] == [[image(9).payload]]
    world.answer(worker)
    assert codes(world.reply(again)) == ["quarantined", None]
    world.live(61.0, [worker])
    later = world.submit(image(1))
    world.answer(worker)
    world.reply(later)


def test_copies_of_the_poison_that_wait_are_spared_the_workers():
    """A client that gets no answer sends its photo again: ten copies must not kill twenty workers."""
    world = World(max_depth=100)
    world.worker()
    world.submit(image(0))
    copies = [world.submit(image(5), tenant=f"t{i}") for i in range(10)]
    twice = world.submit(image(5), prompt(3), image(5))
    good = world.submit(image(6))
    assert serve_with_poison(world, {image(5).payload}, [*copies, twice, good]) == 2
    answers = [codes(world.reply(key))[0] for key in copies]
    assert Counter(answers) == {"inference_failed": 1, "quarantined": 9}
    assert codes(world.reply(twice)) == ["quarantined", None, "quarantined"]
    assert codes(world.reply(good)) == [None]
    world.scheduler.check_invariants()
    assert world.metric("quarantined_total") == 1


def test_a_copy_of_the_poison_that_was_lost_elsewhere_is_not_tried_again():
    world, worker, keys = one_batch(1)
    world.scheduler.quarantine.add(world.now, digest(m.Kind.IMAGE, image(1).payload))  # by a copy
    world.die(worker)
    assert codes(world.reply(keys[0])) == ["quarantined"]
    assert world.worker("w1").batches == []


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.booleans(), min_size=1, max_size=20),
    bad=st.sets(st.integers(0, 19), max_size=3),
    max_batch=st.integers(1, 8),
)
def test_of_any_mixture_exactly_the_poison_fails(kinds, bad, max_batch):
    world = World(max_depth=100, max_batch=max_batch)
    world.worker()
    items = [image(i) if is_image else prompt(i) for i, is_image in enumerate(kinds)]
    keys = [world.submit(item, ttl=1000.0, tenant=f"t{i % 3}") for i, item in enumerate(items)]
    poison = {items[i].payload for i in bad if i < len(items)}
    deaths = serve_with_poison(world, poison, keys)
    for item, key in zip(items, keys, strict=True):
        assert codes(world.reply(key)) == (["inference_failed"] if item.payload in poison else [None])
    assert deaths <= 2 * len(poison)
    assert len(world.scheduler.quarantine) == len(poison)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.booleans(), min_size=1, max_size=20),
    bad=st.integers(0, 19),
    max_batch=st.integers(1, 8),
)
def test_of_any_mixture_exactly_the_poison_fails_also_when_reports_are_late(kinds, bad, max_batch):
    world = World(max_depth=100, max_batch=max_batch)
    world.worker()
    items = [image(i) if is_image else prompt(i) for i, is_image in enumerate(kinds)]
    keys = [world.submit(item, ttl=1000.0, tenant=f"t{i % 3}") for i, item in enumerate(items)]
    poison = items[bad % len(items)].payload
    serve_with_poison(world, {poison}, keys, late=True)
    for item, key in zip(items, keys, strict=True):
        assert codes(world.reply(key)) == (["inference_failed"] if item.payload == poison else [None])


def test_an_item_that_only_ever_waited_behind_lost_batches_is_given_up_but_not_blamed():
    world, worker, _ = one_batch(1)
    key = world.submit(image(50))
    staged(world)
    job = world.known(worker).inflight[1].jobs[0]
    job.losses = MAX_LOSSES - 1
    world.die(worker)
    error = world.reply(key).errors[0]
    assert error is not None and error[0] == "inference_failed" and f"{MAX_LOSSES} times" in error[1]
    assert (job.ran, len(world.scheduler.quarantine)) == (0, 0)


# Late and wrong results


@pytest.mark.parametrize("how", ["silent", "faulty", "superseded", "registered anew"])
def test_results_of_a_given_up_registration_are_dropped(how):
    world, worker, keys = one_batch(2)
    batch = worker.batches[0]
    late = worker.result(batch, frames=(embedding(image(99).kind, image(99).payload) * 2,))
    lose(world, worker, how)
    other = world.worker("w1", "d1")
    world.tell(worker, late)
    assert all(world.unanswered(key) for key in keys)
    assert world.metric("late_results_total") == 1
    world.answer_all()
    world.tell(worker, late)
    for key in keys:
        world.reply(key)
    assert world.registered(other)


def test_a_result_that_comes_twice_counts_once():
    world, worker, keys = one_batch(2)
    batch = world.answer(worker)
    forged = worker.result(batch, frames=(embedding(image(99).kind, image(99).payload) * 2,))
    world.tell(worker, forged)
    assert world.metric("late_results_total") == 1 and world.registered(worker)
    for key in keys:
        world.reply(key)


def test_a_result_for_a_batch_of_another_worker_is_dropped():
    world, worker, keys = one_batch(2)
    other = world.worker("w1", "d1")
    batch = worker.batches[0]
    world.tell(other, m.Result(other.epoch, batch.batch_id, 0.1, (), worker.result(batch).frames))
    world.scheduler.from_worker(world.now, other.peer, worker.result(batch))  # the epoch is another's
    world.flush()
    assert all(world.unanswered(key) for key in keys)
    assert world.metric("late_results_total") == 2


def test_a_result_after_everyone_left_is_dropped_cleanly():
    world, worker, keys = one_batch(2)
    for key in keys:
        world.cancel(key)
    world.answer(worker)
    assert world.answers == {} and world.registered(worker)
    world.scheduler.check_invariants()


def rows(*values: float) -> bytes:
    """Two embeddings; `values` are the last of the second one."""
    array = np.full((2, DIMENSION), 0.5, np.float32)
    array[1, DIMENSION - len(values) :] = values
    return array.tobytes()


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (b"",),
        (rows()[:-1],),
        (rows()[: 4 * DIMENSION],),
        (rows() + b"\0" * 4,),
        (rows() * 2,),
        (rows(np.nan),),
        (rows(np.inf),),
        (rows(-np.inf, np.inf),),
        (rows(3e38, 3e38),),
        (rows(0.0, 0.0, 0.0, 0.0),),
        (rows(0.55),),
        (rows(1e-40, 1e-40, 1e-40, 0.9),),
    ],
    ids=lambda f: (
        f"{len(f)} frames" if not f else "bytes" if len(f[0]) != 32 else repr(np.frombuffer(f[0], "f4")[4:])
    ),
)
def test_embeddings_of_the_wrong_size_or_norm_are_the_workers_fault(frames):
    world, worker, keys = one_batch(2)
    world.tell(worker, worker.result(worker.batches[0], frames=frames))
    assert not world.registered(worker)
    assert [f.final for f in worker.fences()] == [True]
    assert world.metric("worker_restarts_total", "faulty") == 1
    world.worker("w1", "d1")
    world.answer_all()
    for key in keys:
        world.reply(key)


def test_a_norm_within_float16s_reach_of_one_is_fine():
    world, worker, keys = one_batch(2)
    good = np.frombuffer(worker.result(worker.batches[0]).frames[0], np.float32) * np.float32(1.001)
    world.tell(worker, worker.result(worker.batches[0], frames=(good.tobytes(),)))
    assert world.registered(worker)
    assert all(isinstance(world.only(key), m.Reply) for key in keys)


@pytest.mark.parametrize(
    ("errors", "frames"),
    [
        ((ENCODER_ERROR,), ()),
        ((ENCODER_ERROR,) * 3, ()),
        ((ENCODER_ERROR,) * 2, (rows(),)),
        ((None, None), ()),
        ((None, ENCODER_ERROR), (rows(),)),
    ],
)
def test_errors_that_do_not_fit_the_batch_are_the_workers_fault(errors, frames):
    world, worker, _ = one_batch(2)
    batch = worker.batches[0]
    world.tell(worker, m.Result(worker.epoch, batch.batch_id, 0.1, errors, frames))
    assert not world.registered(worker)


# Errors of single items and of whole batches


def test_an_error_of_one_item_does_not_touch_its_batchmates():
    world, worker, keys = one_batch(4)
    world.answer(worker, errors=[None, ENCODER_ERROR, None, None])
    for i in (0, 2, 3):
        world.reply(keys[i])
    assert world.unanswered(keys[1])
    assert [payloads(b) for b in worker.batches] == [[image(2).payload]]
    world.answer(worker)
    world.reply(keys[1])
    assert world.metric("retries_total", "failed") == 1 and len(world.scheduler.quarantine) == 0


def test_an_item_that_fails_twice_fails_for_good_and_its_worker_stays():
    world, worker, keys = one_batch(4)
    world.answer(worker, errors=[None, ENCODER_ERROR, None, None])
    world.answer(worker, errors=[ENCODER_ERROR])
    error = world.reply(keys[1]).errors[0]
    assert error is not None and error[0] == "inference_failed" and "out of memory" in error[1]
    assert world.registered(worker) and len(world.scheduler.quarantine) == 1


def test_a_failed_batch_is_run_again_item_by_item():
    world, worker, keys = one_batch(4)
    world.answer(worker, errors=[ENCODER_ERROR] * 4)
    world.answer_all()
    assert [len(b.frames) for _, b in world.sent] == [1, 1, 1, 1]
    for key in keys:
        world.reply(key)
    assert world.registered(worker)


def test_a_failed_item_goes_to_another_worker_where_there_is_one():
    """Else a device that fails everything would put good inputs in quarantine."""
    world, worker, keys = one_batch(1)
    other = world.worker("w1", "d1")
    world.answer(worker, errors=[ENCODER_ERROR])
    assert worker.batches == [] and [payloads(b) for b in other.batches] == [[image(1).payload]]
    world.answer(other)
    world.reply(keys[0])


def test_three_failed_batches_in_a_row_are_the_workers_fault():
    world, worker, keys = one_batch(4)
    for count in (4, 1, 1):
        assert world.registered(worker)
        world.answer(worker, errors=[ENCODER_ERROR] * count)
    assert not world.registered(worker)
    assert "3 batches in a row" in worker.fences()[0].reason and "out of memory" in worker.fences()[0].reason
    world.worker("w1", "d1")
    world.answer_all()
    assert [codes(world.reply(key)) for key in keys[2:]] == [[None], [None]]


def test_a_good_batch_in_between_clears_the_count():
    world, worker, _ = one_batch(1, quarantine_s=0.0)
    for i in range(6):
        world.submit(image(60 + i))
        while worker.batches:
            world.answer(worker, errors=[ENCODER_ERROR] if i % 2 else ())
    assert world.registered(worker)


# Silence, stalls and hanging


def test_a_worker_is_given_up_after_three_silent_heartbeats_and_not_before():
    world = World()
    worker = world.worker()
    world.live(3.0)
    assert world.registered(worker)
    world.live(0.5)
    assert not world.registered(worker)
    assert world.metric("worker_restarts_total", "silent") == 1
    assert "silent" in world.scheduler.health(world.now)[1]


def test_any_message_is_a_sign_of_life():
    world = World()
    worker = world.worker()
    for _ in range(4):
        world.live(2.0)
        world.tell(worker, m.Result(worker.epoch, 999, 0.0, ()))
    assert world.registered(worker)


def test_a_beat_is_answered():
    world = World()
    worker = world.worker()
    world.tell(worker, m.Beat(worker.epoch))
    assert worker.heard[-1] == m.BeatAck("broker-1", worker.epoch)


def test_a_loading_worker_may_be_silent_for_its_grace_and_no_longer_once_ready():
    world = World()
    worker = world.hello("w0", grace_s=30.0)
    world.live(29.0)
    world.tell(worker, m.Beat(worker.epoch))
    world.live(0.9)
    assert world.registered(worker)
    world.tell(worker, m.Ready(worker.epoch, 1.0))
    world.live(3.5)
    assert not world.registered(worker)


def test_a_grace_shorter_than_the_liveness_does_not_shorten_it():
    world = World()
    worker = world.hello("w0", grace_s=0.0)
    world.live(3.0)
    assert world.registered(worker)


def test_a_batch_that_hangs_ends_its_worker_although_it_beats():
    world, worker, keys = one_batch(2)
    world.live(5.0, [worker])
    assert world.registered(worker)
    world.live(0.5, [worker])
    assert not world.registered(worker)
    assert worker.fences()[0].final
    assert world.metric("worker_restarts_total", "overdue") == 1
    assert world.scheduler.recovery.lost_workers(world.now) == [("w0", worker.hello.pid)]
    world.worker("w1", "d1")
    world.answer_all()
    for key in keys:
        world.reply(key)


def test_a_staged_batch_does_not_count_as_running():
    world, worker, _ = one_batch(2)
    world.submit(image(30))
    staged(world)
    assert len(worker.batches) == 2
    world.live(4.0, [worker])
    world.answer(worker, device_s=4.0)
    world.live(4.0, [worker])
    assert world.registered(worker)


def test_a_slow_device_gets_the_time_its_batches_take():
    world, worker, _ = one_batch(2)
    for _ in range(300):
        world.scheduler.costs.observe(m.Kind.IMAGE, 8, 4.0)
        world.scheduler.costs.observe(m.Kind.IMAGE, 1, 1.0)
    world.live(4.0, [worker])
    world.answer(worker, device_s=2.0)
    world.submit(*map(image, range(40, 48)))
    world.live(30.0, [worker])
    assert world.registered(worker)
    world.live(30.5, [worker])
    assert not world.registered(worker)


@pytest.mark.parametrize("stall", [1.5, 5.0, 60.0])
def test_the_brokers_own_stall_kills_nobody(stall):
    world, worker, keys = one_batch(2)
    loading = world.hello("w1", "d1", grace_s=4.0)
    world.live(2.5, [worker])
    world.after(stall)
    assert world.registered(worker) and world.registered(loading)
    assert FRONTEND in world.scheduler.frontends
    world.live(0.5)
    world.answer(worker)
    if stall < 20:
        for key in keys:
            world.reply(key)
    world.live(5.0)
    assert not world.registered(worker)


def test_after_a_stall_messages_that_waited_are_heard_first():
    world, worker, keys = one_batch(2)
    world.now += 5.0
    batch = worker.batches.pop(0)
    world.scheduler.from_worker(world.now, worker.peer, worker.result(batch))
    world.flush()
    for key in keys:
        world.reply(key)
    assert world.registered(worker)


# Registration


def test_hello_is_welcomed_and_its_repetition_too_without_a_second_registration():
    world = World()
    worker = world.hello("w0")
    world.tell(worker, worker.hello)
    assert worker.heard == [m.Welcome("broker-1", worker.epoch, 1.0)] * 2
    assert world.metric("worker_registrations_total") == 1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"fingerprint": "another", "model": "other-model"}, "other-model .*another.* paper .*" + "f" * 32),
        ({"dimension": 5}, "dimension 5 is not 4"),
        ({"max_batch": 0}, "max_batch 0 < 1"),
    ],
)
def test_a_worker_that_does_not_fit_is_rejected_with_both_sides_named(wrong, match):
    world = World()
    worker = world.hello("w0", **wrong)
    assert not world.registered(worker)
    (reject,) = worker.heard
    assert isinstance(reject, m.Reject) and re.search(match, reject.reason)
    assert world.scheduler.pool.devices == {}


def test_a_second_worker_of_a_name_takes_its_place():
    world, old, keys = one_batch(2)
    new = world.worker("w0", "d0")
    assert not world.registered(old) and world.registered(new)
    assert old.fences()[0].final and str(new.hello.pid) in old.fences()[0].reason
    world.answer_all()
    for key in keys:
        world.reply(key)
    assert not world.scheduler.pool.named("w0").breaker.losses  # type: ignore[union-attr]


def test_an_epoch_used_twice_belongs_to_the_newcomer():
    world = World()
    old = world.worker("w0")
    world.workers.clear()
    new = world.worker("w1", "d1", epoch=old.epoch)
    assert not world.registered(old) and world.registered(new)
    world.tell(old, m.Beat(old.epoch))
    assert world.registered(new)


def test_a_registration_that_the_broker_does_not_know_is_told_to_register_anew():
    world = World()
    worker = world.worker()
    world.die(worker)
    world.unroutable.clear()
    heard = len(worker.heard)
    for message in (m.Beat(worker.epoch), m.Ready(worker.epoch, 1.0), m.Result(worker.epoch, 1, 0.1, ())):
        world.tell(worker, message)
    assert [type(x) for x in worker.heard[heard:]] == [m.Fence] * 3
    assert not any(f.final for f in worker.fences())
    world.tell(worker, m.Leave(worker.epoch))
    assert worker.heard[-1] == m.Stop(worker.epoch)
    count = len(worker.heard)
    world.tell(worker, m.Bye(worker.epoch))
    world.tell(worker, m.Failed(worker.epoch, "why"))
    assert len(worker.heard) == count
    again = world.worker("w0", peer=worker.peer)
    assert world.registered(again)


def test_an_orderly_departure_is_no_loss():
    world, worker, _ = one_batch(2)
    world.submit(image(30))
    staged(world)
    world.tell(worker, m.Leave(worker.epoch))
    world.tell(worker, m.Leave(worker.epoch))
    assert worker.heard[-2:] == [m.Stop(worker.epoch)] * 2
    assert world.refused(world.submit(image(31)))[0] == "unavailable"
    other = world.worker("w1", "d1")
    world.submit(image(32))
    world.answer(worker)
    world.answer(worker)
    assert worker.batches == [] and len(other.batches) == 1
    world.tell(worker, m.Bye(worker.epoch))
    assert not world.registered(worker) and worker.fences() == []
    assert not any(name == "worker_restarts_total" for name, _ in world.scheduler.metrics.counters)
    assert world.scheduler.health(world.now) == ("ready", "")


def test_an_event_that_its_state_does_not_allow_is_counted_and_changes_nothing():
    world = World()
    worker = world.worker()
    world.tell(worker, m.Leave(worker.epoch))
    world.tell(worker, m.Ready(worker.epoch, 1.0))
    assert world.metric("illegal_events_total") == 1
    assert world.known(worker).state.value == "stopping"


# Crash loops


def crash(world: World, name: str = "w0", times: int = 3) -> None:
    for _ in range(times):
        world.die(world.worker(name))
        world.live(1.0)


def test_a_worker_that_crash_loops_is_suspended_then_probed_with_one_batch():
    world = World(max_depth=100, max_batch=1)
    crash(world)
    worker = world.worker()
    assert world.metric("breaker_opened_total") == 1
    assert world.refused(world.submit(image(1)))[0] == "unavailable"
    assert world.scheduler.health(world.now)[0] == "unhealthy"
    world.live(1.25, [worker])
    for i in range(3):
        world.submit(image(10 + i))
    world.live(0.5, [worker])
    assert world.scheduler.health(world.now)[0] == "ready"
    assert len(worker.batches) == 1  # a probe, nothing staged behind it
    world.answer(worker)
    world.live(0.5, [worker])
    assert len(worker.batches) == 2  # proved


def test_a_probe_that_fails_suspends_for_longer():
    world = World()
    crash(world)
    for expected in (4.0, 8.0):
        worker = world.worker()
        world.die(worker)
        breaker = world.known(world.worker()).breaker
        assert breaker.suspended_until - world.now == expected


def test_work_that_waits_goes_to_a_suspended_worker_when_its_time_is_over():
    world = World()
    crash(world, times=2)
    worker = world.worker()
    key = world.submit(image(1))
    world.die(worker)
    worker = world.worker()
    assert worker.batches == [] and world.unanswered(key)
    world.live(2.25, [worker])
    world.answer(worker)
    world.reply(key)


def test_a_worker_with_a_record_of_good_batches_is_not_crash_looping():
    world = World()
    for _ in range(5):
        worker = world.worker()
        for i in range(10):
            world.submit(image(i))
            world.answer(worker)
        world.die(worker)
    assert world.metric("breaker_opened_total") == 0


def test_an_orderly_departure_clears_the_record():
    world = World()
    crash(world, times=2)
    worker = world.worker()
    world.tell(worker, m.Leave(worker.epoch))
    world.tell(worker, m.Bye(worker.epoch))
    crash(world, times=2)
    assert world.metric("breaker_opened_total") == 0


def test_a_crash_loop_in_the_loading_stage_is_one_too():
    world = World()
    for _ in range(1100):
        worker = world.hello("w0")
        world.tell(worker, m.Failed(worker.epoch, "no such device"))
        world.after(1.0)
    assert world.metric("breaker_opened_total") == 1098
    assert world.scheduler.health(world.now) == ("unhealthy", "worker w0: no such device")


def test_a_device_that_was_away_for_long_is_used_as_soon_as_it_is_back():
    world = World()
    for _ in range(20):
        worker = world.hello("w0")
        world.tell(worker, m.Failed(worker.epoch, "no such device", device_fault=True))
        world.after(1.0)
    assert world.scheduler.health(world.now) == ("unhealthy", "worker w0: no such device")
    world.worker("w0")
    assert world.scheduler.health(world.now) == ("ready", "")


# Frontends


def test_a_frontend_that_is_silent_for_ten_seconds_is_given_up_with_its_requests():
    world, worker, keys = one_batch(2)  # of the frontend that pings
    theirs = [world.submit(image(60 + i), frontend=b"other", ttl=100.0) for i in range(2)]
    for _ in range(3):
        world.live(3.3, [worker])
        world.answer(worker) if world.answers == {} else None
    assert b"other" in world.scheduler.frontends
    world.live(0.5, [worker])
    assert b"other" not in world.scheduler.frontends and FRONTEND in world.scheduler.frontends
    assert not any(key in world.scheduler.ledger.requests for key in theirs)
    world.answer_all()
    assert all(world.unanswered(key) for key in theirs)
    for key in keys:
        world.reply(key)


def test_a_ping_keeps_a_frontend():
    world, worker, keys = one_batch(1)
    for _ in range(8):
        world.live(2.0, [worker])
        batch = worker.batches.pop(0) if worker.batches else None
        if batch is not None:
            world.tell(worker, worker.result(batch))
        assert FRONTEND in world.scheduler.frontends
    world.reply(keys[0])


def test_a_frontend_that_cannot_be_reached_is_given_up_with_its_requests():
    world, _, keys = one_batch(2)
    waiting = world.submit(image(9))
    other = world.submit(image(10), frontend=b"other")
    world.scheduler.unreachable(world.now, "frontend", FRONTEND)
    world.flush()
    world.answer_all()
    world.reply(other)
    assert all(world.unanswered(key) for key in (*keys, waiting))
    assert world.metric("undeliverable_total", "frontend") == 1
    assert world.metric("finished_total", "cancelled") == 3
    assert not any(image(9).payload in payloads(b) for _, b in world.sent)


def test_a_peer_that_nobody_knows_may_be_unreachable():
    world, worker, _ = one_batch()
    world.scheduler.unreachable(world.now, "backend", b"stranger")
    world.scheduler.unreachable(world.now, "frontend", b"stranger")
    world.flush()
    assert world.registered(worker)


def test_a_batch_that_cannot_be_delivered_goes_to_another_worker():
    world = World()
    first, second = world.worker("w0", "d0"), world.worker("w1", "d1")
    world.unroutable.add(first.peer)
    key = world.submit(image(1))
    assert not world.registered(first) and len(second.batches) == 1
    world.answer(second)
    world.reply(key)


# Health


def test_health_from_start_to_end():
    world = World()
    health = world.scheduler.health
    assert health(world.now) == ("starting", "no worker has connected yet")
    world.live(11.0)
    assert health(world.now) == ("unhealthy", "no worker is connected")
    worker = world.hello("w0")
    assert health(world.now) == ("starting", "workers loading the model: 1")
    world.tell(worker, m.Ready(worker.epoch, 0.99))
    assert health(world.now) == ("ready", "")
    world.die(worker)
    assert health(world.now) == ("unhealthy", "worker w0: its connection is gone")
    world.worker("w0")
    assert health(world.now) == ("ready", "")
    world.scheduler.from_frontend(world.now, b"op", m.Control(1, "drain"))
    assert health(world.now) == ("draining", "the service is shutting down")


def test_a_probe_reaches_every_worker():
    world = World()
    workers = [world.worker(f"w{i}", "d0") for i in range(2)]
    world.scheduler.workforce.probe()
    world.flush()
    assert all(w.heard[-1] == m.BeatAck("broker-1", w.epoch) for w in workers)
