"""What a decision of the scheduler costs, by the number of devices and tenants, in simulated time.

Run from the repository's root: ``python -m tests.doubles.decision_cost [seconds]``. A decision is all that
the scheduler does for one event (a request, a result, a heartbeat, the time of a batch to be staged): the
books, admission, fair order, batches. What is told is its CPU time; messages are not encoded, and nothing
is sent. The queue is never empty: every tenant has two requests outstanding, a lone one 16.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.doubles.simulation import Client, Simulation, closed_loop

SETUPS = ((1, 1), (1, 1000), (64, 1), (64, 1000))
WARM = 0.1  # part of the time that comes before what is measured


def main() -> None:
    """Print one line for each number of devices and tenants."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    print(
        f"{'devices':>7} {'tenants':>7} {'requests':>8} {'us a request':>12} {'us a decision':>13} {'p99':>6}"
    )
    for devices, tenants in SETUPS:
        requests, costs = measured(devices, tenants, seconds * (4 / devices if devices > 1 else 1))
        row = f"{devices:7} {tenants:7} {requests:8}"
        each, mean, p99 = costs.sum() / requests, costs.mean(), np.percentile(costs, 99)
        print(f"{row} {1e6 * each:12.1f} {1e6 * mean:13.1f} {1e6 * p99:6.1f}", flush=True)


def measured(devices: int, tenants: int, seconds: float) -> tuple[int, np.ndarray[Any, Any]]:
    """Requests answered in `seconds` of simulated time, and the CPU seconds of each decision."""
    sim = Simulation(devices=devices, max_depth=1_000_000)
    outstanding = 2 if tenants > 1 else 16 * devices
    closed_loop(sim, {Client(f"t{i}"): outstanding for i in range(tenants)})
    sim.run(max(seconds * WARM, 0.2))
    costs: list[float] = []
    served = sim.served
    scheduler: Any = sim.scheduler
    for name in ("from_frontend", "from_worker"):
        setattr(scheduler, name, _timed(getattr(scheduler, name), costs, begins=True))
    scheduler.flush = _timed(scheduler.flush, costs, begins=False)
    sim.run(sim.now + seconds)
    return sim.served - served, np.array(costs)


def _timed(call: Callable[..., Any], costs: list[float], *, begins: bool) -> Callable[..., Any]:
    """`call`, whose time is a new entry of `costs`, or belongs to the last one."""

    def timed(*args: Any) -> Any:
        start = time.thread_time()
        result = call(*args)
        took = time.thread_time() - start
        if begins or not costs:
            costs.append(took)
        else:
            costs[-1] += took
        return result

    return timed


if __name__ == "__main__":
    main()
