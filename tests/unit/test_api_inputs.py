"""The ways an image comes in, lists of items, and the options of a classification, through the whole app."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from hailo_clip.api import classifier
from hailo_clip.api.image import decode_image
from hailo_clip.shared.codec import decode_from_frontend, encode
from hailo_clip.shared.errors import ServiceError
from hailo_clip.shared.messages import Submit
from hailo_clip.shared.tokenizer import ClipTokenizer
from tests.doubles.fake_broker import embedding_of
from tests.doubles.frontend import CLASSIFY, DIMENSION, GOOD, PHOTO, TEXT, Frontend, configured, jpeg, raw

IMAGE = "/v1/embed/image"
SCALE = 100.0  # of the emulated model


@pytest.fixture(scope="module")
def shared() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as frontend:
        yield frontend


@pytest.fixture
def frontend(shared: Frontend) -> Iterator[Frontend]:
    """The module's frontend; its broker is mended afterwards."""
    yield shared
    shared.mend()


def image_row(colour: str = "red") -> Any:
    return embedding_of(decode_image(jpeg(colour), 288, "image").tobytes(), DIMENSION)


def text_row(text: str) -> Any:
    return embedding_of(ClipTokenizer(77).encode(text).tobytes(), DIMENSION)


def form(*parts: tuple[str, Any]) -> dict[str, Any]:
    """A multipart body as a client library makes it: bytes are files, text is text."""
    files = [(name, ("x.jpg", v, "image/jpeg") if isinstance(v, bytes) else (None, v)) for name, v in parts]
    made = requests.Request("POST", "http://x/", files=files).prepare()
    assert isinstance(made.body, bytes)
    return raw(made.body, made.headers["Content-Type"])


# Ways in


def test_all_ways_in_give_the_same_answer(frontend: Frontend) -> None:
    fields = [("prompts", p) for p in GOOD["prompts"]]
    query = "&".join(f"prompts={p.replace(' ', '%20')}" for p in GOOD["prompts"])
    answers = [
        frontend.post(CLASSIFY, GOOD),
        frontend.post(CLASSIFY, GOOD | {"image": f"data:image/jpeg;base64,{PHOTO}"}),
        frontend.request("POST", CLASSIFY, **form(("image", jpeg()), *fields)),
        frontend.request("POST", CLASSIFY, **form(("image", PHOTO), *fields)),
        frontend.request("POST", CLASSIFY, query_string=query, **raw(jpeg(), "image/jpeg")),
        frontend.request("POST", CLASSIFY, query_string=query, **raw(jpeg(), "application/octet-stream")),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert all(a.json["classifications"] == answers[0].json["classifications"] for a in answers)
    assert len(answers[0].json["classifications"]) == 3


def test_numbers_in_forms_and_queries_are_read_as_json_reads_them(frontend: Frontend) -> None:
    fields = [("image", jpeg()), ("prompts", "a cat"), ("prompts", "a dog")]
    answer = frontend.request("POST", CLASSIFY, **form(*fields, ("top_k", "1"), ("threshold", "1e-9")))
    assert len(answer.json["classifications"]) == 1
    for value in ("one", "", "true", "[1]", "NaN", "1_0"):
        answer = frontend.request("POST", CLASSIFY, **form(*fields, ("top_k", value)))
        shown = f"Invalid 'top_k': must be an integer of at least 1, is \"{value}\""
        assert (answer.status_code, answer.json["error"]) == (400, shown)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form(("prompts", "a cat")), "Missing or invalid 'image': it is missing"),
        (form(("image", jpeg())), "Missing or invalid 'prompts' array"),
        (
            form(("image", jpeg()), ("image", jpeg()), ("prompts", "a")),
            "Invalid 'image': it is given more than once; for several images, name them 'images'",
        ),
        (
            form(("image", jpeg()), ("prompts", "a"), ("top_k", "1"), ("top_k", "2")),
            "Invalid 'top_k': it is given more than once",
        ),
        (form(("image", b"no image"), ("prompts", "a")), None),
        (
            form(("image", jpeg()), ("prompts", b"a cat")),
            "Missing or invalid 'prompts' array: prompts[0] must be a string, is a file of 5 bytes",
        ),
        (
            raw(b"--x\r\n\r\n", "multipart/form-data; boundary=x"),
            "The multipart body is not valid: incomplete body part headers",
        ),
        (
            raw(b"nothing", "multipart/form-data; boundary=x"),
            "The multipart body is not valid: unexpected form structure",
        ),
        (
            raw(
                b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", "multipart/form-data; boundary=x"
            ),
            "The multipart body has a part without a name",
        ),
        (
            raw(
                b'--x\r\nContent-Disposition: form-data; name="prompts"\r\n\r\n\xff\r\n--x--',
                "multipart/form-data; boundary=x",
            ),
            "Invalid 'prompts': must be UTF-8",
        ),
        (
            raw(b"--x--", "multipart/form-data"),
            "The multipart body's Content-Type must name a boundary of 1 to 70 characters",
        ),
        (raw(b"", "multipart/form-data; boundary=x"), None),
        (raw(b"", "image/jpeg"), "Missing or invalid 'image': must be an image file, is empty"),
        (raw(b"no image", "image/jpeg"), None),
    ],
)
def test_bodies_that_are_refused(frontend: Frontend, body: dict[str, Any], message: str | None) -> None:
    answer = frontend.request("POST", CLASSIFY, **body)
    assert answer.status_code == 400
    assert message is None or answer.json["error"] == message
    assert frontend.broker.submits == []


def test_text_endpoints_take_no_files(frontend: Frontend) -> None:
    answer = frontend.request("POST", TEXT, **form(("text", "a cat")))
    assert answer.status_code == 415
    assert answer.json["error"].startswith("Content-Type must be application/json, is 'multipart/form-data")


def test_fields_that_nobody_knows_are_ignored_however_often_they_come(frontend: Frontend) -> None:
    parts = [("image", jpeg()), ("prompts", "a cat"), ("camera", "7"), ("camera", "8")]
    assert frontend.request("POST", CLASSIFY, **form(*parts)).status_code == 200
    query = {"query_string": "prompts=a%20cat&camera=7&camera=8"}
    assert frontend.request("POST", CLASSIFY, **query, **raw(jpeg(), "image/jpeg")).status_code == 200


@pytest.mark.parametrize("query", ["prompts=%ff", "prompts=" + "&prompts=".join(["a"] * 1025)])
def test_queries_that_are_refused(frontend: Frontend, query: str) -> None:
    answer = frontend.request("POST", CLASSIFY, query_string=query, **raw(jpeg(), "image/jpeg"))
    assert answer.status_code == 400
    assert answer.json["error"].startswith("The query must ")


# Lists


def test_a_bad_image_in_a_list_fails_alone(frontend: Frontend) -> None:
    junk = base64.b64encode(b"no image").decode()
    images = [PHOTO, junk, base64.b64encode(jpeg("blue")).decode()]
    answer = frontend.post(IMAGE, {"images": images})
    assert answer.status_code == 200
    first, second, third = answer.json["results"]
    np.testing.assert_allclose(first["embedding"], image_row())
    np.testing.assert_allclose(third["embedding"], image_row("blue"))
    assert list(second) == ["error"]
    assert second["error"].startswith("Missing or invalid 'images[1]'")
    assert (answer.json["dimension"], answer.json["model"]) == (DIMENSION, "emulated-clip-resnet-50x4")


def test_classifying_a_list_is_classifying_each(frontend: Frontend) -> None:
    other = base64.b64encode(jpeg("blue")).decode()
    alone = [frontend.post(CLASSIFY, GOOD | {"image": i}).json["classifications"] for i in (PHOTO, other)]
    prompts = {"prompts": GOOD["prompts"]}
    answer = frontend.post(CLASSIFY, prompts | {"images": [PHOTO, "AAAA", other]})
    assert [r.get("classifications") for r in answer.json["results"]] == [alone[0], None, alone[1]]
    assert answer.json["inference_time_ms"] > 0


@pytest.mark.parametrize("more", [{}, {"templates": ["a photo of {}", "{}"]}])
def test_a_list_of_bad_images_reaches_no_worker(frontend: Frontend, more: dict[str, Any]) -> None:
    answer = frontend.post(CLASSIFY, {"images": ["AAAA", "AAAA"], "prompts": ["a cat"]} | more)
    assert answer.status_code == 200
    assert [list(result) for result in answer.json["results"]] == [["error"], ["error"]]
    assert frontend.broker.submits == []


def test_several_texts(frontend: Frontend) -> None:
    answer = frontend.post(TEXT, {"texts": ["a cat", "a dog", "a cat"]})
    rows = [result["embedding"] for result in answer.json["results"]]
    np.testing.assert_allclose(rows, [text_row(t) for t in ("a cat", "a dog", "a cat")])


def test_images_in_a_form(frontend: Frontend) -> None:
    answer = frontend.request("POST", IMAGE, **form(("images", jpeg()), ("images", jpeg("blue"))))
    np.testing.assert_allclose(
        [r["embedding"] for r in answer.json["results"]], [image_row(), image_row("blue")]
    )


# Options


def scores(answer: Any) -> dict[str, float]:
    assert answer.status_code == 200, answer.json
    return {entry["text"]: entry["score"] for entry in answer.json["classifications"]}


def test_softmax_is_over_prompts_and_negative_prompts(frontend: Frontend) -> None:
    prompts, negatives = ["a cat", "a dog"], ["a bird"]
    options = {"image": PHOTO, "prompts": prompts, "score_mode": "softmax"}
    logits = SCALE * np.array([text_row(t) for t in prompts + negatives]) @ image_row()
    odds = np.exp(logits - logits.max())
    found = scores(frontend.post(CLASSIFY, options | {"negative_prompts": negatives}))
    assert found == pytest.approx(dict(zip(prompts, odds[:2] / odds.sum(), strict=True)), abs=1e-5)
    assert sum(scores(frontend.post(CLASSIFY, options)).values()) == pytest.approx(1, abs=1e-6)


def test_templates_are_averaged_and_cost_their_passes_once(frontend: Frontend) -> None:
    templates = ["a photo of {}", "{} in the wild"]
    body = {"image": PHOTO, "prompts": ["a lynx", "an elk"], "templates": templates}
    mean = np.mean([text_row(t.replace("{}", "a lynx")) for t in templates], axis=0)
    expected = float(mean / np.linalg.norm(mean) @ image_row())
    first = scores(frontend.post(CLASSIFY, body))
    assert first["a lynx"] == pytest.approx(max(expected, 0.0), abs=1e-6)
    assert [len(submit.kinds) for submit in frontend.broker.submits] == [5]
    assert scores(frontend.post(CLASSIFY, body | {"prompts": ["an elk", "a lynx"]})) == first
    assert [len(submit.kinds) for submit in frontend.broker.submits] == [5, 1]


def test_templates_that_cancel_each_other_are_an_error() -> None:
    row = np.eye(1, DIMENSION, dtype=np.float32)
    with pytest.raises(ServiceError, match="cancel each other out"):
        classifier.mean_vector(np.concatenate([row, -row]))


def test_there_is_no_label_set_of_that_name(frontend: Frontend) -> None:
    answer = frontend.post(CLASSIFY, {"image": PHOTO, "label_set": "nobody-put-it"})
    assert answer.status_code == 404
    assert answer.json["error"] == "There is no label set 'nobody-put-it'"


@pytest.mark.parametrize("mode", ["cosine", "softmax"])
def test_a_label_set_gives_what_its_parts_give_for_one_image_pass(frontend: Frontend, mode: str) -> None:
    parts = {"prompts": ["a helmet", "no helmet"], "templates": ["a worker with {}", "{}"]}
    negatives = {"negative_prompts": ["an empty room"]} if mode == "softmax" else {}
    stored = frontend.request("PUT", "/v1/label-sets/ppe", json=parts | negatives)
    assert stored.status_code in (200, 201)
    expected = frontend.post(CLASSIFY, {"image": PHOTO, "score_mode": mode} | parts | negatives)
    frontend.broker.submits.clear()
    answer = frontend.post(CLASSIFY, {"image": PHOTO, "score_mode": mode, "label_set": "ppe"})
    assert answer.json["classifications"] == expected.json["classifications"]
    assert [list(submit.kinds) for submit in frontend.broker.submits] == [[0]]
    query = f"label_set=ppe&score_mode={mode}"
    raw_answer = frontend.request("POST", CLASSIFY, query_string=query, **raw(jpeg(), "image/jpeg"))
    assert raw_answer.json["classifications"] == expected.json["classifications"]
    many = frontend.post(CLASSIFY, {"images": ["AAAA", PHOTO], "score_mode": mode, "label_set": "ppe"})
    assert list(many.json["results"][0]) == ["error"]
    assert many.json["results"][1]["classifications"] == expected.json["classifications"]


# Headers


def test_answers_name_the_model_and_one_may_be_required(frontend: Frontend) -> None:
    served = frontend.post(TEXT, {"text": "x"}).headers["x-model-fingerprint"]
    assert served == frontend.app.service.manifest.fingerprint("emulated")
    wanted = {"X-Require-Model-Fingerprint": served.upper()}
    assert frontend.post(TEXT, {"text": "x"}, headers=wanted).status_code == 200
    answer = frontend.post(TEXT, {"text": "x"}, headers={"X-Require-Model-Fingerprint": "0" * 32})
    assert answer.status_code == 409
    assert served in answer.json["error"]
    assert "0" * 32 in answer.json["error"]


def test_the_clients_deadline_is_kept(frontend: Frontend) -> None:
    frontend.post(TEXT, {"text": "x"}, headers={"X-Deadline-Ms": "1500"})
    frontend.post(TEXT, {"text": "x"}, headers={"X-Deadline-Ms": "3600000"})
    mine, theirs = (submit.ttl_s for submit in frontend.broker.submits)
    assert 1.0 < mine < 1.5
    assert 19.0 < theirs <= 20.0


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "1e3", "soon", "", "9" * 30])
def test_deadlines_that_are_none(frontend: Frontend, value: str) -> None:
    answer = frontend.post(TEXT, {"text": "x"}, headers={"X-Deadline-Ms": value})
    assert answer.status_code == 400
    shown = f"Invalid X-Deadline-Ms: must be an integer of at least 1, is {value!r}"
    assert answer.json["error"] == shown


def test_the_largest_request_fits_the_protocol() -> None:
    count = 64 + 1024
    submit = Submit(1, "t", "t", 1.0, False, 1.0, "f", (0,) * count, (b"abcd",) * count)
    assert decode_from_frontend([bytes(frame) for frame in encode(submit)]) == submit
