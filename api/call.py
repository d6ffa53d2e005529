"""One HTTP request as the logs, the metrics and the queue know it."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter
from typing import Any

REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
SCOPE_KEY = "hailo_clip.call"
UNMATCHED = "other"
_CLIENT_BITS = 64
"""Of an IPv6 address, what stands for one client."""

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


@dataclass(slots=True)
class Call:
    """What is known of one request, filled in on its way.

    Attributes:
        request_id: the client's X-Request-Id where it is sane, else a random one.
        tenant: whose share of the queue it takes: the API key's, else the client's address.
        namespace: whose label sets it sees: the API key's tenant; empty without keys, when all share them.
        key: name of the API key, never the key itself; empty without one.
        weight: the tenant's share relative to others. bulk: it yields to interactive requests.
        deadline_s: seconds that the client gives it, None for the service's own limit.
        method: of the request line. path: decoded.
        required_fingerprint: of the model that the client wants, empty for any.
        fingerprint: of the model that answers, empty while that is open.
        endpoint: the route's template, or `UNMATCHED`; a bounded set, for metrics.
        started: `perf_counter` when it arrived.
        received: the same when its body was complete.
        accounted: the time up to which `timings` tells what happened.
        code: HTTP status of the answer; 0 while there is none.
        body_bytes: of the request body, as far as it was read. sent_bytes: of the response body.
        items: images and prompts sent to the broker.
        timings: seconds by stage: "receive" (of the body), "decode", "queue", "device"; they add up.
    """

    request_id: str
    tenant: str
    method: str
    path: str
    namespace: str = ""
    key: str = ""
    weight: float = 1.0
    bulk: bool = False
    deadline_s: float | None = None
    required_fingerprint: str = ""
    fingerprint: str = ""
    endpoint: str = UNMATCHED
    started: float = field(default_factory=perf_counter)
    received: float = 0.0
    accounted: float = 0.0
    code: int = 0
    body_bytes: int = 0
    sent_bytes: int = 0
    items: int = 0
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.accounted = self.started

    def account(self, stage: str, device_s: float = 0.0) -> None:
        """Book the time since the last call on `stage`, up to `device_s` of it on the device."""
        now = perf_counter()
        spent, self.accounted = now - self.accounted, now
        device_s = min(device_s, spent)
        self.timings[stage] = self.timings.get(stage, 0.0) + spent - device_s
        if stage == "queue":
            self.timings["device"] = self.timings.get("device", 0.0) + device_s

    def left(self, most: float) -> float:
        """Seconds to the deadline: `most` since the body was there, or earlier where the client wants it."""
        now = perf_counter()
        left = most - (now - (self.received or self.started))
        return left if self.deadline_s is None else min(left, self.deadline_s - (now - self.started))

    def inference_ms(self) -> float:
        """Milliseconds since the body was there, for the specification's `inference_time_ms`."""
        spent = sum(seconds for stage, seconds in self.timings.items() if stage != "receive")
        return round(spent * 1e3, 1)

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return perf_counter() - self.started

    def server_timing(self) -> str:
        """The value of the Server-Timing header: milliseconds by stage; empty when nothing was timed."""
        return ", ".join(f"{stage};dur={seconds * 1e3:.2f}" for stage, seconds in self.timings.items())


def open_call(scope: Mapping[str, Any], trusted: Networks) -> Call:
    """The `Call` for an ASGI HTTP scope.

    Args:
        scope: the request's.
        trusted: proxies whose X-Forwarded-For is believed.
    """
    headers = scope["headers"]
    client = scope.get("client")
    peer = str(client[0]) if client else "local"
    tenant = client_address(peer, _values(headers, b"x-forwarded-for") if trusted else (), trusted)
    return Call(_request_id(headers), tenant, scope["method"], scope["path"])


def client_address(peer: str, forwarded: Iterable[str], trusted: Networks) -> str:
    """The client's address behind trusted proxies.

    Each proxy appends the address that it saw, so the list is read from its end: the first address that
    is not a trusted proxy's is the client's. What stands before it can be forged and is ignored.

    Of an IPv6 address it is the network of 64 bits, which is what one client has: with an address of it for
    each request it would else be as many clients.

    Args:
        peer: the other end of the connection.
        forwarded: values of the X-Forwarded-For headers, in order.
        trusted: the proxies' networks.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    address = _address(peer)
    while address is not None and any(address in net for net in trusted) and hops:
        before = _address(hops.pop())
        if before is None:
            break
        address = before
    if address is None:
        return peer
    if address.version == 6 and not address.is_loopback:
        return str(ipaddress.ip_network((address, _CLIENT_BITS), strict=False))
    return str(address)


def networks(texts: Iterable[str]) -> Networks:
    """`texts` such as "10.0.0.0/8" as networks."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def call_of(scope: Mapping[str, Any]) -> Call:
    """The `Call` that travels in an ASGI scope."""
    call: Call = scope[SCOPE_KEY]
    return call


@lru_cache(maxsize=4096)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, without the port that some proxies add; an IPv4 one also where IPv6 stands around it."""
    host = text.removeprefix("[").partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    given = _values(headers, b"x-request-id")
    if len(given) == 1 and REQUEST_ID.fullmatch(given[0]):
        return given[0]
    return new_request_id()


def new_request_id() -> str:
    """A random id."""
    return secrets.token_hex(8)
