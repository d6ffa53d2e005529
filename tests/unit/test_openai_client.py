"""OpenAI's own client against real frontends: its answers, its typed exceptions, its retries."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import openai
import pytest

from hailo_clip.api.image import decode_image
from hailo_clip.ops import keys
from hailo_clip.shared.config import Auth
from hailo_clip.shared.messages import Submit, ToFrontend
from hailo_clip.shared.tokenizer import ClipTokenizer
from tests.doubles.api_server import Served, serving
from tests.doubles.fake_broker import embedding_of
from tests.doubles.frontend import DIMENSION, MODEL, PHOTO, jpeg, until

URI = f"data:image/jpeg;base64,{PHOTO}"


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    """The module's frontend; its broker is mended afterwards."""
    yield running
    broker = running.broker
    broker.answer, broker.state, broker.reason = broker.embed, "ready", ""
    broker.pulse()
    until(running.healthy)


def client_of(served: Served, retries: int = 0, key: str = "none needed") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key=key, max_retries=retries)


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with client_of(served) as made:
        yield made


def text_row(text: str) -> npt.NDArray[np.float32]:
    return embedding_of(ClipTokenizer(77).encode(text).tobytes(), DIMENSION)


def image_row() -> npt.NDArray[np.float32]:
    return embedding_of(decode_image(jpeg(), 288, "image").tobytes(), DIMENSION)


def rows(answer: openai.types.CreateEmbeddingResponse) -> npt.NDArray[np.float32]:
    assert [entry.index for entry in answer.data] == list(range(len(answer.data)))
    assert {entry.object for entry in answer.data} == {"embedding"}
    return np.array([entry.embedding for entry in answer.data], dtype=np.float32)


# Answers


def test_a_text(client: openai.OpenAI) -> None:
    """The client asks for base64 and decodes it by itself."""
    answer = client.embeddings.create(model=MODEL, input="person wearing red shirt")
    assert (answer.object, answer.model) == ("list", MODEL)
    np.testing.assert_array_equal(rows(answer), [text_row("person wearing red shirt")])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (6, 6)  # 4 words, start and end


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_both_encodings_carry_the_same_bits(client: openai.OpenAI, encoding: Any) -> None:
    answer = client.embeddings.create(
        model=MODEL, input=["a", "b", "a"], encoding_format=encoding, dimensions=DIMENSION, user="u"
    )
    if encoding == "base64":  # asked for: the client hands it on as it came
        raw = [base64.b64decode(cast(str, entry.embedding)) for entry in answer.data]
        found = np.frombuffer(b"".join(raw), "<f4").reshape(3, DIMENSION)
    else:
        found = rows(answer)
    np.testing.assert_array_equal(found, [text_row("a"), text_row("b"), text_row("a")])
    assert answer.usage.prompt_tokens == 9


def test_images_and_texts_keep_their_order(client: openai.OpenAI) -> None:
    mixed: Any = ["a", URI, {"type": "text", "text": "b"}, {"type": "image_url", "image_url": {"url": URI}}]
    answer = client.embeddings.create(model=MODEL, input=mixed)
    np.testing.assert_array_equal(rows(answer), [text_row("a"), image_row(), text_row("b"), image_row()])
    assert answer.usage.total_tokens == 6  # images have none


def test_long_texts_count_as_they_were_cut(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model=MODEL, input="word " * 500).usage.prompt_tokens == 77


def test_by_the_asynchronous_client(served: Served) -> None:
    async def ask() -> openai.types.CreateEmbeddingResponse:
        url = f"http://127.0.0.1:{served.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
            return await client.embeddings.create(model=MODEL, input=["a"] * 256)

    np.testing.assert_array_equal(rows(asyncio.run(ask())), [text_row("a")] * 256)


def test_headers_tell_where_it_came_from(client: openai.OpenAI, served: Served) -> None:
    raw = client.embeddings.with_raw_response.create(
        model=MODEL, input="x", extra_headers={"X-Request-Id": "my-id"}
    )
    assert raw.headers["x-request-id"] == "my-id"
    assert raw.headers["x-model-fingerprint"] == served.broker.fingerprint
    assert "device;dur=" in raw.headers["server-timing"]


def test_models(client: openai.OpenAI, served: Served) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by, model.created) == (MODEL, "model", "hailo-clip", 0)
    assert client.models.retrieve(MODEL) == model
    more = cast(dict[str, Any], model.model_extra)
    assert more.pop("title") and "licence" in more
    del more["licence"]
    assert more == {
        "dimension": DIMENSION,
        "image_size": 288,
        "context_length": 77,
        "logit_scale": 100.0,
        "fingerprint": served.broker.fingerprint,
        "backend": "emulated",
        "ready": True,
    }
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.body == f"The model 'gpt-9' is not served here; this service has '{MODEL}'"


# Errors


def test_a_model_that_is_not_served(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="text-embedding-3-small", input="x")
    error = caught.value
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "invalid_request_error")
    assert error.request_id


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([101, 2023, 102], "'input': token ids are not taken"),
        ([[101, 2023], [102]], r"'input\[0\]': token ids are not taken"),
        ([], "must have 1 to 256 entries, has 0"),
        ("", "must not be blank"),
        (
            [{"type": "image_url", "image_url": {"url": "https://example.org/x.jpg"}}],
            "URLs are not fetched",
        ),
        (["x", "data:image/jpeg;base64,aGk="], r"'input\[1\]'"),
        (["x", "data:image/jpeg;base64,?"], r"'input\[1\]': it is not valid base64"),
    ],
)
def test_a_wrong_input(client: openai.OpenAI, served: Served, given: Any, message: str) -> None:
    served.broker.submits.clear()
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.embeddings.create(model=MODEL, input=given)
    assert (caught.value.param, caught.value.type) == ("input", "invalid_request_error")
    assert served.broker.submits == []


def test_a_dimension_that_the_model_does_not_have(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="have 640 and are not cut, is 256") as caught:
        client.embeddings.create(model=MODEL, input="x", dimensions=256)
    assert caught.value.param == "dimensions"


def test_a_body_over_the_limit(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than the limit of 1 MiB") as caught:
        client.embeddings.create(model=MODEL, input=["x" * 10_000] * 200)
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


def test_another_fingerprint_than_required(client: openai.OpenAI) -> None:
    with pytest.raises(openai.ConflictError) as caught:
        client.embeddings.create(
            model=MODEL, input="x", extra_headers={"X-Require-Model-Fingerprint": "0" * 32}
        )
    assert caught.value.code == "fingerprint_conflict"


def test_another_fingerprint_than_required_is_asked_for_once(served: Served) -> None:
    """By itself the client repeats a 409."""
    answers: list[int] = []

    def note(response: Any) -> None:
        answers.append(response.status_code)

    with client_of(served, retries=2) as client, pytest.raises(openai.ConflictError) as caught:
        client._client.event_hooks["response"].append(note)
        client.embeddings.create(
            model=MODEL, input="x", extra_headers={"X-Require-Model-Fingerprint": "0" * 32}
        )
    assert answers == [409]
    assert caught.value.response.headers["x-should-retry"] == "false"
    headers = {"Content-Type": "application/json", "X-Require-Model-Fingerprint": "0" * 32}
    status, _, others = served.request("POST", "/v1/embed/text", '{"text": "x"}', headers)
    assert status == 409
    assert "x-should-retry" not in {name.lower() for name in others}


def test_an_encoder_that_fails(client: openai.OpenAI, served: Served) -> None:
    def fail(submit: Submit) -> Sequence[ToFrontend]:
        return served.broker.fail_items(submit, [None, ("inference_failed", "secret", None)])

    served.broker.answer = fail
    with pytest.raises(openai.InternalServerError, match="Failed to encode text") as caught:
        client.embeddings.create(model=MODEL, input=["a", "b"])
    assert (caught.value.code, caught.value.type) == ("inference_failed", "server_error")


def test_a_service_that_is_not_ready(client: openai.OpenAI, served: Served) -> None:
    served.broker.state, served.broker.reason = "unhealthy", "no worker"
    served.broker.pulse()
    until(lambda: not served.healthy())
    with pytest.raises(openai.InternalServerError, match="no worker") as caught:
        client.embeddings.create(model=MODEL, input="x")
    assert (caught.value.status_code, caught.value.code) == (503, "unavailable")
    assert caught.value.response.headers["retry-after"] == "2"


def test_what_is_no_json_or_no_post_has_the_shape_too(served: Served) -> None:
    for method, body, code in (("POST", "{", 400), ("GET", None, 405), ("POST", "x" * 2_000_000, 413)):
        headers = {"Content-Type": "application/json"} if body else {}
        status, value, _ = served.request(method, "/v1/embeddings", body, headers)
        assert status == code
        assert set(value["error"]) == {"message", "type", "param", "code"}
        assert value["error"]["type"] == "invalid_request_error"
    status, value, _ = served.request("POST", "/v1/embeddings", "{}", {"Content-Type": "text/plain"})
    assert (status, value["error"]["code"]) == (415, "unsupported_media_type")


# Retries


def test_a_full_queue_is_tried_again_after_the_time_that_it_names(served: Served) -> None:
    broker = served.broker
    times: list[float] = []

    def answer(submit: Submit) -> Sequence[ToFrontend]:
        times.append(time.monotonic())
        refuse = broker.refuse(("queue_full", "10 requests wait, at most 10 may", 1.3))
        return refuse(submit) if len(times) == 1 else broker.embed(submit)

    broker.answer = answer
    with client_of(served, retries=1) as client:
        assert len(client.embeddings.create(model=MODEL, input="x").data) == 1
    assert len(times) == 2
    assert 2.0 <= times[1] - times[0] < 3.0  # Retry-After: 2, whole seconds


def test_a_queue_that_stays_full_is_a_rate_limit_error(served: Served) -> None:
    served.broker.answer = served.broker.refuse(("queue_full", "10 requests wait, at most 10 may", 1.0))
    with client_of(served) as client, pytest.raises(openai.RateLimitError) as caught:
        client.embeddings.create(model=MODEL, input="x")
    assert (caught.value.code, caught.value.type) == ("queue_full", "rate_limit_error")
    assert caught.value.response.headers["retry-after"] == "1"


# Keys


def test_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    key, _ = keys.create(file, "door", "cameras", None, False)
    with serving(change=lambda config: replace(config, auth=Auth(keys_file=file))) as served:
        with client_of(served, key="hc_wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
            client.embeddings.create(model=MODEL, input="x")
        assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")
        with client_of(served, key=key) as client:
            assert len(client.embeddings.create(model=MODEL, input="x").data) == 1
        assert served.broker.submits[-1].tenant == "cameras"
