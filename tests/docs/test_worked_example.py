"""The worked example of fairness in docs/broker.md, worked by the queue itself."""

from __future__ import annotations

import pytest

from hailo_clip.broker.fairqueue import FairQueue
from hailo_clip.shared.messages import Kind

COST_MS = (10.83 + 8 * 5.016) / 8


def test_the_turns_are_as_the_page_says():
    queue: FairQueue[str] = FairQueue(lambda kind: COST_MS)
    for _ in range(108):
        queue.push("A", 1.0, Kind.IMAGE, "A")
    for _ in range(100):
        queue.take(Kind.IMAGE)
    for _ in range(4):
        queue.push("B", 1.0, Kind.IMAGE, "B")
    assert [queue.take(Kind.IMAGE) for _ in range(8)] == list("BABABABA")
    assert pytest.approx(637, abs=0.5) == 100 * COST_MS


def test_a_weight_of_two_gives_two_places_for_one():
    queue: FairQueue[str] = FairQueue(lambda kind: COST_MS)
    for name, weight in (("A", 1.0), ("B", 2.0)):
        for _ in range(60):
            queue.push(name, weight, Kind.IMAGE, name)
    taken = [queue.take(Kind.IMAGE) for _ in range(60)]
    assert taken.count("B") == pytest.approx(40, abs=1)
