"""A batch may take as long as its device honestly takes; one that hangs is found all the same."""

from __future__ import annotations

import pytest

from hailo_clip.broker.patience import LIMIT, PACE, PATIENT_S, Patience
from hailo_clip.shared import messages as m
from hailo_clip.shared.messages import Kind
from tests.doubles.broker_world import Item, PaperWorker, World, image, policy

USUAL_S, LONGEST_S = policy().overdue_min_s, policy().overdue_max_s
FAST = ((2, 0.02), (2, 0.04))


def started(world: World, batches: m.Timings, name: str = "w0") -> PaperWorker:
    """A process whose canary took `batches`."""
    worker = world.worker(name, f"host/cpu:{name}", ready=False)
    world.tell(worker, m.Ready(worker.epoch, 0.9999, batches))
    return worker


def works(world: World, worker: PaperWorker, item_s: float, seconds: float) -> float | None:
    """It beats, and takes `item_s` an item, for `seconds`; when it was given up, None if it was not."""
    began = world.now
    due: float | None = None
    while world.now < began + seconds:
        if not world.registered(worker):
            return world.now - began
        if worker.batches and due is None:
            due = world.now + item_s * len(worker.batches[0].frames)
        if due is not None and world.now >= due:
            world.answer(worker, device_s=item_s * len(worker.batches[0].frames))
            due = None
        world.live(0.25, [worker])
    return None


def eight(first: int = 0) -> list[Item]:
    return [image(first + i) for i in range(8)]


@pytest.mark.parametrize("item_s", [1.0, 6.0, 12.0])
def test_a_slow_encoder_whose_canary_was_as_slow_is_never_given_up(item_s):
    world = World(max_depth=64)
    worker = started(world, ((1, item_s), (1, item_s)))
    keys = [world.submit(*eight(100 * i), ttl=2000.0) for i in range(2)]
    assert works(world, worker, item_s, 16 * item_s + 10.0) is None
    for key in keys:
        world.reply(key)
    assert world.metric("worker_restarts_total", "overdue") == 0


def test_one_that_no_canary_measured_serves_after_a_few_losses():
    """12 s an item, and the supervisor starts it again each time: it was killed after 5 s for ever."""
    world = World()
    killed = 0
    key: tuple[bytes, int] | None = None
    while killed < 10:
        worker = started(world, ())
        if key is None or not world.unanswered(key):
            key = world.submit(image(killed), ttl=10_000.0)
        if works(world, worker, 12.0, 100.0) is None:  # a minute of it may be a suspension
            break
        killed += 1
    assert killed == 3, "after 5, 5 and 10 s; the fourth may take 20 s"
    assert key is not None
    world.reply(key)


def test_a_batch_that_hangs_on_a_fast_device_is_found_as_soon_as_ever():
    world = World()
    for _ in range(2):  # an input that hangs its worker runs twice
        worker = started(world, FAST)
        if not world.sent:
            key = world.submit(image(1), ttl=100.0)
        gone = works(world, worker, 1e9, 30.0)
        assert gone is not None and USUAL_S < gone <= USUAL_S + 0.75
    (error,) = world.only(key).errors  # type: ignore[union-attr]
    assert error is not None and error[0] == "inference_failed"


# The bound


def hello(device: str = "d0") -> m.Hello:
    return m.Hello("w0", "e", 1, device, "onnx", "paper", "f" * 32, 4, 8, 60.0)


def bound(patience: Patience, items: int = 8, kind: Kind = Kind.IMAGE, device: str = "d0") -> float:
    return patience.bound(hello(device), kind, items, 0.05, 1)


def test_without_a_word_of_the_device_the_estimate_counts_within_its_limits():
    patience = Patience(policy())
    assert patience.bound(hello(), Kind.IMAGE, 8, 0.05, 1) == USUAL_S
    assert patience.bound(hello(), Kind.IMAGE, 8, 1.0, 2) == 20.0
    assert patience.bound(hello(), Kind.IMAGE, 8, 100.0, 1) == LONGEST_S


def test_the_pace_is_that_of_the_device_and_kind():
    patience = Patience(policy())
    patience.measured(hello(), ((2, 12.0), (1, 3.0)))
    assert bound(patience, 8) == PACE * 48.0
    assert bound(patience, 2) == bound(patience, 1) == PACE * 12.0
    assert bound(patience, 8, Kind.TEXT) == PACE * 24.0
    assert bound(patience, 8, device="d1") == USUAL_S
    patience.done(hello(), Kind.IMAGE, 8, 20.0)
    assert bound(patience, 8) == PACE * 20.0
    patience.done(hello(), Kind.IMAGE, 8, 0.05)
    assert bound(patience, 8) == USUAL_S
    patience.measured(hello(), ((1, 1e300), (1, 1.0)))
    assert bound(patience, 8) == PATIENT_S


def test_it_grows_with_batches_given_up_until_one_succeeds():
    patience = Patience(policy())
    seen = []
    for _ in range(7):
        seen.append(bound(patience))
        patience.gave_up(hello(), Kind.IMAGE)
    assert seen == [5.0, 5.0, 10.0, 20.0, 40.0, LONGEST_S, LONGEST_S]
    assert bound(patience, kind=Kind.TEXT) == bound(patience, device="d1") == USUAL_S
    for _ in range(2000):
        patience.gave_up(hello(), Kind.IMAGE)
    assert bound(patience) == LONGEST_S
    patience.done(hello(), Kind.IMAGE, 8, 0.05)
    assert bound(patience) == USUAL_S


def test_a_bounded_number_of_devices_is_remembered():
    patience = Patience(policy())
    patience.measured(hello(), ((1, 100.0), (1, 100.0)))
    for number in range(LIMIT + 50):
        bound(patience, device=f"other-{number}")
        bound(patience)
    assert len(patience) == LIMIT
    assert bound(patience) > USUAL_S
