"""A web server for files, with ranges as large stores have them, and with faults that can be switched on."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Offer:
    """One file of the server.

    Attributes:
        data: its bytes.
        validator: "etag", "weak" (a weak ETag alone), "modified" (Last-Modified alone) or "none".
        ranges: False: every answer is the whole file.
        status: answers this instead, for `times` requests (None: for ever). headers: sent along with it.
        drop_after: the connection breaks after so many bytes of an answer, for `times` requests.
        short: so many bytes are missing at the end of the body, though its length is told as if they came.
        chunked: the length is not told. if_range: False: the header If-Range is not known.
        redirect: answers 302 to this address.
    """

    data: bytes
    validator: str = "etag"
    ranges: bool = True
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    times: int | None = None
    short: int = 0
    redirect: str = ""
    chunked: bool = False
    if_range: bool = True
    version: int = 1

    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'

    def take_fault(self) -> bool:
        """True when the fault shall happen now."""
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


@dataclass
class Request:
    """What was asked for: path (absolute address for a proxy), headers in lower case, bytes sent."""

    path: str
    headers: dict[str, str]
    sent: int = 0


class FileServer:
    """Serves `offers` by path, without its leading slash; `requests` tells what was asked for."""

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}
        self.requests: list[Request] = []
        handler = type("Handler", (_Handler,), {"files": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def put(self, path: str, data: bytes, **how: Any) -> Offer:
        """Offer `data` as `path`."""
        self.offers[path] = Offer(data, **how)
        return self.offers[path]

    def address(self, path: str) -> str:
        """The URL of `path`."""
        return f"{self.url}/{path}"

    def sent(self, path: str = "") -> int:
        """Bytes of bodies sent so far, of `path` or of all."""
        return sum(r.sent for r in self.requests if not path or r.path == f"/{path}")

    def ranges(self, path: str) -> list[str]:
        """The Range header of each request for `path`, empty where there was none."""
        return [r.headers.get("range", "") for r in self.requests if r.path == f"/{path}"]

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def file_server() -> Iterator[FileServer]:
    """A server in a thread."""
    server = FileServer()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    files: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        request = Request(self.path, {k.lower(): v for k, v in self.headers.items()})
        self.files.requests.append(request)
        name = self.path.rpartition("/")[2] if self.path.startswith("http") else self.path[1:]
        offer = self.files.offers.get(name)
        if offer is None:
            self._refuse(404, {})
        elif offer.status is not None and offer.take_fault():
            self._refuse(offer.status, offer.headers)
        elif offer.redirect:
            self._refuse(302, {"Location": offer.redirect})
        else:
            self._send(offer, request)

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, offer: Offer, request: Request) -> None:
        span = self._span(offer, request)
        if span is not None and span[0] >= len(offer.data):
            self._refuse(416, {"Content-Range": f"bytes */{len(offer.data)}"})
            return
        begin, end = span or (0, len(offer.data))
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(offer.data)}")
        for name, value in self._validators(offer).items():
            self.send_header(name, value)
        body = offer.data[begin:end]
        if offer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._write(offer, request, body)

    def _write(self, offer: Offer, request: Request, body: bytes) -> None:
        if offer.drop_after is not None and len(body) > offer.drop_after and offer.take_fault():
            body = body[: offer.drop_after]
            self.close_connection = True
        elif offer.short:
            body = body[: -offer.short]
            self.close_connection = True
        try:
            self.wfile.write(body)
            request.sent = len(body)
        except OSError:  # the client has what it wanted
            self.close_connection = True

    def _span(self, offer: Offer, request: Request) -> tuple[int, int] | None:
        asked = request.headers.get("range")
        if asked is None or not offer.ranges:
            return None
        condition = request.headers.get("if-range")
        if condition is not None and offer.if_range and condition not in self._validators(offer).values():
            return None
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return int(first), min(len(offer.data), int(last) + 1 if last else len(offer.data))

    def _validators(self, offer: Offer) -> dict[str, str]:
        modified = f"Mon, 01 Jan 2024 00:00:0{offer.version} GMT"
        return {
            "etag": {"ETag": offer.etag(), "Last-Modified": modified},
            "weak": {"ETag": f"W/{offer.etag()}"},
            "modified": {"Last-Modified": modified},
            "none": {},
        }[offer.validator]
