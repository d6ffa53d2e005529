"""Fetching: resumed, retried, never half a file, and every failure told with what to do about it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hailo_clip.ops.fetch import SilentProgress
from hailo_clip.ops.models_pull_errors import Passing, unreachable
from hailo_clip.ops.models_pull_http import Client, Patience, _NoDowngrade
from hailo_clip.shared.errors import ModelError
from tests.doubles.file_server import FileServer, file_server

DATA = os.urandom(3_000_000)
QUICK = Patience(attempts=3, pause_s=0.0, timeout_s=2.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with file_server() as server:
        yield server


def fetch(server: FileServer, tmp_path: Path, span: tuple[int, int] | None = None) -> bytes:
    target = tmp_path / "file"
    Client(QUICK).fetch(server.address("f"), target, SilentProgress(), "fetching", span)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    return target.read_bytes()


def failure(server: FileServer, tmp_path: Path, path: str = "f") -> str:
    with pytest.raises(ModelError) as e:
        Client(QUICK).fetch(server.address(path), tmp_path / "file", SilentProgress(), "fetching")
    assert not (tmp_path / "file").exists()
    return e.value.message


def test_a_file_comes_whole_and_is_fetched_once(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA)
    assert fetch(server, tmp_path) == DATA
    assert fetch(server, tmp_path) == DATA
    assert len(server.requests) == 1
    assert server.requests[0].headers["user-agent"].startswith("hailo-clip/")


def test_a_span_of_it(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA)
    assert fetch(server, tmp_path, (1000, 2_000_000)) == DATA[1000:2_000_000]
    assert server.ranges("f") == ["bytes=1000-1999999"]
    assert Client(QUICK).read(server.address("f"), 5, 9) == DATA[5:9]


def test_a_span_from_a_server_without_ranges(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA, ranges=False)
    assert fetch(server, tmp_path, (1000, 2000)) == DATA[1000:2000]
    assert Client(QUICK).read(server.address("f"), 5, 9) == DATA[5:9]


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_dropped_connections_are_continued_where_they_broke(
    server: FileServer, tmp_path: Path, validator: str
) -> None:
    server.put("f", DATA, drop_after=700_000, validator=validator)
    assert fetch(server, tmp_path) == DATA
    assert server.ranges("f") == ["", *(f"bytes={n}-" for n in (700_000, 1_400_000, 2_100_000, 2_800_000))]
    assert server.sent() == len(DATA)


def test_a_dropped_span_is_continued(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA, drop_after=700_000)
    assert fetch(server, tmp_path, (100, 1_000_100)) == DATA[100:1_000_100]
    assert server.ranges("f") == ["bytes=100-1000099", "bytes=700100-1000099"]


def test_another_process_continues_what_one_began(server: FileServer, tmp_path: Path) -> None:
    offer = server.put("f", DATA, drop_after=1_000_000)
    client = Client(Patience(attempts=1, pause_s=0.0))
    with pytest.raises(ModelError, match="the connection ended 2000000 bytes too early"):
        client.fetch(server.address("f"), tmp_path / "file", SilentProgress(), "fetching")
    assert (tmp_path / "file.part").stat().st_size == 1_000_000
    offer.drop_after = None
    assert fetch(server, tmp_path) == DATA
    assert server.ranges("f")[-1] == "bytes=1000000-"
    assert server.sent() == len(DATA)


def test_a_file_that_was_whole_but_not_renamed_is_not_asked_for_again(
    server: FileServer, tmp_path: Path
) -> None:
    server.put("f", DATA)
    fetch(server, tmp_path)
    told = {"url": server.address("f"), "span": [0, None], "validator": '"x"', "total": len(DATA)}
    (tmp_path / "file").rename(tmp_path / "file.part")
    (tmp_path / "file.part.json").write_text(json.dumps(told))
    assert fetch(server, tmp_path) == DATA
    assert len(server.requests) == 1


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_a_file_that_changed_meanwhile_is_begun_anew(
    server: FileServer, tmp_path: Path, validator: str
) -> None:
    offer = server.put("f", DATA, drop_after=1_000_000, validator=validator)
    with pytest.raises(ModelError):
        Client(Patience(attempts=1)).fetch(
            server.address("f"), tmp_path / "file", SilentProgress(), "fetching"
        )
    offer.data, offer.version, offer.drop_after = DATA[::-1], 2, None
    assert fetch(server, tmp_path) == DATA[::-1]


def test_a_file_that_became_shorter_is_begun_anew(server: FileServer, tmp_path: Path) -> None:
    """By a server that does not know If-Range."""
    server.put("f", DATA[:1000], if_range=False)
    (tmp_path / "file.part").write_bytes(DATA[:5000])
    told = {"url": server.address("f"), "span": [0, None], "validator": '"an older one"', "total": 9000}
    (tmp_path / "file.part.json").write_text(json.dumps(told))
    assert fetch(server, tmp_path) == DATA[:1000]
    assert server.ranges("f") == ["bytes=5000-", ""]


@pytest.mark.parametrize("validator", ["weak", "none"])
def test_without_a_validator_nothing_is_continued(server: FileServer, tmp_path: Path, validator: str) -> None:
    server.put("f", DATA, drop_after=700_000, times=1, validator=validator)
    assert fetch(server, tmp_path) == DATA
    assert server.sent() == len(DATA) + 700_000


def test_what_lies_there_of_another_file_is_not_continued(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA)
    (tmp_path / "file.part").write_bytes(b"something else")
    assert fetch(server, tmp_path) == DATA


def test_a_length_that_is_not_told(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA, chunked=True)
    assert fetch(server, tmp_path) == DATA


def test_redirections_are_followed_with_the_range(server: FileServer, tmp_path: Path) -> None:
    server.put("f", b"", redirect=server.address("g"))
    server.put("g", DATA, drop_after=2_000_000)
    assert fetch(server, tmp_path) == DATA
    assert server.ranges("g") == ["", "bytes=2000000-"]


def test_a_redirection_in_circles(server: FileServer, tmp_path: Path) -> None:
    server.put("f", b"", redirect=server.address("f"))
    assert "302" in failure(server, tmp_path)


def test_a_server_in_trouble_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA, status=503, times=2, headers={"Retry-After": "0"})
    assert fetch(server, tmp_path) == DATA
    assert len(server.requests) == 3


def test_a_server_that_stays_in_trouble(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA, status=500)
    message = failure(server, tmp_path)
    assert "the server answered 500 Internal Server Error (3 tries)" in message
    assert "what was fetched is kept" in message


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "it asks for a login"),
        (403, "or the file is gone"),
        (404, "there is no such file"),
        (407, "the proxy asks for a login; put it into https_proxy="),
        (410, "the file is gone"),
        (418, "the server refuses"),
    ],
)
def test_refusals_are_told_at_once(server: FileServer, tmp_path: Path, status: int, words: str) -> None:
    server.put("f", DATA, status=status)
    message = failure(server, tmp_path)
    assert words in message
    assert server.address("f") in message
    assert "hailo-clip models import --help" in message
    assert len(server.requests) == 1


def test_a_body_that_is_always_too_short(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA, short=10, validator="none")
    assert "the connection ended 10 bytes too early (3 tries)" in failure(server, tmp_path)


def test_nobody_listens(server: FileServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert "127.0.0.1 cannot be reached: Connection refused" in failure(server, tmp_path)


def test_a_server_that_says_nothing(server: FileServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/f"
        with pytest.raises(ModelError, match=r"127.0.0.1 did not answer in time \(1 tries\)"):
            Client(Patience(1, 0.0, 0.2)).fetch(url, tmp_path / "file", SilentProgress(), "fetching")


def test_no_network() -> None:
    error = urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    told = unreachable("https://example.org/f", error)
    assert isinstance(told, ModelError)
    assert "the name example.org cannot be resolved: Name or service not known" in told.message


def test_a_certificate_that_is_not_trusted() -> None:
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "certificate is not yet valid"
    told = unreachable("https://example.org/f", urllib.error.URLError(reason))
    assert isinstance(told, ModelError)
    assert "the certificate of example.org is not trusted: certificate is not yet valid" in told.message
    assert "timedatectl" in told.message


def test_another_tls_fault_may_pass() -> None:
    assert isinstance(
        unreachable("https://example.org/f", urllib.error.URLError(ssl.SSLError("eof"))), Passing
    )


def test_proxies_of_the_environment_are_used(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("f", DATA)
    monkeypatch.setenv("http_proxy", f"http://user:secret@{server.url.removeprefix('http://')}")
    target = tmp_path / "file"
    Client(QUICK).fetch("http://models.invalid/f", target, SilentProgress(), "fetching")
    assert target.read_bytes() == DATA
    assert server.requests[0].path == "http://models.invalid/f"
    assert "proxy-authorization" in server.requests[0].headers


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
    server.url = "http://models.invalid"
    message = failure(server, tmp_path)
    assert f"cannot be reached through the proxy http://127.0.0.1:{port}: Connection refused" in message
    assert "secret" not in message


def test_a_proxy_that_makes_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    error = urllib.error.URLError(OSError("Tunnel connection failed: 403 Forbidden"))
    told = unreachable("https://example.org/f", error)
    assert isinstance(told, ModelError)
    assert "no way through the proxy http://proxy.invalid:3128: Tunnel connection failed: 403" in told.message


def test_from_https_nothing_leads_to_http() -> None:
    request: Any = SimpleNamespace(type="https", full_url="https://a.example/f")
    with pytest.raises(ModelError, match=r"leads to http://b\.example/f, which is not encrypted"):
        _NoDowngrade().redirect_request(request, BytesIO(), 302, "Found", {}, "http://b.example/f")


def test_too_little_room_is_told_before_anything_is_fetched(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("f", DATA)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000))
    message = failure(server, tmp_path)
    assert f"{tmp_path} has 2 MB free, file needs 70 MB; free some space" in message


def test_a_disk_that_fills_up_on_the_way(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA)
    told = {"url": server.address("f"), "span": [0, None], "validator": server.offers["f"].etag(), "total": 1}
    (tmp_path / "file.part.json").write_text(json.dumps(told))
    (tmp_path / "file.part").symlink_to("/dev/full")
    message = failure(server, tmp_path)
    assert "the disk is full. Free some space and try again; what was fetched is kept" in message


def test_a_directory_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    server.put("f", DATA)
    with pytest.raises(ModelError, match="cannot be written: No such file or directory"):
        Client(QUICK).fetch(server.address("f"), tmp_path / "absent" / "f", SilentProgress(), "fetching")
