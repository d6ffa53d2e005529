"""What SIGHUP means: to a program on a terminal that its terminal is gone, to a daemon "read again"."""

from __future__ import annotations

import os
import signal


class Terminal:
    """The controlling terminal at the start of this process; make it before SIGHUP gets a handler."""

    def __init__(self) -> None:
        # nohup: whoever ignores SIGHUP wants to outlive the terminal.
        self._counts = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _answers()

    def gone(self) -> bool:
        """True when there was a terminal that matters, and it is closed by now."""
        return self._counts and not _answers()


def _answers() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
