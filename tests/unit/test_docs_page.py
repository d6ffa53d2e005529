"""/openapi.json and /docs: cached, closed to everything from elsewhere, and complete without it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from hailo_clip.api.docs_resource import DATA, FILES
from tests.doubles.frontend import Frontend, configured

PATHS = ("/openapi.json", *FILES)


@pytest.fixture(scope="module")
def frontend() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_it_comes_once_and_then_by_its_etag(frontend: Frontend, path: str) -> None:
    first = frontend.request("GET", path)
    assert first.status_code == 200
    assert len(first.content) == int(first.headers["content-length"]) > 500
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = frontend.request("GET", path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for unknown in ('"other"', "no tag at all", ""):
        assert frontend.request("GET", path, headers={"If-None-Match": unknown}).status_code == 200
    head = frontend.request("HEAD", path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert head.headers["content-length"] == first.headers["content-length"]


@pytest.mark.parametrize("path", PATHS)
def test_it_may_load_nothing_from_elsewhere(frontend: Frontend, path: str) -> None:
    headers = frontend.request("GET", path).headers
    policy = dict(part.partition(" ")[::2] for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_refers_to_its_own_parts_alone(frontend: Frontend) -> None:
    page = frontend.request("GET", "/docs").text
    linked = set(re.findall(r'(?:href|src)="([^"#]+)"', page)) - {"data:,"}
    assert linked == {"docs/docs.css", "docs/docs.js", "docs/try.js", "docs/example.jpg", "openapi.json"}
    for name in linked:
        assert frontend.request("GET", "/" + name).status_code == 200
    for file in DATA.iterdir():
        assert not re.search(rb"https?://|@import|url\(|eval\(|innerHTML", file.read_bytes()), file.name


def test_the_page_has_no_scripts_or_styles_of_its_own(frontend: Frontend) -> None:
    page = frontend.request("GET", "/docs").text
    assert re.findall(r"<script(?! src=)|<style| style=| on\w+=", page) == []
    assert '<html lang="en">' in page
    fields = set(re.findall(r'<(?:input|select|textarea) id="(\w+)"', page)) - {
        "key"
    }  # that one is in its label
    assert fields == set(re.findall(r'<label for="(\w+)"', page))
