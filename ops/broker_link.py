"""An operator's connection to the broker: asks for its status, tells it to drain."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import zmq

from hailo_clip.ops.lifecycle import Pool
from hailo_clip.shared.codec import ProtocolError, decode_to_frontend, encode
from hailo_clip.shared.config import Config
from hailo_clip.shared.messages import Control, Status
from hailo_clip.shared.sockets import frontend_dealer


class BrokerLink:
    """A socket to the broker, for one thread; close it, or use it as a context manager.

    Raises (on creation):
        SetupError: the run directory or the keys are not as they must be.
    """

    def __init__(self, config: Config) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = frontend_dealer(self._context, config)
        self._seq = 0

    def ask(self, verb: str) -> int:
        """Send "status" or "drain"; the number that its answer will carry. Never blocks."""
        self._seq += 1
        try:
            self.socket.send_multipart(encode(Control(self._seq, verb)), zmq.DONTWAIT)
        except zmq.Again:  # no broker for very long: the pipe is full, and one more question is no help
            return self._seq
        return self._seq

    def answers(self) -> list[Status]:
        """The answers that have arrived; what is none is dropped. Never blocks."""
        found: list[Status] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            try:
                messages = decode_to_frontend(frames)
            except ProtocolError:
                continue
            found += [message for message in messages if isinstance(message, Status)]

    def wait(self, seq: int, timeout_s: float) -> dict[str, Any] | None:
        """The snapshot that answers `seq`, or None when none comes within `timeout_s` of silence."""
        while self.socket.poll(int(timeout_s * 1000)):
            for status in self.answers():
                if status.seq == seq:
                    return status.snapshot
        return None

    def close(self) -> None:
        """Let go of the socket; unsent questions are dropped."""
        self.socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> BrokerLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pool_of(snapshot: Mapping[str, Any]) -> Pool:
    """What the supervisor needs of a broker's snapshot."""
    return Pool(
        state=str(snapshot["state"]),
        reason=str(snapshot["reason"]),
        ready_workers=sum(w["state"] == "ready" for w in snapshot["workers"]),
        in_flight=int(snapshot["in_flight"]),
        lost=frozenset((str(name), int(pid)) for name, pid in snapshot["lost_workers"]),
    )
