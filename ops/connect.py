"""The running service that a command asks: where it is, with which key, what to do when nobody answers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hailo_clip.shared.errors import ConfigError, HailoClipError

if TYPE_CHECKING:
    from hailo_clip.api.client import Client

URL_VARIABLE = "HAILO_CLIP_URL"
KEY_VARIABLE = "HAILO_CLIP_API_KEY"


@contextmanager
def service(url: str | None, environ: Mapping[str, str] | None = None) -> Iterator[Client]:
    """A client of the service at `url`, else $HAILO_CLIP_URL, else on this machine.

    It asks once: whoever typed the command sees what the service says, and may try again.

    Args:
        url: as given with --url.
        environ: this process's when None.

    Raises:
        ConfigError: the URL or the key is none.
        HailoClipError: nobody answers there (the message says what to do), or an argument can't be sent.
        RequestFailed: from the client.
    """
    from hailo_clip.api.client import DEFAULT_URL, Client, RetryPolicy, Unreachable

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
    variables = os.environ if environ is None else environ
    where = url or variables.get(URL_VARIABLE) or DEFAULT_URL
    key = variables.get(KEY_VARIABLE) or None
    try:
        client = Client(where, api_key=key, retry=RetryPolicy(attempts=1))
    except ValueError as e:
        raise ConfigError(str(e)) from None
    with client:
        try:
            yield client
        except ValueError as e:
            raise HailoClipError(str(e)) from e
        except Unreachable as e:
            help_ = f"Start one with `hailo-clip serve`, or name another with --url or ${URL_VARIABLE}"
            raise HailoClipError(f"{e.message}. {help_}") from e


def read_image(file: str) -> bytes:
    """The bytes of an image file; "-" is standard input. Raises `OSError`."""
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
