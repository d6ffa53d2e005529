"""How far the encoder is trusted: when its canary is to run, and when it counts as stuck.

Pure: time is an argument. Waiting is counted in turns of the session and not by the clock, so that time in
which this process itself was stopped is not held against the encoder.
"""

from __future__ import annotations

CANARY_IDLE_S = 60.0
"""Time without work after which the canary runs."""

CANARY_BUSY_S = 300.0
"""Time since the canary passed after which it runs whatever else there is to do; it takes milliseconds."""

PATIENCE_S = 5.0
PATIENCE = 10.0  # times the longest that the encoder took for anything yet


class Watch:
    """See the module docstring. `cosine` is what the canary gave last, None before it passed at all."""

    def __init__(self, now: float) -> None:
        self.cosine: float | None = None
        self._passed = -CANARY_BUSY_S
        self._worked = now
        self._doubted = False
        self._running = False
        self._waited = 0.0
        self._longest = 0.0

    def passed(self, now: float, cosine: float, seconds: float) -> None:
        """The canary passed; it took `seconds`."""
        self.cosine = cosine
        self._passed = now
        self._doubted = False
        self._running = False
        self.worked(now, seconds)

    def busy(self, now: float) -> None:
        """Work came."""
        self._worked = now

    def worked(self, now: float, seconds: float) -> None:
        """The encoder did something in `seconds`: it is not stuck."""
        self._worked = now
        self._waited = 0.0
        self._longest = max(self._longest, seconds)

    def doubt(self) -> None:
        """The broker had to give this worker up: what the canary said before counts no more."""
        self._doubted = True

    def proved(self, now: float) -> bool:
        """True when the canary passed lately, with nothing since that sheds doubt on it."""
        return self.cosine is not None and not self._doubted and now - self._passed <= CANARY_IDLE_S

    def due(self, now: float, busy: bool) -> bool:
        """True when the canary is to run now; see `running`."""
        if self.cosine is None or self._running:
            return False
        idle = not busy and now - self._worked > CANARY_IDLE_S
        return self._doubted or idle or now - self._passed > CANARY_BUSY_S

    def started(self) -> None:
        """The encoder was told to run the canary."""
        self._running = True
        self._waited = 0.0

    def waits(self, seconds: float) -> str:
        """A turn of `seconds` passed; why the encoder counts as stuck, empty when it does not."""
        self._waited += seconds
        patience = max(PATIENCE_S, PATIENCE * self._longest)
        if not self._running or self._waited <= patience:
            return ""
        return f"the encoder is stuck: its canary did not end, nor any batch, for {self._waited:.0f} s"
