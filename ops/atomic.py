"""Putting a directory of files in place so that nobody ever sees half of it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def exclusive(lock: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold `lock`, a file that is made if need be; calls `on_wait` and waits while another process holds it.

    The kernel lets go of it when the holder dies. The file stays: removing it would let two in.
    """
    with lock.open("a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def publish(staged: Path, target: Path) -> None:
    """Make the directory `staged` appear as `target`, in the place of any older `target`.

    Everything is on the disk before it appears. Both must be on one file system and the caller must
    hold a lock. With an older `target`, the two change places in one step where the kernel and the file
    system can do that; elsewhere `target` is absent for a moment. The old files are then removed; a
    process that has them open keeps them.

    Raises:
        OSError: as the file system says; `target` is then as it was.
    """
    for path in [*staged.iterdir(), staged]:
        _sync(path)
    if not target.exists():
        staged.rename(target)
    else:
        _replace(staged, target)
    _sync(target.parent)


def _replace(staged: Path, target: Path) -> None:
    if _exchange(staged, target):
        shutil.rmtree(staged)
        return
    aside = target.with_name(f".{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    try:
        staged.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two directory entries in one step; False where that is not supported."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(b))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
