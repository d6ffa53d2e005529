"""Both clients against a scripted service, so that every test of one is a test of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from hailo_clip.api.client import AsyncClient, Client, RetryPolicy

KINDS = ("sync", "async")
QUICK = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.001)

Script = Callable[[httpx.Request], httpx.Response]


def ask(kind: str, script: Script, method: str, *given: Any, options: Any = None, **more: Any) -> Any:
    """What `method` of the client of this kind returns, where `script` answers.

    Args:
        kind: one of `KINDS`.
        script: from a request to its answer.
        method: the client's.
        given: its arguments.
        options: the client's.
        more: keyword arguments of the method.
    """
    settings = {"retry": QUICK, **(options or {})}
    transport = httpx.MockTransport(script)
    if kind == "sync":
        with Client(transport=transport, **settings) as client:
            return getattr(client, method)(*given, **more)

    async def run() -> Any:
        async with AsyncClient(transport=transport, **settings) as client:
            return await getattr(client, method)(*given, **more)

    return asyncio.run(run())


class Service:
    """Answers one after the other and keeps the requests; an exception is raised instead."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    """A JSON answer as the service gives it."""
    given = {"x-request-id": "r-1", "x-model-fingerprint": "f" * 64, **(headers or {})}
    return httpx.Response(status, json=value, headers=given)


def refusals(count: int, status: int = 429) -> Iterable[httpx.Response]:
    """Answers that ask to come again soon."""
    return [answer({"error": "not now"}, status, {"retry-after": "0"}) for _ in range(count)]
