"""Child processes of the supervisor: started in groups of their own, ended whole."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from hailo_clip.ops.lifeline import VARIABLE as PARENT_PID
from hailo_clip.ops.notify import VARIABLES as SYSTEMD_VARIABLES
from hailo_clip.shared.config import ENV_PREFIX


class Processes:
    """The children alive, by name. Each leads a process group, so that Ctrl-C reaches the supervisor alone.

    Args:
        environ: what the children inherit, less what is meant for the supervisor: settings (the
            configuration written for the children has them all) and systemd's sockets.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        kept = {
            k: v for k, v in environ.items() if not k.startswith(ENV_PREFIX) and k not in SYSTEMD_VARIABLES
        }
        self._environ = kept | {PARENT_PID: str(os.getpid())}
        self._alive: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str]) -> int:
        """Start `argv` as `name`; its process id. Raises `OSError`."""
        process = subprocess.Popen(argv, env=self._environ, stdin=subprocess.DEVNULL, process_group=0)
        self._alive[name] = process
        return process.pid

    def terminate(self, name: str) -> None:
        """Ask `name` to end in good order; nothing when it is gone."""
        if name in self._alive:
            self._alive[name].terminate()

    def kill(self, name: str) -> None:
        """End `name` and its whole group at once; nothing when it is gone."""
        if name in self._alive:
            _kill_group(self._alive[name].pid)

    def reap(self) -> Iterator[tuple[str, int]]:
        """Name and exit code (negative: the signal) of each child that has ended since the last call."""
        for name, process in list(self._alive.items()):
            if not _ended(process.pid):
                continue
            # What it left behind (frontend processes whose master crashed) would hold the port. This comes
            # before the wait: until then, the id can't have become anybody else's.
            _kill_group(process.pid)
            del self._alive[name]
            yield name, process.wait()

    def kill_all(self) -> None:
        """End every child at once and wait for it; for when the supervisor itself fails."""
        for process in self._alive.values():
            _kill_group(process.pid)
        for process in self._alive.values():
            process.wait()
        self._alive.clear()


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _ended(pid: int) -> bool:
    """True when the child `pid` has ended; it stays a zombie."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
