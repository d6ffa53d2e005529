"""When each request of an open loop is due, and which kind it is. Pure: the same seed gives the same load."""

from __future__ import annotations

import random
from collections.abc import Sequence


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Arrivals of a Poisson process of `rate` a second from 0 to `seconds`: as of many independent clients.

    Raises:
        ValueError: `rate` is not positive.
    """
    if rate <= 0:
        raise ValueError(f"a rate must be positive, is {rate}")
    draw = random.Random(seed)  # noqa: S311  (a load, not a secret)
    arrivals: list[float] = []
    at = draw.expovariate(rate)
    while at < seconds:
        arrivals.append(at)
        at += draw.expovariate(rate)
    return arrivals


def picks(weights: Sequence[float], count: int, seed: int) -> list[int]:
    """`count` random indices of `weights`, each as often as its weight says.

    Raises:
        ValueError: no weight is positive.
    """
    draw = random.Random(seed)  # noqa: S311
    return draw.choices(range(len(weights)), weights, k=count)
