"""The endpoints through the whole app: the specification's shapes, and what the client gets wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hailo_clip.api.image import decode_image
from hailo_clip.shared.tokenizer import ClipTokenizer
from tests.doubles.fake_broker import embedding_of
from tests.doubles.frontend import (
    CLASSIFY,
    DIMENSION,
    GOOD,
    MIB,
    MODEL,
    PHOTO,
    TEXT,
    Frontend,
    configured,
    jpeg,
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


def image_row() -> Any:
    return embedding_of(decode_image(jpeg(), 288, "image").tobytes(), DIMENSION)


def text_row(text: str) -> Any:
    return embedding_of(ClipTokenizer(77).encode(text).tobytes(), DIMENSION)


# The specification's answers


def test_health_is_the_specifications_and_names_the_backend(frontend: Frontend) -> None:
    result = frontend.request("GET", "/health")
    assert result.status_code == 200
    assert result.json == {
        "status": "healthy",
        "service": "hailo-clip",
        "model_loaded": True,
        "model": MODEL,
        "backend": "emulated",
    }


@pytest.mark.parametrize(
    ("state", "status"), [("starting", "starting"), ("unhealthy", "unhealthy"), ("draining", "draining")]
)
def test_health_tells_the_truth(frontend: Frontend, state: str, status: str) -> None:
    frontend.ail(state, "no worker passed its canary")
    result = frontend.request("GET", "/health")
    assert result.status_code == 503
    assert result.headers["retry-after"]
    assert result.json == {
        "status": status,
        "service": "hailo-clip",
        "model_loaded": False,
        "model": MODEL,
        "backend": "emulated",
        "reason": "no worker passed its canary",
    }
    assert frontend.request("GET", "/livez").status_code == 200
    assert frontend.request("GET", "/readyz").status_code == 503


def test_live_and_ready(frontend: Frontend) -> None:
    assert frontend.request("GET", "/livez").json == {"status": "alive"}
    ready = frontend.request("GET", "/readyz")
    assert (ready.status_code, ready.json) == (200, {"status": "ready"})


def test_classify(frontend: Frontend) -> None:
    result = frontend.post("/v1/classify", {**GOOD, "top_k": 4})
    assert result.status_code == 200
    assert set(result.json) == {"classifications", "inference_time_ms", "model"}
    assert result.json["model"] == MODEL
    assert result.json["inference_time_ms"] > 0
    scores = {text: max(0.0, float(text_row(text) @ image_row())) for text in GOOD["prompts"]}
    expected = sorted(GOOD["prompts"], key=lambda text: -scores[text])
    assert [c["text"] for c in result.json["classifications"]] == expected
    assert [c["rank"] for c in result.json["classifications"]] == [1, 2, 3, 4]
    for entry in result.json["classifications"]:
        assert entry["score"] == pytest.approx(scores[entry["text"]], abs=1e-6)


def test_top_k_is_3_by_default_and_capped_at_the_prompts(frontend: Frontend) -> None:
    assert len(frontend.post("/v1/classify", GOOD).json["classifications"]) == 3
    assert len(frontend.post("/v1/classify", {**GOOD, "top_k": 99}).json["classifications"]) == 4
    assert len(frontend.post("/v1/classify", {**GOOD, "top_k": 1}).json["classifications"]) == 1


def test_entries_under_the_threshold_are_left_out(frontend: Frontend) -> None:
    assert frontend.post("/v1/classify", {**GOOD, "threshold": 1.0}).json["classifications"] == []


def test_equal_prompts_are_sent_once_and_keep_their_order(frontend: Frontend) -> None:
    prompts = ["same", "Other", "same", "SAME ", "same"]
    result = frontend.post("/v1/classify", {"image": PHOTO, "prompts": prompts, "top_k": 9})
    submit = frontend.broker.submits[-1]
    assert submit.kinds == (0, 1, 1)
    shown = [(c["text"], c["score"]) for c in result.json["classifications"]]
    assert [text for text, _ in shown if text != "Other"] == ["same", "same", "SAME ", "same"]
    assert len({score for text, score in shown if text != "Other"}) == 1


def test_embed_image_and_its_data_uri(frontend: Frontend) -> None:
    bare = frontend.post("/v1/embed/image", {"image": PHOTO})
    assert (bare.status_code, set(bare.json)) == (200, {"embedding", "dimension", "model"})
    assert (bare.json["dimension"], bare.json["model"]) == (DIMENSION, MODEL)
    np.testing.assert_array_equal(np.array(bare.json["embedding"], dtype=np.float32), image_row())
    uri = frontend.post("/v1/embed/image", {"image": f"data:image/jpeg;base64,{PHOTO}"})
    assert uri.json == bare.json


@pytest.mark.parametrize("text", ["person wearing red shirt", "👩‍👩‍👧 nul \0", "x" * 10_000, "é" * 8192])
def test_embed_text(frontend: Frontend, text: str) -> None:
    result = frontend.post("/v1/embed/text", {"text": text})
    assert result.status_code == 200
    assert result.json["dimension"] == len(result.json["embedding"]) == DIMENSION
    np.testing.assert_array_equal(np.array(result.json["embedding"], dtype=np.float32), text_row(text))


def test_floats_are_written_as_short_as_float32_allows(frontend: Frontend) -> None:
    text = frontend.post("/v1/embed/text", {"text": "x"}).text
    digits = text.partition("[")[2].partition("]")[0].split(",")
    assert len(digits) == DIMENSION
    assert max(map(len, digits)) <= 16
    assert all(str(np.float32(d)) == str(np.float32(float(d))) for d in digits)


# What the client got wrong


BAD: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/", {}, 404, "There is no /"),
    ("GET", "/v1", {}, 404, "There is no /v1"),
    ("POST", "/v1/classify/", {}, 404, "There is no /v1/classify/"),
    ("POST", "/v1/embed", {}, 404, "There is no /v1/embed"),
    ("GET", "/" + "x" * 300, {}, 404, "There is no /" + "x" * 199),
    ("GET", CLASSIFY, {}, 405, f"GET is not allowed on {CLASSIFY}; allowed: POST, OPTIONS"),
    ("HEAD", CLASSIFY, {}, 405, ""),
    ("DELETE", TEXT, {}, 405, f"DELETE is not allowed on {TEXT}; allowed: POST, OPTIONS"),
    ("POST", "/health", {}, 405, "POST is not allowed on /health; allowed: GET, HEAD, OPTIONS"),
    ("PUT", "/livez", {}, 405, "PUT is not allowed on /livez; allowed: GET, HEAD, OPTIONS"),
    ("BREW", CLASSIFY, {}, 400, "Invalid HTTP method"),
    (
        "POST",
        TEXT,
        raw(b"text=x", "text/plain"),
        415,
        "Content-Type must be application/json, is 'text/plain'",
    ),
    (
        "POST",
        CLASSIFY,
        raw(b"a=b", "application/x-www-form-urlencoded"),
        415,
        "Content-Type must be application/json, multipart/form-data or image/*, "
        "is 'application/x-www-form-urlencoded'",
    ),
    (
        "POST",
        TEXT,
        raw(b'{"text":"x"}', "application/json; charset=utf-16"),
        415,
        "The charset of JSON must be utf-8, is 'utf-16'",
    ),
    (
        "POST",
        TEXT,
        raw(b"\x1f\x8b", **{"Content-Encoding": "gzip"}),
        415,
        "Content-Encoding 'gzip' is not supported; send none",
    ),
    ("POST", TEXT, raw(b""), 400, "The body is empty; it must be a JSON object"),
    ("POST", TEXT, raw(b"[1, 2]"), 400, "The body must be a JSON object, is an array of 2"),
    ("POST", TEXT, {"json": {"words": ["x"]}}, 400, "Missing or invalid 'text': it is missing"),
    ("POST", TEXT, {"json": {"text": None}}, 400, "Missing or invalid 'text': must be a string, is null"),
    ("POST", CLASSIFY, {"json": {"image": PHOTO}}, 400, "Missing or invalid 'prompts' array"),
    (
        "POST",
        CLASSIFY,
        {"json": {**GOOD, "prompts": ["x"] * 100_000}},
        400,
        "Missing or invalid 'prompts' array: must have 1 to 256 strings, has 100000",
    ),
    (
        "POST",
        CLASSIFY,
        {"json": {**GOOD, "threshold": "high"}},
        400,
        "Invalid 'threshold': must be a number from 0 to 1, is \"high\"",
    ),
    (
        "POST",
        CLASSIFY,
        {"json": {**GOOD, "top_k": True}},
        400,
        "Invalid 'top_k': must be an integer of at least 1, is true",
    ),
    ("POST", TEXT, raw(b" " * (MIB + 1)), 413, "The body is larger than the limit of 1 MiB"),
]


@pytest.mark.parametrize(("method", "path", "given", "code", "message"), BAD)
def test_refusals(
    frontend: Frontend, method: str, path: str, given: dict[str, Any], code: int, message: str
) -> None:
    result = frontend.request(method, path, **given)
    assert result.status_code == code
    assert result.headers["content-type"] == "application/json"
    assert result.headers["x-request-id"]
    if method != "HEAD":
        assert result.json == {"error": message}
    assert frontend.broker.submits == []


@pytest.mark.parametrize(
    "image",
    [
        "no base64 at all!",
        "aGk",
        "aGk=" + "\N{BULLET}",
        base64.b64encode(b"these are bytes, but no picture").decode(),
        base64.b64encode(jpeg()[:100]).decode(),
        "data:image/jpeg;base64,",
        "data:text/plain,hello",
    ],
)
@pytest.mark.parametrize("path", [CLASSIFY, "/v1/embed/image"])
def test_what_is_no_image_is_the_clients_fault_and_reaches_no_worker(
    frontend: Frontend, path: str, image: str
) -> None:
    result = frontend.post(path, {**GOOD, "image": image})
    assert result.status_code == 400
    assert list(result.json) == ["error"]
    assert "image" in result.json["error"]
    assert frontend.broker.submits == []


def test_options_name_the_methods(frontend: Frontend) -> None:
    result = frontend.request("OPTIONS", CLASSIFY)
    assert (result.status_code, result.headers["allow"], result.content) == (200, "POST", b"")


def test_head_is_get_without_the_body(frontend: Frontend) -> None:
    get, head = frontend.request("GET", "/health"), frontend.request("HEAD", "/health")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("kind", [None, "application/json; charset=UTF-8", "application/vnd.x+json"])
def test_json_by_any_of_its_names(frontend: Frontend, kind: str | None) -> None:
    assert frontend.request("POST", TEXT, **raw(b'{"text": "x"}', kind)).status_code == 200
