"""Bodies that are the client's fault, with the code and the words of the answer: for test_api_bad_input."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.doubles.frontend import CLASSIFY, GOOD, MODEL, PHOTO, TEXT, jpeg, raw
from tests.unit.test_api_validation import BAD_CLASSIFY, BAD_LISTS, REMOVED
from tests.unit.test_image_faults import SIZES, STRUCTURES

IMAGE, EMBEDDINGS = "/v1/embed/image", "/v1/embeddings"
SETS, SET = "/v1/label-sets", "/v1/label-sets/ppe"
MIB = 1 << 20
OBJECT, EMPTY = "The body must be a JSON object, is", "The body is empty; it must be a JSON object"
MISSING = "Missing or invalid"
FORMATS = "it is not an image in a format taken here (JPEG, PNG, WebP, GIF, BMP, TIFF)"
NAME = (
    "Invalid 'name': must be 1 to 64 letters, digits, '.', '_' and '-', the first one a letter or digit; is"
)
NOT_SERVED = f"this service has {MODEL!r}"
PART = 'a string, {"type": "text", "text": ...} or {"type": "image_url", "image_url": {"url": "data:..."}}'
TOKENS = "token ids are not taken, those of another model mean nothing to this one; send text"
URI = f"data:image/jpeg;base64,{PHOTO}"
FORM = "multipart/form-data; boundary=b"
FILES = "application/json, multipart/form-data or image/*"
DEADLINE = "Invalid X-Deadline-Ms: must be an integer of at least 1, is"


class Bad(NamedTuple):
    """One request: what it is, how it is made, what it gets."""

    name: str
    method: str
    path: str
    given: dict[str, Any]
    code: int
    message: str


def post(name: str, path: str, given: dict[str, Any], message: str, code: int = 400) -> Bad:
    return Bad(name, "POST", path, given, code, message)


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A form whose parts are (headers after the name, data)."""
    made = [
        b"--b\r\nContent-Disposition: form-data; name=" + head.encode() + b"\r\n\r\n" + data
        for head, data in parts
    ]
    return b"\r\n".join(made) + b"\r\n--b--\r\n"


def bodies() -> Iterator[Bad]:
    """What is no body, on every endpoint that takes one."""
    for method, path in (
        ("POST", CLASSIFY),
        ("POST", IMAGE),
        ("POST", TEXT),
        ("POST", EMBEDDINGS),
        ("PUT", SET),
    ):
        for data, message in (
            (b"", EMPTY),
            (b"[]", f"{OBJECT} an array of 0"),
            (b"null", f"{OBJECT} null"),
            (b"-1.5", f"{OBJECT} -1.5"),
            (b'"image"', f'{OBJECT} "image"'),
            (b"{", "The body is not valid JSON: ... (line 1, column 2)"),
            (b'{"a":NaN}', "The body is not valid JSON: ... (line 1, column 6)"),
            (
                b"\xef\xbb\xbf{}",
                "The body is not valid JSON: ... (line 1, column 1)",
            ),
        ):
            yield Bad(f"body {data!r}", method, path, raw(data), 400, message)
        too_large = "The body is larger than the limit of 20 MiB"
        yield Bad("too large", method, path, raw(b" " * (20 * MIB + 1)), 413, too_large)


def fields() -> Iterator[Bad]:
    """Every wrong field of test_api_validation, over HTTP."""
    body: Any
    for field, value, message in BAD_CLASSIFY:
        body = {**GOOD, field: value}
        if value is REMOVED:
            del body[field]
        if not isinstance(value, (int, float)) or abs(value) < 1e40:  # JSON has no others
            yield post(f"{field}={str(value)[:30]}", CLASSIFY, {"json": body}, message)
    for body, message in BAD_LISTS:
        if "file" not in message:  # of forms alone
            yield post(f"list {str(body)[:30]}", IMAGE, {"json": body}, message)
    for body, message in (
        ({}, f"{MISSING} 'text': it is missing"),
        ({"text": 5}, f"{MISSING} 'text': must be a string, is 5"),
        ({"text": "\t"}, f"{MISSING} 'text': must not be blank"),
        ({"text": "x", "texts": ["x"]}, "Invalid 'texts': give 'text' or 'texts', not both"),
        ({"texts": "x"}, f"{MISSING} 'texts' array: must be an array of 1 to 256 strings, is \"x\""),
        ({"texts": ["x", {}]}, f"{MISSING} 'texts' array: texts[1] must be a string, is an object"),
        ({"text": "é" * 8193}, f"{MISSING} 'text': must be at most 16 KiB of UTF-8, is longer"),
    ):
        yield post(f"text {str(body)[:30]}", TEXT, {"json": body}, message)


def embeddings() -> Iterator[Bad]:
    """POST /v1/embeddings."""
    body: dict[str, Any]
    for model, message, code in (
        (None, f"{MISSING} 'model': it is missing; {NOT_SERVED}", 400),
        (3, f"{MISSING} 'model': must be a string, is 3; {NOT_SERVED}", 400),
        ("clip", f"The model 'clip' is not served here; {NOT_SERVED}", 404),
    ):
        yield post(f"model={model}", EMBEDDINGS, {"json": {"model": model, "input": "x"}}, message, code)
    for value, where, message in (
        (None, "", "it is missing"),
        ([], "", "must have 1 to 256 entries, has 0"),
        ("", "", "must not be blank"),
        (3, "", f"must be {PART}; is 3"),
        ([1, 2], "", TOKENS),
        ([[1, 2]], "[0]", TOKENS),
        (["x", True], "[1]", f"must be {PART}; is true"),
        (["x", " "], "[1]", "must not be blank"),
        (["x"] * 257, "", "must have 1 to 256 entries, has 257"),
        ([URI] * 65, "", "must have at most 64 images, has 65"),
        ({"type": "audio"}, "", f"must be {PART}; is an object"),
        ({"type": "text", "text": 3}, ".text", "must be a string, is 3"),
        ({"type": "image_url"}, ".image_url", 'must be {"url": "data:image/...;base64,..."}, is null'),
        ("data:image/jpeg;base64,AAAA", "", FORMATS),
        (["x", "data:image/png;base64,!"], "[1]", "it is not valid base64"),
        ("é" * 9000, "", "must be at most 16 KiB of UTF-8, is longer"),
    ):
        body = {"model": MODEL, "input": value}
        yield post(
            f"input={str(value)[:30]}", EMBEDDINGS, {"json": body}, f"{MISSING} 'input{where}': {message}"
        )
    for url, message in (
        ("https://example.org/x.jpg", "URLs are not fetched; send the image itself as a data URI"),
        (
            "file:///etc/passwd",
            "must be a data URI that starts with 'data:image/', is \"file:///etc/passwd\"",
        ),
    ):
        body = {"model": MODEL, "input": {"type": "image_url", "image_url": {"url": url}}}
        yield post(url, EMBEDDINGS, {"json": body}, f"{MISSING} 'input.image_url.url': {message}")
    for key, value, message in (
        ("encoding_format", "hex", 'must be "float" or "base64", is "hex"'),
        ("encoding_format", 3, 'must be "float" or "base64", is 3'),
        ("dimensions", 3, "embeddings of this model have 640 and are not cut, is 3"),
        ("dimensions", True, "embeddings of this model have 640 and are not cut, is true"),
    ):
        body = {"model": MODEL, "input": "x", key: value}
        yield post(f"{key}={value}", EMBEDDINGS, {"json": body}, f"Invalid '{key}': {message}")


def label_sets() -> Iterator[Bad]:
    """Label sets, and models by name."""
    body: Any
    array = "array: must"
    for body, message in (
        ({}, f"{MISSING} 'prompts' array"),
        ({"prompts": []}, f"{MISSING} 'prompts' {array} have 1 to 256 strings, has 0"),
        ({"prompts": ["x"], "templates": []}, f"{MISSING} 'templates' {array} have 1 to 100 strings, has 0"),
        (
            {"prompts": ["x"], "negative_prompts": 1},
            f"{MISSING} 'negative_prompts' {array} be an array of 1 to 256 strings, is 1",
        ),
        (
            {"prompts": ["x"] * 200, "templates": ["{}"] * 6},
            "Invalid 'templates': 200 prompts in 6 templates are 1200 texts, at most 1024 are allowed",
        ),
    ):
        yield Bad(f"set {str(body)[:30]}", "PUT", SET, {"json": body}, 400, message)
    for method in ("GET", "PUT", "DELETE"):
        given = {"json": {"prompts": ["x"]}} if method == "PUT" else {}
        yield Bad("name -a", method, f"{SETS}/-a", given, 400, f'{NAME} "-a"')
        yield Bad("name a b", method, f"{SETS}/a%20b", given, 400, f'{NAME} "a b"')
        yield Bad("long name", method, f"{SETS}/{'x' * 65}", given, 400, f'{NAME} "{"x" * 40}..."')
    for method in ("GET", "DELETE"):
        yield Bad("no such set", method, f"{SETS}/nobody", {}, 404, "There is no label set 'nobody'")
    body = {"image": PHOTO, "label_set": "nobody"}
    yield post("no such set", CLASSIFY, {"json": body}, "There is no label set 'nobody'", 404)
    yield Bad(
        "model", "GET", "/v1/models/clip", {}, 404, f"The model 'clip' is not served here; {NOT_SERVED}"
    )


def forms() -> Iterator[Bad]:
    """Forms, and files with a query."""
    photo = ('"image"; filename="x.jpg"', jpeg())
    prompt, no_utf8 = ('"prompts"', b"a cat"), ('"prompts"', b"\xff")
    top_k = "Invalid 'top_k': must be an integer of at least 1, is"
    once = "it is given more than once"
    broken = "The multipart body is not valid:"
    for name, data, message in (
        ("no parts", b"--b--\r\n", f"{MISSING} 'image': it is missing"),
        ("no image", multipart(prompt), f"{MISSING} 'image': it is missing"),
        ("no prompts", multipart(photo), f"{MISSING} 'prompts' array"),
        (
            "two images",
            multipart(photo, photo, prompt),
            f"Invalid 'image': {once}; for several images, name them 'images'",
        ),
        (
            "image and images",
            multipart(photo, ('"images"; filename="y"', jpeg()), prompt),
            "Invalid 'images': give 'image' or 'images', not both",
        ),
        (
            "empty file",
            multipart(('"image"; filename="x"', b""), prompt),
            f"{MISSING} 'image': must be an image file, is empty",
        ),
        (
            "text as file",
            multipart(('"image"; filename="x"', b"hi"), prompt),
            f"{MISSING} 'image': {FORMATS}",
        ),
        (
            "text as base64",
            multipart(('"image"', b"hi!"), prompt),
            f"{MISSING} 'image': it is not valid base64",
        ),
        ("no UTF-8", multipart(photo, no_utf8), "Invalid 'prompts': must be UTF-8"),
        (
            "file as prompt",
            multipart(photo, ('"prompts"; filename="x"', b"a")),
            f"{MISSING} 'prompts' array: prompts[0] must be a string, is a file of 1 bytes",
        ),
        ("word as number", multipart(photo, prompt, ('"top_k"', b"two")), f'{top_k} "two"'),
        (
            "two numbers",
            multipart(photo, prompt, ('"top_k"', b"1"), ('"top_k"', b"2")),
            f"Invalid 'top_k': {once}",
        ),
        (
            "blank prompt",
            multipart(photo, ('"prompts"', b" ")),
            f"{MISSING} 'prompts' array: prompts[0] must not be blank",
        ),
        (
            "no name",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
            "The multipart body has a part without a name",
        ),
        ("no end", multipart(photo, prompt)[:-8], f"{broken} unexpected form structure"),
        ("no form", b"hello", f"{broken} unexpected form structure"),
        ("nothing", b"", f"{broken} unexpected form structure"),
    ):
        yield post(f"form: {name}", CLASSIFY, raw(data, FORM), message)
    boundary = "The multipart body's Content-Type must name a boundary of 1 to 70 characters"
    for kind in ("multipart/form-data", "multipart/form-data; boundary=" + "b" * 71):
        yield post(f"form: {kind[:40]}", CLASSIFY, raw(multipart(photo), kind), boundary)
    for query, message in (
        ("", f"{MISSING} 'prompts' array"),
        ("prompts=", f"{MISSING} 'prompts' array: prompts[0] must not be blank"),
        ("prompts=%ff", "The query must be percent-encoded UTF-8"),
        ("prompts=a&top_k=0", f"{top_k} 0"),
        ("prompts=a&top_k=1&top_k=1", f"Invalid 'top_k': {once}"),
        ("prompts=a&threshold=2", "Invalid 'threshold': must be a number from 0 to 1, is 2"),
        ("prompts=a&score_mode=", 'Invalid \'score_mode\': must be "cosine" or "softmax", is ""'),
        ("prompts=a&label_set=b", "Invalid 'prompts': give 'label_set' or 'prompts', not both"),
        ("prompts=a&image=b", f"Invalid 'image': {once}; for several images, name them 'images'"),
        ("label_set=-b", NAME.replace("'name'", "'label_set'") + ' "-b"'),
        ("prompts=a" + "&x=1" * 1024, "The query must have at most 1024 fields"),
    ):
        given = {"query_string": query, **raw(jpeg(), "image/jpeg")}
        yield post(f"query {query[:30]}", CLASSIFY, given, message)


def images() -> Iterator[Bad]:
    """Every kind of damage of test_image_faults, as base64 and as a file."""
    for name, (make, _) in {**SIZES, **STRUCTURES}.items():
        data = make()
        if not data:
            continue
        message = f"{MISSING} 'image': {IMAGE_FAULTS[name]}"
        yield post(f"image: {name}", IMAGE, raw(data, "image/png"), message)
        if len(data) < MIB:
            body = {"image": base64.b64encode(data).decode()}
            yield post(f"base64: {name}", IMAGE, {"json": body}, message)
    for text, message in (
        ("no base64 at all!", "it is not valid base64"),
        ("aGk=====", "it is not valid base64"),
        ("data:image/jpeg;base64,", "it is empty"),
        ("data:image/jpeg,abc", "the data URI is not marked ;base64"),
        ("data:text/html;base64,aGk=", "the data URI's media type is 'text/html', not image/*"),
        ("http://example.org/x.jpg", "it is not valid base64"),
    ):
        yield post(f"base64: {text}", IMAGE, {"json": {"image": text}}, f"{MISSING} 'image': {message}")


SIDE, CUT = "at most 16384 a side are taken", "header is cut short"
DAMAGED, AREA = "it is a truncated or damaged", "at most 50 megapixels are taken"
WHITE = "its samples are signed, 32-bit or float, of which none says what is white"
IMAGE_FAULTS = {
    "PNG": f"it is 100000 x 100000 pixels; {SIDE}",
    "PNG, wide": f"it is 16385 x 1 pixels; {SIDE}",
    "PNG, area": f"it is 16000 x 16000 pixels; {AREA}",
    "PNG, none": "it is 0 x 5 pixels; at least 1 x 1 is needed",
    "JPEG": f"it is 65000 x 65000 pixels; {SIDE}",
    "JPEG, none": "it is 100 x 0 pixels; at least 1 x 1 is needed",
    "GIF": f"it is 65535 x 65535 pixels; {SIDE}",
    "GIF, frame": f"it is 65535 x 9 pixels; {SIDE}",
    "WebP": f"it is 16384 x 16384 pixels; {AREA}",
    "BMP": f"it is 100000 x 100000 pixels; {SIDE}",
    "BMP, from the top": f"it is 9000 x 9000 pixels; {AREA}",
    "TIFF": f"it is 100000 x 100000 pixels; {SIDE}",
    "text": FORMATS,
    "SVG": FORMATS,
    "ICO": FORMATS,
    "JPEG magic alone": f"its JPEG {CUT}",
    "JPEG without a picture": "its JPEG has no picture",
    "JPEG, half of it": f"{DAMAGED} JPEG",
    "JPEG, last bytes missing": f"{DAMAGED} JPEG",
    "JPEG, many segments": "its JPEG has more than 4096 segments",
    "JPEG, endless filling": "its JPEG has more than 4096 segments",
    "JPEG, many tables": "its JPEG has more than 131072 bytes of tables",
    "JPEG, many scans": "its JPEG has 5010 scans; at most 100",
    "PNG magic alone": f"its PNG {CUT}",
    "PNG, half of it": f"{DAMAGED} PNG",
    "PNG, damaged pixels": f"{DAMAGED} PNG",
    "PNG, many chunks": "its PNG has more than 65536 chunks",
    "GIF without a picture": "its GIF has no picture",
    "GIF cut in a comment": f"its GIF {CUT}",
    "GIF, many blocks": "its GIF has more than 65536 blocks before its picture",
    "WebP, half of it": f"{DAMAGED} WEBP",
    "WebP without a picture": "its WebP has no picture",
    "BMP, header alone": f"{DAMAGED} BMP",
    "BMP, compressed": "its BMP is compressed; only plain BMP is taken",
    "TIFF, header alone": f"its TIFF {CUT}",
    "TIFF, no pixels": f"{DAMAGED} TIFF",
    "TIFF, fax": "its TIFF compression 4 is not taken, only LZW, deflate, PackBits, JPEG and none",
    "TIFF, float": WHITE,
    "TIFF, 32 bits": WHITE,
    "TIFF, many entries": "its TIFF directory has 2006 entries; at most 1024",
    "TIFF, many strips": "its TIFF directory has 5242885 values; at most 65536",
    "TIFF, many values below": "its TIFF directory has 1000000 values; at most 65536",
    "TIFF, the file over and over": "its TIFF directory holds more than the file",
    "TIFF, one great tile": "its TIFF tiles are larger than its picture",
}
