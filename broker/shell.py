"""The broker process: sockets, signals, the clock and the files around the scheduler.

The only file of the broker that imports zmq. Nothing in the loop blocks but the poll; the files of label sets
and of the prompt cache are written by threads of their own (labelfiles.py, cachefile.py).
"""

from __future__ import annotations

import logging
import math
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from hailo_clip.broker.cachefile import CacheFile
from hailo_clip.broker.labelfiles import LabelFiles
from hailo_clip.broker.policy import policy_from
from hailo_clip.broker.scheduler import Scheduler
from hailo_clip.broker.snapshot import snapshot
from hailo_clip.broker.work import Action, Note
from hailo_clip.shared.codec import (
    ProtocolError,
    decode_from_frontend,
    decode_from_worker,
    encode,
    encode_together,
)
from hailo_clip.shared.config import Config, backend_endpoint, frontend_endpoint, run_dir, state_dir
from hailo_clip.shared.curve import clients_alone
from hailo_clip.shared.lock import only_one
from hailo_clip.shared.messages import Buffer, Control, Message, Status
from hailo_clip.shared.models import models_dir, open_model, resolve_encoder
from hailo_clip.shared.sockets import backend_router, frontend_router, has_more, receive_from, send_to

log = logging.getLogger("hailo_clip.broker")

LABELS = "label-sets"  # directory in the state directory
LOCK = "broker.lock"  # in the run directory
ROUND = 64  # most messages taken from one socket before actions are carried out
TOGETHER = 64  # most answers sent to a frontend as one message
PROBES_S = (0.0, 0.02, 0.1)  # after a disconnection: when to look for workers that are gone
_GONE = (zmq.EHOSTUNREACH, zmq.EAGAIN)


def run_broker(config: Config) -> int:
    """Run the broker until SIGTERM or SIGINT, then answer what was accepted and return 0.

    Raises:
        ConfigError, ModelError, SetupError: before anything was served.
    """
    manifest = open_model(config.model.name, models_dir(_path(config.model.dir)))
    encoder = resolve_encoder(config.model.encoder, manifest)
    policy = policy_from(config, manifest, encoder, secrets.token_hex(8))
    scheduler = Scheduler(policy, time.monotonic())
    cache = CacheFile(scheduler.cache, policy, state_dir(config) if config.cache.persist else None)
    cache.load()
    directory = state_dir(config) / LABELS if config.labels.persist else None
    labels = LabelFiles(scheduler.labels, directory, scheduler.metrics)
    labels.load()
    # A second broker would take its sockets' places, and leave nobody there when it ends.
    taken = f"another broker serves in {run_dir(config)}; choose another place with --run-dir"
    lock = only_one(run_dir(config) / LOCK, taken)
    with lock, zmq.Context() as context, clients_alone(context, config):
        frontend, backend = frontend_router(context, config), backend_router(context, config)
        shell = Shell(scheduler, frontend, backend, cache, labels)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, shell.stop)
        log.info(
            "broker serves",
            extra={
                "model": policy.model,
                "encoder": encoder,
                "fingerprint": policy.fingerprint,
                "frontend": frontend_endpoint(config),
                "backend": backend_endpoint(config),
            },
        )
        try:
            shell.run(drain_s=config.queue.request_timeout_s)
        finally:
            shell.close()
    cache.save()
    log.info("broker stopped", extra={"unanswered": len(scheduler.ledger.requests)})
    return 0


class Shell:
    """Moves frames between the sockets and the scheduler."""

    def __init__(
        self,
        scheduler: Scheduler,
        frontend: zmq.Socket[bytes],
        backend: zmq.Socket[bytes],
        cache: CacheFile,
        labels: LabelFiles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._sockets = {"frontend": frontend, "backend": backend}
        self._cache = cache
        self._labels = labels
        self._clock = clock
        self._monitor: Any = backend.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._probes: list[float] = []
        self._stopping = False
        self._poller = zmq.Poller()
        for socket in (frontend, backend, self._monitor, labels.bell):
            self._poller.register(socket, zmq.POLLIN)

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Refuse new requests, answer the accepted ones, then let `run` return. A signal handler."""
        self._stopping = True

    def run(self, drain_s: float) -> None:
        """Serve until `stop`, then until nothing is in flight or `drain_s` seconds have passed."""
        give_up = math.inf
        while True:
            now = self._clock()
            if self._stopping and give_up == math.inf:
                log.info("draining", extra={"in_flight": len(self._scheduler.ledger.requests)})
                self._scheduler.admission.draining = True
                give_up = now + drain_s
            if give_up < math.inf and (not self._scheduler.ledger.requests or now >= give_up):
                return
            self._round(now)

    def close(self) -> None:
        """Close the sockets; what was sent still leaves (LINGER)."""
        for answer in self._labels.finish():
            self._send(answer.plane, answer.peer, encode(answer.message))
        self._sockets["backend"].disable_monitor()
        self._monitor.close(linger=0)
        for socket in self._sockets.values():
            socket.close()

    def _round(self, now: float) -> None:
        wake = min([self._scheduler.wake_at(now), *self._probes[:1]])
        ready = dict(self._poller.poll(max(0, math.ceil((wake - now) * 1000))))
        if self._monitor in ready:
            self._disconnected()
        for plane in ("backend", "frontend"):
            if self._sockets[plane] in ready:
                self._receive(plane)
        self._probe()
        self._act()
        for answer in self._labels.answers():
            self._send(answer.plane, answer.peer, encode(answer.message))
        self._cache.save_now_and_then(self._clock())

    def _receive(self, plane: str) -> None:
        socket = self._sockets[plane]
        now = self._clock()
        for taken in range(ROUND):
            # Often there is only one, and to ask takes a third of the exception that says that none is left.
            if taken == 1 and not has_more(socket):
                return
            try:
                peer, frames = receive_from(socket)
            except zmq.Again:
                return
            try:
                self._handle(now, plane, peer, frames)
            except ProtocolError as e:
                self._scheduler.malformed(plane)
                log.warning("malformed message dropped", extra={"from": plane, "why": str(e)})

    def _handle(self, now: float, plane: str, peer: bytes, frames: list[zmq.Frame]) -> None:
        if plane == "backend":
            self._scheduler.from_worker(now, peer, decode_from_worker(frames))
            return
        message = decode_from_frontend(frames)
        if self._labels.takes(peer, message):
            self._scheduler.frontends.heard(now, peer)
            return
        self._scheduler.from_frontend(now, peer, message)
        if isinstance(message, Control):
            status = Status(message.seq, snapshot(self._scheduler, now))
            self._send("frontend", peer, encode(status))

    def _act(self) -> None:
        """Carry out the scheduler's actions, and those that follow from receivers that are gone."""
        now = self._clock()
        actions = self._scheduler.answers()
        while actions or (actions := self._scheduler.flush(now)):
            for plane, peer in self._carry_out(actions):
                self._scheduler.unreachable(now, plane, peer)
            actions = []

    def _carry_out(self, actions: Sequence[Action]) -> dict[tuple[str, bytes], None]:
        """Log and send, what is for one frontend together; the planes and receivers that are gone."""
        gone: dict[tuple[str, bytes], None] = {}
        answers: dict[bytes, list[Message]] = {}
        for action in actions:
            if isinstance(action, Note):
                log.log(action.level, action.text, extra=action.fields)
            elif action.plane == "frontend":
                answers.setdefault(action.peer, []).append(action.message)
            elif not self._send(action.plane, action.peer, encode(action.message)):
                gone[action.plane, action.peer] = None
        for peer, messages in answers.items():
            for i in range(0, len(messages), TOGETHER):
                if not self._send("frontend", peer, encode_together(messages[i : i + TOGETHER])):
                    gone["frontend", peer] = None
        return gone

    def _send(self, plane: str, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """False when the receiver is gone, or takes nothing any more."""
        try:
            send_to(self._sockets[plane], peer, frames)
        except zmq.ZMQError as e:
            if e.errno not in _GONE:
                raise
            return False
        return True

    def _disconnected(self) -> None:
        """Some connection ended: look for the worker behind it now and, since it may lag, a bit later."""
        while self._monitor.poll(0):
            recv_monitor_message(self._monitor)
        self._probes = [self._clock() + delay for delay in PROBES_S]

    def _probe(self) -> None:
        if self._probes and self._clock() >= self._probes[0]:
            self._probes.pop(0)
            self._scheduler.workforce.probe()


def _path(value: str | Path | None) -> Path | None:
    return Path(value) if value is not None else None
