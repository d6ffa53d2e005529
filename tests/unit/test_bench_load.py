"""The load generator against a server of known behaviour: what it sends, when, what it reads."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import pytest

from hailo_clip.ops.bench.load import LoadFailed, LoadProcess, Plan
from hailo_clip.ops.bench.schedule import poisson
from hailo_clip.ops.bench.stats import Record, summary
from hailo_clip.ops.bench.workload import Mix, Request, requests

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
Answer = Callable[[bytes], Awaitable[bytes]]


class Server:
    """Answers each request by `answer`; an answer of b"" ends the connection."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.seen: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._ready = threading.Event()

    async def serve(self) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        async with server:
            await self._over.wait()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.seen.append(head + body)
                answer = await self._answer(body)
                if not answer:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    server._ready.wait(10)
    try:
        yield server
    finally:
        server._loop.call_soon_threadsafe(server._over.set)
        thread.join()


async def at_once(body: bytes) -> bytes:
    return OK


@pytest.fixture(scope="module")
def loader() -> Iterator[LoadProcess]:
    with LoadProcess() as process:
        yield process


TEXTS = requests(Mix({"text": 1.0}, cached=False), "h", [])["text"]


def load(loader: LoadProcess, server: Server, seconds: float, **shape: object) -> list[Record]:
    given = {"requests": TEXTS, "order": [0], **shape}
    plan = Plan("127.0.0.1", server.port, seconds=seconds, **given)  # type: ignore[arg-type]
    loader.start(plan)
    return loader.finish(plan)


def test_a_closed_loop_has_as_many_under_way_as_clients(loader: LoadProcess):
    most = now = 0

    async def slowly(body: bytes) -> bytes:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1
        return OK

    with serving(slowly) as server:
        records = load(loader, server, 1.0, clients=5)
    assert most == server.connections == 5
    assert len(set(server.seen)) == len(server.seen) == len(records)  # new prompts all the time
    assert all(0.05 <= r.ended - r.due < 0.2 for r in records)
    assert 60 <= len(records) <= 100


def test_an_open_loop_does_not_wait_for_answers(loader: LoadProcess):
    """A server that stalls gets its requests all the same; latency counts from when each was due."""
    begin = perf_counter()

    async def stalls(body: bytes) -> bytes:
        if 0.3 < perf_counter() - begin < 1.0:
            await asyncio.sleep(1.0 - (perf_counter() - begin))
        return OK

    with serving(stalls) as server:
        arrivals = poisson(200.0, 1.5, 3)
        begin = perf_counter()
        records = load(loader, server, 1.5, arrivals=arrivals)
    assert sorted(r.due for r in records) == arrivals
    waited = [r.ended - r.due for r in records if 0.35 < r.due < 0.5]
    assert len(waited) > 15
    assert min(waited) > 0.4
    assert summary(records, 0.0, 1.5).latency.p50 < 400


def test_an_open_loop_is_on_time(loader: LoadProcess):
    with serving(at_once) as server:
        records = load(loader, server, 1.0, arrivals=poisson(500.0, 1.0, 5))
    late = sorted(r.sent - r.due for r in records)
    assert late[0] >= 0
    assert late[len(late) // 2] < 0.02


def test_refusals_and_broken_connections_are_told_apart(loader: LoadProcess):
    turn = 0

    async def badly(body: bytes) -> bytes:
        nonlocal turn
        turn += 1
        return (OK, REFUSED, b"")[turn % 3]

    with serving(badly) as server:
        records = load(loader, server, 1.0, clients=3)
    codes = {r.code for r in records}
    assert codes == {200, 429, 0}
    assert len(records) == len(server.seen)
    assert summary(records, 0.0, 1.0).latency.p99 == math.inf
    assert 15 < len(records) < 100  # who was refused pauses


def test_answers_that_come_in_pieces(loader: LoadProcess):
    body = b"x" * 300_000

    async def large(_: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nServer: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    with serving(large) as server:
        records = load(loader, server, 0.5, clients=2)
    assert len(records) > 20
    assert {r.code for r in records} == {200}


def test_an_answer_without_a_length_is_an_error(loader: LoadProcess):
    async def endless(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\n\r\n"

    with serving(endless) as server, pytest.raises(LoadFailed, match="Content-Length"):
        load(loader, server, 0.2, clients=1)


def test_nobody_there_is_an_error(loader: LoadProcess):
    server = Server(at_once)
    server.port = 9  # discard, not served here
    with pytest.raises(LoadFailed, match="cannot connect"):
        load(loader, server, 0.2, clients=1)


def test_it_can_send_far_more_than_a_device_does(loader: LoadProcess):
    """157 images a second are the limit of a device; the generator must not be what bounds a result."""
    request = Request((b"POST / HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40000,))
    with serving(at_once) as server:
        records = load(loader, server, 1.0, requests=[request], clients=8)
    assert len(records) > 800
