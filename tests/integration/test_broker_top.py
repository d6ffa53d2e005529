"""`hailo-clip top` on a real terminal, against a real broker."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.doubles.processes import Running, Service, image

pytestmark = pytest.mark.xdist_group("broker-losses")


def command(service: Service, *args: str) -> list[str]:
    run_dir = str(service.config.broker.run_dir)
    return [sys.executable, "-m", "hailo_clip.ops.cli", "top", "--run-dir", run_dir, *args]


class Terminal:
    """A pseudo-terminal with a program on it."""

    def __init__(self, argv: list[str], columns: int, lines: int) -> None:
        self._fd, end = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(end)
        environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(argv, stdin=end, stdout=end, stderr=end, env=environ)
        self._end = end

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, text: str) -> str:
        """What it wrote until `text` was in it."""
        seen = ""
        limit = time.monotonic() + 10
        while text not in seen:
            assert select.select([self._fd], [], [], limit - time.monotonic())[0], seen
            seen += os.read(self._fd, 65536).decode()
        return seen

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def close(self) -> int:
        code = self.process.wait(5)
        assert termios.tcgetattr(self._end) == self.before
        os.close(self._fd)
        os.close(self._end)
        return code


def test_live_view_follows_the_service_and_leaves_the_terminal_as_it_was():
    with Service() as service, service.running(2) as running:
        terminal = Terminal(command(service, "--interval", "0.2"), 80, 24)
        seen = terminal.until("q quits")
        assert "\x1b[?1049h" in seen and "READY" in seen and "w1 " in seen
        running.frontend.ask(image(1))
        terminal.until(" 1 ")
        terminal.resize(100, 30)
        assert "READY" + " " * 40 in terminal.until("q quits")
        running.broker.kill()
        terminal.until("the broker does not answer")
        terminal.type(b"q")
        terminal.until("\x1b[?1049l")
        assert terminal.close() == 0
        check_without_a_broker(running)


def check_without_a_broker(running: Running) -> None:
    argv = command(running.service, "--once")
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no answer from a broker at ipc://")
    assert "hailo-clip serve" in done.stderr


def test_one_frame_and_the_whole_status():
    with Service() as service, service.running(1):
        once = subprocess.run(
            command(service, "--once", "--interval", "0.1"), capture_output=True, text=True, check=True
        )
        whole = subprocess.run(command(service, "--json"), capture_output=True, text=True, check=True)
    assert "READY" in once.stdout and "0.0/s answered" in once.stdout and "\x1b" not in once.stdout
    assert json.loads(whole.stdout)["workers"][0]["name"] == "w0"
