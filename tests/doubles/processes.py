"""Real broker and worker processes in a private run directory, and a frontend to drive them.

The frontend is the product's own state machine (`hailo_clip.api.inflight`) around a plain socket, without
the event loop: it pings, and after a broker's restart it sends again what is unanswered.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from hailo_clip.api.answer import Answer, read_reply
from hailo_clip.api.health import Health
from hailo_clip.api.inflight import Action, Inflight, Outcome, Reopen, Send
from hailo_clip.ops.broker_link import BrokerLink
from hailo_clip.shared.codec import decode_to_frontend, encode
from hailo_clip.shared.config import Config, frontend_endpoint, load_config
from hailo_clip.shared.errors import HailoClipError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Kind, Reply, Submit
from hailo_clip.shared.models import models_dir, open_model
from hailo_clip.shared.sockets import frontend_dealer
from hailo_clip.workers.emulated import emulated_embedding
from hailo_clip.workers.emulated_faults import POISON
from hailo_clip.workers.emulated_faults import VARIABLE as FAULTS
from tests.doubles.cut_wire import CutWire

MODEL = "emulated-clip-vit-b-32"
PATIENCE_S = 20.0

Item = tuple[Kind, bytes]
Items = Sequence[Item]


class Child:
    """One process of the service; what it logged is in `log`."""

    def __init__(self, name: str, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                argv, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0
            )
        self.pid = self._process.pid
        self._logged = ""

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing when it has ended."""
        if self.alive:
            self._process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit code (negative: the signal). Raises `subprocess.TimeoutExpired`."""
        return self._process.wait(timeout_s)

    def kill(self) -> int:
        """SIGKILL it, whatever state it is in, and wait."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def logged(self) -> str:
        """Everything that this process and others of its name wrote so far."""
        if self.log.exists():
            self._logged = self.log.read_text(errors="replace")
        return self._logged


class Service:
    """The processes of one service; a context manager that kills what is left.

    Args:
        settings: settings by dotted key over those for tests.
    """

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hcproc-"))  # short: a Unix socket's path is limited
        self._settings: dict[str, object] = {
            "broker.run_dir": str(self.directory / "run"),
            "model.name": MODEL,
            "model.dir": str(self.directory / "models"),
            "cache.persist": False,
            "log.format": "json",
            **(settings or {}),
        }
        self._children: list[Child] = []
        self.config = self._config()
        self.manifest: Manifest = open_model(self.config.model.name, models_dir(self.config.model.dir))

    def _config(self) -> Config:
        return load_config(None, {}, self._settings)

    def _environ(self, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith("HAILO_CLIP") and "DIRECTORY" not in k
        }
        given = {f"HAILO_CLIP__{k.upper().replace('.', '__')}": str(v) for k, v in self._settings.items()}
        return {**kept, **given, "XDG_STATE_HOME": str(self.directory / "state"), **extra}

    def _start(self, name: str, args: Sequence[str], extra: Mapping[str, str]) -> Child:
        argv = [sys.executable, "-m", "hailo_clip.ops.cli", *args]
        child = Child(name, argv, self._environ(extra), self.directory / f"{name}.log")
        self._children.append(child)
        return child

    def broker(self) -> Child:
        """Start the broker."""
        return self._start("broker", ["broker"], {})

    def worker(
        self,
        name: str,
        device: str = "emu:0",
        faults: str = "time_scale=0",
        settings: Mapping[str, object] | None = None,
    ) -> Child:
        """Start a worker with fault switches, and settings of its own."""
        extra = {f"HAILO_CLIP__{k.upper().replace('.', '__')}": str(v) for k, v in (settings or {}).items()}
        args = ["worker", "--name", name, "--device", device]
        return self._start(name, args, {FAULTS: faults, **extra})

    def frontend(self) -> Frontend:
        """A frontend, connecting."""
        return Frontend(self.config, self.manifest)

    @contextmanager
    def wired_frontend(self) -> Iterator[tuple[Frontend, CutWire]]:
        """A frontend, connecting by a wire that can be cut."""
        elsewhere = self.directory / "cut"
        elsewhere.mkdir(mode=0o700)
        broker = replace(self.config.broker, run_dir=elsewhere)
        config = replace(self.config, broker=broker)
        at, to = (Path(frontend_endpoint(c).removeprefix("ipc://")) for c in (config, self.config))
        with CutWire(at, to) as wire, Frontend(config, self.manifest) as frontend:
            yield frontend, wire

    @contextmanager
    def running(self, workers: int = 2, faults: str = "time_scale=0") -> Iterator[Running]:
        """A broker, workers w0, w1, ... on devices of their own, and a frontend that knows them ready."""
        broker = self.broker()
        started = [self.worker(f"w{i}", f"emu:{i}", faults) for i in range(workers)]
        with self.frontend() as frontend:
            frontend.until(lambda: frontend.health.ready_workers == workers and frontend.linked)
            yield Running(self, broker, started, frontend)

    def snapshot(self) -> dict[str, Any]:
        """The broker's status. Raises AssertionError when it does not answer."""
        with BrokerLink(self.config) as link:
            found = link.wait(link.ask("status"), 5.0)
        assert found is not None, "the broker does not answer"
        return found

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.kill()
        logs = {child.name: child.logged() for child in self._children}
        if error is not None:
            for name, log in logs.items():
                print(f"--- {name}\n{log[-4000:]}")
        shutil.rmtree(self.directory, ignore_errors=True)


class Running:
    """A service that is up: its parts by name."""

    def __init__(self, service: Service, broker: Child, workers: list[Child], frontend: Frontend) -> None:
        self.service = service
        self.broker = broker
        self.workers = workers
        self.frontend = frontend


class Frontend:
    """Sends requests and gathers their outcomes; nothing happens but in `pump` and what calls it.

    Attributes:
        outcomes: the one outcome of each settled request, by id.
        settled_at: when that was (time.monotonic).
        sent: how often each id was sent: more than once after a broker's restart.
        replies: how many answers came over the wire for each id.
    """

    def __init__(self, config: Config, manifest: Manifest) -> None:
        self._config, self._manifest = config, manifest
        self._machine = Inflight(manifest.fingerprint, 100_000, 1 << 40)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = frontend_dealer(self._context, config)
        self._items: dict[int, Items] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.settled_at: dict[int, float] = {}
        self.sent: Counter[int] = Counter()
        self.replies: Counter[int] = Counter()
        self._perform(self._machine.start(time.monotonic()))

    @property
    def health(self) -> Health:
        """The service's state as this frontend sees it."""
        return self._machine.health

    @property
    def linked(self) -> bool:
        """True once a broker has said what it is."""
        return bool(self.health.encoder)

    @property
    def in_flight(self) -> int:
        """Requests without an outcome."""
        return len(self._machine)

    def submit(self, items: Items, *, tenant: str = "t", ttl_s: float = 15.0, bulk: bool = False) -> int:
        """Send a request; its id. Raises `ServiceError` when the service is not ready."""
        kinds = tuple(int(kind) for kind, _ in items)
        wanted = Submit(0, "trace", tenant, 1.0, bulk, ttl_s, "", kinds, tuple(p for _, p in items))
        number, actions = self._machine.submit(time.monotonic(), ttl_s, wanted)
        self._items[number] = items
        self._perform(actions)
        return number

    def ask(self, *items: Item, **options: Any) -> Answer:
        """Send a request and wait for its answer. Raises what it was refused with."""
        number = self.submit(items, **options)
        self.until(lambda: number in self.outcomes)
        return self.answer(number)

    def answer(self, number: int) -> Answer:
        """The answer to request `number`, which is settled. Raises what it was refused with."""
        outcome = self.outcomes[number]
        if isinstance(outcome, HailoClipError):
            raise outcome
        assert isinstance(outcome, Reply)
        kinds = [int(kind) for kind, _ in self._items[number]]
        return read_reply(outcome, kinds, self._manifest.dimension)

    def check(self, number: int) -> Answer:
        """`answer`, after a check that every embedding belongs to its item."""
        answer = self.answer(number)
        for (kind, payload), row, error in zip(
            self._items[number], answer.embeddings, answer.errors, strict=True
        ):
            if error is None:
                np.testing.assert_array_equal(row, self.expected(kind, payload))
        return answer

    def expected(self, kind: Kind, payload: bytes) -> npt.NDArray[np.float32]:
        """The embedding of one item."""
        return emulated_embedding(kind, payload, self._manifest.dimension)

    def pump(self, timeout_s: float = 0.05) -> None:
        """Wait for messages for at most `timeout_s`, then handle all that came and what is due."""
        wake = min(timeout_s, max(0.0, self._machine.next_wake() - time.monotonic()))
        if self._socket.poll(int(wake * 1000) + 1):
            with contextlib.suppress(zmq.Again):
                while True:
                    self._received(self._socket.recv_multipart(zmq.NOBLOCK))
        self._perform(self._machine.tick(time.monotonic()))

    def until(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
        """Pump until `condition` holds; the seconds that took. Raises AssertionError when it never does."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + timeout_s, f"waited {timeout_s} s in vain; {self.health}"
            self.pump(0.01)
        return time.monotonic() - began

    def until_workers(self, count: int) -> None:
        """Pump until `count` workers are ready."""
        self.until(lambda: self.health.ready and self.health.ready_workers >= count)

    def until_settled(self, timeout_s: float = PATIENCE_S) -> None:
        """Pump until nothing is in flight."""
        self.until(lambda: not self.in_flight, timeout_s)

    def close(self) -> None:
        """Disconnect."""
        self._socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> Frontend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _received(self, frames: list[bytes]) -> None:
        for message in decode_to_frontend(frames):
            number = getattr(message, "request_id", None)
            if number is not None:
                self.replies[number] += 1
            self._perform(self._machine.received(time.monotonic(), message))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                if isinstance(action.message, Submit):
                    self.sent[action.message.request_id] += 1
                self._socket.send_multipart(encode(action.message), zmq.NOBLOCK)
            elif isinstance(action, Reopen):
                self._socket.close(linger=0)
                self._socket = frontend_dealer(self._context, self._config)
            else:
                assert action.request_id not in self.outcomes, "settled twice"
                self.outcomes[action.request_id] = action.outcome
                self.settled_at[action.request_id] = time.monotonic()


def image(nonce: int, size: int = 224) -> Item:
    """An image item that no other nonce has."""
    return Kind.IMAGE, nonce.to_bytes(8, "little") + bytes(size * size * 3 - 8)


def poison_image(nonce: int) -> Item:
    """An image that the poison faults react to."""
    kind, payload = image(nonce)
    return kind, payload[: -len(POISON)] + POISON


def text(nonce: int) -> Item:
    """A prompt item that no other nonce below 2**30 has."""
    return Kind.TEXT, np.array([49406, nonce & 0x7FFF, nonce >> 15, 49407], np.int32).tobytes()


def counter(snapshot: Mapping[str, Any], name: str, *labels: str) -> float:
    """A counter's value in a snapshot; without labels: the sum over all."""
    found = [(ls, v) for n, ls, v in snapshot["metrics"]["counters"] if n == name]
    return sum(v for ls, v in found if not labels or list(ls) == list(labels))
