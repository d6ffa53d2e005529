"""Log lines: what they hold, and that nobody can forge one."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from hailo_clip.shared.config import Log
from hailo_clip.shared.logs import escaped, setup_logs, timestamp


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_holds_time_level_process_message_and_fields() -> None:
    out = io.StringIO()
    setup_logs(Log(format="json"), "broker", out)
    logging.getLogger("x").info(
        "batch %d done", 3, extra={"trace": "r-1", "worker": "worker-0", "wait_s": 0.5}
    )
    (entry,) = logged(out)
    assert entry["message"] == "batch 3 done"
    assert (entry["level"], entry["process"], entry["logger"]) == ("info", "broker", "x")
    assert (entry["trace"], entry["worker"], entry["wait_s"]) == ("r-1", "worker-0", 0.5)
    assert entry["time"].endswith("Z")
    assert datetime.fromisoformat(entry["time"]).utcoffset() is not None


@pytest.mark.parametrize(
    ("format", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("text", io.StringIO, False),
    ],
)
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    format: str, stream: type[io.StringIO], is_json: bool
) -> None:
    out = stream()
    setup_logs(Log(format=format), "api", out)
    logging.getLogger().warning("hello")
    assert out.getvalue().startswith("{") is is_json


def test_the_level_is_the_least_that_is_logged() -> None:
    out = io.StringIO()
    setup_logs(Log(level="warning", format="text"), "api", out)
    logging.getLogger("a").info("quiet")
    logging.getLogger("a").warning("loud")
    assert "loud" in out.getvalue()
    assert "quiet" not in out.getvalue()


@pytest.mark.parametrize("format", ["json", "text"])
def test_what_a_client_sent_cannot_forge_a_line_or_steer_the_terminal(format: str) -> None:
    out = io.StringIO()
    setup_logs(Log(format=format), "api", out)
    evil = "x\r\n2030-01-01T00:00:00.000Z error forged\x1b[2J\u2028\x85\x9b1m\udc80"
    logging.getLogger().info("prompt %s", evil, extra={"trace": evil, "k\ney": 1})
    assert len(out.getvalue().splitlines()) == 1
    assert out.getvalue().removesuffix("\n").isprintable()


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_traceback_of_a_hostile_exception_stays_marked(format: str) -> None:
    out = io.StringIO()
    setup_logs(Log(format=format), "api", out)
    try:
        raise ValueError("first\n2030-01-01T00:00:00.000Z error forged\x1b[2J")
    except ValueError:
        logging.getLogger().exception("it failed")
    first, *rest = out.getvalue().splitlines()
    assert "it failed" in first
    assert "ValueError" in out.getvalue()
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    assert bool(rest) is (format == "text")


def test_fields_json_cannot_hold_become_text_and_never_hide_the_standard_ones() -> None:
    out = io.StringIO()
    setup_logs(Log(format="json"), "api", out)
    extra = {
        "nan": float("nan"),
        "obj": ValueError("x"),
        "list": [1, float("inf")],
        "map": {1: b"a"},
        "time": 5,
    }
    logging.getLogger().info("m", extra=extra)
    (entry,) = logged(out)
    assert (entry["nan"], entry["obj"], entry["list"], entry["map"]) == (
        "nan",
        "x",
        [1, "inf"],
        {"1": "b'a'"},
    )
    assert entry["time"] != 5
    assert entry["time_"] == 5


def test_text_quotes_values_whose_end_could_not_be_told() -> None:
    out = io.StringIO()
    setup_logs(Log(format="text"), "api", out)
    logging.getLogger().info("m", extra={"a": "one two", "b": "x=1", "c": "", "d": 1.23456789, "e": "é"})
    assert out.getvalue().endswith('m  a="one two"  b="x=1"  c=""  d=1.23457  e=é\n')


def test_set_up_twice_logs_once_and_to_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logs(Log(format="text"), "api", io.StringIO())
    setup_logs(Log(format="text"), "api")
    logging.getLogger().info("once")
    sys.stderr.flush()
    assert capsys.readouterr().err.count("once") == 1


def test_what_decoders_think_of_a_clients_file_is_no_line() -> None:
    out = io.StringIO()
    setup_logs(Log(format="json"), "api", out)
    logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded: 278")
    assert out.getvalue() == ""


def test_warnings_are_logged() -> None:
    out = io.StringIO()
    setup_logs(Log(format="json"), "api", out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", stacklevel=1)
    assert "old thing" in logged(out)[0]["message"]


def test_timestamp_is_utc_with_milliseconds() -> None:
    assert timestamp(0.0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "shown"), [("a b", "a b"), ("a\n", "a\\n"), ("\x1b", "\\x1b"), ("é😀", "é😀")]
)
def test_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
