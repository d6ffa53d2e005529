"""Both clients: what they send, what they make of answers, and when they try again."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hailo_clip.api import client
from hailo_clip.api.client import (
    AsyncClient,
    Check,
    Client,
    DeadlineExceeded,
    ItemError,
    ItemFailed,
    Label,
    LabelSetSummary,
    ModelChanged,
    NotFound,
    Overloaded,
    RetryPolicy,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
)
from tests.doubles.clients import KINDS, QUICK, Service, answer, ask, refusals

pytestmark = pytest.mark.parametrize("kind", KINDS)

FILE = b"\xff\xd8 some bytes"
BASE64 = base64.b64encode(FILE).decode()
CLASSIFIED = [{"text": "a cat", "score": 0.75, "rank": 1}, {"text": "a dog", "score": 0.5, "rank": 2}]
LABELS = (Label("a cat", 0.75, 1), Label("a dog", 0.5, 2))
END = {"inference_time_ms": 12.5, "model": "demo"}
VECTOR = {"embedding": [0.6, -0.8], "dimension": 2, "model": "demo"}
LABEL_SET: dict[str, Any] = {
    "name": "ppe",
    "prompts": ["helmet", "no helmet"],
    "templates": ["a photo of {}"],
    "negative_prompts": ["a wall"],
    "dimension": 2,
    "model": "demo",
    "model_fingerprint": "f" * 64,
}
MODEL = {
    "id": "demo",
    "object": "model",
    "dimension": 384,
    "image_size": 224,
    "context_length": 128,
    "logit_scale": 20.0,
    "fingerprint": "f" * 64,
    "backend": "onnx",
    "ready": True,
}


def sent(service: Service) -> Any:
    return json.loads(service.requests[-1].content)


# Classifying


def test_an_image_and_prompts(kind: str):
    service = Service(answer({"classifications": CLASSIFIED, **END}))
    options = {"top_k": 2, "threshold": 0.25, "score_mode": "softmax", "negative_prompts": ["x"]}
    found = ask(kind, service, "classify", FILE, ("a cat", "a dog"), **options)
    assert sent(service) == {"image": BASE64, "prompts": ["a cat", "a dog"], **options}
    request = service.requests[0]
    assert (request.method, request.url.path, request.url.query) == ("POST", "/v1/classify", b"")
    assert request.headers["content-type"] == "application/json"
    assert found.labels == LABELS
    assert found.best == LABELS[0]
    assert (found.model, found.inference_time_ms) == ("demo", 12.5)
    assert (found.request_id, found.model_fingerprint) == ("r-1", "f" * 64)


def test_with_a_label_set_the_image_is_the_body(kind: str):
    service = Service(answer({"classifications": [], **END}))
    found = ask(kind, service, "classify", FILE, label_set="ppe", top_k=2, threshold=0.25)
    request = service.requests[0]
    assert (request.content, request.headers["content-type"]) == (FILE, "application/octet-stream")
    assert request.url.query == b"label_set=ppe&top_k=2&threshold=0.25"
    assert found.best is None


def test_a_list_of_images_has_a_result_or_an_error_each(kind: str):
    results = [{"classifications": CLASSIFIED}, {"error": "Missing or invalid 'images[1]': no image"}]
    service = Service(answer({"results": results, **END}))
    found = ask(kind, service, "classify_many", [FILE, b"?"], ["a cat", "a dog"], templates=["{}!"])
    assert sent(service) == {
        "images": [BASE64, base64.b64encode(b"?").decode()],
        "prompts": ["a cat", "a dog"],
        "templates": ["{}!"],
    }
    first, second = found
    assert (first.labels, first.model, first.request_id) == (LABELS, "demo", "r-1")
    assert second == ItemError(1, "Missing or invalid 'images[1]': no image")
    assert len(found) == 2


# Embeddings


def test_an_image_as_a_vector(kind: str, tmp_path: Path):
    service = Service(answer(VECTOR), answer(VECTOR))
    (tmp_path / "photo.jpg").write_bytes(FILE)
    for image in (FILE, tmp_path / "photo.jpg"):
        found = ask(kind, Service(answer(VECTOR)), "embed_image", image)
        assert found.vector.dtype == np.float32
        assert found.vector.tolist() == [np.float32(0.6), np.float32(-0.8)]
        assert not found.vector.flags.writeable
    ask(kind, service, "embed_image", str(tmp_path / "photo.jpg"))
    assert (service.requests[0].url.path, service.requests[0].content) == ("/v1/embed/image", FILE)


def test_a_text_as_a_vector(kind: str):
    service = Service(answer(VECTOR))
    assert ask(kind, service, "embed_text", "a cat").model == "demo"
    assert (service.requests[0].url.path, sent(service)) == ("/v1/embed/text", {"text": "a cat"})


def test_vectors_of_a_list_are_a_matrix_with_nan_where_an_item_failed(kind: str):
    results = [{"embedding": [0.6, -0.8]}, {"error": "no image"}]
    service = Service(answer({"results": results, "dimension": 2, "model": "demo"}))
    found = ask(kind, service, "embed_images", [FILE, b"?"])
    np.testing.assert_array_equal(found.vectors, np.array([[0.6, -0.8], [np.nan, np.nan]], np.float32))
    assert found.vectors.dtype == np.float32
    assert found.errors == (None, ItemError(1, "no image"))
    assert len(found) == 2
    with pytest.raises(ItemFailed, match="item 1: no image"):
        found.whole()


def test_texts(kind: str):
    results = [{"embedding": [1.0, 0.0]}, {"embedding": [0.0, 1.0]}]
    service = Service(answer({"results": results, "dimension": 2, "model": "demo"}))
    found = ask(kind, service, "embed_texts", ("a", "b"))
    assert sent(service) == {"texts": ["a", "b"]}
    np.testing.assert_array_equal(found.whole(), np.eye(2))


# Label sets, models, health


def test_label_sets(kind: str):
    service = Service(answer(LABEL_SET, 201))
    stored = ask(kind, service, "put_label_set", "ppe", ["helmet", "no helmet"], templates=["a photo of {}"])
    assert (service.requests[0].method, service.requests[0].url.path) == ("PUT", "/v1/label-sets/ppe")
    assert sent(service) == {"prompts": ["helmet", "no helmet"], "templates": ["a photo of {}"]}
    assert (stored.name, stored.prompts, stored.negative_prompts) == (
        "ppe",
        ("helmet", "no helmet"),
        ("a wall",),
    )
    assert ask(kind, Service(answer(LABEL_SET)), "get_label_set", "ppe") == stored
    listed = answer({"label_sets": [{"name": "ppe", "prompts": 2, "negative_prompts": 1}]})
    assert ask(kind, Service(listed), "list_label_sets") == (LabelSetSummary("ppe", 2, 1),)
    gone = Service(httpx.Response(204))
    assert ask(kind, gone, "delete_label_set", "a/b") is None
    assert (gone.requests[0].method, gone.requests[0].url.raw_path) == ("DELETE", b"/v1/label-sets/a%2Fb")
    with pytest.raises(NotFound, match="there is none"):
        ask(kind, Service(answer({"error": "there is none"}, 404)), "get_label_set", "ppe")


def test_models(kind: str):
    starting = MODEL | {"fingerprint": None, "backend": None, "ready": False}
    found, other = ask(kind, Service(answer({"object": "list", "data": [MODEL, starting]})), "models")
    assert (found.id, found.dimension, found.fingerprint, found.ready) == ("demo", 384, "f" * 64, True)
    assert (other.fingerprint, other.backend, other.ready) == ("", "", False)


def test_health_and_readiness_are_answers_also_when_they_are_bad(kind: str):
    well = {"status": "healthy", "service": "hailo-clip", "model": "demo", "backend": "onnx"}
    assert ask(kind, Service(answer(well)), "health")
    ill = {"status": "starting", "model": "demo", "backend": None, "reason": "no worker yet"}
    found = ask(kind, Service(answer(ill, 503)), "health")
    assert not found
    assert (found.status, found.backend, found.reason, found.answer) == ("starting", "", "no worker yet", ill)
    checks = [{"name": "broker", "ok": True}, {"name": "worker", "ok": False, "reason": "none"}]
    service = Service(answer({"status": "not ready", "reason": "none", "checks": checks}, 503))
    readiness = ask(kind, service, "ready")
    assert not readiness
    assert readiness.checks == (Check("broker", True), Check("worker", False, "none"))
    assert ask(kind, Service(answer({"status": "ready", "checks": []})), "ready")
    assert "verbose" in service.requests[0].url.params
    with pytest.raises(Unauthorized):
        ask(kind, Service(answer({"error": "key"}, 401)), "health")


# Headers


def test_headers_of_every_call(kind: str):
    service = Service(answer(VECTOR))
    options = {"api_key": "hc_secret", "model_fingerprint": "F" * 64}
    ask(kind, service, "embed_text", "x", options=options, deadline_s=2.0, request_id="mine")
    headers = service.requests[0].headers
    assert headers["authorization"] == "Bearer hc_secret"
    assert headers["x-require-model-fingerprint"] == "F" * 64
    assert headers["x-request-id"] == "mine"
    assert 1000 < int(headers["x-deadline-ms"]) <= 2000
    assert headers["user-agent"].startswith("hailo-clip-client/")


def test_headers_that_nobody_asked_for_are_not_sent(kind: str):
    service = Service(answer({"object": "list", "data": []}))
    ask(kind, service, "models", options={"model_fingerprint": "f" * 64})
    headers = service.requests[0].headers
    assert "authorization" not in headers
    assert "x-require-model-fingerprint" not in headers
    assert len(headers["x-request-id"]) == 16


# Errors and retries


def test_another_model_than_the_pinned_one(kind: str):
    pinned = {"model_fingerprint": "a" * 64}
    conflict = Service(answer({"error": "asks for aaa, served is fff"}, 409))
    with pytest.raises(ModelChanged, match="served is fff"):
        ask(kind, conflict, "embed_text", "x", options=pinned)
    assert len(conflict.requests) == 1
    # also where a proxy dropped the header that asks for it
    with pytest.raises(ModelChanged, match=f"the answer is from {'f' * 64}"):
        ask(kind, Service(answer(VECTOR)), "embed_text", "x", options=pinned)


@pytest.mark.parametrize("fault", ["refused", 429, 503])
def test_it_is_sent_again_until_it_is_answered(kind: str, fault: str | int):
    if isinstance(fault, int):
        faults: list[Any] = list(refusals(2, fault))
    else:
        faults = [httpx.ConnectError("refused"), httpx.RemoteProtocolError("gone")]
    service = Service(*faults, answer(VECTOR))
    assert ask(kind, service, "embed_image", FILE).model == "demo"
    assert [request.content for request in service.requests] == [FILE] * 3
    assert len({request.headers["x-request-id"] for request in service.requests}) == 1


def test_it_gives_up_with_the_last_error(kind: str):
    service = Service(*refusals(9))
    with pytest.raises(Overloaded, match="not now") as caught:
        ask(kind, service, "embed_text", "x")
    assert len(service.requests) == 3
    assert (caught.value.status, caught.value.request_id, caught.value.retry_after_s) == (429, "r-1", 0.0)


def test_it_does_not_wait_for_what_comes_after_the_deadline(kind: str):
    service = Service(answer({"error": "not now"}, 503, {"retry-after": "30"}), answer(VECTOR))
    began = time.monotonic()
    with pytest.raises(client.Unavailable):
        ask(kind, service, "embed_text", "x", deadline_s=20.0)
    assert len(service.requests) == 1
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"embedding": 3, "dimension": 2, "model": "m"}',
        b'{"embedding": [1, 2, 3], "dimension": 2, "model": "m"}',
        b'{"embedding": [1, "x"], "dimension": 2, "model": "m"}',
    ],
)
def test_an_answer_that_is_not_the_services(kind: str, body: bytes):
    with pytest.raises(UnexpectedAnswer, match="is no hailo-clip service"):
        ask(kind, Service(httpx.Response(200, content=body)), "embed_text", "x")


def test_a_redirect_is_not_followed(kind: str):
    service = Service(httpx.Response(307, headers={"location": "http://elsewhere/"}))
    with pytest.raises(UnexpectedAnswer, match="307"):
        ask(kind, service, "embed_text", "x", options={"api_key": "hc_secret"})


# Arguments


def test_arguments_that_cannot_be_sent(kind: str):
    nobody = Service()
    with pytest.raises(TypeError, match="prompts must be a list of strings, is the string 'a cat'"):
        ask(kind, nobody, "classify", FILE, "a cat")
    with pytest.raises(TypeError, match="unexpected keyword argument 'topk'"):
        ask(kind, nobody, "classify", FILE, ["a cat"], topk=2)
    with pytest.raises(ValueError, match="prompts has a text that is not valid Unicode"):
        ask(kind, nobody, "classify", FILE, ["fine", "\ud800"])
    with pytest.raises(FileNotFoundError):
        ask(kind, nobody, "embed_image", "/nonexistent/x.jpg")
    with pytest.raises(ValueError, match="can't be named"):
        ask(kind, nobody, "get_label_set", "..")
    assert nobody.requests == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "localhost:5000"}, "is not a URL such as"),
        ({"url": "ftp://x"}, "is not a URL such as"),
        ({"url": "http://a\nb"}, "is not a URL such as"),
        ({"url": "http://x/?a=b"}, "is not a URL such as"),
        ({"api_key": "hc_\r\nx: y"}, "api_key must be printable"),
        ({"api_key": ""}, "api_key must be printable"),
        ({"deadline_s": 0}, "deadline_s must be above 0"),
    ],
)
def test_settings_that_cannot_be(kind: str, options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        ask(kind, Service(), "health", options=options)


# What needs a socket


class Slow(BaseHTTPRequestHandler):
    """Sends the headers at once, then a byte of the body now and then."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def real(kind: str, url: str, **options: Any) -> Any:
    if kind == "sync":
        with Client(url, **options) as asked:
            return asked.embed_text("x")

    async def run() -> Any:
        async with AsyncClient(url, **options) as asked:
            return await asked.embed_text("x")

    return asyncio.run(run())


def test_an_answer_that_trickles_in_ends_at_the_deadline(kind: str, slow: str):
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.3 s"):
        real(kind, slow, deadline_s=0.3)
    assert time.monotonic() - began < 3


def test_nobody_there(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # never taken to this machine itself
    with pytest.raises(Unreachable, match=r"no service answers at http://127\.0\.0\.1:9: .*[Cc]onnect"):
        real(kind, "http://127.0.0.1:9/", retry=QUICK)


# Both alike, and light


def test_both_clients_take_the_same(kind: str):
    if kind == "sync":
        here, there = Client, AsyncClient
    else:
        here, there = AsyncClient, Client  # type: ignore[assignment]
    names = {name for name, _ in inspect.getmembers(here, inspect.isfunction) if not name.startswith("_")}
    assert names
    for name in names:
        assert inspect.signature(getattr(here, name)) == inspect.signature(getattr(there, name)), name


def test_the_client_loads_none_of_the_servers_libraries(kind: str):
    name = "Client" if kind == "sync" else "AsyncClient"
    heavy = "falcon", "gunicorn", "zmq", "uvloop", "tokenizers", "PIL", "msgpack", "yaml"
    code = (
        f"import sys; from hailo_clip.api.client import {name}; {name}(); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_patience_of_a_client_is_its_owners(kind: str):
    service = Service(*refusals(9))
    with pytest.raises(Overloaded):
        ask(kind, service, "embed_text", "x", options={"retry": RetryPolicy(attempts=1)})
    assert len(service.requests) == 1
