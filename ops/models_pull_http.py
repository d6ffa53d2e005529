"""Fetching large files over HTTP with the standard library: resumed, retried, every failure told in words.

Proxies are those of the environment (http_proxy, https_proxy, no_proxy).
"""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from hailo_clip import __version__
from hailo_clip.ops.fetch import Progress, step
from hailo_clip.ops.models_pull_errors import Beyond, Passing, disk_error, refusal, unreachable
from hailo_clip.ops.models_pull_part import Body, Part, Span
from hailo_clip.shared.errors import ModelError

T = TypeVar("T")

_HEADERS = [("User-Agent", f"hailo-clip/{__version__}"), ("Accept-Encoding", "identity")]
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something is tried.

    Attributes:
        attempts: tries in a row that bring nothing new, before it is given up.
        pause_s: before the second try; each further pause is twice as long.
        timeout_s: longest silence of a server.
    """

    attempts: int = 6
    pause_s: float = 1.0
    timeout_s: float = 30.0


class Client:
    """Fetches; for one thread."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._opener = urllib.request.build_opener(_NoDowngrade())
        self._opener.addheaders = _HEADERS

    def read(self, url: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`. Raises `ModelError` that says why not and what to do."""

        def attempt() -> bytes:
            with self._open(url, (start, stop), "") as body:
                return b"".join(body.chunks(start, stop))

        return self._persist(url, attempt, lambda: 0)

    def fetch(self, url: str, target: Path, progress: Progress, title: str, span: Span | None = None) -> None:
        """Make `target` hold the file at `url`, or `span` of it; nothing to do when it is there already.

        What was fetched before an interruption is kept beside it and continued the next time.

        Raises:
            ModelError: it can't be fetched or written; the message says why and what to do.
        """
        if target.exists():
            return
        try:
            part = Part(target, url, span)
            with contextlib.ExitStack() as shown:
                advance: list[Callable[[int], None]] = []

                def attempt() -> None:
                    with self._continue(part) as body:
                        part.accept(body)
                        if not advance:  # now its size is known
                            advance.append(shown.enter_context(step(progress, title, part.total or 0, "B")))
                        part.copy(body, advance[0])

                if not part.whole:
                    self._persist(url, attempt, lambda: part.have)
            part.finish()
        except OSError as e:
            raise disk_error(e, target) from e

    def _continue(self, part: Part) -> Body:
        """Ask for what is missing; raises as `_open`."""
        try:
            return self._open(part.url, part.missing(), part.validator if part.have else "")
        except Beyond:
            part.forget()
            raise

    def _persist(self, url: str, attempt: Callable[[], T], have: Callable[[], int]) -> T:
        """What `attempt` gives; tried again while it fails in passing and not too often without gain."""
        failures, before = 0, have()
        while True:
            try:
                return attempt()
            except Passing as e:
                failures = 1 if have() > before else failures + 1
                before = have()
                if failures >= self._patience.attempts:
                    raise ModelError(
                        f"{url}: {e} ({failures} tries). Check the network and try again; what was fetched "
                        "is kept"
                    ) from e
                time.sleep(max(self._patience.pause_s * 2 ** (failures - 1), min(e.wait_s, _LONGEST_WAIT_S)))

    def _open(self, url: str, span: Span | None, validator: str) -> Body:
        """Ask for `span`. Raises `Passing`, or `ModelError` where a further try is no help."""
        request = urllib.request.Request(url)  # noqa: S310  (the sources allow http and https only)
        if span is not None:
            last = "" if span[1] is None else span[1] - 1
            request.add_header("Range", f"bytes={span[0]}-{last}")
        if validator:
            request.add_header("If-Range", validator)
        try:
            return Body(self._opener.open(request, timeout=self._patience.timeout_s))
        except urllib.error.HTTPError as e:
            with e:
                raise refusal(url, e.code, e.reason, e.headers.get("Retry-After") or "") from e
        except (OSError, http.client.HTTPException) as e:
            raise unreachable(url, e) from e


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """See the base class. Raises `ModelError`."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise ModelError(f"{req.full_url} leads to {newurl}, which is not encrypted; it was not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
