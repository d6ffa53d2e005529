"""The encoder's thread: each batch is reported when it is done; an encoder that can has the next one then."""

from __future__ import annotations

import queue
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.messages import Batch, Kind, Result
from hailo_clip.shared.models import open_model
from hailo_clip.workers.emulated import EmulatedEncoder, emulated_embedding
from hailo_clip.workers.emulated_faults import Faults
from hailo_clip.workers.encoder import Embeddings, Images, TokenIds
from hailo_clip.workers.engine import Engine, Loaded, Outcome, unpack
from hailo_clip.workers.proof import prove
from hailo_clip.workers.timing import service_time

MODEL = "emulated-clip-vit-b-32"
SIZE = 224
PATIENCE_S = 10.0
MOMENT_S = 0.2


class OneByOne(EmulatedEncoder):
    """Without a pipeline: each batch of images waits in `encode_images` until the test lets it `go`."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(open_model(MODEL, tmp_path), "emu:0", 8, tmp_path / "run", Faults(time_scale=0))
        self.began: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.go = threading.Semaphore(1)  # for the canary

    def encode_images(self, images: Images) -> Embeddings:
        self.began.put(len(images))
        assert self.go.acquire(timeout=PATIENCE_S)
        if len(images) == 7:
            raise EncoderError("no sevens")
        return super().encode_images(images)


@dataclass
class Underway:
    """A batch that the pipeline has."""

    embeddings: Embeddings
    deadline: float = field(default_factory=lambda: time.monotonic() + PATIENCE_S)
    device_s: float = 0.1

    def result(self) -> Embeddings:
        return self.embeddings


class Pipelined(OneByOne):
    """Takes any number of batches of images; each is done when the test says so."""

    depth = 2

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path)
        self.done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def submit_images(self, images: Images, done: Callable[[], None]) -> Underway:
        self.done.put(done)
        return Underway(EmulatedEncoder.encode_images(self, images))

    def submit_tokens(self, ids: Sequence[TokenIds], done: Callable[[], None]) -> Underway:
        raise AssertionError("no test sends prompts")


def payloads(number: int, count: int) -> tuple[bytes, ...]:
    return tuple(np.full(SIZE * SIZE * 3, number * 10 + i, np.uint8).tobytes() for i in range(count))


class Rig:
    """A running engine."""

    def __init__(self, encoder: OneByOne, tmp_path: Path) -> None:
        self.engine = Engine(encoder, open_model(MODEL, tmp_path))

    def send(self, number: int, count: int) -> None:
        batch = Batch("e", number, int(Kind.IMAGE), ("t",) * count, payloads(number, count))
        self.engine.encode(batch, unpack(batch, SIZE))

    def reported(self, timeout_s: float = PATIENCE_S) -> list[Outcome]:
        """What is reported next; nothing when nothing is in time."""
        return self.engine.outcomes() if select.select([self.engine.fd], [], [], timeout_s)[0] else []

    def reports(self, number: int, count: int) -> None:
        """Batch `number` is reported next, alone and right."""
        (result,) = self.reported()
        assert isinstance(result, Result) and (result.batch_id, result.errors) == (number, ())
        rows = np.frombuffer(result.frames[0], np.float32).reshape(count, -1)
        for row, payload in zip(rows, payloads(number, count), strict=True):
            np.testing.assert_array_equal(row, emulated_embedding(Kind.IMAGE, payload, len(row)))


@contextmanager
def running(encoder: OneByOne, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(encoder, tmp_path)
    rig.engine.start()
    (loaded,) = rig.reported()
    assert isinstance(loaded, Loaded) and encoder.began.get(timeout=PATIENCE_S) == 1
    try:
        yield rig
    finally:
        encoder.go.release(100)
        assert rig.engine.stop(PATIENCE_S)


def test_a_batch_is_reported_before_the_next_one_runs(tmp_path: Path) -> None:
    """The next was staged while it ran, as under load: its announcement would stand behind that."""
    encoder = OneByOne(tmp_path)
    with running(encoder, tmp_path) as rig:
        for number, count in ((1, 2), (2, 3), (3, 4)):
            rig.send(number, count)
        for number, count in ((1, 2), (2, 3), (3, 4)):
            assert encoder.began.get(timeout=PATIENCE_S) == count
            assert rig.reported(MOMENT_S) == []
            encoder.go.release()
            rig.reports(number, count)
        assert rig.reported(MOMENT_S) == []


def test_a_batch_that_fails_is_reported_once_and_the_next_runs(tmp_path: Path) -> None:
    encoder = OneByOne(tmp_path)
    with running(encoder, tmp_path) as rig:
        rig.send(1, 7)
        rig.send(2, 1)
        encoder.go.release()
        (result,) = rig.reported()
        assert isinstance(result, Result) and [e and e[1] for e in result.errors] == ["no sevens"] * 7
        encoder.go.release()
        rig.reports(2, 1)
        assert rig.reported(MOMENT_S) == []


@pytest.mark.parametrize("first", [1, 2])
def test_a_pipeline_has_the_next_batch_while_one_runs(tmp_path: Path, first: int) -> None:
    encoder = Pipelined(tmp_path)
    with running(encoder, tmp_path) as rig:
        rig.send(1, 2)
        rig.send(2, 3)
        done = [encoder.done.get(timeout=PATIENCE_S) for _ in range(2)]
        assert rig.reported(MOMENT_S) == [], "neither is done"
        for number in (first, 3 - first):
            done[number - 1]()
            rig.reports(number, number + 1)


def test_the_canary_tells_what_its_batches_took(tmp_path: Path) -> None:
    manifest = open_model(MODEL, tmp_path)
    slow = EmulatedEncoder(manifest, "emu:0", 8, tmp_path / "run", Faults(time_scale=5))
    slow.load()
    for kind, (items, seconds) in zip(Kind, prove(slow, manifest).batches, strict=True):
        honest = 5 * service_time("clip-vit-b-32", kind).of(1)
        assert items == 1 and honest <= seconds < honest + 1.0
    slow.close()
