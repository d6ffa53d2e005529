"""What the device alone would make of Poisson arrivals: first come, first served, no other cost. Pure.

It bounds what a service can reach that keeps the order of its requests.
"""

from __future__ import annotations

from collections import deque

from hailo_clip.ops.bench.schedule import poisson
from hailo_clip.ops.bench.stats import percentile
from hailo_clip.workers.timing import ServiceTime

_SECONDS, _SEED = 1000.0, 1
_STEPS = 12


def ideal_p99_ms(rate: float, time: ServiceTime, batch: int) -> float:
    """99th percentile of the latency when an idle device at once takes up to `batch` of what waits."""
    arrivals = deque(poisson(rate, _SECONDS, _SEED))
    waiting: deque[float] = deque()
    latencies = []
    free = 0.0
    while arrivals or waiting:
        if not waiting:
            free = max(free, arrivals[0])
        while arrivals and arrivals[0] <= free:
            waiting.append(arrivals.popleft())
        taken = [waiting.popleft() for _ in range(min(batch, len(waiting)))]
        free += time.of(len(taken))
        latencies += [free - at for at in taken]
    return 1000 * percentile(sorted(latencies), 99.0)


def ideal_rate(bound_ms: float, time: ServiceTime, batch: int) -> float:
    """The highest rate whose 99th percentile is under `bound_ms`, 0 when even a single item takes longer."""
    low, high = 0.0, batch / time.of(batch)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if ideal_p99_ms(middle, time, batch) < bound_ms:
            low = middle
        else:
            high = middle
    return low
