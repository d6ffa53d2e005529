"""What the broker's benchmark starts: the broker, a bare echo, workers that answer at once, clients.

`broker`, `echo`, `worker`, `echo_worker` and `client` are each the whole of one process. `Given` is the
configuration, as flat keys, that all of them share; the sockets are the product's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection

import numpy as np
import zmq

from hailo_clip.broker.shell import run_broker
from hailo_clip.shared import messages as m
from hailo_clip.shared.codec import decode_to_frontend, decode_to_worker, encode
from hailo_clip.shared.config import Config, load_config
from hailo_clip.shared.logs import setup_logs
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import models_dir, open_model
from hailo_clip.shared.sockets import (
    backend_dealer,
    backend_router,
    frontend_dealer,
    frontend_router,
    receive,
)

Given = dict[str, object]

_TENANTS = 8
_IDS = 50  # tokens of a prompt: 200 bytes
_WARM_UP = 0.1  # part of the requests that comes before the measured ones


@dataclass(frozen=True, slots=True)
class Load:
    """What each client sends: `count` requests of one item, `window` of them unanswered at a time."""

    name: str
    kind: m.Kind
    count: int
    window: int = 32


def _load(given: Given) -> tuple[Config, Manifest]:
    config = load_config(None, {}, given)
    return config, open_model(config.model.name, models_dir(config.model.dir))


# In the middle: what is measured, and what it is compared with


def broker(given: Given, workers: int) -> None:
    """The product's broker; it learns of its workers by itself."""
    config, _ = _load(given)
    setup_logs(config.log, "broker")
    run_broker(config)


def echo(given: Given, workers: int) -> None:
    """Requests to the workers in turn, their answers back; nothing else."""
    config, _ = _load(given)
    with zmq.Context() as context:
        frontend, backend = frontend_router(context, config), backend_router(context, config)
        turn = cycle([backend.recv_multipart()[0] for _ in range(workers)])
        poller = zmq.Poller()
        poller.register(frontend, zmq.POLLIN)
        poller.register(backend, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if frontend in ready:
                backend.send_multipart([next(turn), *frontend.recv_multipart()])
            if backend in ready:
                frontend.send_multipart(backend.recv_multipart()[1:])


# Workers


def worker(given: Given, number: int) -> None:
    """A worker with a device of its own that gives each item the same embedding, at once."""
    config, manifest = _load(given)
    hello = _hello(config, manifest, number)
    rows = [_rows(n, manifest.dimension) for n in range(config.workers.max_batch + 1)]
    beat_at = 0.0
    with zmq.Context() as context, backend_dealer(context, config) as socket:
        socket.send_multipart(encode(hello))
        while True:
            if time.monotonic() > beat_at:
                beat_at = time.monotonic() + 1.0
                socket.send_multipart(encode(m.Beat(hello.epoch)))
            if not socket.poll(200):
                continue
            message = decode_to_worker(socket.recv_multipart(copy=False))
            if isinstance(message, m.Welcome):
                socket.send_multipart(encode(m.Ready(hello.epoch, 1.0)))
            elif isinstance(message, m.Batch):
                frames = (rows[len(message.frames)],)
                socket.send_multipart(encode(m.Result(hello.epoch, message.batch_id, 0.0, (), frames)))


def echo_worker(given: Given, number: int) -> None:
    """What the echo needs: one constant reply a request."""
    config, manifest = _load(given)
    reply = encode(m.Reply(1, (None,), 0.0, 0.0, 0, (_rows(1, manifest.dimension),)))
    with zmq.Context() as context, backend_dealer(context, config) as socket:
        socket.send(b"here")
        while True:
            client, *_request = socket.recv_multipart(copy=False)
            socket.send_multipart([client, *reply], copy=False)


def _hello(config: Config, manifest: Manifest, number: int) -> m.Hello:
    return m.Hello(
        worker=f"w{number}",
        epoch=f"e{number}",
        pid=os.getpid(),
        device_id=f"d{number}",
        encoder="emulated",
        model=manifest.name,
        fingerprint=manifest.fingerprint("emulated"),
        dimension=manifest.dimension,
        max_batch=config.workers.max_batch,
        grace_s=60.0,
    )


def _rows(count: int, dimension: int) -> bytes:
    """`count` equal embeddings of length 1."""
    return np.eye(1, dimension, dtype=np.float32).tobytes() * count


# The client


def client(given: Given, load: Load, number: int, workers: int, pipe: Connection) -> None:
    """Warm up, say 0, wait for the word, send everything, say how many different requests were answered."""
    config, manifest = _load(given)
    with zmq.Context() as context, frontend_dealer(context, config) as socket:
        _wait_until_ready(socket, workers)
        warm = int(load.count * _WARM_UP)
        requests = _requests(load, number, manifest)
        _drive(socket, requests[:warm], load.window)
        pipe.send((0, 0))
        pipe.recv()
        answered = _drive(socket, requests[warm:], load.window)
        pipe.send((len(answered), len(set(answered))))


def _requests(load: Load, client: int, manifest: Manifest) -> list[m.Submit]:
    """The requests of one client. All prompts differ, as equal ones would be run once."""
    fingerprint = manifest.fingerprint("emulated")
    image = bytes(manifest.image.size**2 * 3)
    found = []
    for i in range(load.count):
        ids = np.full(_IDS, i, np.int32)
        ids[0] = client
        payload = image if load.kind is m.Kind.IMAGE else ids.tobytes()
        tenant = f"tenant-{i % _TENANTS}"
        kinds = (int(load.kind),)
        found.append(m.Submit(i, "request-id", tenant, 1.0, False, 60.0, fingerprint, kinds, (payload,)))
    return found


def _wait_until_ready(socket: zmq.Socket[bytes], workers: int) -> None:
    """Until the broker has its workers; the echo answers anything."""
    for seq in range(300):
        socket.send_multipart(encode(m.Ping(seq)))
        if not socket.poll(10_000):
            break
        (answer,) = decode_to_frontend(socket.recv_multipart())
        if not isinstance(answer, m.Pong) or answer.ready_workers == workers:
            return
        time.sleep(0.05)
    raise RuntimeError("what is to be measured did not start")


def _drive(socket: zmq.Socket[bytes], requests: Sequence[m.Submit], window: int) -> list[int]:
    """Send and receive as a frontend does, without its event loop; the ids that the answers carry."""
    sent = 0
    answered: list[int] = []
    while len(answered) < len(requests):
        while sent < len(requests) and sent - len(answered) < window:
            socket.send_multipart(encode(requests[sent]))
            sent += 1
        socket.poll()
        for reply in decode_to_frontend(receive(socket)):
            if not isinstance(reply, m.Reply) or not reply.frames:
                raise RuntimeError(f"a request was not answered: {reply}")
            answered.append(reply.request_id)
    return answered
