"""Requests whose path, method, headers or media type are wrong: for test_api_bad_input."""

from __future__ import annotations

from collections.abc import Iterator

from tests.doubles.frontend import CLASSIFY, TEXT, raw
from tests.unit.bad_requests import DEADLINE, EMBEDDINGS, FILES, IMAGE, SET, SETS, Bad, post

GET_ONLY, SET_METHODS = "GET, HEAD, OPTIONS", "DELETE, GET, HEAD, PUT, OPTIONS"


def paths() -> Iterator[Bad]:
    """Where nothing is."""
    for path in (
        *(
            "/",
            "/v1",
            "/v1/",
            "/v1/classify/",
            "/V1/classify",
            "/v1//classify",
            "/v1/classify;x",
            "/v1/embed",
        ),
        *(
            "/v1/embed/images",
            "/v2/classify",
            "/v1/label-sets/a/b",
            "/v1/models/a/b",
            "/docs/docs.html",
            "/docs/",
        ),
        *("/docs/../../etc/passwd", "/favicon.ico", "/.env", "/index.html", "/openapi.yaml", "/%00"),
    ):
        shown = path.replace("%00", "\0")
        yield Bad(path, "GET", path, {}, 404, f"There is no {shown}")
    yield Bad("long path", "GET", "/" + "x" * 300, {}, 404, "There is no /" + "x" * 199)


def methods() -> Iterator[Bad]:
    """What endpoints do not do."""
    posts = (CLASSIFY, IMAGE, TEXT, EMBEDDINGS)
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        for path in posts:
            message = f"{method} is not allowed on {path}; allowed: POST, OPTIONS"
            yield Bad(method, method, path, {}, 405, message)
    for path in ("/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/models", SETS):
        message = f"POST is not allowed on {path}; allowed: {GET_ONLY}"
        yield Bad("POST", "POST", path, {"json": {}}, 405, message)
    yield Bad("PATCH", "PATCH", SET, {}, 405, f"PATCH is not allowed on {SET}; allowed: {SET_METHODS}")
    yield Bad("TRACE", "TRACE", "/health", {}, 405, f"TRACE is not allowed on /health; allowed: {GET_ONLY}")
    yield Bad("BREW", "BREW", CLASSIFY, {}, 400, "Invalid HTTP method")


def media() -> Iterator[Bad]:
    """Bodies of other kinds."""
    for kind in (
        *("text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded", "image/jpeg"),
        *("multipart/form-data; boundary=x", "application/octet-stream", "json", "*/*", "application/jsonx"),
    ):
        message = f"Content-Type must be application/json, is {kind!r}"
        for path in (TEXT, EMBEDDINGS):
            yield post(kind, path, raw(b'{"text": "x"}', kind), message, 415)
        yield Bad(kind, "PUT", SET, raw(b'{"prompts": ["x"]}', kind), 415, message)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "video/mp4",
        "application/pdf",
        "multipart/mixed",
    ):
        for path in (CLASSIFY, IMAGE):
            yield post(kind, path, raw(b"x", kind), f"Content-Type must be {FILES}, is {kind!r}", 415)
    for charset in ("utf-16", "latin-1", "utf-7"):
        given = raw(b"{}", f"application/json; charset={charset}")
        yield post(charset, TEXT, given, f"The charset of JSON must be utf-8, is {charset!r}", 415)
    for coding in ("gzip", "br", "deflate", "zstd", "identity, gzip"):
        given = raw(b"{}", **{"Content-Encoding": coding})
        message = f"Content-Encoding {coding!r} is not supported; send none"
        yield post(coding, CLASSIFY, given, message, 415)


def headers() -> Iterator[Bad]:
    """Headers that ask for what can't be."""
    for value in ("0", "-1", "1.5", "1e3", "soon", "", "9" * 30, "0x10", "+5", "1,2", "1000ms", "\xb2"):
        given = {"headers": {"X-Deadline-Ms": value}}
        message = f"{DEADLINE} {value!r}"
        yield post(f"deadline {value!r}", TEXT, {"json": {"text": "x"}, **given}, message)
        yield Bad(f"deadline {value!r}", "GET", SETS, given, 400, message)
    verbose = 'The "verbose" parameter is invalid. The value of the parameter must be "true" or "false".'
    yield Bad("verbose", "GET", "/readyz", {"query_string": "verbose=maybe"}, 400, verbose)


def fingerprints(served: str) -> Iterator[Bad]:
    """Other models than the one served."""
    for wanted in ("0" * 32, "x", served[:-1], served + "0", "W" * 500):
        message = (
            f"X-Require-Model-Fingerprint asks for {wanted[:64]!r}, the model served is {served!r}; "
            "embeddings of the two must not be mixed"
        )
        given = {"json": {"text": "x"}, "headers": {"X-Require-Model-Fingerprint": wanted}}
        yield post(f"fingerprint {wanted[:33]}", TEXT, given, message, 409)
