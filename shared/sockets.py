"""The four ZeroMQ sockets, configured once: limits, keys, and what happens when a peer is gone.

Create the `zmq.Context` in the process that uses it, after any fork.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import zmq

from hailo_clip.shared.config import Config, backend_endpoint, frontend_endpoint
from hailo_clip.shared.curve import secure_broker, secure_client
from hailo_clip.shared.errors import SetupError
from hailo_clip.shared.messages import Buffer

HIGH_WATER_MARK = 10_000
"""Messages a peer's pipe holds before a send fails; the queue's own limits bite long before."""

UNSENT_BY_WORKER = 100
"""Messages that a worker keeps for a broker that does not take them; a few is all that it has at a time."""

MAX_FRAME_BYTES = 64 << 20
"""Largest frame a peer may send; a larger one closes its connection."""

# pyzmq's own methods, without the Python wrappers that sort out types which we don't use.
_send = zmq.backend.Socket.send
_get = zmq.backend.Socket.get
_NOW = int(zmq.NOBLOCK)
_NOW_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


def frontend_router(context: zmq.Context[zmq.Socket[bytes]], config: Config) -> zmq.Socket[bytes]:
    """The broker's socket for frontends and operators, bound. Raises `SetupError`."""
    return _router(context, frontend_endpoint(config), config)


def backend_router(context: zmq.Context[zmq.Socket[bytes]], config: Config) -> zmq.Socket[bytes]:
    """The broker's socket for workers, bound. Raises `SetupError`."""
    return _router(context, backend_endpoint(config), config)


def frontend_dealer(context: zmq.Context[zmq.Socket[bytes]], config: Config) -> zmq.Socket[bytes]:
    """A frontend's or operator's socket, connecting (and reconnecting) to the broker."""
    return _dealer(context, frontend_endpoint(config), config)


def backend_dealer(context: zmq.Context[zmq.Socket[bytes]], config: Config) -> zmq.Socket[bytes]:
    """A worker's socket, connecting (and reconnecting) to the broker."""
    return _dealer(context, backend_endpoint(config), config, UNSENT_BY_WORKER)


def receive_from(router: zmq.Socket[bytes]) -> tuple[bytes, list[zmq.Frame]]:
    """A ROUTER's next message: who sent it, and its frames. Never blocks.

    As `recv_multipart` without copies, in a fifth of its time (1.5 us against 9): that asks the socket
    after each frame whether there are more.

    Raises:
        zmq.Again: nothing has arrived.
    """
    return router.recv(_NOW), receive(router)  # a DEALER's message has at least one frame


def receive(socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
    """A DEALER's next message, as `receive_from`.

    Raises:
        zmq.Again: nothing has arrived.
    """
    frame = socket.recv(_NOW, copy=False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(_NOW, copy=False)
        frames.append(frame)
    return frames


def has_more(socket: zmq.Socket[bytes]) -> bool:
    """Whether another message has arrived."""
    return bool(int(_get(socket, _EVENTS)) & _POLLIN)


def send(dealer: zmq.Socket[bytes], frames: Sequence[Buffer]) -> None:
    """Send `frames` through a DEALER. Never blocks; the frames may be changed afterwards.

    Raises:
        zmq.Again: the peer has not taken a great many messages, or is not there.
    """
    for frame in frames[:-1]:
        _send(dealer, frame, _NOW_MORE)
    _send(dealer, frames[-1], _NOW)


def send_to(router: zmq.Socket[bytes], peer: bytes, frames: Sequence[Buffer]) -> None:
    """Send `frames` to `peer` through a ROUTER. Never blocks, and copies no large frame.

    As `send_multipart`, in a quarter of its time (1.0 us against 4.2): that combines flags as enumerations.

    Raises:
        zmq.ZMQError: EHOSTUNREACH, the peer is gone; EAGAIN, it has not taken a great many messages.
    """
    _send(router, peer, _NOW_MORE)
    for frame in frames[:-1]:
        _send(router, frame, _NOW_MORE, False)
    _send(router, frames[-1], _NOW, False)


def _limited(socket: zmq.Socket[bytes], linger_ms: int, unsent: int = HIGH_WATER_MARK) -> None:
    socket.setsockopt(zmq.SNDHWM, unsent)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.LINGER, linger_ms)


def _router(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, config: Config) -> zmq.Socket[bytes]:
    with _closed_on_error(context.socket(zmq.ROUTER)) as socket:
        _limited(socket, linger_ms=1000)
        # An answer to a peer that is gone must be an error that is counted, not silence.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if config.broker.curve_keys is not None:
            secure_broker(socket, Path(config.broker.curve_keys))
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as e:
            raise SetupError(f"the broker cannot bind {endpoint}: {e}") from e
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).chmod(stat.S_IRUSR | stat.S_IWUSR)
        return socket


def _dealer(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, config: Config, unsent: int = HIGH_WATER_MARK
) -> zmq.Socket[bytes]:
    with _closed_on_error(context.socket(zmq.DEALER)) as socket:
        _limited(socket, 0, unsent)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        if config.broker.curve_keys is not None:
            secure_client(socket, Path(config.broker.curve_keys))
        socket.connect(endpoint)
        return socket


@contextlib.contextmanager
def _closed_on_error(socket: zmq.Socket[bytes]) -> Iterator[zmq.Socket[bytes]]:
    """A context waits for ever for a socket that nobody closes."""
    try:
        yield socket
    except BaseException:
        socket.close(linger=0)
        raise
