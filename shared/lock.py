"""A place that one process at a time may have."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from hailo_clip.shared.errors import SetupError


@contextlib.contextmanager
def only_one(lock: Path, refusal: str) -> Iterator[None]:
    """Hold `lock`, a file that is made if need be; the kernel lets go of it when this process is gone.

    Raises:
        SetupError: another process holds it; the message is `refusal`.
    """
    with lock.open("a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(refusal) from None
        yield
