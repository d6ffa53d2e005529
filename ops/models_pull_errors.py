"""What can go wrong when a file is fetched, in words that say what to do."""

from __future__ import annotations

import errno
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from hailo_clip.shared.errors import ModelError

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_ABSENT = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_ADVICE = {
    401: "it asks for a login; models are fetched from public places only",
    403: "the server or a proxy does not allow it, or the file is gone (some servers say so with 403)",
    404: "there is no such file (any more)",
    407: "the proxy asks for a login; put it into https_proxy=http://USER:PASSWORD@HOST:PORT",
    410: "the file is gone",
    451: "it is not offered here for legal reasons",
}


class Passing(Exception):
    """A failure that another try may not meet; `wait_s` is how long the server asks to be left alone."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Beyond(Passing):
    """The server's file is shorter than the part that was asked for."""


def refusal(url: str, code: int, reason: str, retry_after: str = "") -> Passing | ModelError:
    """The error for an HTTP status that is none of success: `Passing` where trying again may help."""
    if code == 416:
        return Beyond("the server's file is shorter than the part that was asked for")
    if code in _RETRIED:
        return Passing(
            f"the server answered {code} {reason}", float(retry_after) if retry_after.isdecimal() else 0.0
        )
    return ModelError(
        f"{url}: {code} {reason}: {_ADVICE.get(code, 'the server refuses')}. If the publisher moved it, "
        "write the new address into a copy of hailo_clip/ops/data/sources.yaml and use that with --sources "
        "FILE; or get the files another way and type: hailo-clip models import --help"
    )


def unreachable(url: str, error: Exception) -> Passing | ModelError:
    """The error for a connection that failed: `Passing` where trying again may help."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urlsplit(url).hostname
    proxy = urllib.request.getproxies().get(urlsplit(url).scheme)
    through = f" through the proxy {without_login(proxy)}" if proxy else ""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return ModelError(
            f"{url}: the certificate of {host} is not trusted: {reason.verify_message}. Check this machine's "
            "date (timedatectl); behind a proxy that opens TLS, set SSL_CERT_FILE to its certificates"
        )
    if isinstance(reason, socket.gaierror):
        return ModelError(
            f"{url}: the name {host}{through} cannot be resolved: {reason.strerror}. Is there a network, and "
            "do you need https_proxy? Without one, pull the model elsewhere and copy its directory here"
        )
    if isinstance(reason, OSError) and "Tunnel connection failed" in str(reason):
        return ModelError(f"{url}: no way{through}: {reason}. Check https_proxy and no_proxy")
    if isinstance(reason, OSError) and reason.errno in _ABSENT:
        return ModelError(
            f"{url}: {host} cannot be reached{through}: {reason.strerror}. Is there a network, and do you "
            "need https_proxy?"
        )
    if isinstance(reason, TimeoutError):
        return Passing(f"{host} did not answer in time{through}")
    return Passing(f"the connection failed{through}: {reason or type(error).__name__}")


def disk_error(e: OSError, target: Path) -> ModelError:
    """The error for a file that could not be written."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"{target.parent}: the disk is full. Free some space and try again; what was fetched is kept"
        )
    return ModelError(f"{target}: cannot be written: {e.strerror or e}")


def without_login(proxy: str) -> str:
    """A proxy's address without user and password."""
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
