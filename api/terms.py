"""What a client asks for in headers: by when it wants its answer, and of which model. Pure."""

from __future__ import annotations

import re

from hailo_clip.shared.errors import ClientError, FingerprintConflict

_MILLISECONDS = re.compile(r"0*[1-9][0-9]{0,11}")


def deadline_s(header: str | None) -> float | None:
    """The seconds that X-Deadline-Ms gives a request from its arrival, None without one.

    Raises:
        ClientError: it is no whole number of milliseconds, at least 1.
    """
    if header is None:
        return None
    if not _MILLISECONDS.fullmatch(header.strip()):
        raise ClientError(f"Invalid X-Deadline-Ms: must be an integer of at least 1, is {header[:40]!r}")
    return int(header) / 1e3


def require_fingerprint(wanted: str, served: str) -> None:
    """Check what X-Require-Model-Fingerprint asks for; empty asks for nothing.

    Raises:
        FingerprintConflict: another model is served.
    """
    if wanted and wanted.strip().lower() != served:
        raise FingerprintConflict(
            f"X-Require-Model-Fingerprint asks for {wanted[:64]!r}, the model served is {served!r}; "
            "embeddings of the two must not be mixed"
        )
