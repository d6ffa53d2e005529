"""The supervisor: carries out what the lifecycle (lifecycle.py) decides.

One thread, one loop: signals, deaths, the broker's answers and time go in as events; processes, messages
and words come out. Signal handlers only enqueue: Python writes each signal's number to a socket pair.
"""

from __future__ import annotations

import http.client
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

import zmq

from hailo_clip.ops.broker_link import BrokerLink, pool_of
from hailo_clip.ops.lifecycle import (
    Action,
    Announce,
    AskDrain,
    Child,
    Done,
    Kill,
    Lifecycle,
    Phase,
    Pool,
    Say,
    Spawn,
    Terminate,
)
from hailo_clip.ops.notify import Notifier
from hailo_clip.ops.processes import Processes, how_it_ended
from hailo_clip.ops.terminal import Terminal
from hailo_clip.shared.config import Config

log = logging.getLogger(__name__)

POLL_S = 1.0
STARTING_POLL_S = 0.25
ANSWER_S = 3.0
OTHERS_S = 3.0
PROBE_TIMEOUT_S = 0.5
_STOPS = (signal.SIGTERM, signal.SIGINT)
_LEVELS = logging.getLevelNamesMapping()


class Supervisor:
    """Runs `children` until the service is stopped.

    Args:
        config: resolved, as the children read it.
        children: in the order of their start.
        environ: this process's environment.
        announce: is told each time the service becomes ready, with what the broker said.
    """

    def __init__(
        self,
        config: Config,
        children: Sequence[Child],
        environ: Mapping[str, str],
        announce: Callable[[Pool], None],
    ) -> None:
        self._config = config
        self._commands = {c.name: c.argv for c in children}
        self._life = Lifecycle(children, config.queue.request_timeout_s)
        self._processes = Processes(environ)
        self._notifier = Notifier(environ)
        self._terminal = Terminal()
        self._tell_ready = announce
        self._pool = Pool("starting")
        self._workers = sum(c.role == "worker" for c in children)
        self._some_ready_at: float | None = None
        self._code: int | None = None
        self._asked_at: float | None = None
        self._next_ask = 0.0

    def run(self) -> int:
        """Start everything, keep it running, stop it in good order; the exit code.

        Raises:
            SetupError: the connection to the broker can't be made.
        """
        with BrokerLink(self._config) as link, _signals() as wake:
            self._link, self._wake = link, wake
            try:
                self._do(self._life.start(time.monotonic()))
                while self._code is None:
                    self._turn()
            finally:
                self._processes.kill_all()
        return self._code

    def _turn(self) -> None:
        """Wait for whatever comes first, and take it in."""
        self._wait()
        self._take_signals()
        for name, code in self._processes.reap():
            self._do(self._life.exited(name, code, how_it_ended(code), time.monotonic()))
        self._take_answers()
        now = time.monotonic()
        self._do(self._life.tick(now))
        if now >= self._next_ask:
            self._ask(now)

    def _wait(self) -> None:
        now = time.monotonic()
        until = min(t for t in (self._next_ask, self._life.wakes_at()) if t is not None)
        poller = zmq.Poller()
        poller.register(self._link.socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        poller.poll(max(0, int((until - now) * 1000) + 1))

    def _take_signals(self) -> None:
        try:
            numbers = self._wake.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGHUP and not self._terminal.gone():
                # The one thing that changes while serving: api/auth_file.py.
                log.info("SIGHUP: API keys are read again when their file changes; the rest needs a restart")
            elif number in (*_STOPS, signal.SIGHUP):
                name = signal.Signals(number).name
                self._do(self._life.stop_wished(name, time.monotonic()))

    def _ask(self, now: float) -> None:
        """Ask the broker how it is, unless a question that it may still answer is open."""
        starting = self._life.phase in (Phase.STARTING, Phase.DRAINING)
        self._next_ask = now + (STARTING_POLL_S if starting else POLL_S)
        if self._asked_at is not None and now - self._asked_at < ANSWER_S:
            return
        if self._asked_at is not None:
            self._do(self._life.unanswered())
        self._asked_at = now
        self._link.ask("status")

    def _take_answers(self) -> None:
        answers = self._link.answers()
        for status in answers:
            self._asked_at = None
            self._pool = pool_of(status.snapshot)
            if self._life.phase is not Phase.STARTING:
                self._notifier.send("WATCHDOG=1", f"STATUS={self._words()}")
            self._do(self._life.heard(self._pool, time.monotonic()))
        if answers and self._life.phase is Phase.STARTING and self._enough_workers():
            server = self._config.server
            if _healthy(server.host, server.port):
                self._do(self._life.answers_http(time.monotonic()))

    def _enough_workers(self) -> bool:
        """True once all workers are ready, or some have been for as long as the others are waited for."""
        if self._pool.state != "ready":
            self._some_ready_at = None
            return False
        now = time.monotonic()
        self._some_ready_at = now if self._some_ready_at is None else self._some_ready_at
        return self._pool.ready_workers >= self._workers or now - self._some_ready_at >= OTHERS_S

    def _words(self) -> str:
        reason = f": {self._pool.reason}" if self._pool.reason else ""
        return f"{self._pool.state}{reason}, {self._pool.ready_workers} workers ready"

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(name):
                    self._spawn(name)
                case Terminate(name):
                    self._processes.terminate(name)
                case Kill(name):
                    self._processes.kill(name)
                case AskDrain():
                    self._link.ask("drain")
                case Say(level, text, fields):
                    log.log(_LEVELS[level.upper()], text, extra=dict(fields))
                case Announce(state, reason):
                    self._announce(state, reason)
                case Done(code):
                    self._code = code

    def _spawn(self, name: str) -> None:
        try:
            pid = self._processes.start(name, self._commands[name])
        except OSError as e:
            self._do(self._life.exited(name, None, f"could not be started: {e}", time.monotonic()))
            return
        self._do(self._life.spawned(name, pid, time.monotonic()))

    def _announce(self, state: str, reason: str) -> None:
        if state == "ready":
            self._tell_ready(self._pool)
            self._notifier.send("READY=1", f"STATUS={self._words()}")
        elif state == "stopping":
            self._notifier.send("STOPPING=1", f"STATUS=stopping: {reason}")
        else:
            log.warning("not ready", extra={"reason": reason})


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Have the numbers of arriving signals written to the socket that this gives."""
    ours, pythons = socket.socketpair()
    with ours, pythons:
        ours.setblocking(False)
        pythons.setblocking(False)
        before = {
            number: signal.signal(number, _enqueue) for number in (*_STOPS, signal.SIGHUP, signal.SIGCHLD)
        }
        old = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)


def _enqueue(number: int, frame: FrameType | None) -> None:
    """Nothing: the number is on its way through the wakeup descriptor already."""


def _healthy(host: str, port: int) -> bool:
    """True when GET /health on this machine answers 200."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def reachable(host: str) -> str:
    """An address at which a service that listens on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
