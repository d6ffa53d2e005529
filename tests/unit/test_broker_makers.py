"""What a worker put into the prompt cache is dropped when it turns out to be wrong, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from hailo_clip.broker.makers import LIMIT, Makers
from hailo_clip.broker.promptcache import PromptCache
from hailo_clip.shared import messages as m
from tests.doubles.broker_world import DIMENSION, Item, PaperWorker, World, prompt

WRONG = np.eye(1, DIMENSION, dtype=np.float32).tobytes()
"""A unit vector, as well-formed as any, that is the embedding of nothing."""


def asked(world: World, worker: PaperWorker, item: Item, *, wrong: bool = False) -> None:
    """`item` is encoded by `worker`, and is in the cache then."""
    world.submit(item)
    batch = worker.batches.pop(0)
    world.tell(worker, worker.result(batch, frames=(WRONG,) if wrong else None))
    assert cached(world, item) is not None


def cached(world: World, item: Item) -> bytes | None:
    return world.scheduler.cache.get(item.payload)


def fails(world: World, worker: PaperWorker) -> None:
    world.tell(worker, m.Failed(worker.epoch, "canary of paper failed: cosine 0.1"))


def passes(world: World, worker: PaperWorker) -> None:
    world.tell(worker, m.Ready(worker.epoch, 0.9999))


def test_wrong_embeddings_do_not_outlive_the_canary_that_fails():
    world = World()
    worker = world.worker()
    asked(world, worker, prompt(1), wrong=True)
    world.scheduler.cache.changes = 0
    fails(world, worker)
    assert cached(world, prompt(1)) is None
    assert world.scheduler.cache.changes == 1, "so that the file is written without it"
    assert [n.text for n in world.notes if "dropped" in n.text] == [
        "prompts dropped from the cache, made by a worker that failed since: 1"
    ]
    sound = world.worker("w1")
    key = world.submit(prompt(1))
    world.answer(sound)
    world.reply(key)


def test_what_was_made_before_the_last_canary_that_passed_stays():
    world = World()
    worker = world.worker()
    asked(world, worker, prompt(1))
    passes(world, worker)
    asked(world, worker, prompt(2), wrong=True)
    fails(world, worker)
    assert cached(world, prompt(1)) is not None and cached(world, prompt(2)) is None


def test_what_others_made_stays():
    world = World()
    one = world.worker("w0", "d0")
    asked(world, one, prompt(1), wrong=True)
    two = world.worker("w1", "d0")
    fails(world, one)
    asked(world, two, prompt(1))
    asked(world, two, prompt(2))
    assert cached(world, prompt(1)) == two.result(m.Batch("", 0, 1, ("t",), (prompt(1).payload,))).frames[0]
    passes(world, world.worker("w0", "d0"))
    assert cached(world, prompt(1)) is not None and cached(world, prompt(2)) is not None


def test_a_process_that_was_given_up_in_between_is_still_held_to_it():
    """Silent for a while, it registers anew, and its canary fails: the encoder is the one that it had."""
    world = World()
    old = world.worker("w0")
    asked(world, old, prompt(1), wrong=True)
    world.live(3.5)
    assert not world.registered(old)
    new = world.hello("w0", pid=old.hello.pid)
    fails(world, new)
    assert cached(world, prompt(1)) is None


def test_another_process_of_the_name_is_not():
    world = World()
    old = world.worker("w0")
    asked(world, old, prompt(1))
    world.die(old)
    fails(world, world.hello("w0"))
    assert cached(world, prompt(1)) is not None


def test_a_malformed_result_makes_all_doubtful_that_its_worker_made():
    world = World()
    worker = world.worker()
    asked(world, worker, prompt(1), wrong=True)
    world.submit(prompt(2))
    nan = np.full(DIMENSION, np.nan, np.float32).tobytes()
    world.tell(worker, worker.result(worker.batches.pop(0), frames=(nan,)))
    assert not world.registered(worker) and cached(world, prompt(1)) is None


@pytest.mark.parametrize("how", ["dies", "leaves", "silent"])
def test_a_worker_that_just_goes_is_believed(how: str):
    world = World()
    worker = world.worker()
    asked(world, worker, prompt(1))
    if how == "dies":
        world.die(worker)
    elif how == "silent":
        world.live(3.5)
    else:
        world.tell(worker, m.Leave(worker.epoch))
        world.tell(worker, m.Bye(worker.epoch))
    assert not world.registered(worker)
    assert cached(world, prompt(1)) is not None


# The parts


def test_marked_entries_are_dropped_and_their_memory_given_back():
    cache = PromptCache(3)
    cache.put(b"plain", b"v")
    size = cache.bytes
    cache.put(b"a", b"v", 7)
    cache.put(b"b", b"v", 8)
    assert cache.drop_marked(7) == 1
    assert cache.get(b"a") is None and cache.get(b"b") == b"v"
    assert cache.drop_marked(8) == 1 and cache.drop_marked(8) == 0
    assert cache.bytes == size and len(cache) == 1


def test_marks_leave_with_their_entries():
    cache = PromptCache(3)
    for i in range(50):
        cache.put(b"%d" % i, b"v", 7)
    assert len(cache._marks) == 3
    cache.put(b"49", b"right", 0)  # made anew by somebody who is not marked
    assert cache.drop_marked(7) == 2 and cache.get(b"49") == b"right"
    assert not cache._marks


def hello(number: int) -> m.Hello:
    return m.Hello(f"w{number}", "", number, "d", "emulated", "paper", "f" * 32, 4, 8, 60.0)


def test_a_mark_is_new_with_each_pass_and_nobodys_else():
    makers = Makers()
    assert makers.number(hello(1)) == 0
    marks = []
    for _ in range(2):
        for number in (1, 2):
            makers.passed(hello(number))
            marks.append(makers.number(hello(number)))
    assert len({*marks}) == 4 and 0 not in marks
    assert makers.gone(hello(1)) == marks[2] and makers.gone(hello(1)) == 0
    assert makers.number(hello(2)) == marks[3]


def test_a_bounded_number_of_processes_is_remembered():
    makers = Makers()
    for number in range(LIMIT + 50):
        makers.passed(hello(number))
        makers.passed(hello(0))
    assert len(makers) == LIMIT and makers.number(hello(0)) and not makers.number(hello(1))
