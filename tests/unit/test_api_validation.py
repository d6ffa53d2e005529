"""Every way a JSON body can be wrong, with the exact message; and what is taken as it comes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hailo_clip.api.body import parse_object, shown
from hailo_clip.api.fields import Picture
from hailo_clip.api.validation import (
    ClassifyRequest,
    Labels,
    classify_request,
    image_request,
    label_set_name,
    text_request,
)
from hailo_clip.shared.errors import ClientError

GOOD: dict[str, Any] = {"image": "aGk=", "prompts": ["a cat", "a dog"]}
ARRAY = "Missing or invalid 'prompts' array"
IMAGE = "Missing or invalid 'image'"
TEXT = "Missing or invalid 'text'"
TOP_K = "Invalid 'top_k': must be an integer of at least 1, is"
THRESHOLD = "Invalid 'threshold': must be a number from 0 to 1, is"
IMAGES = "Missing or invalid 'images' array"
TEMPLATES = "Missing or invalid 'templates' array"
NEGATIVES = "Missing or invalid 'negative_prompts' array"
MODE = 'Invalid \'score_mode\': must be "cosine" or "softmax", is'
REMOVED = object()

BAD_CLASSIFY = [
    ("image", REMOVED, f"{IMAGE}: it is missing"),
    ("image", None, f"{IMAGE}: must be a base64 string, is null"),
    ("image", 7, f"{IMAGE}: must be a base64 string, is 7"),
    ("image", True, f"{IMAGE}: must be a base64 string, is true"),
    ("image", ["aGk="], f"{IMAGE}: must be a base64 string, is an array of 1"),
    ("image", {"url": "x"}, f"{IMAGE}: must be a base64 string, is an object"),
    ("image", "", f"{IMAGE}: must be a base64 string, is empty"),
    ("image", " \n\t", f"{IMAGE}: must be a base64 string, is empty"),
    ("prompts", REMOVED, ARRAY),
    ("prompts", None, f"{ARRAY}: must be an array of 1 to 256 strings, is null"),
    ("prompts", "a cat", f'{ARRAY}: must be an array of 1 to 256 strings, is "a cat"'),
    ("prompts", 3.5, f"{ARRAY}: must be an array of 1 to 256 strings, is 3.5"),
    ("prompts", False, f"{ARRAY}: must be an array of 1 to 256 strings, is false"),
    ("prompts", {"0": "a cat"}, f"{ARRAY}: must be an array of 1 to 256 strings, is an object"),
    ("prompts", [], f"{ARRAY}: must have 1 to 256 strings, has 0"),
    ("prompts", ["x"] * 257, f"{ARRAY}: must have 1 to 256 strings, has 257"),
    ("prompts", ["x"] * 100_000, f"{ARRAY}: must have 1 to 256 strings, has 100000"),
    ("prompts", ["x", ""], f"{ARRAY}: prompts[1] must not be blank"),
    ("prompts", ["x", " \t\n\u3000"], f"{ARRAY}: prompts[1] must not be blank"),
    ("prompts", [None], f"{ARRAY}: prompts[0] must be a string, is null"),
    ("prompts", ["x", 1], f"{ARRAY}: prompts[1] must be a string, is 1"),
    ("prompts", [["x"]], f"{ARRAY}: prompts[0] must be a string, is an array of 1"),
    ("prompts", [{}], f"{ARRAY}: prompts[0] must be a string, is an object"),
    ("prompts", ["x" * 16_385], f"{ARRAY}: prompts[0] must be at most 16 KiB of UTF-8, is longer"),
    ("prompts", ["é" * 8_193], f"{ARRAY}: prompts[0] must be at most 16 KiB of UTF-8, is longer"),
    ("top_k", None, f"{TOP_K} null"),
    ("top_k", 0, f"{TOP_K} 0"),
    ("top_k", -1, f"{TOP_K} -1"),
    ("top_k", 1.5, f"{TOP_K} 1.5"),
    ("top_k", True, f"{TOP_K} true"),
    ("top_k", "3", f'{TOP_K} "3"'),
    ("top_k", [3], f"{TOP_K} an array of 1"),
    ("top_k", math.nan, f"{TOP_K} nan"),
    ("top_k", math.inf, f"{TOP_K} inf"),
    ("threshold", None, f"{THRESHOLD} null"),
    ("threshold", -0.01, f"{THRESHOLD} -0.01"),
    ("threshold", 1.01, f"{THRESHOLD} 1.01"),
    ("threshold", 1e30, f"{THRESHOLD} 1e+30"),
    ("threshold", 10**50, f"{THRESHOLD} 1{'0' * 39}..."),
    ("threshold", False, f"{THRESHOLD} false"),
    ("threshold", "0.5", f'{THRESHOLD} "0.5"'),
    ("threshold", math.nan, f"{THRESHOLD} nan"),
    ("threshold", {}, f"{THRESHOLD} an object"),
    ("images", ["aGk="], "Invalid 'images': give 'image' or 'images', not both"),
    ("label_set", "ppe", "Invalid 'prompts': give 'label_set' or 'prompts', not both"),
    ("score_mode", "logits", f'{MODE} "logits"'),
    ("score_mode", None, f"{MODE} null"),
    ("score_mode", ["softmax"], f"{MODE} an array of 1"),
    ("templates", "a {}", f'{TEMPLATES}: must be an array of 1 to 100 strings, is "a {{}}"'),
    ("templates", [], f"{TEMPLATES}: must have 1 to 100 strings, has 0"),
    ("templates", ["a {}"] * 101, f"{TEMPLATES}: must have 1 to 100 strings, has 101"),
    ("templates", ["a {}", 3], f"{TEMPLATES}: templates[1] must be a string, is 3"),
    (
        "templates",
        ["a photo"],
        f"{TEMPLATES}: templates[0] must hold {{}} once, for the prompt, holds it 0 times",
    ),
    (
        "templates",
        ["{} {}"],
        f"{TEMPLATES}: templates[0] must hold {{}} once, for the prompt, holds it 2 times",
    ),
    ("negative_prompts", None, f"{NEGATIVES}: must be an array of 1 to 256 strings, is null"),
    ("negative_prompts", [], f"{NEGATIVES}: must have 1 to 256 strings, has 0"),
    ("negative_prompts", [" "], f"{NEGATIVES}: negative_prompts[0] must not be blank"),
    (
        "negative_prompts",
        ["a bird"],
        "Invalid 'negative_prompts': they only change softmax scores; set 'score_mode' to \"softmax\"",
    ),
]

BAD_LISTS = [
    ({"images": "aGk="}, f'{IMAGES}: must be an array of 1 to 64 images in base64, is "aGk="'),
    ({"images": []}, f"{IMAGES}: must have 1 to 64 images in base64, has 0"),
    ({"images": ["aGk="] * 65}, f"{IMAGES}: must have 1 to 64 images in base64, has 65"),
    ({"images": ["aGk=", None]}, "Missing or invalid 'images[1]': must be a base64 string, is null"),
    ({"images": [" "]}, "Missing or invalid 'images[0]': must be a base64 string, is empty"),
    ({"image": b""}, "Missing or invalid 'image': must be an image file, is empty"),
    ({"images": [b""]}, "Missing or invalid 'images[0]': must be an image file, is empty"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_CLASSIFY)
def test_classify_refuses(field: str, value: object, message: str) -> None:
    body = {**GOOD, field: value}
    if value is REMOVED:
        del body[field]
    with pytest.raises(ClientError) as refused:
        classify_request(body)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (REMOVED, f"{TEXT}: it is missing"),
        (None, f"{TEXT}: must be a string, is null"),
        (["a"], f"{TEXT}: must be a string, is an array of 1"),
        (1, f"{TEXT}: must be a string, is 1"),
        ("", f"{TEXT}: must not be blank"),
        ("\n", f"{TEXT}: must not be blank"),
        ("😀" * 4097, f"{TEXT}: must be at most 16 KiB of UTF-8, is longer"),
    ],
)
def test_embed_text_refuses(value: object, message: str) -> None:
    with pytest.raises(ClientError) as refused:
        text_request({} if value is REMOVED else {"text": value})
    assert refused.value.message == message


def test_embed_image_refuses_a_missing_image() -> None:
    with pytest.raises(ClientError, match=f"^{IMAGE}: it is missing$"):
        image_request({"picture": "aGk="})


@pytest.mark.parametrize(("body", "message"), BAD_LISTS)
def test_images_are_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError) as refused:
        image_request(body)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "a", "texts": ["b"]}, "Invalid 'texts': give 'text' or 'texts', not both"),
        ({"texts": []}, "Missing or invalid 'texts' array: must have 1 to 256 strings, has 0"),
        ({"texts": ["a", ""]}, "Missing or invalid 'texts' array: texts[1] must not be blank"),
    ],
)
def test_texts_are_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError) as refused:
        text_request(body)
    assert refused.value.message == message


@pytest.mark.parametrize("name", [None, 3, "", "-a", ".", "a b", "a/b", "é", "x" * 65, "a\n"])
def test_names_that_no_label_set_has(name: object) -> None:
    with pytest.raises(ClientError, match=r"^Invalid 'label_set': must be 1 to 64 letters"):
        label_set_name(name)


def test_too_many_texts_are_refused() -> None:
    body = {**GOOD, "prompts": ["x"] * 200, "templates": ["a {}"] * 6}
    with pytest.raises(ClientError) as refused:
        classify_request(body)
    expected = "200 prompts in 6 templates are 1200 texts, at most 1024 are allowed"
    assert refused.value.message == f"Invalid 'templates': {expected}"


def test_lists_and_options_are_taken() -> None:
    request = classify_request(
        {
            "images": ["aGk=", b"file"],
            "prompts": ["a cat"],
            "negative_prompts": ["a bird"],
            "templates": ["a photo of {}."],
            "score_mode": "softmax",
        }
    )
    assert request.pictures == (Picture("images[0]", base64="aGk="), Picture("images[1]", data=b"file"))
    assert request.many
    assert request.labels == Labels(("a cat",), ("a photo of {}.",), ("a bird",))
    assert request.score_mode == "softmax"
    assert classify_request({"image": "aGk=", "label_set": "ppe.v-2_x"}).labels == "ppe.v-2_x"
    assert text_request({"texts": ["a", "b"]}).texts == ("a", "b")


def test_defaults_are_the_specifications() -> None:
    picture, labels = Picture("image", base64="aGk="), Labels(("a cat", "a dog"))
    expected = ClassifyRequest((picture,), labels, False, 3, 0.0, "cosine")
    assert classify_request(GOOD) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"top_k": 1}, {"top_k": 1}),
        ({"top_k": 3.0}, {"top_k": 3}),  # JSON has one kind of number
        ({"top_k": 1e300}, {"top_k": int(1e300)}),  # capped at the prompts later
        ({"threshold": 0}, {"threshold": 0.0}),
        ({"threshold": 1}, {"threshold": 1.0}),
        ({"threshold": 5e-324}, {"threshold": 5e-324}),
        ({"prompts": ["same", "same"]}, {"labels": Labels(("same", "same"))}),
        ({"prompts": ["x"] * 256}, {"labels": Labels(("x",) * 256)}),
        ({"prompts": ["x" * 16_384]}, {"labels": Labels(("x" * 16_384,))}),
        ({"prompts": ["😀" * 4096]}, {"labels": Labels(("😀" * 4096,))}),
        ({"prompts": ["nul \0 and emoji 👩‍👩‍👧"]}, {"labels": Labels(("nul \0 and emoji 👩‍👩‍👧",))}),
        ({"model": "clip", "extra": {"deep": [1]}}, {}),
    ],
)
def test_classify_takes(given: dict[str, Any], expected: dict[str, Any]) -> None:
    request = classify_request({**GOOD, **given})
    assert {key: getattr(request, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"   ", (1, 1)),
        (b"{", (1, 2)),
        (b'{"text": "x"', (1, 13)),
        (b'{"a":\n nul}', (2, 2)),
        (b'{"a": NaN}', (1, 7)),
        (b'{"a": -Infinity}', (1, 8)),
        (b'{"a": 1e999}', (1, 7)),
        (b"{'a': 1}", (1, 2)),
        (b'{"a": 1} x', (1, 10)),
        (b'{"a": "\xff"}', (1, 1)),
        (b'{"a": "\\ud800"}', (1, 8)),
        (b'{"a": "\0"}', (1, 8)),
        (b"\xef\xbb\xbf{}", (1, 1)),
        (b"\xff\xfe{\0}\0", (1, 1)),
        (b"[" * 100_000, (1, 1026)),
    ],
)
def test_what_is_no_json(data: bytes, where: tuple[int, int]) -> None:
    with pytest.raises(ClientError) as refused:
        parse_object(data)
    # The words between are the JSON library's.
    assert refused.value.message.startswith("The body is not valid JSON: ")
    assert refused.value.message.endswith(f" (line {where[0]}, column {where[1]})")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The body is empty; it must be a JSON object"),
        (b"[]", "The body must be a JSON object, is an array of 0"),
        (b"null", "The body must be a JSON object, is null"),
        (b"true", "The body must be a JSON object, is true"),
        (b'"text"', 'The body must be a JSON object, is "text"'),
        (b"1e5", "The body must be a JSON object, is 100000.0"),
    ],
)
def test_what_is_no_json_object(data: bytes, message: str) -> None:
    with pytest.raises(ClientError) as refused:
        parse_object(data)
    assert refused.value.message == message


def test_of_equal_keys_the_last_one_counts() -> None:
    assert parse_object(b'{"a": 1, "a": 2}') == {"a": 2}


def test_values_in_messages_are_short() -> None:
    assert shown("x" * 41) == '"' + "x" * 40 + '..."'
    assert shown('"\n') == '"\\"\\n"'
    assert len(shown("\0" * 1_000_000)) < 300
