"""HTTP answers counted per endpoint and code, delivered to the broker exactly once where that is possible.

The broker owns the metrics, so each `Ping` carries what happened since the last one that arrived. At most
one such report is under way: it is taken, then either confirmed by its `Pong` or put back when the broker
was lost (a broker that died after counting it starts its counters anew).
"""

from __future__ import annotations

from collections import Counter


class HttpCounts:
    """Counts waiting to be reported, and the one report under way."""

    def __init__(self) -> None:
        self._waiting: Counter[tuple[str, int]] = Counter()
        self._sent: Counter[tuple[str, int]] = Counter()
        self._sent_seq: int | None = None

    def add(self, endpoint: str, code: int) -> None:
        """Count one answer."""
        self._waiting[(endpoint, code)] += 1

    def take(self, seq: int) -> tuple[tuple[str, int, int], ...]:
        """What ping `seq` reports, as (endpoint, code, count); empty while an earlier report is open."""
        if self._sent_seq is not None or not self._waiting:
            return ()
        self._sent, self._waiting, self._sent_seq = self._waiting, Counter(), seq
        return tuple((endpoint, code, count) for (endpoint, code), count in sorted(self._sent.items()))

    def confirm(self, seq: int, *, alone: bool = False) -> None:
        """Ping `seq` was answered: its report has arrived, and unless it is `alone`, any before it.

        It is alone when it is the first that was answered since the broker or the connection was lost: an
        earlier report may be lost, too, so that is made again.
        """
        if self._sent_seq is not None and (seq == self._sent_seq or (seq > self._sent_seq and not alone)):
            self._sent, self._sent_seq = Counter(), None
        elif alone:
            self.put_back()

    def put_back(self) -> None:
        """The broker was lost: report again what it did not confirm."""
        self._waiting.update(self._sent)
        self._sent, self._sent_seq = Counter(), None

    def total(self) -> int:
        """Answers not confirmed yet."""
        return self._waiting.total() + self._sent.total()
