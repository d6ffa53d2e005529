"""Who is connected to the broker's front: when each was heard, and in which session it is. Pure.

A session is one uninterrupted acquaintance with one peer: it begins with a peer's first message and ends
when the peer is given up, and with it the peer's requests. Its token, told in every `Pong`, names it among
all sessions of all brokers. A frontend that is told another token than before knows that what it had in
flight is lost: its connection broke (ZeroMQ then gives it a new routing id), or it was silent for so long
that it was given up. Its `Ping` names the session that it was told last, so the broker learns at once
which peer it used to be.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Frontend:
    session: str
    seen: float


class Frontends:
    """See the module docstring.

    Args:
        broker_epoch: of this life of the broker.
    """

    def __init__(self, broker_epoch: str) -> None:
        self._epoch = broker_epoch
        self._sessions = 0
        self._peers: dict[bytes, _Frontend] = {}
        self._by_session: dict[str, bytes] = {}

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def heard(self, now: float, peer: bytes) -> None:
        """`peer` said something."""
        known = self._peers.get(peer)
        if known is not None:
            known.seen = now
            return
        self._sessions += 1
        session = f"{self._epoch}.{self._sessions}"
        self._peers[peer] = _Frontend(session, now)
        self._by_session[session] = peer

    def session(self, peer: bytes) -> str:
        """The token of the session of `peer`, which was heard."""
        return self._peers[peer].session

    def former(self, peer: bytes, session: str) -> bytes | None:
        """The peer that `peer` used to be, as its last session is `session`; None when it is still that."""
        former = self._by_session.get(session)
        return former if former != peer else None

    def gone(self, peer: bytes) -> None:
        """`peer` is given up."""
        known = self._peers.pop(peer, None)
        if known is not None:
            del self._by_session[known.session]

    def silent(self, since: float) -> list[bytes]:
        """Who was not heard after `since`."""
        return [peer for peer, known in self._peers.items() if known.seen < since]

    def forgive(self, seconds: float) -> None:
        """Nobody was silent for the last `seconds`: the broker did not listen."""
        for known in self._peers.values():
            known.seen += seconds
