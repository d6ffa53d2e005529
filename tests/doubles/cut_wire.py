"""A wire between a frontend and the broker that can be cut: both ends see their connection break."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType


class CutWire:
    """Passes on what connects to the Unix socket `at` to the one at `to`, until it is cut; a context manager.

    A connection that is made anew passes again.
    """

    def __init__(self, at: Path, to: Path) -> None:
        self._to = to
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(at))
        self._listener.listen(16)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def cut(self) -> None:
        """Every connection of now breaks."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            _break(end)

    def __enter__(self) -> CutWire:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        _break(self._listener)
        self._threads[0].join(5)
        self.cut()
        for thread in self._threads[1:]:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # the listener was shut
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self._to))
            except OSError:  # no broker
                near.close()
                far.close()
                continue
            with self._lock:
                self._open += [near, far]
            done = threading.Semaphore(0)
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=_pass_on, args=(source, sink, done), daemon=True)
                self._threads.append(thread)
                thread.start()


def _pass_on(source: socket.socket, sink: socket.socket, done: threading.Semaphore) -> None:
    """Move bytes until either end breaks; whoever is second closes both."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    _break(source)
    _break(sink)
    if done.acquire(blocking=False):
        source.close()
        sink.close()
    else:
        done.release()


def _break(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
