"""What the supervisor reads out of a broker's snapshot."""

from __future__ import annotations

from typing import Any

from hailo_clip.ops.broker_link import pool_of
from hailo_clip.ops.lifecycle import Pool

SNAPSHOT: dict[str, Any] = {
    "state": "unhealthy",
    "reason": "no worker is ready",
    "in_flight": 3,
    "lost_workers": [["worker-0", 11], ["left", 12]],
    "workers": [{"pid": 12, "state": "ready"}, {"pid": 13, "state": "loading"}],
}


def test_the_pool() -> None:
    assert pool_of(SNAPSHOT) == Pool(
        "unhealthy", "no worker is ready", 1, 3, frozenset({("worker-0", 11), ("left", 12)})
    )
