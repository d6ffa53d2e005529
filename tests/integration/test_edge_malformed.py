"""Requests that are none, over real sockets: one JSON refusal each, and nothing is taken for a request.

Each case is followed by bytes that a server which frames it otherwise would take for a second request.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doubles.served import Served, serving

POST = b"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\n"
HIDDEN = b"GET /v1/hidden HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: "

LINES: list[tuple[bytes, int, str]] = [
    (b"nonsense\r\n\r\n", 400, "Malformed HTTP request: Invalid request line"),
    (b"GET /livez\r\n\r\n", 400, "Malformed HTTP request: Invalid request line"),
    (b"get /livez HTTP/1.1\r\n\r\n", 400, "Malformed HTTP request: get"),
    (b"GET /livez HTTP/2.0\r\n\r\n", 400, "Malformed HTTP request: HTTP/2.0"),
    (b"GET /li vez HTTP/1.1\r\n\r\n", 400, "Malformed HTTP request: "),
    (b"GET /livez\xff HTTP/1.1\r\n\r\n", 400, "Malformed HTTP request: Invalid request line"),
    (b"GET livez HTTP/1.1\r\n\r\n", 400, "Malformed HTTP request: Invalid request line"),
    (b"GET /livez HTTP/1.1\nHost: x\n\n", 400, "Malformed HTTP request: Bare LF"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "Malformed HTTP request: "),
    (b"GET /" + b"a" * 8190 + b" HTTP/1.1\r\n\r\n", 414, "The request line is longer than 8190 bytes"),
    (b"GET /" + b"a" * 1_000_000, 414, "The request line is longer than 8190 bytes"),
]

TOO_LARGE = "A header is longer than 8190 bytes, or there are more than 64"
HEADERS: list[tuple[bytes, int, str]] = [
    (POST + b"X: " + b"a" * 8190 + b"\r\n\r\n", 431, TOO_LARGE),
    (POST + b"X: " + b"a" * 1_000_000, 431, TOO_LARGE),
    (POST + b"X: y\r\n" * 64 + b"\r\n", 431, TOO_LARGE),
    (POST + b"no colon\r\n\r\n", 400, "Malformed HTTP request: Missing colon in header"),
    (POST + b"X: a\r\n folded\r\n\r\n", 400, "Malformed HTTP request: "),
    (POST + b"X: a\r\n\tfolded: b\r\n\r\n", 400, "Malformed HTTP request: "),
    (POST + b"X: a\0b\r\n\r\n", 400, "Malformed HTTP request: Invalid characters in header value"),
    (POST + b"X: a\rb\r\n\r\n", 400, "Malformed HTTP request: Invalid characters in header value"),
    (POST + b"X\xe9: a\r\n\r\n", 400, "Malformed HTTP request: "),
    (POST + b"Host: y\r\n\r\n", 400, "Malformed HTTP request: Duplicate host header"),
    (b"GET /livez HTTP/1.1\r\n\r\n", 400, "Malformed HTTP request: Host is missing"),
]

BOTH = "Malformed HTTP request: Content-Length with Transfer-Encoding"
FRAMING: list[tuple[bytes, int, str]] = [
    (POST + LENGTH + b"4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, BOTH),
    (POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"4\r\n\r\n0\r\n\r\n", 400, BOTH),
    (
        POST + LENGTH + b"2\r\n" + LENGTH + b"2\r\n\r\n{}",
        400,
        "Malformed HTTP request: Duplicate Content-Length",
    ),
    (
        POST + LENGTH + b"2\r\n" + LENGTH + b"0\r\n\r\n{}",
        400,
        "Malformed HTTP request: Duplicate Content-Length",
    ),
    *(
        (POST + LENGTH + value + b"\r\n\r\n{}", 400, "Malformed HTTP request: Invalid Content-Length value")
        for value in (b"+2", b"-2", b"0x2", b"2_0", b"2, 2", b"2 2", b"1e1", b"", b"\xb2", b"2;")
    ),
    (POST + LENGTH + b"9" * 5000 + b"\r\n\r\n{}", 400, "Malformed HTTP request: a number is too long"),
    (POST + b"Content-Length : 2\r\n\r\n{}", 400, "Malformed HTTP request: Content-Length "),
    (
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
        "Malformed HTTP request: Transfer-Encoding ",
    ),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501, "The transfer coding 'xchunked' is not supported"),
    (
        POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n",
        501,
        "The transfer coding 'chunked;q=1' is not supported",
    ),
    (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n", 400, "Malformed HTTP request: "),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400, "Malformed HTTP request: Stacked chunked"),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 400, "Malformed HTTP request: "),
    (
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
        "The transfer coding 'gzip, chunked' is not supported",
    ),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400, "Malformed HTTP request: "),
    (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400, "Malformed HTTP request: "),
    (
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "Malformed HTTP request: Chunked encoding not allowed in HTTP/1.0",
    ),
]

CHUNKS: list[tuple[bytes, int, str]] = [
    *(
        (CHUNKED + size + b"\r\n{}\r\n0\r\n\r\n", 400, "Malformed HTTP request: ")
        for size in (b"zz", b"-2", b"+2", b"0x2", b" 2", b"2 ", b"", b"2\t", b"2_0", b"2;\x01", b"2;a=\rb")
    ),
    (CHUNKED + b"2\n{}\n0\n\n", 400, "Malformed HTTP request: Bare LF"),
    (CHUNKED + b"2\r\n{}0\r\n\r\n", 400, "Malformed HTTP request: chunk data not terminated by CRLF"),
    (CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n", 400, "Malformed HTTP request: chunk data not terminated by CRLF"),
    (CHUNKED + b"a" * 9000, 400, "Malformed HTTP request: Invalid character in chunk size"),
    (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400, "Malformed HTTP request: content-length"),
    (CHUNKED + b"0\r\n" + b"X: y\r\n" * 70 + b"\r\n", 431, TOO_LARGE),
]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.mark.parametrize(("data", "code", "message"), [*LINES, *HEADERS, *FRAMING, *CHUNKS])
def test_one_refusal_and_nothing_else(served: Served, data: bytes, code: int, message: str) -> None:
    before = len(served.broker.submits)
    with served.peer() as peer:
        peer.send(data + HIDDEN)
        answer = peer.last()
    assert (answer.code, answer.rest) == (code, b""), answer
    assert list(answer.json) == ["error"]
    assert answer.json["error"].startswith(message)
    assert len(answer.json["error"]) < 300
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(served.broker.submits) == before
    assert not [line for line in served.logged() if line["message"].endswith("/v1/hidden")]


def test_the_request_line_may_name_the_whole_url(served: Served) -> None:
    with served.peer() as peer:
        for target in ("http://x/livez", "https://x:5000/livez?verbose=1"):
            peer.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert peer.answer().code == 200
        peer.send(b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.answer().code == 404
    eventually_logged = [line["message"] for line in served.logged()]
    assert not [message for message in eventually_logged if "http://x/" in message]


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_malformed_request_after_a_good_one(served: Served, pipelined: bool) -> None:
    good, bad = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"nonsense\r\n\r\n"
    with served.peer() as peer:
        peer.send(good + (bad if pipelined else b""))
        first = peer.answer()
        if not pipelined:
            peer.send(bad)
        rest = peer.rest()
    assert first.code == 200
    assert rest.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert rest.endswith(b'{"error":"Malformed HTTP request: Invalid request line"}')


def test_a_wish_for_a_websocket_is_ignored(served: Served) -> None:
    wish = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with served.peer() as peer:
        for path, code in ((b"/livez", 200), (b"/nowhere", 404)):
            peer.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + wish + key + b"\r\n")
            assert peer.answer().code == code


def test_each_refusal_is_logged_and_counted_and_nothing_broke(served: Served) -> None:
    with served.peer() as peer:
        peer.send(b"a\x1b[31m b c\r\n\r\n")
        assert peer.last().code == 400
    last = [line for line in served.logged() if line["logger"] == "hailo_clip.api.guard"][-1]
    assert (last["level"], last["code"], last["tenant"]) == ("info", 400, "127.0.0.1")
    broker = served.broker
    broker.wait(lambda: any((e, c) == ("other", 400) for p in broker.pings for e, c, _ in p.http))
    assert not [line for line in served.logged() if line["level"] == "error"]
    assert served.healthy()


def test_a_fault_after_the_answer_has_begun_adds_nothing_to_it(served: Served) -> None:
    with served.peer() as peer:
        peer.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        assert peer.answer().code == 404  # the server now throws the rest of the body away
        peer.send(b"zz\r\n" + HIDDEN)
        assert peer.rest() == b""


@pytest.mark.parametrize(
    "body",
    [
        b'd\r\n{"text": "x"}\r\n0\r\n\r\n',
        b'00d\r\n{"text": "x"}\r\n000\r\n\r\n',
        b'D;a=b;c="d"\r\n{"text": "x"}\r\n0;e\r\nX-Trailer: y\r\n\r\n',
        b'1\r\n{\r\n4\r\n"tex\r\n8\r\nt": "x"}\r\n0\r\n\r\n',
    ],
)
def test_good_chunks_are_taken_and_the_next_request_too(served: Served, body: bytes) -> None:
    with served.peer() as peer:
        peer.send(CHUNKED + body + b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        first = peer.answer()
        assert first.code == 200
        rest = peer.rest()
        assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
        assert rest.count(b"HTTP/1.1") == 1
