"""Which web pages of other origins may use the API from a browser (CORS). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ANY = "*"
PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, DELETE"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, X-API-Key, X-Deadline-Ms, X-Request-Id, X-Require-Model-Fingerprint",
    ),
    (b"access-control-max-age", b"600"),
]
"""What a preflight request is told, besides the origin."""

_EXPOSED = (
    b"access-control-expose-headers",
    b"Retry-After, Server-Timing, X-Model-Fingerprint, X-Request-Id",
)

HeaderList = list[tuple[bytes, bytes]]


class Cors:
    """The headers that answers need.

    Args:
        origins: those allowed, such as "https://example.org", or `ANY`; empty: none, and no headers.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = ANY in origins
        self._origins = {origin.encode() for origin in origins}

    def headers(self, request: Mapping[bytes, bytes]) -> HeaderList:
        """What every answer to a request with these headers carries."""
        if not self._origins:
            return []
        # A cache must not give one origin's answer to another.
        vary = [] if self._any else [(b"vary", b"Origin")]
        origin = request.get(b"origin")
        if origin is None or not (self._any or origin in self._origins):
            return vary
        return [(b"access-control-allow-origin", b"*" if self._any else origin), _EXPOSED, *vary]

    def is_preflight(self, method: str, request: Mapping[bytes, bytes]) -> bool:
        """Whether a browser asks for leave on behalf of an origin that has it."""
        asks = method == "OPTIONS" and b"access-control-request-method" in request
        return asks and (self._any or request.get(b"origin") in self._origins) and b"origin" in request
