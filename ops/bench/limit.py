"""What the devices could do at most, from the service times that Hailo published. Pure."""

from __future__ import annotations

from hailo_clip.ops.bench.workload import Mix
from hailo_clip.shared.messages import Kind
from hailo_clip.shared.models import EMULATED_PREFIX
from hailo_clip.workers.timing import service_time


def device_limit(model: str, mix: Mix, batch: int, devices: int) -> float | None:
    """Requests a second when every batch is full and nothing but the devices takes time.

    Prompts that are cached cost nothing. None where no published times are known, or no request needs a
    device.

    Args:
        model: the model's name, "emulated-" or not.
        mix: the requests.
        batch: most items of one.
        devices: how many.
    """
    try:
        image, text = (
            service_time(model.removeprefix(EMULATED_PREFIX), kind).of(batch) / batch
            for kind in (Kind.IMAGE, Kind.TEXT)
        )
    except KeyError:
        return None
    fresh = 0.0 if mix.cached else text
    cost = {"image": image, "text": fresh, "classify": image + mix.prompts * fresh}
    mean = sum(mix.share(kind) * cost[kind] for kind in cost)
    return devices / mean if mean else None


def device_time(model: str, kind: Kind, count: int) -> float | None:
    """Seconds that one batch of `count` takes, None where that is not known."""
    try:
        return service_time(model.removeprefix(EMULATED_PREFIX), kind).of(count)
    except KeyError:
        return None
