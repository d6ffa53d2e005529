"""The worker process: one socket, one encoder thread, and the session between them.

The only file of the workers that imports zmq. The exit status says why it ended (`session.ExitCode`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import zmq

from hailo_clip.shared import messages as m
from hailo_clip.shared.codec import ProtocolError, decode_to_worker, encode
from hailo_clip.shared.config import Config, run_dir, state_dir
from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import models_dir, open_model, resolve_encoder
from hailo_clip.shared.sockets import backend_dealer, has_more, receive, send
from hailo_clip.workers.catalog import devices_of, make_encoder, spread
from hailo_clip.workers.engine import Broken, Engine, Loaded, Outcome, unpack
from hailo_clip.workers.session import Encode, Exit, ExitCode, RunCanary, Say, Session

log = logging.getLogger("hailo_clip.worker")

GRACE_S = 180.0
"""Silence the broker allows while a model loads: some loads keep every thread of a process waiting."""

FAREWELL_S = 1.0
_CLOSE_S = 10.0
_CLOSE_HOPELESS_S = 1.0  # its batch or canary did not end, or another process has its place


def run_worker(config: Config, name: str, device_id: str | None) -> int:
    """Serve batches until SIGTERM or SIGINT, or until the broker or the encoder ends it.

    Args:
        config: the service's configuration.
        name: the worker's name; a second worker of the same name takes its place.
        device_id: the device to use; None: the encoder's own choice ("cpu:<name>" for onnx, the first that
            is found for hailo).

    Returns:
        The process's exit status, see `ExitCode`.

    Raises:
        ConfigError, ModelError, SetupError, EncoderError: nothing was started.
    """
    manifest = open_model(config.model.name, models_dir(config.model.dir))
    backend = resolve_encoder(config.model.encoder, manifest)
    logs = state_dir(config) / "hailort" / name  # several processes can't share one log file
    encoder = make_encoder(
        manifest,
        backend,
        device_id or _default_device(backend, name, logs),
        config.workers.max_batch,
        run_dir=run_dir(config),
        log_dir=logs,
    )
    hello = m.Hello(
        worker=name,
        epoch="",
        pid=os.getpid(),
        device_id=f"{socket.gethostname()}/{encoder.device_id}",
        encoder=backend,
        model=manifest.name,
        fingerprint=manifest.fingerprint(backend),
        dimension=manifest.dimension,
        max_batch=encoder.max_batch,
        grace_s=GRACE_S,
    )
    engine = Engine(encoder, manifest)
    with zmq.Context() as context:
        shell = Shell(hello, engine, manifest, backend_dealer(context, config))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, shell.stop)
        code = shell.run()
    hopeless = code in (ExitCode.FENCED, ExitCode.STUCK)
    if not engine.stop(_CLOSE_HOPELESS_S if hopeless else _CLOSE_S):
        # The encoder hangs in a native call: no clean-up of Python's can end its thread.
        log.error("the encoder did not finish, leaving it behind")
        os._exit(ExitCode.STUCK.value)
    if code is not ExitCode.FINE:
        # Python's own way out may let go of a dead device, which can wait for ever.
        logging.shutdown()
        os._exit(code.value)
    return int(code)


def _default_device(backend: str, name: str, logs: Path) -> str:
    """On the CPU every worker is a device of its own; elsewhere the first device is meant."""
    if backend == "onnx":
        return f"cpu:{name}"
    return spread(devices_of(backend, log_dir=logs), 1)[0]


class Shell:
    """Moves messages between the broker, the session and the engine."""

    def __init__(self, hello: m.Hello, engine: Engine, manifest: Manifest, dealer: zmq.Socket[bytes]) -> None:
        self._engine = engine
        self._size = manifest.image.size
        self._dealer = dealer
        self._session = Session(hello, lambda: secrets.token_hex(8), time.monotonic())
        self._told_to_stop = False
        self._poller = zmq.Poller()
        self._poller.register(dealer, zmq.POLLIN)
        self._poller.register(engine.fd, zmq.POLLIN)

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Finish what is in flight and leave. A signal handler."""
        self._told_to_stop = True

    def run(self) -> ExitCode:
        """Serve until the session ends; returns why."""
        self._engine.start()
        while True:
            ended = self._act()
            if ended is not None:
                log.log(logging.INFO if ended.code is ExitCode.FINE else logging.ERROR, ended.reason)
                self._dealer.close(linger=int(FAREWELL_S * 1000))
                return ended.code
            self._round()

    def _round(self) -> None:
        now = time.monotonic()
        wait_s = max(0.0, min(0.5, self._session.wake_at() - now))
        ready = dict(self._poller.poll(math.ceil(wait_s * 1000)))
        now = time.monotonic()
        if self._told_to_stop:
            self._told_to_stop = False
            self._session.leave(now)
        if self._engine.fd in ready:
            for outcome in self._engine.outcomes():
                self._outcome(now, outcome)
        if self._dealer in ready:
            self._receive(now)
        self._session.tick(now)

    def _receive(self, now: float) -> None:
        while True:
            try:
                frames = receive(self._dealer)
            except zmq.Again:
                return
            try:
                self._session.received(now, decode_to_worker(frames))
            except ProtocolError as e:
                log.warning("malformed message dropped", extra={"why": str(e)})
            if not has_more(self._dealer):
                return

    def _outcome(self, now: float, outcome: Outcome) -> None:
        match outcome:
            case Loaded():
                self._session.loaded(now, outcome.proof.cosine, outcome.proof.batches)
            case Broken():
                self._session.failed(outcome.reason, outcome.code)
            case m.Result():
                self._session.encoded(now, outcome)

    def _act(self) -> Exit | None:
        """Carry out the session's actions; the exit, if there was one."""
        for action in self._session.actions():
            match action:
                case Say():
                    self._say(action.message)
                case Encode():
                    self._encode(action.batch)
                case RunCanary():
                    self._engine.canary()
                case Exit():
                    return action
        return None

    def _say(self, message: m.FromWorker) -> None:
        """Send it, or drop it where a broker has taken nothing for long: it is of no use to the next one.

        The session says hello again every second, and what was said to a broker before is fenced.
        """
        with contextlib.suppress(zmq.Again):
            send(self._dealer, encode(message))

    def _encode(self, batch: m.Batch) -> None:
        try:
            inputs = unpack(batch, self._size)
        except ValueError as e:
            error = EncoderError(f"a payload does not have the model's shape: {e}").to_wire()
            result = m.Result(batch.epoch, batch.batch_id, 0.0, (error,) * len(batch.frames))
            self._session.encoded(time.monotonic(), result)
        else:
            self._engine.encode(batch, inputs)
