"""What the requests are: kinds, images, prompts, tenants, and their bytes, made before the load begins. Pure.

b"POST /v1/embed/image HTTP/1.1 ... X-Forwarded-For: 10.0.0.3"  + body         constant
b"POST /v1/embed/text ..." + b'{"text": "a photo of thing ' + number + b'"}'   a new prompt each time
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

KINDS = ("image", "text", "classify")
PATHS = {"image": "/v1/embed/image", "text": "/v1/embed/text", "classify": "/v1/classify"}
_NUMBER = "############"
"""Stands for a number in a prompt that is new in each request; no base64 has it."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What clients ask for.

    Attributes:
        weights: of each of `KINDS`.
        size: width and height of the images.
        raw: images are sent as files, not in JSON (then classify is still JSON).
        prompts: how many a classify request has.
        cached: the same prompts again and again; else each is new.
        tenants: client addresses, told by X-Forwarded-For; 0: none is told.
        deadline_ms: for how long an answer is of use, told by X-Deadline-Ms; 0: not told.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"image": 1.0})
    size: tuple[int, int] = (320, 320)
    raw: bool = False
    prompts: int = 4
    cached: bool = True
    tenants: int = 0
    deadline_ms: int = 0

    def share(self, kind: str) -> float:
        """The part of all requests that are of `kind`."""
        return self.weights.get(kind, 0.0) / sum(self.weights.values())


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes of one request; where it is of several parts, a number goes between them."""

    parts: tuple[bytes, ...]

    def render(self, number: int) -> bytes:
        """The bytes to send, with `number` where it belongs."""
        if len(self.parts) == 1:
            return self.parts[0]
        return (b"%0*d" % (len(_NUMBER), number)).join(self.parts)


def parse_mix(text: str) -> dict[str, float]:
    """Weights from e.g. "image=8,text=1".

    Raises:
        ValueError: with a message for the user.
    """
    weights = {}
    for part in text.split(","):
        kind, _, weight = part.strip().partition("=")
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not one of {', '.join(KINDS)}")
        try:
            weights[kind] = float(weight or 1)
        except ValueError:
            raise ValueError(f"the weight of {kind!r} is {weight!r}, not a number") from None
        if not 0 < weights[kind] < float("inf"):
            raise ValueError(f"the weight of {kind!r} must be a positive number")
    return weights


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from e.g. "640x480". Raises `ValueError`."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 1 <= int(width) <= 16384 >= int(height) >= 1):
        raise ValueError(f"{text!r} is not a size such as 640x480, at most 16384 a side")
    return int(width), int(height)


def requests(mix: Mix, host: str, images: Sequence[bytes]) -> dict[str, list[Request]]:
    """Requests of each kind of `mix` to choose from in turn; consecutive ones differ in image and tenant.

    Args:
        mix: what is asked for.
        host: for the Host header.
        images: files.
    """
    made = {}
    for kind, weight in mix.weights.items():
        if weight > 0:
            bodies, tenants = _bodies(kind, mix, images), max(1, mix.tenants)
            # Both go round together; after each common round tenants shift by one, so all pairs come up.
            around = math.lcm(len(bodies), tenants)
            made[kind] = [
                _request(kind, mix, host, bodies[i % len(bodies)], (i + i // around) % tenants)
                for i in range(len(bodies) * tenants)
            ]
    return made


def _bodies(kind: str, mix: Mix, images: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Media types and bodies of one kind of request."""
    if kind == "text":
        return [("application/json", json.dumps({"text": t}).encode()) for t in _prompts(mix, 1)]
    if kind == "image" and mix.raw:
        return [("image/jpeg", image) for image in images]
    more = {"prompts": _prompts(mix, mix.prompts)} if kind == "classify" else {}
    return [
        ("application/json", json.dumps({"image": base64.b64encode(image).decode(), **more}).encode())
        for image in images
    ]


def _prompts(mix: Mix, count: int) -> list[str]:
    end = "" if mix.cached else f" number {_NUMBER}"
    return [f"a photo of subject {i}{end}" for i in range(count)]


def _request(kind: str, mix: Mix, host: str, body: tuple[str, bytes], tenant: int) -> Request:
    media_type, data = body
    lines = [
        f"POST {PATHS[kind]} HTTP/1.1",
        f"Host: {host}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(data)}",
    ]
    if mix.tenants:
        lines.append(f"X-Forwarded-For: 10.0.{tenant // 250}.{tenant % 250 + 1}")
    if mix.deadline_ms:
        lines.append(f"X-Deadline-Ms: {mix.deadline_ms}")
    whole = "\r\n".join([*lines, "", ""]).encode() + data
    return Request(tuple(whole.split(_NUMBER.encode())) if not mix.cached and kind != "image" else (whole,))
