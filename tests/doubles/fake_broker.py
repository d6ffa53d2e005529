"""A broker for tests of the frontends: a real ROUTER socket in a thread, with scripted answers.

It speaks the wire protocol through the shared codec and nothing of the real broker's code. What it answers
to a `Submit` is a function that a test may replace; by default every item gets the embedding that
`embedding_of` derives from its payload.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from hailo_clip.shared.codec import decode_from_frontend, encode
from hailo_clip.shared.config import Config
from hailo_clip.shared.label_messages import DropLabels, GetLabels, LabelRequest, ListLabels, PutLabels
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import (
    Cancel,
    Control,
    Ping,
    Pong,
    Refused,
    Reply,
    Status,
    Submit,
    ToFrontend,
    WireError,
)
from hailo_clip.shared.models import models_dir, open_model
from hailo_clip.shared.sockets import frontend_router
from tests.doubles.fake_labels import FakeLabels

Answer = Callable[[Submit], Sequence[ToFrontend]]


def embedding_of(payload: bytes, dimension: int) -> npt.NDArray[np.float32]:
    """A vector of length 1 that depends on `payload` alone."""
    seed = int.from_bytes(hashlib.sha256(payload).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    unit: npt.NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


class FakeBroker:
    """Answers the frontends of `config`; a context manager.

    Attributes:
        submits, cancels, pings, controls: what arrived, in order.
        state, reason, encoder, fingerprint: what the next `Pong` says.
        snapshot: what the next `Status` says; None: it is not answered.
        answers_pings: False makes it look dead while its socket lives.
        answer: the messages that a `Submit` gets; replace it to script faults.
        labels: the label sets. asked: the requests about them, in order.
    """

    def __init__(self, config: Config, *, state: str = "ready", encoder: str = "emulated") -> None:
        self.config = config
        self.manifest: Manifest = open_model(config.model.name, models_dir(config.model.dir))
        self.submits: list[Submit] = []
        self.cancels: list[int] = []
        self.pings: list[Ping] = []
        self.controls: list[Control] = []
        self.snapshot: dict[str, Any] | None = None
        self.state, self.reason, self.encoder = state, "", encoder
        self.fingerprint = self.manifest.fingerprint(encoder)
        self.answers_pings = True
        self.answer: Answer = self.embed
        self.labels = FakeLabels()
        self.asked: list[LabelRequest] = []
        self._epoch = 1
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._ends = False
        self._owners: dict[int, bytes] = {}
        self._cache: dict[bytes, bytes] = {}
        self._thread = threading.Thread(target=self._run, name="fake-broker", daemon=True)

    def __enter__(self) -> FakeBroker:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = frontend_router(self._context, self.config)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self._ends = True
        self._thread.join(10)
        if self._socket is not None:
            self._socket.close(linger=0)
        self._context.term()

    # Scripts

    def embed(self, submit: Submit, *, queue_s: float = 0.001, device_s: float = 0.002) -> list[ToFrontend]:
        """The reply of a broker that is well: every item's embedding."""
        rows = b"".join(self._row(bytes(frame)) for frame in submit.frames)
        return [Reply(submit.request_id, (None,) * len(submit.kinds), queue_s, device_s, 0, (rows,))]

    def fail_items(self, submit: Submit, errors: Sequence[WireError | None]) -> list[ToFrontend]:
        """A reply in which some items failed."""
        good = [bytes(f) for f, e in zip(submit.frames, errors, strict=True) if e is None]
        frames = (b"".join(map(self._row, good)),) if good else ()
        return [Reply(submit.request_id, tuple(errors), 0.001, 0.002, 0, frames)]

    def refuse(self, error: WireError) -> Answer:
        """An `answer` that refuses every request."""
        return lambda submit: [Refused(submit.request_id, error)]

    def send(self, *messages: Any) -> None:
        """Send answers to the frontend whose requests they are for."""
        self._order(lambda: self._send(messages))

    def pulse(self) -> None:
        """Tell the frontend that pinged last how things are, unasked."""
        self._order(lambda: self._send([self._pong(self.pings[-1], self._pinger)], self._pinger))

    def send_raw(self, *frames: bytes) -> None:
        """Send frames as they are to the frontend that sent a request last."""
        owner = next(reversed(self._owners.values()))
        self._order(lambda: self._socket and self._socket.send_multipart([owner, *frames]))

    def kill(self) -> None:
        """Close the socket; nothing is answered until `restart`."""
        self._order(self._close)

    def restart(self) -> None:
        """A new broker at the same place: new epoch, no memory."""
        self._order(self._reopen)

    def wait(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until `condition` holds; it is looked at after every message."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), "the frontend did not do what was expected"

    # Inside

    def _row(self, payload: bytes) -> bytes:
        if payload not in self._cache:
            self._cache[payload] = embedding_of(payload, self.manifest.dimension).tobytes()
        return self._cache[payload]

    def _order(self, what: Callable[[], object]) -> None:
        done = threading.Event()

        def carry_out() -> None:
            what()
            done.set()

        self._orders.put(carry_out)
        assert done.wait(10)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = None

    def _reopen(self) -> None:
        self._close()
        self._epoch += 1
        self._owners.clear()
        self._socket = frontend_router(self._context, self.config)

    def _run(self) -> None:
        while not self._ends:
            while not self._orders.empty():
                self._orders.get()()
            if self._socket is None:
                time.sleep(0.005)
            elif self._socket.poll(5):
                self._receive(self._socket)

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        peer, *frames = socket.recv_multipart()
        message = decode_from_frontend(frames)
        with self._changed:
            match message:
                case Submit():
                    self._owners[message.request_id] = peer
                    self.submits.append(message)
                    self._send(self.answer(message), peer)
                case Cancel():
                    self.cancels.append(message.request_id)
                case Ping():
                    self.pings.append(message)
                    self._pinger = peer
                    if self.answers_pings:
                        self._send([self._pong(message, peer)], peer)
                case PutLabels() | GetLabels() | DropLabels() | ListLabels():
                    self.asked.append(message)
                    self._send(self.labels.answer(message, self.fingerprint), peer)
                case Control():
                    self.controls.append(message)
                    if self.snapshot is not None:
                        self._send([Status(message.seq, self.snapshot)], peer)
            self._changed.notify_all()

    def _pong(self, ping: Ping, peer: bytes) -> Pong:
        workers = 2 if self.state == "ready" else 0
        name = self.manifest.name
        session = f"epoch-{self._epoch}.{peer.hex()}"
        return Pong(ping.seq, session, self.state, self.reason, workers, name, self.fingerprint, self.encoder)

    def _send(self, messages: Sequence[Any], peer: bytes | None = None) -> None:
        for message in messages:
            owner = peer or self._owners[message.request_id]
            assert self._socket is not None
            with contextlib.suppress(zmq.ZMQError):  # the frontend is gone
                self._socket.send_multipart([owner, *encode(message)])
