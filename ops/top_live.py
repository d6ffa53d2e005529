"""The terminal side of `hailo-clip top`: asks the broker, draws frames, listens for keys and resizes."""

from __future__ import annotations

import os
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from hailo_clip.ops.broker_link import BrokerLink
from hailo_clip.ops.top import Sample, frame
from hailo_clip.shared.config import Config, frontend_endpoint
from hailo_clip.shared.errors import Unavailable

ANSWER_S = 2.0
"""How long the broker may take to answer before it counts as unreachable."""

_SLICE_MS = 100  # how soon a key or a new size of the terminal shows
_ALTERNATE, _NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN, _PLAIN = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[0m"
_STYLES = {"ready": "\x1b[1;30;42m", "unhealthy": "\x1b[1;37;41m"}
_OTHER_STYLE = "\x1b[1;30;43m"
_QUIT = b"qQ\x03\x04"


def take(link: BrokerLink, config: Config) -> Sample:
    """The broker's status now. Raises `Unavailable` when it does not answer."""
    snapshot = link.wait(link.ask("status"), ANSWER_S)
    if snapshot is None:
        raise Unavailable(
            f"no answer from a broker at {frontend_endpoint(config)} within {ANSWER_S:g} s. Is the service "
            "running, with the same --config, --port and --run-dir? Start it with: hailo-clip serve"
        )
    return Sample(time.monotonic(), snapshot)


def live(link: BrokerLink, config: Config, interval_s: float) -> None:
    """Show a new frame every `interval_s` seconds until q. Raises `Unavailable` as `take` does."""
    view = _View(link, take(link, config), interval_s)
    with _screen():
        while view.turn():
            pass


class _View:
    """What is on the screen, and when to ask again."""

    def __init__(self, link: BrokerLink, first: Sample, interval_s: float) -> None:
        self._link = link
        self._now = first
        self._before: Sample | None = None
        self._interval_s = interval_s
        self._next_ask = first.at
        self._asked: float | None = None
        self._colours = "NO_COLOR" not in os.environ
        self._size = (0, 0)
        self._poller = zmq.Poller()
        self._poller.register(link.socket, zmq.POLLIN)
        self._poller.register(sys.stdin.fileno(), zmq.POLLIN)

    def turn(self) -> bool:
        """Do what there is to do now; False when the user wants to leave."""
        ready = dict(self._poller.poll(_SLICE_MS))
        if sys.stdin.fileno() in ready and self._leaves():
            return False
        now = time.monotonic()
        fresh = self._answered(now)
        if now >= self._next_ask:
            self._next_ask = now + self._interval_s
            self._link.ask("status")
            self._asked = now if self._asked is None else self._asked
        size = shutil.get_terminal_size()
        late = self._asked is not None and now - self._asked > ANSWER_S
        if fresh or late or size != self._size:
            self._draw(now, size, late)
        return True

    def _leaves(self) -> bool:
        keys = os.read(sys.stdin.fileno(), 64)
        return not keys or any(key in _QUIT for key in keys)

    def _answered(self, now: float) -> bool:
        answers = self._link.answers()
        if answers:
            self._before, self._now = self._now, Sample(now, answers[-1].snapshot)
            self._asked = None
        return bool(answers)

    def _draw(self, now: float, size: tuple[int, int], late: bool) -> None:
        self._size = size
        width, height = size
        notice = f"the broker does not answer; this is {now - self._now.at:.0f} s old" if late else ""
        lines = frame(self._now, self._before, width, height - 1, notice)
        lines += [""] * (height - 1 - len(lines)) + ["q quits"[:width]]
        if self._colours:
            state = "unhealthy" if late else str(self._now.snapshot["state"])
            lines[0] = f"{_STYLES.get(state, _OTHER_STYLE)}{lines[0]:<{width}}{_PLAIN}"
        text = f"{_END_OF_LINE}\r\n".join(lines)
        sys.stdout.write(f"{_HOME}{text}{_END_OF_LINE}{_END_OF_SCREEN}")
        sys.stdout.flush()


@contextmanager
def _screen() -> Iterator[None]:
    """The terminal's other screen, with keys as they are typed; put back whatever happens."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)
        sys.stdout.write(_ALTERNATE)
        yield
    finally:
        sys.stdout.write(_NORMAL)
        sys.stdout.flush()
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
