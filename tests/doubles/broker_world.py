"""The broker without sockets: the real scheduler, a clock moved by hand, and workers made of paper.

A `World` plays both sides of the wire. `submit` is a frontend's request, `worker` registers a `PaperWorker`,
`answer` sends a batch's right result back. What the scheduler says lands in `answers` (by request) and with
the workers (`PaperWorker.batches`, `heard`).

An embedding is a function of kind and payload alone (`embedding`), so a test can tell from the numbers
whether a reply belongs to its request.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from hailo_clip.broker.policy import Policy
from hailo_clip.broker.pool import Worker
from hailo_clip.broker.scheduler import Scheduler
from hailo_clip.broker.work import Note, RequestKey, Send
from hailo_clip.shared import messages as m
from hailo_clip.shared.messages import Kind, WireError

DIMENSION = 4
IMAGE_BYTES = 12
MAX_TOKENS = 8
FINGERPRINT = "f" * 32
FRONTEND = b"frontend-0"
WIDE = 1e-9
ENCODER_ERROR: WireError = ("encoder", "out of memory", None)


@dataclass(frozen=True)
class Item:
    """One item of a request."""

    kind: Kind
    payload: bytes


def image(number: int) -> Item:
    """An image that no other number gives."""
    return Item(Kind.IMAGE, number.to_bytes(IMAGE_BYTES, "big"))


def prompt(*ids: int) -> Item:
    """A prompt of these token ids."""
    return Item(Kind.TEXT, np.array(ids, np.int32).tobytes())


@lru_cache(maxsize=4096)
def embedding(kind: Kind, payload: bytes) -> bytes:
    """The one right embedding of an item: float32 ``[DIMENSION]`` of length 1."""
    digest = hashlib.blake2b(payload, digest_size=4 * DIMENSION, person=kind.name.encode()).digest()
    vector = np.frombuffer(digest, np.uint32).astype(np.float64) + 1
    return (vector / np.linalg.norm(vector)).astype(np.float32).tobytes()


def policy(**changes: object) -> Policy:
    """A small model's policy with `changes`."""
    settings: dict[str, object] = {
        "broker_epoch": "broker-1",
        "model": "paper",
        "fingerprint": FINGERPRINT,
        "encoder": "emulated",
        "dimension": DIMENSION,
        "image_bytes": IMAGE_BYTES,
        "max_tokens": MAX_TOKENS,
    }
    return Policy(**{**settings, **changes})  # type: ignore[arg-type]


@dataclass(eq=False)
class PaperWorker:
    """One registration of a worker process, as the worker sees it.

    Attributes:
        batches: received and not yet answered, oldest first.
        heard: every other message of the broker.
    """

    hello: m.Hello
    peer: bytes
    batches: list[m.Batch] = field(default_factory=list)
    heard: list[m.ToWorker] = field(default_factory=list)

    @property
    def epoch(self) -> str:
        return self.hello.epoch

    def result(
        self,
        batch: m.Batch,
        *,
        device_s: float = 0.01,
        errors: Sequence[WireError | None] = (),
        frames: tuple[bytes, ...] | None = None,
    ) -> m.Result:
        """The right answer to `batch`, where `errors` and `frames` do not say otherwise."""
        kind = Kind(batch.kind)
        told = list(errors) or [None] * len(batch.frames)
        rows = [embedding(kind, bytes(f)) for f, e in zip(batch.frames, told, strict=False) if e is None]
        if frames is None:
            frames = (b"".join(rows),) if rows else ()
        return m.Result(self.epoch, batch.batch_id, device_s, tuple(errors), frames)

    def fences(self) -> list[m.Fence]:
        return [message for message in self.heard if isinstance(message, m.Fence)]


class World:
    """See the module docstring.

    Attributes:
        now: the time that every event is told.
        answers: what each request got, in order: by the promise exactly one `Reply` or `Refused`.
        sent: every batch with the worker that got it, in order.
        unroutable: peers that a message can't be delivered to; the scheduler is told, as the shell does.
    """

    def __init__(self, *, now: float = 1000.0, **changes: object) -> None:
        self.now = now
        self.scheduler = Scheduler(policy(**changes), now)
        self.answers: dict[RequestKey, list[m.Reply | m.Refused]] = {}
        self.asked: dict[RequestKey, tuple[Item, ...]] = {}
        self.pongs: list[m.Pong] = []
        self.notes: list[Note] = []
        self.sent: list[tuple[PaperWorker, m.Batch]] = []
        self.workers: dict[str, PaperWorker] = {}
        self.unroutable: set[bytes] = set()
        self._numbers = itertools.count(1)

    # Frontends

    def post(
        self,
        *items: Item,
        tenant: str = "anna",
        weight: float = 1.0,
        bulk: bool = False,
        ttl: float = 30.0,
        frontend: bytes = FRONTEND,
        fingerprint: str = FINGERPRINT,
        number: int | None = None,
    ) -> RequestKey:
        """A frontend's request, before the broker acts on it."""
        key = (frontend, next(self._numbers) if number is None else number)
        if key not in self.scheduler.ledger.requests:
            self.asked[key] = items
        kinds, frames = tuple(int(i.kind) for i in items), tuple(i.payload for i in items)
        submit = m.Submit(key[1], f"trace-{key[1]}", tenant, weight, bulk, ttl, fingerprint, kinds, frames)
        self.scheduler.from_frontend(self.now, frontend, submit)
        return key

    def submit(self, *items: Item, **options: object) -> RequestKey:
        """`post`, and the broker acts on it."""
        key = self.post(*items, **options)  # type: ignore[arg-type]
        self.flush()
        return key

    def cancel(self, key: RequestKey) -> None:
        self.scheduler.from_frontend(self.now, key[0], m.Cancel(key[1]))
        self.flush()

    # Workers

    def worker(
        self, name: str = "w0", device: str = "d0", *, max_batch: int = 8, ready: bool = True, **more: object
    ) -> PaperWorker:
        """A worker that registered, and by default passed its canary; a new process each time."""
        worker = self.hello(name, device, max_batch=max_batch, **more)
        if ready:
            self.tell(worker, m.Ready(worker.epoch, 0.9999))
        return worker

    def hello(self, name: str, device: str = "d0", *, max_batch: int = 8, **more: object) -> PaperWorker:
        """A process says hello; `more` replaces fields of the message, or its `peer`."""
        number = next(self._numbers)
        fields: dict[str, object] = {
            "worker": name,
            "epoch": f"epoch-{number}",
            "pid": number,
            "device_id": device,
            "encoder": "emulated",
            "model": "paper",
            "fingerprint": FINGERPRINT,
            "dimension": DIMENSION,
            "max_batch": max_batch,
            "grace_s": 60.0,
        }
        peer = more.pop("peer", f"{name}-{number}".encode())
        assert isinstance(peer, bytes)
        worker = PaperWorker(m.Hello(**{**fields, **more}), peer)  # type: ignore[arg-type]
        self.workers[worker.epoch] = worker
        self.tell(worker, worker.hello)
        return worker

    def tell(self, worker: PaperWorker, message: m.FromWorker) -> None:
        """The worker says something."""
        self.scheduler.from_worker(self.now, worker.peer, message)
        self.flush()

    def answer(
        self, worker: PaperWorker, *, device_s: float = 0.01, errors: Sequence[WireError | None] = ()
    ) -> m.Batch:
        """The worker's oldest batch is done; returns that batch."""
        batch = worker.batches.pop(0)
        self.tell(worker, worker.result(batch, device_s=device_s, errors=errors))
        return batch

    def answer_all(self, limit: int = 1000) -> None:
        """Every worker answers all it has and gets, until nobody has anything."""
        for _ in range(limit):
            busy = [w for w in self.workers.values() if w.batches and self.registered(w)]
            if not busy:
                return
            self.answer(busy[0])
        raise AssertionError(f"still busy after {limit} batches")

    def die(self, worker: PaperWorker) -> None:
        """The process is gone and its connection with it, a moment after what happened last."""
        self.now += 0.001
        self.unroutable.add(worker.peer)
        self.scheduler.unreachable(self.now, "backend", worker.peer)
        worker.batches.clear()
        self.flush()

    def registered(self, worker: PaperWorker) -> bool:
        return self.scheduler.pool.find(worker.epoch, worker.peer) is not None

    def known(self, worker: PaperWorker) -> Worker:
        """What the scheduler holds of it."""
        found = self.scheduler.pool.find(worker.epoch, worker.peer)
        assert found is not None
        return found

    # Time and actions

    def flush(self) -> None:
        """The broker acts, as its shell does: until nothing follows from receivers that are gone."""
        actions = self.scheduler.answers()
        while actions or (actions := self.scheduler.flush(self.now)):
            gone = set()
            for action in actions:
                if isinstance(action, Note):
                    self.notes.append(action)
                elif action.peer in self.unroutable:
                    gone.add((action.plane, action.peer))
                else:
                    self._deliver(action)
            for plane, peer in gone:
                self.scheduler.unreachable(self.now, plane, peer)
            actions = []

    def _deliver(self, action: Send) -> None:
        message = action.message
        match message:
            case m.Reply() | m.Refused():
                self.answers.setdefault((action.peer, message.request_id), []).append(message)
            case m.Pong():
                self.pongs.append(message)
            case m.Batch():
                worker = self.workers[message.epoch]
                assert worker.peer == action.peer
                worker.batches.append(message)
                self.sent.append((worker, message))
            case m.Welcome() | m.Reject() | m.BeatAck() | m.Fence() | m.Stop():
                for worker in self.workers.values():
                    if worker.epoch == message.epoch and worker.peer == action.peer:
                        worker.heard.append(message)
            case _:
                raise AssertionError(f"not the broker's to say: {message}")

    def after(self, seconds: float) -> None:
        """`seconds` pass at once."""
        self.now += seconds
        self.flush()

    def live(self, seconds: float, beating: Iterable[PaperWorker] = (), step: float = 0.25) -> None:
        """`seconds` pass in small steps, in which the workers `beating` give signs of life."""
        end = self.now + seconds
        beating = list(beating)
        while self.now < end - WIDE:
            self.now = min(end, self.now + step)
            for worker in beating:
                self.scheduler.from_worker(self.now, worker.peer, m.Beat(worker.epoch))
            self.scheduler.from_frontend(self.now, FRONTEND, m.Ping(1))
            self.flush()

    # What came of it

    def only(self, key: RequestKey) -> m.Reply | m.Refused:
        """The one answer that `key` got."""
        answers = self.answers.get(key, [])
        assert len(answers) == 1, f"{key} got {len(answers)} answers: {answers}"
        return answers[0]

    def reply(self, key: RequestKey) -> m.Reply:
        """Its reply; every item without an error has the right embedding."""
        reply = self.only(key)
        assert isinstance(reply, m.Reply), reply
        check_reply(self.asked[key], reply)
        return reply

    def refused(self, key: RequestKey) -> WireError:
        """Why it was refused."""
        answer = self.only(key)
        assert isinstance(answer, m.Refused), answer
        return answer.error

    def unanswered(self, key: RequestKey) -> bool:
        return key not in self.answers

    def metric(self, name: str, *labels: str) -> float:
        return self.scheduler.metrics.value(name, *labels)


def check_reply(items: Sequence[Item], reply: m.Reply) -> None:
    """Raise AssertionError unless the reply holds these items' embeddings, in order."""
    assert len(reply.errors) == len(items)
    good = [i for i, e in zip(items, reply.errors, strict=True) if e is None]
    expected = b"".join(embedding(i.kind, i.payload) for i in good)
    assert b"".join(bytes(f) for f in reply.frames) == expected
