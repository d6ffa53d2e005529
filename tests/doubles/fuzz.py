"""Requests that were fine once: seeded mutations of JSON, forms, queries and image bytes."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from PIL import Image

from tests.doubles.pictures import encoded

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        1e308,
        -0.0,
        2**53,
        10**30,
        0.5,
        "",
        " ",
        "x",
        "{}",
        "\0",
        "\u2028",
        "é" * 300,
    ),
    *([], {}, [[]], [None], {"": None}, "data:image/png;base64,", "data:", "AAAA", "-", ["{}"], ["x"] * 300),
    *(
        "cosine",
        "softmax",
        "float",
        "base64",
        "https://example.org/x.jpg",
        {"type": "text", "text": "x"},
        [1, 2],
    ),
)
HEADERS = (
    "X-Deadline-Ms",
    "X-Request-Id",
    "X-Require-Model-Fingerprint",
    "Accept",
    "X-Forwarded-For",
    "Expect-CT",
)
KINDS = (
    *("application/json", "application/json; charset=utf-8", "multipart/form-data; boundary=b", "image/jpeg"),
    *(
        "application/octet-stream",
        "text/plain",
        "multipart/form-data",
        "application/x+json",
        "image/",
        ";;;",
        "",
    ),
)


class Sent(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Fuzzer:
    """Makes requests; the same ones for the same seed.

    Args:
        seed: of everything.
        model: the name of the model served.
    """

    def __init__(self, seed: int, model: str) -> None:
        self._random = random.Random(seed)
        self._model = model
        picture = Image.frombytes("RGB", (24, 17), self._random.randbytes(24 * 17 * 3))
        self._images = [encoded(picture, name) for name in FORMATS]
        self._ways: tuple[Callable[[], Sent], ...] = (
            self._json,
            self._json,
            self._form,
            self._file,
            self._get,
        )

    def next(self) -> Sent:
        """The next request."""
        sent = self._random.choice(self._ways)()
        if self._random.random() < 0.1:
            name = self._random.choice(HEADERS)
            sent.headers[name] = self._random.choice(
                ("", "x", "20000", "99999", "-1", "1.5", "\xff", "a" * 200)
            )
        if self._random.random() < 0.05:
            sent.headers["Content-Type"] = self._random.choice(KINDS)
        return sent

    # Ways in

    def _json(self) -> Sent:
        method, path, body = self._request()
        for _ in range(self._random.choice((0, 1, 1, 2, 4))):
            body = self._changed(body)
        data = json.dumps(body, ensure_ascii=self._chance(0.5)).encode("utf-8", "surrogatepass")
        if self._chance(0.25):
            data = self._damaged(data)
        return Sent(method, path, {"Content-Type": "application/json"}, data)

    def _form(self) -> Sent:
        parts = [("image", self._image()), *self._fields()]
        self._random.shuffle(parts)
        data = b"".join(self._part(name, value) for name, value in parts) + b"--b--\r\n"
        if self._chance(0.5):
            data = self._damaged(data)
        path = self._random.choice(("/v1/classify", "/v1/embed/image"))
        return Sent("POST", path, {"Content-Type": "multipart/form-data; boundary=b"}, data)

    def _file(self) -> Sent:
        query = urlencode([(name, value) for name, value in self._fields()])
        if self._chance(0.3):
            query = quote(self._damaged(query.encode()), safe="=&%+")
        path = self._random.choice(("/v1/classify", "/v1/embed/image"))
        kind = self._random.choice(("image/jpeg", "image/png", "application/octet-stream"))
        return Sent("POST", f"{path}?{query}", {"Content-Type": kind}, self._image())

    def _get(self) -> Sent:
        name = quote(self._damaged(b"ppe-v2"), safe="")
        path = self._random.choice(
            (
                *("/v1/models", f"/v1/models/{name}", f"/v1/label-sets/{name}", "/v1/label-sets", "/health"),
                *(f"/readyz?verbose={name}", f"/{name}", f"/docs/{name}", "/docs", "/livez", "/openapi.json"),
            )
        )
        return Sent(self._random.choice(("GET", "GET", "HEAD", "DELETE", "OPTIONS", "PATCH")), path, {}, b"")

    # What they are made of

    def _request(self) -> tuple[str, str, Any]:
        image = base64.b64encode(self._image()).decode()
        uri = f"data:image/jpeg;base64,{image}"
        prompts = ["a cat", "a dog", "a cup"]
        return self._random.choice(
            (
                ("POST", "/v1/classify", {"image": image, "prompts": prompts, "top_k": 2, "threshold": 0.1}),
                (
                    "POST",
                    "/v1/classify",
                    {"images": [image, uri], "prompts": prompts, "score_mode": "softmax"},
                ),
                (
                    "POST",
                    "/v1/classify",
                    {"image": uri, "prompts": prompts, "templates": ["a {}"], "negative_prompts": ["a bird"]},
                ),
                ("POST", "/v1/classify", {"image": uri, "label_set": "ppe"}),
                ("POST", "/v1/embed/image", {"image": uri}),
                ("POST", "/v1/embed/image", {"images": [image, image]}),
                ("POST", "/v1/embed/text", {"text": "a cat"}),
                ("POST", "/v1/embed/text", {"texts": prompts}),
                ("POST", "/v1/embeddings", {"model": self._model, "input": [*prompts, uri]}),
                (
                    "POST",
                    "/v1/embeddings",
                    {"model": self._model, "input": "a cat", "encoding_format": "base64"},
                ),
                (
                    "PUT",
                    f"/v1/label-sets/s{self._random.randrange(40)}",
                    {"prompts": prompts, "templates": ["{}"]},
                ),
            )
        )

    def _fields(self) -> list[tuple[str, bytes]]:
        names = ("prompts", "prompts", "top_k", "threshold", "score_mode", "templates", "label_set", "x", "")
        values = (
            "a cat",
            "a dog",
            "2",
            "0.1",
            "softmax",
            "a {}",
            "ppe",
            "",
            "\0",
            "é",
            "nan",
            "1e9",
            "-1",
            "x" * 99,
        )
        count = self._random.randrange(5)
        made = [(self._random.choice(names), self._random.choice(values).encode()) for _ in range(count)]
        return [("prompts", b"a cat"), *made] if self._chance(0.7) else made

    def _image(self) -> bytes:
        image = self._random.choice(self._images)
        return self._damaged(image) if self._chance(0.5) else image

    def _part(self, name: str, value: bytes) -> bytes:
        file = '; filename="x.jpg"' if name == "image" and self._chance(0.8) else ""
        return (
            f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"
        )

    # Damage

    def _chance(self, odds: float) -> bool:
        return self._random.random() < odds

    def _changed(self, value: Any) -> Any:
        """`value` with something in it replaced, lost, or twice."""
        if isinstance(value, dict) and value and not self._chance(0.15):
            key = self._random.choice(list(value))
            rest = {k: v for k, v in value.items() if k != key}
            if self._chance(0.2):
                return rest
            if self._chance(0.1):
                return {**rest, key + self._random.choice(("", " ", "s", "\0")): value[key]}
            return {**rest, key: self._changed(value[key])}
        if isinstance(value, list) and value and not self._chance(0.3):
            at = self._random.randrange(len(value))
            if self._chance(0.2):
                return value[:at] + value[at + 1 :]
            if self._chance(0.2):
                return value * self._random.choice((2, 30, 100))
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        if isinstance(value, str) and value and self._chance(0.4):
            return self._damaged(value.encode()).decode("latin-1")
        return self._random.choice(JUNK)

    def _damaged(self, data: bytes) -> bytes:
        """`data` with a few bytes changed, lost, more, or elsewhere."""
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 1, 2, 8))):
            at = self._random.randrange(len(changed) + 1)
            much = self._random.choice((1, 1, 4, 64))
            match self._random.randrange(6):
                case 0:
                    changed[at : at + much] = self._random.randbytes(much)
                case 1:
                    del changed[at : at + much]
                case 2:
                    changed[at:at] = self._random.randbytes(much)
                case 3:
                    del changed[at:]
                case 4:
                    changed[at : at + 1] = self._random.choice(
                        (b"\xff", b"\0", b"\r\n", b'"', b"--b", b"%", b"{")
                    )
                case _:
                    changed[at:at] = changed[: much * 4]
        return bytes(changed)
