"""Real gunicorn processes against the fake broker: what only a server and real connections can show."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.doubles.api_server import Served, serving, start
from tests.doubles.frontend import configured, until

MIB = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def well(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test leaves the broker well behind."""
    yield
    if "served" in request.fixturenames:
        broker = request.getfixturevalue("served").broker
        broker.answer = broker.embed


def test_answers_and_refusals(served: Served) -> None:
    code, value, headers = served.post("/v1/embed/text", {"text": "person wearing red shirt"})
    assert (code, value["dimension"], len(value["embedding"])) == (200, 640, 640)
    assert headers["server-timing"].startswith("receive;dur=")
    assert served.request("GET", "/nowhere")[:2] == (404, {"error": "There is no /nowhere"})
    assert served.request("GET", "/%ff%00?a=%ff")[0] == 404


def test_connections_are_kept(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    with contextlib.closing(connection):
        sockets = set()
        for path in ("/health", "/nowhere", "/livez"):
            connection.request("GET", path)
            connection.getresponse().read()
            sockets.add(connection.sock)
        assert len(sockets) == 1


def test_a_refused_body_does_not_end_the_connection(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", "/nowhere", b"x" * 3 * MIB)
        assert connection.getresponse().read() == b'{"error":"There is no /nowhere"}'
        first = connection.sock
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        assert connection.sock is first


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_before_it_reads_gets_to_read_the_413(served: Served, chunked: bool) -> None:
    body = [b" " * MIB] * 8
    headers = {"Content-Type": "application/json"}
    if not chunked:
        headers["Content-Length"] = str(8 * MIB)
    code, value, _ = served.request("POST", "/v1/embed/text", iter(body), headers)
    assert (code, value) == (413, {"error": "The body is larger than the limit of 1 MiB"})


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (f"POST /v1/embed/text HTTP/1.1\r\nContent-Length: {2 * MIB}\r\n", b"413"),
        ("POST /v1/embed/text HTTP/1.1\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n", b"415"),
        ("POST /nowhere HTTP/1.1\r\nContent-Length: 5\r\n", b"404"),
    ],
)
def test_who_asks_first_is_refused_before_it_sends(served: Served, head: str, code: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(f"{head}Host: x\r\nExpect: 100-continue\r\n\r\n".encode())
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 " + code)


def test_who_asks_first_is_let_in(served: Served) -> None:
    body = b'{"text": "x"}'
    with served.connect() as connection:
        head = f"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_client_that_goes_away_cancels_its_request(served: Served) -> None:
    broker = served.broker
    broker.answer = lambda submit: []
    body = b'{"text": "nobody waits for this"}'
    before = len(broker.submits)
    with served.connect() as connection:
        head = f"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        broker.wait(lambda: len(broker.submits) > before)
    broker.wait(lambda: broker.submits[-1].request_id in broker.cancels)
    broker.wait(lambda: any(code == 499 for ping in broker.pings for _, code, _ in ping.http))


def test_a_restarted_broker_answers_what_was_pending(served: Served) -> None:
    broker = served.broker
    broker.answer = lambda submit: []
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(served.post("/v1/embed/text", {"text": "x"})[0]))
    before = len(broker.submits)
    thread.start()
    broker.wait(lambda: len(broker.submits) > before)
    broker.kill()
    broker.answer = broker.embed
    broker.restart()
    thread.join(20)
    assert answers == [200]


def test_sigterm_answers_what_was_accepted_and_exits_0() -> None:
    with serving(processes=2) as served:
        served.broker.answer = lambda submit: []
        answers: list[int] = []
        ask = threading.Thread(target=lambda: answers.append(served.post("/v1/embed/text", {"text": "x"})[0]))
        ask.start()
        served.broker.wait(lambda: len(served.broker.submits) == 1)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: not accepts(served))
        served.broker.send(*served.broker.embed(served.broker.submits[0]))
        ask.join(20)
        assert answers == [200]
        assert served.process.wait(20) == 0


def accepts(served: Served) -> bool:
    try:
        served.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_address_that_is_taken_is_exit_code_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with configured(host="127.0.0.1", port=taken.getsockname()[1]) as config:
            process = start(config)
            assert process.wait(30) == 1
