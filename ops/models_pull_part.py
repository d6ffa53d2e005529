"""A file (or a span of one) under way: what of it is on the disk, and what must still be asked for.

It is gathered in ``FILE.part``; ``FILE.part.json`` says what it is a part of. It is continued only when the
server says by its validator (a strong ETag, else Last-Modified) that it has the same file still.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from hailo_clip.ops.models_pull_errors import Passing
from hailo_clip.shared.errors import ModelError

CHUNK: Final = 1 << 18
RESERVE: Final = 64 << 20
"""Bytes of the disk that are left free."""

_TOLD = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Span = tuple[int, int | None]
"""First byte, and the one after the last (None: to the end)."""


class Body:
    """The body of an answer of 200 or 206. A context manager that lets the connection go.

    Attributes:
        start: the byte of the file that it begins with.
        end: the byte after its last, None when the server does not say.
        size: bytes of the whole file, None when the server does not say.
        validator: what If-Range takes, empty when there is nothing of the kind.

    Raises (on creation):
        Passing: the server sent a part without saying which.
    """

    def __init__(self, response: Any) -> None:
        self._response = response
        headers = response.headers
        etag = headers.get("ETag") or ""
        self.validator = etag if etag[:1] == '"' else headers.get("Last-Modified") or ""
        length = headers.get("Content-Length") or ""
        self.start: int = 0
        self.end: int | None = int(length) if length.isdecimal() else None
        self.size = self.end
        if response.status == 206:
            told = _TOLD.fullmatch(headers.get("Content-Range") or "")
            if told is None:
                raise Passing("the server sent a part without saying which")
            self.start, self.end = int(told[1]), int(told[2]) + 1
            self.size = None if told[3] == "*" else int(told[3])

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *args: object) -> None:
        self._response.close()

    def chunks(self, start: int, stop: int | None) -> Iterator[bytes]:
        """The file's bytes from `start` to before `stop` (None: the end); what comes before them is skipped.

        Raises:
            Passing: the connection broke, or ended too early.
        """
        at = self.start
        while stop is None or at < stop:
            try:
                data = self._response.read(CHUNK)
            except Exception as e:  # sockets, TLS and http.client each have their own
                raise Passing(f"the connection broke: {e or type(e).__name__}") from e
            if not data:
                break
            wanted = data[max(0, start - at) : None if stop is None else stop - at]
            at += len(data)
            if wanted:
                yield wanted
        promised = self.end if stop is None else stop
        if promised is not None and at < promised:
            raise Passing(f"the connection ended {promised - at} bytes too early")


class Part:
    """See the module docstring.

    Args:
        target: the file's place and name when it is whole.
        url: where it comes from.
        span: of the file at `url`; None: all of it.
    """

    def __init__(self, target: Path, url: str, span: Span | None = None) -> None:
        self.url = url
        self.validator = ""
        self.total: int | None = None
        self._target = target
        self._begin, self._stop = span or (0, None)
        self._path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self._load()

    @property
    def have(self) -> int:
        """Bytes that are there."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def whole(self) -> bool:
        """True when nothing is missing."""
        return self.total is not None and self.have == self.total

    def missing(self) -> Span | None:
        """What to ask for next; None: the whole file, from its beginning."""
        kept = self.have if self.validator else 0
        if not kept and self._begin == 0 and self._stop is None:
            return None
        return self._begin + kept, self._stop

    def accept(self, body: Body) -> None:
        """Get ready for `body`; what is there is forgotten when `body` does not continue it.

        Raises:
            Passing: it is no use: the file has changed, or it is another part than was asked for.
            ModelError: the disk has no room for the rest.
        """
        same = self.validator and body.validator == self.validator
        if self.have and not (same and body.start == self._begin + self.have):
            self.forget()
        if body.start > self._begin + self.have:
            raise Passing("the server sent another part than was asked for, or has another file now")
        self.validator = body.validator
        self.total = body.size if self._stop is None else self._stop - self._begin
        if self._stop is None and self.total is not None:
            self.total -= self._begin
        self._save()
        self._check_room()

    def copy(self, body: Body, advance: Callable[[int], None]) -> None:
        """Append what `body` brings. Raises `Passing` when that is not all, `OSError` from the disk."""
        have = self.have
        advance(have)
        with self._path.open("ab") as out:
            for data in body.chunks(self._begin + have, self._stop):
                out.write(data)
                have += len(data)
                advance(have)
            out.flush()
            os.fsync(out.fileno())
        if self.total is not None and have != self.total:
            story = f"{have} bytes came instead of {self.total}"
            self.forget()
            raise Passing(story)

    def finish(self) -> None:
        """All of it is there: give it its name."""
        self._path.replace(self._target)
        self._note.unlink(missing_ok=True)

    def forget(self) -> None:
        """Begin anew."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.total = None

    def _load(self) -> None:
        try:
            told = json.loads(self._note.read_text(encoding="utf-8"))
            if (told["url"], told["span"]) == (self.url, [self._begin, self._stop]):
                self.validator, self.total = str(told["validator"]), told["total"]
        except (OSError, ValueError, KeyError, TypeError):
            self.validator = ""
        if not self.validator:
            self.forget()

    def _save(self) -> None:
        span = [self._begin, self._stop]
        told = {"url": self.url, "span": span, "validator": self.validator, "total": self.total}
        self._path.touch()
        self._note.write_text(json.dumps(told), encoding="utf-8")

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._target.parent).free
        needed = (self.total or 0) - self.have + RESERVE
        if free < needed:
            raise ModelError(
                f"{self._target.parent} has {free / 1e6:.0f} MB free, {self._target.name} needs "
                f"{needed / 1e6:.0f} MB; free some space or choose another place with --models-dir"
            )
