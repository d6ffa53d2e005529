"""How long a Hailo-10H takes, and a device that several processes take turns on.

A launch of n items takes t = a + b*n. Both are solved from the rates that the Hailo Model Zoo v5.2.0
publishes at batch 1 and 8: 1/f1 = a + b and 8/f8 = a + 8b.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hailo_clip.shared.messages import Kind

_SET_TIMER_SLACK = 29  # PR_SET_TIMERSLACK of <linux/prctl.h>, in nanoseconds

_RATES = {
    "clip-resnet-50x4": {Kind.IMAGE: (63.1, 157.0), Kind.TEXT: (37.0, 73.6)},
    "clip-vit-b-32": {Kind.IMAGE: (71.8, 335.0), Kind.TEXT: (49.5, 99.0)},
    "tinyclip-61m-32": {Kind.IMAGE: (98.2, 362.0), Kind.TEXT: (54.9, 124.0)},
}
"""Published items a second at batch 1 and 8."""


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """Seconds of one launch: `launch` (a) plus `item` (b) for each item."""

    launch: float
    item: float

    def of(self, count: int) -> float:
        """Seconds for a batch of `count`."""
        return self.launch + self.item * count


def service_time(model: str, kind: Kind) -> ServiceTime:
    """The service time of one of the models above on a Hailo-10H. Raises `KeyError` for others."""
    one, eight = _RATES[model][kind]
    item = (8 / eight - 1 / one) / 7
    return ServiceTime(1 / one - item, item)


class DeviceTurn:
    """One device that runs one batch at a time, whichever process asks: a lock on a file.

    The kernel lets go of the lock when its holder dies, as a device does.
    """

    def __init__(self, directory: Path, device_id: str) -> None:
        self._path = directory / f"device-{quote(device_id, safe='')}.lock"
        self._fd = -1

    def open(self) -> None:
        """Open the lock file, in the process that uses it. Raises `OSError`.

        From then on sleeps of this thread, and of those that it starts, end on time: a device is not up to
        50 us late, as Linux lets them be for the sake of fewer wake-ups (prctl(2)).
        """
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, ctypes.c_ulong(1), 0, 0, 0)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Close it; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    @contextmanager
    def busy(self, seconds: float) -> Iterator[None]:
        """Hold the device for `seconds` from the moment it is ours, whatever the body takes of them."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            deadline = time.monotonic() + seconds
            yield
            while (left := deadline - time.monotonic()) > 0:
                time.sleep(left)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
