"""The files of label sets: one each, loaded at start and written before a set changes.

What a client was told is kept outlives the broker however that ends: a change goes to the disk first, then it
is made and answered. Where the disk does not take it, it is refused and the set stays as it was. Changes are
carried out one after the other, each on what the one before left; disks are slow, so a thread of its own
writes.

A file that can't be read is put aside and logged, and serving goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgpack

from hailo_clip.broker.cachefile import DEBRIS, replace_file
from hailo_clip.broker.labels import Change, Key, LabelStore
from hailo_clip.broker.work import Send
from hailo_clip.shared.errors import LimitReached, QueueFull, Unavailable
from hailo_clip.shared.label_messages import LabelChange, Labels, PutLabels
from hailo_clip.shared.messages import FromFrontend, Refused
from hailo_clip.shared.metrics import Metrics

log = logging.getLogger("hailo_clip.broker")

SUFFIX = ".labels"
ASIDE = ".damaged"
AGAIN_S = 5.0  # until a client should try again what the disk did not take
MOST_WAITING = 64 << 20  # bytes of changes that wait, about; one more is always taken when none does


@dataclass(frozen=True, slots=True)
class _Write:
    """A change that is being written, and for whom."""

    peer: bytes
    change: Change
    done: Future[OSError | None]


class LabelFiles:
    """Carries `store` across restarts in `directory`; where that is None, nothing is kept or taken.

    Attributes:
        bell: readable when `answers` has something to say; to be polled.
    """

    def __init__(self, store: LabelStore, directory: Path | None, metrics: Metrics) -> None:
        self._store = store
        self._directory = directory
        self._metrics = metrics
        self._changes: deque[tuple[bytes, LabelChange]] = deque()
        self._waiting = 0  # bytes of `_changes`, about
        self._write: _Write | None = None
        self._answers: list[Send] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="label-files")
        self.bell, self._rope = socket.socketpair()

    def load(self) -> None:
        """Take over what the files hold."""
        if self._directory is None:
            return
        try:
            files = sorted(self._directory.iterdir()) if self._directory.exists() else []
        except OSError as e:
            log.warning("label sets not loaded: %s", e, extra={"file": str(self._directory)})
            return
        for path in files:
            if path.name.startswith(DEBRIS):
                _remove(path)
            elif path.suffix == SUFFIX:
                self._load(path)
        if len(self._store):
            log.info("label sets loaded", extra={"sets": len(self._store)})

    def takes(self, peer: bytes, message: FromFrontend) -> bool:
        """True when `message` is to change a set that is kept on the disk: `answers` will have its answer."""
        if self._directory is None or not isinstance(message, LabelChange):
            return False
        size = _size(message)
        if self._changes and self._waiting + size > MOST_WAITING:
            full = QueueFull("too many changes of label sets wait for the disk", retry_after_s=AGAIN_S)
            self._answers.append(Send("frontend", peer, Refused(message.request_id, full.to_wire())))
        else:
            self._changes.append((peer, message))
            self._waiting += size
        return True

    def answers(self) -> list[Send]:
        """The answers that may leave now. Begins to write what is next; to be called in every round."""
        if self._write is not None and self._write.done.done():
            self.bell.recv(64)
            self._end(self._write)
            self._write = None
        while self._directory is not None and self._write is None and self._changes:
            self._begin(self._directory, *self._changes.popleft())
        answers, self._answers = self._answers, []
        return answers

    def finish(self) -> list[Send]:
        """Carry out what is left; its answers. Nothing may follow."""
        answers = self.answers()
        while self._write is not None:
            self._write.done.exception()
            answers += self.answers()
        self._thread.shutdown()
        self.bell.close()
        self._rope.close()
        return answers

    def _begin(self, directory: Path, peer: bytes, request: LabelChange) -> None:
        """Begin to write what `request` changes; answer it where it changes nothing."""
        self._waiting -= _size(request)
        planned = self._store.plan(request)
        if not isinstance(planned, Change):
            self._answers.append(Send("frontend", peer, planned))
            return
        done = self._thread.submit(write, directory, planned)
        self._write = _Write(peer, planned, done)
        done.add_done_callback(lambda _: self._rope.send(b"\0"))

    def _end(self, write: _Write) -> None:
        """Make the change that is on the disk now; refuse the one that the disk did not take."""
        error, change = write.done.result(), write.change
        answer: Labels | Refused = change.answer
        if error is not None:
            self._metrics.count("label_write_failures_total")
            extra = {"file": file_name(change.key), "set": change.key[1]}
            log.warning("label set not written: %s", error, extra=extra)
        if error is None or change.renews:
            self._store.apply(change)
        else:
            text = f"label sets can't be stored: {error.strerror or error}"
            refusal = Unavailable(text, retry_after_s=AGAIN_S)
            answer = Refused(change.answer.request_id, refusal.to_wire())
        self._answers.append(Send("frontend", write.peer, answer))

    def _load(self, path: Path) -> None:
        """Take over the set in one file, or say why not."""
        try:
            key = self._store.load(path.read_bytes())
        except LimitReached as e:
            log.warning("label set not loaded: %s", e, extra={"file": str(path)})
        except (OSError, ValueError) as e:
            log.warning("label set put aside: %s", e, extra={"file": str(path)})
            _rename(path, path.with_suffix(ASIDE))
        else:
            if path.name != file_name(key):  # copied by hand; else nobody would remove it with its set
                _rename(path, path.with_name(file_name(key)))


def file_name(key: Key) -> str:
    """The name of a set's file: a digest, as the file system may not take the set's own."""
    return hashlib.sha256(msgpack.packb(key)).hexdigest()[:32] + SUFFIX


def write(directory: Path, change: Change) -> OSError | None:
    """Have the set's file as `change` leaves it; where that fails: why, and the file is as it was."""
    path = directory / file_name(change.key)
    try:
        _put(path, change.file())
    except OSError as e:
        _restore(path, change.former_file())
        return e
    return None


def _put(path: Path, data: bytes | None) -> None:
    """Have `data` on the disk as the file at `path`, or no such file. Raises OSError."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700)
        _sync(path.parent.parent)
    if data is None:
        path.unlink(missing_ok=True)
    else:
        replace_file(path, [data])
    _sync(path.parent)


def _restore(path: Path, data: bytes | None) -> None:
    """Undo a write that failed after the file was replaced or removed already."""
    try:
        there = path.read_bytes() if path.exists() else None
        if there != data:
            _put(path, data)
    except OSError as e:
        log.error("label set file not restored: %s", e, extra={"file": str(path)})


def _size(request: LabelChange) -> int:
    """Bytes that a request takes while it waits, about."""
    return 1024 + (sum(len(frame) for frame in request.frames) if isinstance(request, PutLabels) else 0)


def _sync(directory: Path) -> None:
    """Have the directory's own entries on the disk, too."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(path: Path, to: Path) -> None:
    try:
        path.replace(to)
    except OSError as e:
        log.warning("label set file not renamed: %s", e, extra={"file": str(path)})


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
