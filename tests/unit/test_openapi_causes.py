"""Every cause of a status code in the OpenAPI document, brought about: code, words, shape, headers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from hailo_clip.api import openapi_examples
from hailo_clip.api.app import create_app
from hailo_clip.api.docs_resource import facts_of
from hailo_clip.api.openapi_causes import Cause, causes
from hailo_clip.shared.config import Config
from tests.doubles.fake_broker import FakeBroker
from tests.doubles.frontend import CLASSIFY, GOOD, MODEL, TEXT, Frontend, configured, http_scope, raw
from tests.doubles.served import Served, serving

X = {"text": "x"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as frontend:
        yield frontend


@pytest.fixture
def frontend(shared: Frontend) -> Iterator[Frontend]:
    yield shared
    shared.mend()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("guard.HEAD_S=1.0") as running:
        yield running


def by_name(frontend: Frontend) -> dict[str, Cause]:
    return {cause.name: cause for cause in causes(facts_of(frontend.app.service))}


def refused(code: str, words: str, retry: float | None = 2.0) -> Callable[[Frontend], Any]:
    """A request that the broker refuses."""

    def ask(frontend: Frontend) -> Any:
        frontend.broker.answer = frontend.broker.refuse((code, words, retry))
        return frontend.post(TEXT, X)

    return ask


def failed(frontend: Frontend) -> Any:
    frontend.broker.answer = lambda submit: frontend.broker.fail_items(
        submit, [("inference_failed", "why", None)]
    )
    return frontend.post("/v1/embed/image", {"image": GOOD["image"]})


def starting(frontend: Frontend) -> Any:
    frontend.ail("starting", "loading")
    return frontend.post(TEXT, X)


def full(frontend: Frontend) -> Any:
    budget = frontend.app.service.budget
    tenant, held = "local", budget.limit // 2
    budget.take(tenant, held)
    try:
        return frontend.post(TEXT, X)
    finally:
        budget.give(tenant, held)


def cut_off(frontend: Frontend) -> Any:
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    return sent(frontend.asgi(http_scope("POST", TEXT, {"Content-Length": "9"}), events))


def bad_query(frontend: Frontend) -> Any:
    scope = http_scope("GET", "/livez") | {"query_string": b"a=\xff"}
    return sent(frontend.asgi(scope, [{"type": "http.request", "body": b"", "more_body": False}]))


class sent:  # noqa: N801  (reads like a value)
    """What went out over plain ASGI, as a client would see it."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.status_code = events[0]["status"]
        self.headers = {k.decode().lower(): v.decode() for k, v in events[0]["headers"]}
        self.json = json.loads(events[1]["body"])


def broken(frontend: Frontend) -> Any:
    """A fault of ours, far inside."""
    intake = frontend.app.service.intake
    whole, intake._tokenizer = intake._tokenizer, None  # type: ignore[assignment]
    try:
        return frontend.post(
            TEXT, {"text": "never seen before"}, headers={"X-Request-Id": "4bf92f3577b34da6"}
        )
    finally:
        intake._tokenizer = whole


ASKED: dict[str, Callable[[Frontend], Any]] = {
    "field": lambda f: f.post(CLASSIFY, {"image": GOOD["image"]}),
    "body": lambda f: f.request("POST", TEXT, **raw(b"")),
    "parameter": lambda f: f.post("/v1/embeddings", {"model": MODEL}),
    "query": bad_query,
    "path": lambda f: f.request("GET", "/v1/embed"),
    "label-set": lambda f: f.request("GET", "/v1/label-sets/ppe"),
    "model": lambda f: f.post("/v1/embeddings", {"model": "clip", "input": "x"}),
    "method": lambda f: f.request("GET", CLASSIFY),
    "slow-body": cut_off,
    "fingerprint": lambda f: f.post(TEXT, X, headers={"X-Require-Model-Fingerprint": "0" * 32}),
    "large-body": lambda f: f.request("POST", TEXT, **raw(b" " * ((1 << 20) + 1))),
    "media-type": lambda f: f.request("POST", TEXT, **raw(b"x", "text/plain")),
    "queue-full": refused("queue_full", "10 requests wait, at most 10 may"),
    "too-late": refused(
        "deadline_unreachable", "the estimated wait of 4.2 s is beyond the deadline of 1.5 s"
    ),
    "many-bodies": full,
    "many-sets": lambda f: f.request("PUT", "/v1/label-sets/one-more", json={"prompts": ["x"]}),
    "inference": failed,
    "internal": broken,
    "starting": starting,
    "not-stored": lambda f: f.request("DELETE", "/v1/label-sets/ppe"),
    "deadline": refused(
        "deadline_exceeded", "the deadline passed after 30.0 s, while waiting in the queue", None
    ),
}

HEAD = b"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\n"
BYTES: dict[str, bytes] = {
    "malformed": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "slow-head": HEAD,
    "long-line": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "large-head": HEAD + b"X: " + b"y" * 9000 + b"\r\n\r\n",
    "coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
}
KEPT: dict[str, tuple[str, float | None]] = {"many-sets": ("limit", None), "not-stored": ("unavailable", 5.0)}
"""What the broker refuses of label sets: code and seconds."""

ELSEWHERE = {
    "key": "tests/unit/test_auth.py",
    "connections": "tests/integration/test_edge_limits.py",
}


def numbers_aside(text: str) -> str:
    """`text` with numbers and fingerprints, which differ, as signs."""
    return re.sub(r"[0-9a-f]{32}|[0-9]+(\.[0-9]+)?", "#", text)


@pytest.mark.parametrize("name", ASKED)
def test_what_the_app_answers(frontend: Frontend, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = by_name(frontend)[name]
    if name in KEPT:
        code, retry = KEPT[name]
        monkeypatch.setattr(frontend.broker.labels, "refusal", (code, cause.message, retry))
    answer = ASKED[name](frontend)
    assert answer.status_code == cause.status
    assert answer.headers["x-request-id"]
    shape = "OpenAIProblem" if name in ("parameter", "model") else "Problem"
    said, found = cause.body(shape), answer.json
    if shape == "OpenAIProblem":
        wanted = "model" if name == "model" else "input"
        assert {**found["error"], "param": None} == {**said["error"], "param": None}
        assert found["error"]["param"] == wanted
    else:
        assert found.keys() == said.keys()
        assert numbers_aside(found["error"]) == numbers_aside(said["error"])
    if cause.retry == "yes, after Retry-After":
        assert int(answer.headers["retry-after"]) >= 1
    if cause.status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("name", BYTES)
def test_what_the_server_answers(served: Served, frontend: Frontend, name: str) -> None:
    cause = by_name(frontend)[name]
    with served.peer() as peer:
        peer.send(BYTES[name])
        answer = peer.last()
    assert (answer.code, answer.json) == (cause.status, cause.body("Problem"))
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_brought_about_elsewhere(frontend: Frontend, name: str) -> None:
    file = Path(__file__).parent.parent.parent / ELSEWHERE[name]
    assert by_name(frontend)[name].message[:30] in file.read_text()


def test_no_cause_is_left_out(frontend: Frontend) -> None:
    assert by_name(frontend).keys() == ASKED.keys() | BYTES.keys() | ELSEWHERE.keys()


def test_without_a_broker_the_examples_of_health_hold() -> None:
    async def ask(config: Config) -> list[Any]:
        answers: list[Any] = []
        async with testing.ASGIConductor(create_app(config)) as conductor:
            answers += [await conductor.simulate_get(path) for path in ("/health", "/readyz")]
        return answers

    with configured() as config, FakeBroker(config) as broker:
        broker.answers_pings = False
        health, ready = asyncio.run(ask(config))
    said = openapi_examples.UNHEALTHY["starting"]["value"]
    assert (health.status_code, health.json) == (503, {**said, "model": MODEL})
    assert (ready.status_code, ready.json) == (503, openapi_examples.NOT_READY["starting"]["value"])
