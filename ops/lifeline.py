"""A child of the supervisor dies with it, even when the supervisor is killed outright."""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping

VARIABLE = "HAILO_CLIP_PARENT_PID"
"""Set by the supervisor for its children: its own process id."""

_PR_SET_PDEATHSIG = 1


def die_with_parent(environ: MutableMapping[str, str] | None = None, sign: int = signal.SIGKILL) -> None:
    """Have the kernel send `sign` to this process when the supervisor that started it is gone.

    Does nothing for a process that no supervisor started. The variable is taken out of `environ`, so that
    it does not reach this process's own children. Call it early in a child's main thread.

    Raises:
        SystemExit: the supervisor is gone already.
    """
    env = os.environ if environ is None else environ
    parent = env.pop(VARIABLE, None)
    if parent is None:
        return
    import ctypes  # costs the commands that need it not

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(sign))
    if os.getppid() != int(parent):  # it died before the kernel was told
        raise SystemExit(1)
