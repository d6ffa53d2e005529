"""Talking to a running service from the command line, with the standard library alone."""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hailo_clip.shared.errors import HailoClipError

DEFAULT_URL = "http://127.0.0.1:5000"
URL_VARIABLE = "HAILO_CLIP_URL"
TIMEOUT_S = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RequestFailed(HailoClipError):
    """The service could not be reached, or answered an error; the message says which and what to do."""


def service_url(given: str | None, environ: Mapping[str, str] | None = None) -> str:
    """The base URL: `given`, else $HAILO_CLIP_URL, else `DEFAULT_URL`. Raises `RequestFailed`."""
    url = given or (os.environ if environ is None else environ).get(URL_VARIABLE) or DEFAULT_URL
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestFailed(f"{url!r} is not a URL such as {DEFAULT_URL}")
    return url.rstrip("/")


def read_image(file: str) -> str:
    """The bytes of an image file in base64; "-" is standard input. Raises `OSError`."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return base64.b64encode(data).decode("ascii")


def post(url: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """POST `body` as JSON and read the JSON answer.

    Raises:
        RequestFailed: nobody answers at `url`, or the answer is an error or not from this service.
    """
    request = urllib.request.Request(  # noqa: S310  (service_url lets http and https pass only)
        url + path,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    try:
        with _opener(url).open(request, timeout=TIMEOUT_S) as response:
            return _object(response.read(), url)
    except urllib.error.HTTPError as e:
        with e:
            raise RequestFailed(_refusal(e)) from e
    except (OSError, http.client.HTTPException) as e:
        raise RequestFailed(_unreachable(url, e)) from e


def _opener(url: str) -> urllib.request.OpenerDirector:
    """An opener that takes no proxy to this very machine, whatever the environment says."""
    if urllib.parse.urlsplit(url).hostname in _LOOPBACK:
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def _object(data: bytes, url: str) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise RequestFailed(f"what answers at {url} is no hailo-clip service")
    return answer


def _refusal(e: urllib.error.HTTPError) -> str:
    """The service's own words for a status of 400 or above."""
    try:
        said = json.loads(e.read())["error"]
    except (ValueError, KeyError, TypeError, OSError):
        said = e.reason
    wait = e.headers.get("Retry-After")
    return f"the service answered {e.code}: {said}" + (f" (try again in {wait} s)" if wait else "")


def _unreachable(url: str, e: OSError | http.client.HTTPException) -> str:
    reason = e.reason if isinstance(e, urllib.error.URLError) else e
    if isinstance(reason, TimeoutError):
        return f"the service at {url} did not answer within {TIMEOUT_S:g} s"
    why = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
    return (
        f"no service answers at {url}: {why}. Start one with `hailo-clip serve`, or name another "
        f"with --url or ${URL_VARIABLE}"
    )
