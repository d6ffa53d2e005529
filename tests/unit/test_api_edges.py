"""The app where things go wrong that no client is to blame for, and what surrounds every request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hailo_clip.api.auth import Door
from hailo_clip.shared.errors import Draining
from hailo_clip.shared.messages import Reply, WireError
from tests.doubles.frontend import (
    CLASSIFY,
    GOOD,
    MIB,
    POSTS,
    TEXT,
    Frontend,
    configured,
    http_scope,
    raw,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as frontend:
        yield frontend


@pytest.fixture
def frontend(shared: Frontend) -> Iterator[Frontend]:
    """The module's frontend; its broker is mended afterwards."""
    yield shared
    shared.mend()


# What the service got wrong, or cannot do now


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("starting", "the service is starting: loading"),
        ("unhealthy", "the service cannot answer now: loading"),
        ("draining", "the service is shutting down"),
    ],
)
def test_while_it_is_not_ready_the_service_says_so_before_it_reads_the_body(
    frontend: Frontend, state: str, message: str
) -> None:
    frontend.ail(state, "loading")
    for path in POSTS:
        result = frontend.request("POST", path, **raw(b"this is no JSON"))
        assert (result.status_code, result.json) == (503, {"error": message})
        assert int(result.headers["retry-after"]) >= 1
    assert frontend.request("POST", TEXT, **raw(b"x", "text/plain")).status_code == 415


@pytest.mark.parametrize(
    ("error", "code", "retry_after"),
    [
        (("queue_full", "10 requests wait", 2.2), 429, "3"),
        (("deadline_unreachable", "the queue is 40 s long", 0.01), 429, "1"),
        (("unavailable", "no worker is ready", 5.0), 503, "5"),
        (("draining", "the service is shutting down", 5.0), 503, "5"),
        (("model_mismatch", "another model", None), 503, None),
        (("deadline_exceeded", "no answer within 30 s", None), 504, None),
        (("internal", "something broke", None), 500, None),
        (("never-heard-of", "news", None), 500, None),
    ],
)
def test_what_the_broker_refuses(
    frontend: Frontend, error: WireError, code: int, retry_after: str | None
) -> None:
    frontend.broker.answer = frontend.broker.refuse(error)
    result = frontend.post(TEXT, {"text": "x"})
    assert (result.status_code, result.json) == (code, {"error": error[1]})
    assert result.headers.get("retry-after") == retry_after


FAILED: WireError = ("inference_failed", "Traceback: secret paths", None)


@pytest.mark.parametrize(
    ("path", "errors", "message"),
    [
        (CLASSIFY, [FAILED, None, None, None, None], "Failed to encode image"),
        (CLASSIFY, [None, None, FAILED, None, None], "Failed to encode text"),
        ("/v1/embed/image", [FAILED], "Failed to encode image"),
        (TEXT, [FAILED], "Failed to encode text"),
    ],
)
def test_a_failed_item_is_a_500_in_the_specifications_words(
    frontend: Frontend, path: str, errors: list[WireError | None], message: str
) -> None:
    frontend.broker.answer = lambda submit: frontend.broker.fail_items(submit, errors)
    result = frontend.post(path, {**GOOD, "text": "x"})
    assert (result.status_code, result.json) == (500, {"error": message})


def test_a_reply_that_does_not_fit_the_request_is_a_500(frontend: Frontend) -> None:
    frontend.broker.answer = lambda submit: [Reply(submit.request_id, (None,) * 9, 0.0, 0.0, 0, ())]
    result = frontend.post(TEXT, {"text": "x"})
    assert result.status_code == 500
    assert result.json == {"error": "the broker answered 9 items instead of 1"}


class Broken:
    """A resource with a bug in it."""

    async def on_get(self, req: object, resp: object) -> None:
        raise ZeroDivisionError("a secret")


def test_an_unexpected_error_is_a_500_without_its_story(
    frontend: Frontend, caplog: pytest.LogCaptureFixture
) -> None:
    frontend.app.add_route("/broken", Broken())
    result = frontend.request("GET", "/broken", headers={"X-Request-Id": "abc"})
    assert (result.status_code, result.json) == (500, {"error": "Internal error, request id abc"})
    assert "ZeroDivisionError: a secret" in caplog.text


# Around the requests


def test_what_is_refused_at_the_door_says_when_to_come_again(
    frontend: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise Draining("no keys at hand", retry_after_s=2.2)

    monkeypatch.setattr(Door, "admit", busy)
    result = frontend.post(TEXT, {"text": "x"})
    assert (result.status_code, result.json) == (503, {"error": "no keys at hand"})
    assert result.headers["retry-after"] == "3"


@pytest.mark.parametrize("given", ["abc-123", "x" * 128, "a.b_c~d:e/f+g=h@i"])
def test_a_sane_request_id_is_kept_and_travels_to_the_broker(frontend: Frontend, given: str) -> None:
    result = frontend.post(TEXT, {"text": "x"}, headers={"X-Request-Id": given})
    assert result.headers["x-request-id"] == given
    assert frontend.broker.submits[-1].trace == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", 'a"b', "a\tb", "\u00e9"])
def test_any_other_request_id_is_replaced(frontend: Frontend, given: str) -> None:
    headers = [(b"x-request-id", given.encode("latin-1"))]
    scope = http_scope("GET", "/livez", headers=None) | {"headers": headers}
    start = frontend.asgi(scope, [{"type": "http.request", "body": b"", "more_body": False}])[0]
    assert len(dict(start["headers"])[b"x-request-id"]) == 16


def test_server_timing_shows_where_the_time_went(frontend: Frontend) -> None:
    result = frontend.post(CLASSIFY, GOOD)
    stages = dict(stage.split(";dur=") for stage in result.headers["server-timing"].split(", "))
    assert list(stages) == ["receive", "decode", "queue", "device"]
    total = sum(map(float, stages.values())) - float(stages["receive"])
    assert result.json["inference_time_ms"] == pytest.approx(total, abs=0.1)


def test_counts_are_reported_by_route_and_code(frontend: Frontend) -> None:
    frontend.post(TEXT, {"text": "x"})
    frontend.request("GET", "/nowhere/1")
    frontend.broker.pulse()

    def reported(endpoint: str, code: int) -> Callable[[], bool]:
        return lambda: any((endpoint, code) == (e, c) for p in frontend.broker.pings for e, c, _ in p.http)

    frontend.broker.wait(reported(TEXT, 200))
    frontend.broker.wait(reported("other", 404))


def test_a_chunked_body_is_bounded_while_it_is_read(frontend: Frontend) -> None:
    chunk = {"type": "http.request", "body": b" " * (MIB // 2), "more_body": True}
    scope = http_scope("POST", TEXT, {"Transfer-Encoding": "chunked"})
    last = {"type": "http.request", "body": b"", "more_body": False}
    start, body = frontend.asgi(scope, [chunk, chunk, chunk, last])
    assert start["status"] == 413
    assert json.loads(body["body"]) == {"error": "The body is larger than the limit of 1 MiB"}
    assert frontend.app.service.budget.held == 0


def test_a_body_that_is_cut_off_is_no_shorter_body(frontend: Frontend) -> None:
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"text": "x"}', "more_body": True},
        {"type": "http.disconnect"},
    ]
    start, body = frontend.asgi(http_scope("POST", TEXT, {"Content-Length": "20"}), events)
    assert start["status"] == 408
    assert json.loads(body["body"]) == {"error": "The body stopped before its end"}
    assert frontend.broker.submits == []


def test_a_query_that_is_not_ascii_is_a_400(frontend: Frontend) -> None:
    scope = http_scope("GET", "/livez") | {"query_string": b"a=\xff"}
    start, body = frontend.asgi(scope, [{"type": "http.request", "body": b"", "more_body": False}])
    assert (start["status"], json.loads(body["body"])) == (
        400,
        {"error": "The query must be percent-encoded"},
    )


def test_websockets_are_refused(frontend: Frontend) -> None:
    scope = http_scope("GET", "/health") | {"type": "websocket"}
    assert frontend.asgi(scope, [{"type": "websocket.connect"}]) == [
        {"type": "websocket.close", "code": 1003}
    ]


def test_too_many_large_bodies_at_once_are_a_429(frontend: Frontend) -> None:
    budget = frontend.app.service.budget
    halves = {"one": budget.limit // 2, "other": budget.limit // 2 - 5}
    for tenant, size in halves.items():
        budget.take(tenant, size)
    result = frontend.post(TEXT, {"text": "x"})
    held = f"request bodies hold {budget.limit - 5} bytes, at most {budget.limit} may"
    assert (result.status_code, result.json) == (429, {"error": held})
    assert result.headers["retry-after"] == "1"
    for tenant, size in halves.items():
        budget.give(tenant, size)
    assert frontend.post(TEXT, {"text": "x"}).status_code == 200
