"""The worker's process around session and engine, where the broker is not there."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from hailo_clip.shared.codec import decode_from_worker, encode
from hailo_clip.shared.config import Config, load_config
from hailo_clip.shared.messages import Hello, Welcome
from hailo_clip.shared.models import open_model
from hailo_clip.shared.sockets import UNSENT_BY_WORKER, backend_dealer, backend_router, receive_from, send_to
from hailo_clip.workers.emulated import EmulatedEncoder
from hailo_clip.workers.emulated_faults import Faults
from hailo_clip.workers.engine import Engine
from hailo_clip.workers.session import Phase
from hailo_clip.workers.shell import Shell

MODEL = "emulated-clip-vit-b-32"
HELLO = Hello("w0", "", 7, "d0", "emulated", MODEL, "f" * 32, 512, 8, 60.0)


@pytest.fixture
def config() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="hcsh-") as directory:  # short: a Unix socket's path is limited
        yield load_config(None, {}, {"broker.run_dir": directory})


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as made:
        yield made
        made.destroy(linger=0)


def test_a_worker_waits_for_a_broker_however_long(
    config: Config,
    context: zmq.Context[zmq.Socket[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says hello every second and keeps a bounded number of them; the broker that comes hears it."""
    Path(str(config.broker.run_dir)).mkdir(exist_ok=True)
    seconds = itertools.count(1000.0, 1.0)
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    manifest = open_model(MODEL, tmp_path)
    engine = Engine(EmulatedEncoder(manifest, "emu:0", 8, tmp_path, Faults()), manifest)
    with backend_dealer(context, config) as dealer:
        shell = Shell(HELLO, engine, manifest, dealer)
        for _ in range(5 * UNSENT_BY_WORKER):
            assert shell._act() is None
            shell._round()
        broker = backend_router(context, config)
        assert broker.poll(5000)
        peer, frames = receive_from(broker)
        hello = decode_from_worker(frames)
        assert isinstance(hello, Hello) and dataclasses.replace(hello, epoch="") == HELLO
        heard = 1
        while broker.poll(200):
            receive_from(broker)
            heard += 1
        assert heard <= UNSENT_BY_WORKER
        send_to(broker, peer, encode(Welcome("b", hello.epoch, 1.0)))
        assert dealer.poll(5000)
        shell._round()
        assert shell._session.phase is Phase.SERVING
        broker.close()
