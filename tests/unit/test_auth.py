"""API keys at the door: who comes in, as whom, and what the logs say; CORS and the headers around."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hailo_clip.api import auth_file
from hailo_clip.api.app import create_app
from hailo_clip.api.auth import find, presented_keys
from hailo_clip.ops import keys as editing
from hailo_clip.shared.config import Auth, Config
from hailo_clip.shared.config_kinds import Origin
from hailo_clip.shared.errors import ConfigError
from hailo_clip.shared.keys import ApiKey, hashed, new_key
from hailo_clip.shared.logs import JsonFormatter
from tests.doubles.frontend import TEXT, Frontend, configured, http_scope, raw, until

CHALLENGE = 'Bearer realm="hailo-clip"'
MISSING = "An API key is needed; send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'"
WRONG = "The API key is not valid"


class Guarded:
    """A frontend that asks for keys, their file, and two of them."""

    def __init__(self, frontend: Frontend, file: Path, door: str, index: str) -> None:
        self.frontend, self.file, self.door, self.index = frontend, file, door, index

    def ask(self, **headers: str) -> tuple[int, str | None]:
        """Code and error of a request with these headers."""
        result = self.frontend.post(
            TEXT, {"text": "x"}, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        return result.status_code, result.json.get("error")


def with_auth(config: Config, **auth: object) -> Config:
    return dataclasses.replace(config, auth=Auth(**auth))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("auth") / "keys.yaml"
    door, _ = editing.create(file, "door", "cameras", 2.5, False)
    index, _ = editing.create(file, "nightly", "search", None, True)
    with (
        pytest.MonkeyPatch.context() as patch,
        configured() as config,
        Frontend(with_auth(config, keys_file=file, metrics="key")) as frontend,
    ):
        patch.setattr(auth_file, "POLL_S", 0.02)
        yield Guarded(frontend, file, door, index)


# Who comes in


def test_a_key_opens_the_door_in_either_header_and_brings_its_tenant(guarded: Guarded) -> None:
    submits = guarded.frontend.broker.submits
    assert guarded.ask(Authorization=f"Bearer {guarded.door}") == (200, None)
    assert (submits[-1].tenant, submits[-1].weight, submits[-1].bulk) == ("cameras", 2.5, False)
    assert guarded.ask(X_API_Key=guarded.index) == (200, None)
    assert (submits[-1].tenant, submits[-1].weight, submits[-1].bulk) == ("search", 1.0, True)
    assert guarded.ask(Authorization=f"  bearer   {guarded.door} ") == (200, None)
    assert guarded.ask(Authorization="Basic dXNlcjpwYXNz", X_API_Key=guarded.door) == (200, None)
    assert guarded.ask(Authorization=f"Bearer {guarded.door}", X_API_Key=guarded.door) == (200, None)


def test_without_the_right_key_nothing_is_read_nor_sent(guarded: Guarded) -> None:
    before = len(guarded.frontend.broker.submits)
    door = guarded.door
    refused = {
        MISSING: [
            {},
            {"Authorization": "Bearer "},
            {"Authorization": f"Basic {door}"},
            {"Authorization": door},
        ],
        WRONG: [
            {"X-API-Key": door[:-1]},
            {"X-API-Key": door + "x"},
            {"X-API-Key": door.upper()},
            {"X-API-Key": hashed(door).hex()},
            {"Authorization": f"Bearer {new_key()}"},
            {"Authorization": f"Bearer {door} {door}"},
        ],
        "The request carries different API keys; send one": [
            {"Authorization": f"Bearer {door}", "X-API-Key": guarded.index}
        ],
    }
    for message, cases in refused.items():
        for headers in cases:
            result = guarded.frontend.request("POST", TEXT, **raw(b"no JSON", **headers))
            assert (result.status_code, result.json) == (401, {"error": message}), headers
            assert result.headers["www-authenticate"] == CHALLENGE
            assert result.headers["content-type"] == "application/json"
    assert len(guarded.frontend.broker.submits) == before


def test_a_path_that_is_not_there_tells_a_stranger_nothing(guarded: Guarded) -> None:
    assert guarded.frontend.request("GET", "/v1/secret").status_code == 401
    with_key = guarded.frontend.request("GET", "/v1/secret", headers={"X-API-Key": guarded.door})
    assert with_key.status_code == 404


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_probes_stay_open(guarded: Guarded, path: str) -> None:
    assert guarded.frontend.request("GET", path).status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/viewer.js"])
def test_the_documents_stay_open(guarded: Guarded, path: str) -> None:
    assert guarded.frontend.request("GET", path).status_code != 401


@pytest.mark.parametrize("path", ["/metrics", "/docsx", "/health/", "/livez/../v1/models", "//health"])
def test_nothing_else_is_open(guarded: Guarded, path: str) -> None:
    assert guarded.frontend.request("GET", path).status_code == 401


def test_metrics_are_open_unless_they_are_not(guarded: Guarded) -> None:
    with configured() as config:
        app = create_app(with_auth(config, keys_file=guarded.file))
        call = type("Call", (), {"path": "/metrics"})()
        app._edge._door.admit(call, [])  # no Unauthorized


def test_without_a_file_everybody_may_come_in() -> None:
    with configured() as config, Frontend(config) as frontend:
        assert frontend.post(TEXT, {"text": "x"}).status_code == 200
        assert frontend.broker.submits[-1].tenant == "local"


def test_every_key_is_compared_whichever_it_is() -> None:
    compared: list[bytes] = []

    class Spied(ApiKey):
        def __getattribute__(self, name: str) -> object:
            if name == "sha256":
                compared.append(b"")
            return super().__getattribute__(name)

    keys = [Spied(f"k{i}", "t", hashed(f"hc_{i}")) for i in range(5)]
    for presented, name in (("hc_0", "k0"), ("hc_4", "k4"), ("hc_9", None)):
        compared.clear()
        key = find(keys, presented)
        assert (key and key.name) == name
        assert len(compared) == 5


def test_keys_are_found_in_repeated_headers() -> None:
    headers = [(b"x-api-key", b"a"), (b"x-api-key", b"b"), (b"authorization", b"Bearer c")]
    assert presented_keys(headers) == {"a", "b", "c"}


# The file while serving


def test_changes_of_the_file_are_taken_and_broken_ones_are_not(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hailo_clip.api.auth")
    new, _ = editing.create(guarded.file, "new", None, None, False)
    until(lambda: guarded.ask(X_API_Key=new)[0] == 200)
    editing.revoke(guarded.file, "new")
    until(lambda: guarded.ask(X_API_Key=new) == (401, WRONG))
    good = guarded.file.read_text()
    for broken in ("keys: [", "keys: [{name: x}]"):
        caplog.clear()
        guarded.file.write_text(broken)
        until(lambda: "the old keys stay" in caplog.text)
        assert guarded.ask(X_API_Key=guarded.door) == (200, None)
    caplog.clear()
    guarded.file.unlink()
    until(lambda: "the old keys stay" in caplog.text)
    time.sleep(0.1)
    assert caplog.text.count("the old keys stay") == 1  # once a change, not at every look
    assert guarded.ask(X_API_Key=guarded.door) == (200, None)
    guarded.file.write_text(good)
    guarded.file.chmod(0o600)
    until(lambda: "API keys read again" in caplog.text)
    assert guarded.ask(X_API_Key=guarded.door) == (200, None)


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    file, other = tmp_path / "keys.yaml", tmp_path / "other.yaml"
    first, _ = editing.create(file, "a", None, None, False)
    second, _ = editing.create(other, "a", None, None, False)
    watched = auth_file.KeyFile(file)
    old = file.stat()
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert other.stat().st_size == old.st_size
    other.replace(file)
    watched.look()
    assert find(watched.keys, second) is not None
    assert find(watched.keys, first) is None


@pytest.mark.parametrize("content", [None, "keys: [", "keys: [{name: x}]"])
def test_no_service_starts_with_a_broken_file(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys.yaml"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    with configured() as config, pytest.raises(ConfigError, match=r"^auth.keys_file: .*keys.yaml"):
        create_app(with_auth(config, keys_file=file))


# Logs


def test_the_access_line_names_the_key_and_never_shows_one(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stranger = new_key()
    guarded.ask(X_API_Key=guarded.door, X_Request_Id="with-key")
    guarded.ask(Authorization=f"Bearer {stranger}", X_Request_Id="stranger")
    lines = [json.loads(JsonFormatter("api").format(record)) for record in caplog.records]
    access = {line["trace"]: line for line in lines if line["logger"] == "hailo_clip.api.access"}
    assert (access["with-key"]["key"], access["with-key"]["tenant"]) == ("door", "cameras")
    assert access["with-key"]["code"] == 200
    assert "key" not in access["stranger"]
    assert (access["stranger"]["tenant"], access["stranger"]["code"]) == ("local", 401)
    everything = json.dumps(lines)
    for secret in (guarded.door, stranger, hashed(guarded.door).hex()):
        assert secret not in everything


# Headers around


def test_every_answer_forbids_sniffing(guarded: Guarded) -> None:
    for path in ("/health", "/nowhere", TEXT):
        assert guarded.frontend.request("GET", path).headers["x-content-type-options"] == "nosniff"


PAGE = "https://app.example"


@pytest.fixture(scope="module")
def shared(guarded: Guarded) -> Iterator[Frontend]:
    """A frontend for one web page, with keys."""
    with (
        configured(cors_origins=(PAGE, "http://[::1]:8080")) as config,
        Frontend(with_auth(config, keys_file=guarded.file)) as frontend,
    ):
        yield frontend


def cors(headers: object) -> dict[str, str]:
    return {k: v for k, v in dict(headers).items() if k.startswith("access-control-")}  # type: ignore[call-overload]


def test_no_origin_is_allowed_unless_configured(guarded: Guarded) -> None:
    key = {"X-API-Key": guarded.door}
    answer = guarded.frontend.post(TEXT, {"text": "x"}, headers={"Origin": PAGE, **key})
    assert (answer.status_code, cors(answer.headers), answer.headers.get("vary")) == (200, {}, None)
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    assert cors(guarded.frontend.request("OPTIONS", TEXT, headers=asked).headers) == {}


def test_a_page_asks_first_and_may_then_read_answers_and_errors(shared: Frontend, guarded: Guarded) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    leave = shared.request("OPTIONS", TEXT, headers=asked)
    assert (leave.status_code, leave.text) == (204, "")
    told = cors(leave.headers)
    assert told["access-control-allow-origin"] == PAGE
    assert "POST" in told["access-control-allow-methods"].split(", ")
    assert {"Authorization", "Content-Type", "X-API-Key"} <= set(
        told["access-control-allow-headers"].split(", ")
    )
    for key, code in ((guarded.door, 200), ("hc_x", 401)):
        answer = shared.post(TEXT, {"text": "x"}, headers={"Origin": PAGE, "X-API-Key": key})
        assert answer.status_code == code
        assert cors(answer.headers)["access-control-allow-origin"] == PAGE
        assert "X-Request-Id" in cors(answer.headers)["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://app.example.evil", "http://app.example", "null", "https://APP.example"]
)
def test_other_origins_are_told_nothing(shared: Frontend, guarded: Guarded, origin: str) -> None:
    answer = shared.post(TEXT, {"text": "x"}, headers={"Origin": origin, "X-API-Key": guarded.door})
    assert (answer.status_code, cors(answer.headers), answer.headers["vary"]) == (200, {}, "Origin")
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    refused = shared.request("OPTIONS", TEXT, headers=asked)
    assert (refused.status_code, cors(refused.headers)) == (401, {})


def test_a_star_allows_every_origin() -> None:
    with configured(cors_origins=("*",)) as config, Frontend(config) as frontend:
        answer = frontend.post(TEXT, {"text": "x"}, headers={"Origin": "null"})
        assert cors(answer.headers)["access-control-allow-origin"] == "*"
        assert "vary" not in answer.headers
        assert cors(frontend.request("GET", "/livez").headers) == {}
        scope = http_scope(
            "OPTIONS", TEXT, {"Access-Control-Request-Method": "POST"}
        )  # no Origin: no preflight
        start = frontend.asgi(scope, [{"type": "http.request", "body": b"", "more_body": False}])[0]
        assert start["status"] != 204


def test_what_an_origin_is() -> None:
    for good in (
        "*",
        "https://example.org",
        "http://localhost:3000",
        "http://[::1]:8080",
        "capacitor://localhost",
    ):
        assert Origin().check(good) == good
    for bad in (
        "example.org",
        "https://example.org/",
        "https://Example.org",
        "https://",
        "",
        5,
        "https://a b",
    ):
        with pytest.raises(ValueError):
            Origin().check(bad)
