"""The command line: help, exit codes, messages, and what it prints of a service's answers."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hailo_clip import __version__
from hailo_clip.api.client import Classification, Label
from hailo_clip.ops.cli import COMMANDS, main
from hailo_clip.ops.cli_classify import block_of, table
from hailo_clip.ops.connect import service as connected
from hailo_clip.shared.config import dump_config, load_config, reference
from hailo_clip.shared.errors import ConfigError

CLI = (sys.executable, "-m", "hailo_clip.ops.cli")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in os.environ:
        if variable.startswith("HAILO_CLIP"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    empty = tmp_path / "empty.yaml"
    empty.touch()
    monkeypatch.setenv("HAILO_CLIP_CONFIG", str(empty))


PICTURE = b"\xff\xd8 some bytes"
IMAGE = base64.b64encode(PICTURE).decode()


class Service:
    """An HTTP server that answers what it is told to and keeps what it was asked."""

    def __init__(self) -> None:
        self.code, self.headers, self.answer = 200, {}, b"{}"  # type: int, dict[str, str], bytes
        self.asked: list[tuple[str, bytes]] = []
        self.heard: list[Message] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.asked.append((self.path, body))
                service.heard.append(self.headers)
                self.send_response(service.code)
                for name, value in service.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(service.answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answers(self, body: object, code: int = 200, **headers: str) -> None:
        self.answer, self.code, self.headers = json.dumps(body).encode(), code, headers


def asked(service: Service) -> tuple[str, Any]:
    """Path and JSON of the first request."""
    path, body = service.asked[0]
    return path, json.loads(body)


@pytest.fixture
def service() -> Iterator[Service]:
    stub = Service()
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stub
    stub.server.shutdown()
    thread.join()
    stub.server.server_close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PICTURE)
    return path


CLASSIFIED = {
    "classifications": [
        {"text": "a cat", "score": 0.75, "rank": 1},
        {"text": "a \x1b[31mdog", "score": 0.0, "rank": 2},
    ],
    "inference_time_ms": 12.5,
    "model": "demo",
}


# Help and usage


@pytest.mark.parametrize(
    "command", [(), *((c,) for c in COMMANDS), ("models", "import"), ("models", "remove")]
)
def test_every_command_has_help_with_examples(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "examples:\n  " in out
    assert f"hailo-clip {' '.join(command)}".strip() in out
    assert all(len(line) <= 110 for line in out.splitlines())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"hailo-clip {__version__}\n"


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["serve", "--nonsense"], ["classify"], ["embed"], ["models"]]
)
def test_wrong_usage_exits_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: hailo-clip" in capsys.readouterr().err


def test_help_needs_no_heavy_library() -> None:
    """What --help imports is what makes it slow; time itself depends on the machine."""
    code = (
        "import sys; from hailo_clip.ops.cli import build_parser; build_parser().format_help(); "
        "sys.exit(str({'numpy', 'zmq', 'yaml', 'falcon', 'PIL', 'httpx'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "\n"


# Configuration


def test_flags_reach_the_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = ["--port", "5050", "--workers", "3", "--model", "demo", "--run-dir", str(tmp_path / "r")]
    assert main(["config", *flags]) == 0
    overrides = {
        "server.port": 5050,
        "workers.count": 3,
        "model.name": "demo",
        "broker.run_dir": tmp_path / "r",
    }
    assert capsys.readouterr().out == dump_config(load_config(None, {}, overrides))


def test_config_reads_the_file_it_is_given(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("server: {port: 5051}\n")
    assert main(["config", "--config", str(file)]) == 0
    assert "port: 5051" in capsys.readouterr().out


def test_config_prints_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--reference"]) == 0
    assert capsys.readouterr().out == reference()


def test_a_wrong_configuration_exits_2_with_a_line_for_each_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAILO_CLIP__QUEUE__MAX_DEPHT", "20")
    assert main(["serve", "--port", "x", "--workers", "0"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: queue.max_depht (environment variable HAILO_CLIP__QUEUE__MAX_DEPHT): "
        "there is no such setting; did you mean queue.max_depth?",
        "error: server.port = 'x' (--port): must be a whole number from 1 to 65535",
        "error: workers.count = 0 (--workers): must be a whole number from 1 to 64",
    ]


def test_serve_without_its_model_stops_with_the_two_commands_that_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve"]) == 1
    err = capsys.readouterr().err
    assert "model clip-resnet-50x4 is not installed" in err
    assert "\n  hailo-clip models pull clip-resnet-50x4\n  hailo-clip serve --model demo\n" in err


# Asking a service


def test_classify_prints_a_table(service: Service, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service.answers(CLASSIFIED)
    assert main(["classify", str(picture), "a cat", "a dog", "--url", service.url]) == 0
    assert asked(service) == ("/v1/classify", {"image": IMAGE, "prompts": ["a cat", "a dog"], "top_k": 2})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["1", "0.750", "█" * 18, "a", "cat"]
    assert second.split() == ["2", "0.000", "a", "\\x1b[31mdog"]
    assert last == "model demo, 12.5 ms"


def test_classify_passes_its_options_on_and_prints_json(
    service: Service, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers(CLASSIFIED)
    options = ["--top-k", "1", "--threshold", "0.25", "--json", "--url", service.url + "/"]
    assert main(["classify", str(picture), "a cat", "a dog", *options]) == 0
    assert asked(service)[1] == {"image": IMAGE, "prompts": ["a cat", "a dog"], "top_k": 1, "threshold": 0.25}
    assert json.loads(capsys.readouterr().out) == CLASSIFIED


def test_classify_with_templates_and_probabilities(service: Service, picture: Path) -> None:
    service.answers(CLASSIFIED)
    options = ["--softmax", "--template", "a {}", "--template", "the {}", "--negative", "a wall"]
    assert main(["classify", str(picture), "cat", "--url", service.url, *options]) == 0
    assert asked(service)[1] == {
        "image": IMAGE,
        "prompts": ["cat"],
        "templates": ["a {}", "the {}"],
        "negative_prompts": ["a wall"],
        "top_k": 1,
        "score_mode": "softmax",
    }


def test_classify_with_a_label_set_shows_all_of_it(service: Service, picture: Path) -> None:
    service.answers(CLASSIFIED)
    assert main(["classify", str(picture), "--label-set", "ppe", "--url", service.url]) == 0
    assert service.asked == [("/v1/classify?label_set=ppe&top_k=256", picture.read_bytes())]


@pytest.mark.parametrize("labels", [[], ["a cat", "--label-set", "ppe"]])
def test_classify_takes_prompts_or_a_label_set(
    labels: list[str], picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["classify", str(picture), *labels])
    assert caught.value.code == 2
    assert "give one or more PROMPTs, or --label-set" in capsys.readouterr().err


def test_bars_are_plain_where_blocks_cannot_be_shown() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert block_of(ascii_only) == "#"
    assert block_of(io.StringIO()) == "#"  # no encoding known
    found = Classification(model="demo", labels=(Label("a cat", 0.75, 1),), inference_time_ms=12.5)
    assert "###" in table(found, "#")
    assert "no prompt reaches the threshold" in table(dataclasses.replace(found, labels=()), "#")


def test_embed_prints_the_vector(service: Service, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"embedding": [0.6, -0.8], "dimension": 2, "model": "demo"}
    service.answers(answer)
    assert main(["embed", "--text", "a cat", "--url", service.url]) == 0
    assert json.loads(capsys.readouterr().out) == [0.6, -0.8]
    assert main(["embed", "--image", str(picture), "--json", "--url", service.url]) == 0
    assert json.loads(capsys.readouterr().out) == answer
    assert [path for path, _ in service.asked] == ["/v1/embed/text", "/v1/embed/image"]
    assert asked(service) == ("/v1/embed/text", {"text": "a cat"})
    assert service.asked[1][1] == picture.read_bytes()


def test_embed_prints_no_more_digits_than_the_service(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers({"embedding": [0.12345679, -3.3e-9], "dimension": 2, "model": "demo"})
    assert main(["embed", "--text", "a cat", "--url", service.url]) == 0
    assert capsys.readouterr().out == "[0.12345679, -3.3e-09]\n"


def test_an_image_from_standard_input(service: Service) -> None:
    service.answers(CLASSIFIED)
    command = [*CLI, "classify", "-", "a cat", "--url", service.url]
    done = subprocess.run(command, input=b"bytes", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert asked(service)[1]["image"] == base64.b64encode(b"bytes").decode()


def test_the_key_comes_from_the_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAILO_CLIP_API_KEY", "hc_secret")
    service.answers({"embedding": [0.6, -0.8], "dimension": 2, "model": "demo"})
    assert main(["embed", "--text", "x", "--url", service.url]) == 0
    assert service.heard[0]["Authorization"] == "Bearer hc_secret"


def test_a_text_that_is_no_unicode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "--text", "\udcff"]) == 1
    assert capsys.readouterr().err == "error: text has a text that is not valid Unicode: '\\udcff'\n"


@pytest.mark.parametrize(
    ("code", "body", "headers", "message"),
    [
        (400, {"error": "Missing 'prompts'"}, {}, "the service answered 400: Missing 'prompts'"),
        (
            429,
            {"error": "queue full"},
            {"Retry-After": "2"},
            "the service answered 429: queue full (try again in 2 s)",
        ),
        (502, ["no", "object"], {}, "the service answered 502: Bad Gateway"),
    ],
)
def test_the_services_errors_are_told_in_its_own_words(
    service: Service,
    capsys: pytest.CaptureFixture[str],
    code: int,
    body: object,
    headers: dict[str, str],
    message: str,
) -> None:
    service.answers(body, code, **headers)
    assert main(["embed", "--text", "x", "--url", service.url]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_an_answer_that_is_not_the_services(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answer = b"<html>"
    assert main(["embed", "--text", "x", "--url", service.url]) == 1
    assert "no hailo-clip service" in capsys.readouterr().err


def test_no_service_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # never taken to this machine itself
    monkeypatch.setenv("HAILO_CLIP_URL", "http://127.0.0.1:9")
    assert main(["embed", "--text", "x"]) == 1
    err = capsys.readouterr().err
    assert (
        "no service answers at http://127.0.0.1:9: Connection refused. Start one with `hailo-clip serve`"
        in err
    )


def test_a_missing_image_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "/nonexistent/x.jpg", "a cat"]) == 1
    assert capsys.readouterr().err == "error: /nonexistent/x.jpg: No such file or directory\n"


@pytest.mark.parametrize("url", ["ftp://x", "localhost:5000", "http://", "file:///etc/passwd"])
def test_only_http_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL such as"), connected(url, {}):
        pass


def test_the_url_by_flag_else_variable_else_default() -> None:
    for url, environ, expected in (
        ("http://a/", {"HAILO_CLIP_URL": "http://b"}, "http://a"),
        (None, {"HAILO_CLIP_URL": "http://b"}, "http://b"),
        (None, {}, "http://127.0.0.1:5000"),
    ):
        with connected(url, environ) as client:
            assert client.url == expected


# Ends


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run([*CLI, "config", "--reference"], stdout=gone, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(closed: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(CLI)} config --reference {closed}"], capture_output=True
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert bool(done.stdout) == (">&-" not in closed.split())


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": type("B", (), {"read": interrupted})()})())
    assert main(["classify", "-", "a cat"]) == 130
    assert capsys.readouterr() == ("", "")
