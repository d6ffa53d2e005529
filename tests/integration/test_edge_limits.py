"""Slow, idle and too many connections, over real sockets: each is bounded, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.doubles.frontend import until
from tests.doubles.served import Peer, Served, serving

BOUNDS = (
    "guard.HEAD_S=0.6",
    "guard.WRITE_S=0.6",
    "guard.CLOSE_S=0.6",
    "guard.SPARE_S=0.3",
    "gunicorn_conf.KEEPALIVE_S=1",
    "body.READ_TIMEOUT_S=0.8",
)
MOST = 8
LATE = {"error": "The request's head did not arrive in time"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(*BOUNDS, max_connections=MOST) as running:
        yield running


@pytest.fixture(autouse=True)
def well(served: Served) -> Iterator[None]:
    yield
    served.broker.answer = served.broker.embed
    until(served.healthy)


def dribble(peer: Peer, data: bytes, seconds: float) -> float:
    """Send a byte now and then until the other side closes or `seconds` are over; how long that took."""
    began = time.monotonic()
    peer.socket.settimeout(0.05)
    with contextlib.suppress(ConnectionError):
        for byte in data:
            peer.socket.sendall(bytes([byte]))
            try:
                if peer.socket.recv(1, 2):  # MSG_PEEK
                    break
            except TimeoutError:
                pass
            if time.monotonic() - began > seconds:
                break
    peer.socket.settimeout(20)
    return time.monotonic() - began


# Slow


def test_a_head_that_comes_byte_by_byte_is_a_408_and_others_are_served_meanwhile(served: Served) -> None:
    with served.peer() as slow, served.peer() as other:
        slow.send(b"GET /livez HTTP/1.1\r\nX: ")
        assert other.alive()
        took = dribble(slow, b"a" * 1000, 10)
        assert 0.3 < took < 5
        answer = slow.last()
    assert (answer.code, answer.json) == (408, LATE)
    assert answer.headers["connection"] == "close"


def test_the_next_head_on_a_connection_is_no_more_patient(served: Served) -> None:
    with served.peer() as slow:
        assert slow.alive()
        assert dribble(slow, b"GET /livez HTTP/1.1\r\nX: " + b"a" * 1000, 10) < 5
        answer = slow.last()
    assert (answer.code, answer.json) == (408, LATE)


def test_a_body_that_comes_byte_by_byte_is_a_408(served: Served) -> None:
    before = len(served.broker.submits)
    with served.peer() as slow:
        slow.send(b"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert dribble(slow, b" " * 1000, 10) < 5
        answer = slow.answer()
    assert (answer.code, answer.json) == (408, {"error": "The body did not arrive within 0.8 s"})
    assert len(served.broker.submits) == before


@pytest.mark.parametrize("data", [b"", b"\r\n"])
def test_a_connection_without_a_request_is_closed_without_a_word(served: Served, data: bytes) -> None:
    began = time.monotonic()
    with served.peer() as idle:
        idle.send(data)
        assert idle.rest() == b""
    assert 0.3 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    "data",
    [
        b"GET /li",
        b"GET /livez HTTP/1.1\r\nHo",
        b"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_half_a_request_and_away(served: Served, data: bytes) -> None:
    before = len(served.broker.submits)
    with served.peer() as peer:
        peer.send(data)
    until(served.healthy)
    assert len(served.broker.submits) == before


def test_a_client_that_does_not_read_its_answer_is_let_go(served: Served) -> None:
    with served.peer(receive_buffer=2048) as peer:
        for _ in range(3):  # more than the buffers on the way take
            peer.post({"texts": [f"text {i}" for i in range(256)]})
        until(lambda: open_connections(served) == 1)
        until(lambda: open_connections(served) == 0)
        with pytest.raises((ConnectionError, AssertionError)):
            while True:
                peer.answer()


def listens(port: int) -> bool:
    """Whether a connection can be made."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def open_connections(served: Served) -> int:
    """Connections that the serving process has accepted and not closed."""
    import psutil

    master = psutil.Process(served.process.pid)
    found = [c for child in master.children() for c in child.net_connections("tcp")]
    return sum(
        c.status in ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1") and c.laddr.port == served.port for c in found
    )


# Many


def test_when_all_connections_are_busy_the_next_is_a_503(served: Served) -> None:
    served.broker.answer = lambda submit: []
    before = len(served.broker.submits)
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(served.peer()) for _ in range(MOST)]
        for i, peer in enumerate(busy):
            peer.post({"text": f"text {i}"})
        served.broker.wait(lambda: len(served.broker.submits) == before + MOST)
        with served.peer() as late:
            late.post({"text": "late"}, filler="x" * 4000)
            answer = late.last()
        assert (answer.code, answer.json) == (503, {"error": "too many connections"})
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
        for submit in served.broker.submits[before:]:
            served.broker.send(*served.broker.embed(submit))
        assert [peer.answer().code for peer in busy] == [200] * MOST
    until(served.healthy)
    assert [line for line in served.logged() if line["message"] == "connections are refused"]


def test_connections_that_wait_make_room_the_longest_waiting_first(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(MOST):
            idle.append(stack.enter_context(served.peer()))
            assert idle[-1].alive()
        time.sleep(0.35)  # SPARE_S
        assert idle[1].alive()  # no longer the one that has waited for long
        with served.peer() as new:
            assert new.alive()
            assert idle[0].rest() == b""
            assert idle[1].alive()


# The end


def test_a_stop_does_not_wait_for_idle_connections() -> None:
    with serving(processes=2) as served, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(served.peer()) for _ in range(6)]
        peers[0].send(b"GET /livez HTTP/1.1\r\nX: ")
        assert peers[1].alive()
        took = served.stop()
        assert took < 4
        assert [peer.rest() for peer in peers] == [b""] * 6


def test_a_stop_waits_for_answers_and_what_comes_meanwhile_is_a_503() -> None:
    with serving() as served, served.peer() as peer:
        served.broker.answer = lambda submit: []
        peer.post({"text": "x"})
        served.broker.wait(lambda: len(served.broker.submits) == 1)
        served.process.terminate()
        refused = []
        # In the end they are refused; one that stood in line when the line was closed is reset by the kernel.
        with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
            while True:
                with served.peer() as late:
                    late.get()
                    refused.append(late.last())
        until(lambda: not listens(served.port))
        assert {(a.code, a.json.get("error")) for a in refused} <= {
            (503, "the service is shutting down"),
            (200, None),
        }
        served.broker.send(*served.broker.embed(served.broker.submits[0]))
        assert peer.last().code == 200
        assert served.process.wait(20) == 0
