"""The files of label sets: one each, loaded at start and written when a set changes.

The answer to a change is held back until the change is on the disk, so that what a client was told is kept
outlives the broker however that ends. Disks are slow, so a thread of its own writes, one round at a time: all
changes that came during one round are written in the next.

A file that can't be read is put aside, one that can't be written is tried again with the next change; both
are logged, and serving goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgpack

from hailo_clip.broker.cachefile import DEBRIS, replace_file
from hailo_clip.broker.labels import Key, LabelStore
from hailo_clip.broker.work import Send
from hailo_clip.shared.errors import LimitReached
from hailo_clip.shared.label_messages import CHANGES, Labels

log = logging.getLogger("hailo_clip.broker")

SUFFIX = ".labels"
ASIDE = ".damaged"


class LabelFiles:
    """Carries `store` across restarts in `directory`; where that is None, nothing is kept or held back.

    Attributes:
        bell: readable when `written` has something to say; to be polled.
    """

    def __init__(self, store: LabelStore, directory: Path | None) -> None:
        self._store = store
        self._directory = directory
        self._held: list[Send] = []
        self._round: Future[set[Key]] | None = None
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

    def takes(self, action: Send) -> bool:
        """True when `action` tells of a change: it is sent by `written`, once the change is on the disk."""
        message = action.message
        if not isinstance(message, Labels) or message.outcome not in CHANGES:
            return False
        if self._directory is None:
            self._store.unwritten.clear()
            return False
        self._held.append(action)
        self._write()
        return True

    def written(self) -> list[Send]:
        """The answers to changes that are on the disk now; those that came meanwhile are next."""
        if self._round is None or not self._round.done():
            return []
        self.bell.recv(64)
        self._store.unwritten |= self._round.result()
        answers, self._answers, self._round = self._answers, [], None
        if self._held:
            self._write()
        return answers

    def finish(self) -> list[Send]:
        """Write what is left; the answers that were still held back. Nothing may follow."""
        answers: list[Send] = []
        while self._round is not None:
            self._round.exception()
            answers += self.written()
        self._thread.shutdown()
        self.bell.close()
        self._rope.close()
        return answers

    def _write(self) -> None:
        """Begin a round, unless one is under way."""
        if self._round is not None or self._directory is None:
            return
        self._answers, self._held = self._held, []
        changes = {key: self._store.dump(key) for key in self._store.unwritten}
        self._store.unwritten.clear()
        self._round = self._thread.submit(write_all, self._directory, changes)
        self._round.add_done_callback(lambda _: self._rope.send(b"\0"))

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


def write_all(directory: Path, changes: Mapping[Key, bytes | None]) -> set[Key]:
    """Write each set's file, or remove it where there is no set; the keys for which that failed."""
    failed = set()
    for key, data in changes.items():
        path = directory / file_name(key)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            if data is None:
                path.unlink(missing_ok=True)
            else:
                replace_file(path, [data])
            _sync(directory)
        except OSError as e:
            log.warning("label set not written: %s", e, extra={"file": str(path), "set": key[1]})
            failed.add(key)
    return failed


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
