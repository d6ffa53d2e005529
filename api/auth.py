"""Who may come in, and as whom: API keys in requests against the keys in force."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import Protocol

from hailo_clip.api.call import Call
from hailo_clip.shared.errors import Unauthorized
from hailo_clip.shared.keys import ApiKey, hashed

CHALLENGE = 'Bearer realm="hailo-clip"'
"""The WWW-Authenticate header of a 401."""

OPEN = frozenset(("/health", "/livez", "/readyz", "/openapi.json", "/docs"))
OPEN_BELOW = "/docs/"
METRICS = "/metrics"

Headers = Iterable[tuple[bytes, bytes]]


class KeySource(Protocol):
    """Knows the keys in force."""

    @property
    def keys(self) -> Sequence[ApiKey]:
        """All of them."""
        ...


class Door:
    """Lets requests in whose key is known, and says whose they are.

    Args:
        source: the keys; None: everybody may come in.
        open_metrics: /metrics needs no key.
    """

    def __init__(self, source: KeySource | None, open_metrics: bool) -> None:
        self._source = source
        self._open = OPEN | {METRICS} if open_metrics else OPEN

    def admit(self, call: Call, headers: Headers) -> None:
        """Fill in tenant, namespace, weight and class of `call` from the key in `headers`.

        Raises:
            Unauthorized: there is none, it is unknown, or there are several.
        """
        if self._source is None or call.path in self._open or call.path.startswith(OPEN_BELOW):
            return
        presented = presented_keys(headers)
        if not presented:
            raise Unauthorized(
                "An API key is needed; send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'"
            )
        if len(presented) > 1:
            raise Unauthorized("The request carries different API keys; send one")
        key = find(self._source.keys, presented.pop())
        if key is None:
            raise Unauthorized("The API key is not valid")
        call.key, call.tenant, call.weight, call.bulk = key.name, key.tenant, key.weight, key.bulk
        call.namespace = key.tenant


def presented_keys(headers: Headers) -> set[str]:
    """Every different key that a request carries; another scheme than Bearer is a proxy's, not ours."""
    found = set()
    for name, value in headers:
        if name == b"x-api-key":
            found.add(value.decode("latin-1").strip())
        elif name == b"authorization":
            scheme, _, rest = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer":
                found.add(rest.strip())
    return found - {""}


def find(keys: Iterable[ApiKey], presented: str) -> ApiKey | None:
    """The entry for a presented key; takes the same time whichever it is, and whether it is one at all."""
    digest = hashed(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found
