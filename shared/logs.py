"""Logs: one line an event, as JSON or readable text, on standard error.

Use the standard `logging` module and put facts into fields, not into the sentence::

    log = logging.getLogger(__name__)
    log.warning("batch failed", extra={"trace": request_id, "worker": name, "batch": 17})

Field names used throughout: ``trace`` (request id), ``worker``, ``batch``, ``tenant``, ``code``, ``reason``;
seconds end in ``_s``, bytes in ``_bytes``. Whatever a client sent is escaped, so that it can't forge a line
or move a terminal's cursor.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import IO, Any

from hailo_clip.shared.config_schema import Log

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEAST = {
    "asyncio": logging.WARNING,
    "urllib3": logging.WARNING,
    # What a decoder thinks of a client's file is told to the client; it is no error of this service.
    "PIL": logging.CRITICAL,
}
"""The least level of libraries' loggers that is of use to anybody."""


def setup_logs(config: Log, process: str, stream: IO[str] | None = None) -> None:
    """Make every logger of this process write to `stream`; call it once, first thing.

    Args:
        config: least level, and format: "auto" is text on a terminal and JSON elsewhere.
        process: who speaks: "broker", "worker-0", "api".
        stream: where to; None: standard error.
    """
    out = sys.stderr if stream is None else stream
    as_json = config.format == "json" or (config.format == "auto" and not out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter(process) if as_json else TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    for name, level in _LEAST.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII only: time, level, process, pid, message, the fields, error."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """`record` as one line."""
        entry: dict[str, Any] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in fields(record).items():
            entry[f"{key}_" if key in entry else key] = _plain(value)
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, separators=(",", ":"))


class TextFormatter(logging.Formatter):
    """Time, level, process, message and ``key=value`` fields; a traceback follows, each line marked."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """`record` as one line, or more when it carries a traceback."""
        head = f"{timestamp(record.created)} {record.levelname.lower():<7} {self._process:<9} "
        parts = [head + escaped(record.getMessage())]
        parts += [f"{escaped(key)}={_quoted(value)}" for key, value in fields(record).items()]
        lines = ["  ".join(parts)]
        if record.exc_info:
            lines += [f"  | {escaped(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def escaped(text: str) -> str:
    r"""`text` with every unprintable character, line ends included, escaped as in ``\n`` or ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _quoted(value: object) -> str:
    """A field's value, in quotes where a reader could not tell its end."""
    text = escaped(f"{value:.6g}" if isinstance(value, float) else str(value))
    plain = text and not set(text) & set(" \"'=")
    return text if plain else json.dumps(text, ensure_ascii=False)


def _plain(value: object) -> Any:
    """`value` as JSON can hold it: NaN and what JSON does not know become text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value)
