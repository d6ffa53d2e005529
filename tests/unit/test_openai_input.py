"""Bodies of POST /v1/embeddings, and its errors' shape."""

from __future__ import annotations

from typing import Any

import pytest

from hailo_clip.api.fields import MAX_PROMPT_BYTES, Picture
from hailo_clip.api.openai_errors import InvalidParameter, openai_error, openai_shape
from hailo_clip.api.openai_input import EmbeddingsRequest, embeddings_request
from hailo_clip.shared.errors import BodyTooLarge, Draining, QueueFull, Unauthorized

D = 640
URI = "data:image/jpeg;base64,AAAA"
TOKENS = "token ids are not taken, those of another model mean nothing to this one; send text"
ENTRY = 'must be a string, {"type": "text", "text": ...} or ' + (
    '{"type": "image_url", "image_url": {"url": "data:..."}}; is '
)


def parsed(**body: Any) -> EmbeddingsRequest:
    return embeddings_request({"model": "m", **body}, "m", D)


def part(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


GOOD: list[tuple[Any, tuple[str | Picture, ...]]] = [
    ("a cat", ("a cat",)),
    (["a cat"], ("a cat",)),
    (["a", "b", "a"], ("a", "b", "a")),
    (["x"] * 256, ("x",) * 256),
    (URI, (Picture("input", URI),)),
    ("DATA:Image/png;base64,AA", (Picture("input", "DATA:Image/png;base64,AA"),)),
    (["a", URI, part(URI)], ("a", Picture("input[1]", URI), Picture("input[2].image_url.url", URI))),
    (part(URI), (Picture("input.image_url.url", URI),)),
    ({"type": "text", "text": "a"}, ("a",)),
    ([{"type": "text", "text": URI}], (URI,)),  # marked as text: it is one
    ("https://example.org/cat.jpg", ("https://example.org/cat.jpg",)),
    ("x" * MAX_PROMPT_BYTES, ("x" * MAX_PROMPT_BYTES,)),
]


@pytest.mark.parametrize(("given", "inputs"), GOOD)
def test_inputs(given: Any, inputs: tuple[str | Picture, ...]) -> None:
    assert parsed(input=given) == EmbeddingsRequest(inputs, "float")


@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}, {"encoding_format": None}])
@pytest.mark.parametrize("dimensions", [{}, {"dimensions": D}, {"dimensions": None}, {"dimensions": 640.0}])
def test_options_that_change_nothing(more: dict[str, Any], dimensions: dict[str, Any]) -> None:
    assert parsed(input="x", user="someone", **more, **dimensions) == EmbeddingsRequest(("x",), "float")


def test_base64() -> None:
    assert parsed(input="x", encoding_format="base64").encoding == "base64"


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "Missing or invalid 'input': it is missing"),
    ({"input": None}, "input", "Missing or invalid 'input': it is missing"),
    ({"input": []}, "input", "Missing or invalid 'input': must have 1 to 256 entries, has 0"),
    ({"input": ["x"] * 257}, "input", "Missing or invalid 'input': must have 1 to 256 entries, has 257"),
    ({"input": ""}, "input", "Missing or invalid 'input': must not be blank"),
    ({"input": ["a", " \n"]}, "input", "Missing or invalid 'input[1]': must not be blank"),
    ({"input": ["a", None]}, "input", f"Missing or invalid 'input[1]': {ENTRY}null"),
    ({"input": 7}, "input", f"Missing or invalid 'input': {ENTRY}7"),
    ({"input": True}, "input", f"Missing or invalid 'input': {ENTRY}true"),
    ({"input": [True]}, "input", f"Missing or invalid 'input[0]': {ENTRY}true"),
    ({"input": {}}, "input", f"Missing or invalid 'input': {ENTRY}an object"),
    ({"input": {"type": "input_audio"}}, "input", f"Missing or invalid 'input': {ENTRY}an object"),
    ({"input": [["a"]]}, "input", f"Missing or invalid 'input[0]': {ENTRY}an array of 1"),
    ({"input": [[]]}, "input", f"Missing or invalid 'input[0]': {ENTRY}an array of 0"),
    ({"input": [1, 2, 3]}, "input", f"Missing or invalid 'input': {TOKENS}"),
    ({"input": [[1, 2], [3]]}, "input", f"Missing or invalid 'input[0]': {TOKENS}"),
    ({"input": ["a", [3]]}, "input", f"Missing or invalid 'input[1]': {TOKENS}"),
    (
        {"input": ["x" * (MAX_PROMPT_BYTES + 1)]},
        "input",
        "Missing or invalid 'input[0]': must be at most 16 KiB of UTF-8, is longer; "
        "an image must be a data URI (data:image/...;base64,...)",
    ),
    ({"input": {"type": "text"}}, "input", "Missing or invalid 'input.text': must be a string, is null"),
    (
        {"input": [{"type": "image_url"}]},
        "input",
        'Missing or invalid \'input[0].image_url\': must be {"url": "data:image/...;base64,..."}, is null',
    ),
    (
        {"input": [{"type": "image_url", "image_url": URI}]},
        "input",
        "Missing or invalid 'input[0].image_url': must be "
        '{"url": "data:image/...;base64,..."}, is "data:image/jpeg;base64,AAAA"',
    ),
    *(
        (
            {"input": [part(url)]},
            "input",
            "Missing or invalid 'input[0].image_url.url': URLs are not fetched; "
            "send the image itself as a data URI",
        )
        for url in ("http://169.254.169.254/latest", "HTTPS://example.org/cat.jpg")
    ),
    *(
        (
            {"input": part(url)},
            "input",
            "Missing or invalid 'input.image_url.url': must be a data URI that starts with "
            f"'data:image/', is \"{url}\"",
        )
        for url in ("file:///etc/passwd", "data:text/plain,hello", "AAAA", "")
    ),
    (
        {"input": [URI] * 65},
        "input",
        "Missing or invalid 'input': must have at most 64 images, has 65",
    ),
    (
        {"input": "x", "model": None},
        "model",
        "Missing or invalid 'model': it is missing; this service has 'm'",
    ),
    (
        {"input": "x", "model": 3},
        "model",
        "Missing or invalid 'model': must be a string, is 3; this service has 'm'",
    ),
    (
        {"input": "x", "dimensions": 256},
        "dimensions",
        "Invalid 'dimensions': embeddings of this model have 640 and are not cut, is 256",
    ),
    (
        {"input": "x", "dimensions": "640"},
        "dimensions",
        "Invalid 'dimensions': embeddings of this model have 640 and are not cut, is \"640\"",
    ),
    (
        {"input": "x", "encoding_format": "hex"},
        "encoding_format",
        'Invalid \'encoding_format\': must be "float" or "base64", is "hex"',
    ),
    (
        {"input": "x", "encoding_format": ["float"]},
        "encoding_format",
        'Invalid \'encoding_format\': must be "float" or "base64", is an array of 1',
    ),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD)
def test_refusals(body: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed(**body)
    assert openai_error(caught.value) == {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": "bad_request"}
    }
    assert caught.value.http_status == 400


def test_another_model_is_not_found() -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed(input="x", model="text-embedding-3-small")
    assert caught.value.http_status == 404
    assert openai_error(caught.value) == {
        "error": {
            "message": "The model 'text-embedding-3-small' is not served here; this service has 'm'",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (Unauthorized("no"), "authentication_error", "invalid_api_key"),
        (BodyTooLarge("no"), "invalid_request_error", "body_too_large"),
        (QueueFull("no"), "rate_limit_error", "queue_full"),
        (Draining("no"), "server_error", "draining"),
    ],
)
def test_other_errors_in_openais_shape(error: Any, kind: str, code: str) -> None:
    assert openai_error(error) == {"error": {"message": "no", "type": kind, "param": None, "code": code}}


def test_an_error_that_is_none_of_ours_has_no_code() -> None:
    assert openai_shape("no", 405)["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
