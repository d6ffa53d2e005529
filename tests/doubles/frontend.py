"""A whole frontend in the test's process: the real app, its lifespan, real sockets, and the fake broker."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from falcon import testing
from PIL import Image

from hailo_clip.api.app import create_app
from hailo_clip.api.refusals import HOLD_S
from hailo_clip.shared.config import Broker, Config, Model, Queue, Server
from tests.doubles.fake_broker import FakeBroker

MODEL = "emulated-clip-resnet-50x4"
DIMENSION = 640
TEXT = "/v1/embed/text"
CLASSIFY = "/v1/classify"
POSTS = (CLASSIFY, "/v1/embed/image", TEXT)
MIB = 1 << 20


def jpeg(colour: str = "red") -> bytes:
    """A small JPEG file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(file, "JPEG")
    return file.getvalue()


PHOTO = base64.b64encode(jpeg()).decode()
GOOD: dict[str, Any] = {"image": PHOTO, "prompts": ["a cat", "a dog", "a cup", "a car"]}


@contextlib.contextmanager
def configured(**server: Any) -> Iterator[Config]:
    """A configuration with an emulated model, and sockets in a directory of its own with a short name."""
    run_dir = Path(tempfile.mkdtemp(prefix="hc-"))
    try:
        yield Config(
            model=Model(name=MODEL),
            broker=Broker(run_dir=run_dir),
            queue=Queue(request_timeout_s=20.0),
            server=replace(Server(max_body_mib=1), **server),
        )
    finally:
        shutil.rmtree(run_dir)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class Frontend:
    """The app of `config` in an event loop of its own, and its broker; a context manager."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.broker = FakeBroker(config)
        self.app = create_app(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="frontend", daemon=True)
        self._conductor = testing.ASGIConductor(self.app)

    def __enter__(self) -> Frontend:
        self.broker.__enter__()
        self._thread.start()
        self._run(self._conductor.__aenter__())
        until(lambda: self.app.service.gateway.health.ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self._run(self._conductor.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.broker.__exit__(kind, e, t)

    def mend(self) -> None:
        """Make the broker as it was in the beginning, and wait until this is known."""
        if self.broker.answer != self.broker.embed:
            time.sleep(HOLD_S)  # a refusal that it gave holds that long
        self.broker.answer, self.broker.state, self.broker.reason = self.broker.embed, "ready", ""
        self.broker.submits.clear()
        self.broker.pulse()
        until(lambda: self.app.service.gateway.health.ready)

    def ail(self, state: str, reason: str) -> None:
        """Make the broker say that it is not ready, and wait until this is known."""
        self.broker.state, self.broker.reason = state, reason
        self.broker.pulse()
        until(lambda: not self.app.service.gateway.health.ready)

    def status(self) -> dict[str, Any] | None:
        """The broker's snapshot, through the gateway."""
        snapshot: dict[str, Any] | None = self._run(self.app.service.gateway.status())
        return snapshot

    def request(self, method: str, path: str, **given: Any) -> testing.Result:
        """The answer to one request."""
        result: testing.Result = self._run(self._conductor.simulate_request(method, path, **given))
        return result

    def post(self, path: str, json: Any = None, **given: Any) -> testing.Result:
        """The answer to a POST of `json`."""
        if json is not None:
            given["json"] = json
        return self.request("POST", path, **given)

    def asgi(self, scope: dict[str, Any], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the app sends to a client of this scope that sends these events and then waits."""
        return self._run(self._asgi(scope, events))

    async def _asgi(self, scope: dict[str, Any], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        waiting = list(events)

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        async def send(event: Mapping[str, Any]) -> None:
            sent.append(dict(event))

        await self.app(scope, receive, send)
        return sent

    def _run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)


def http_scope(method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """An ASGI scope as a server would give it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "client": ("192.0.2.1", 4711),
        "server": ("127.0.0.1", 5000),
        **more,
    }


def raw(data: bytes, kind: str | None = "application/json", **headers: str) -> dict[str, Any]:
    """What `Frontend.request` takes for a body that is sent as it is, under a media type (None: none)."""
    given = {"Content-Type": kind} if kind is not None else {}
    return {"body": data, "headers": {**given, **headers}}
