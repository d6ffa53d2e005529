"""How long a batch may run before its worker counts as hung.

The cost model speaks for all devices, and knows nothing before the first results. So each device is also
held to its own pace: what its canary took, told with `Ready`, then what its last batch took. Where that is
not known either, or wrong, the bound grows with each batch that was given up, so that an encoder which is
slow and not hung gets its first batch done some time. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from hailo_clip.broker.policy import Policy
from hailo_clip.shared.messages import Hello, Kind, Timings

PACE = 3.0  # times what a device should take by its own pace
PATIENT_S = 600.0  # nobody is waited for longer, whatever the pace
SAME = 2  # batches given up in a row that have the same bound: an input that hangs runs twice
LIMIT = 1000


@dataclass(slots=True)
class _Pace:
    """What a device took for `items` of one kind, and how many such batches were given up since."""

    items: int = 1
    seconds: float = 0.0
    given_up: int = 0

    def of(self, items: int) -> float:
        """Seconds for a batch of `items`, rather too long: one part of the time does not grow with them."""
        return self.seconds * max(1.0, items / self.items)


class Patience:
    """See the module docstring. At most `LIMIT` paces are kept, those that were asked for last."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._paces: OrderedDict[tuple[str, Kind], _Pace] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paces)

    def measured(self, hello: Hello, batches: Timings) -> None:
        """The worker's canary took that long."""
        for kind, (items, seconds) in zip(Kind, batches, strict=False):
            pace = self._of(hello, kind)
            pace.items, pace.seconds = items, seconds

    def done(self, hello: Hello, kind: Kind, items: int, seconds: float) -> None:
        """A batch came back."""
        pace = self._of(hello, kind)
        pace.items, pace.seconds, pace.given_up = items, seconds, 0

    def gave_up(self, hello: Hello, kind: Kind) -> None:
        """A batch was beyond its bound."""
        self._of(hello, kind).given_up += 1

    def bound(self, hello: Hello, kind: Kind, items: int, estimate: float, before: int) -> float:
        """Seconds that a batch of `items` may run.

        Args:
            hello: its worker's.
            kind: what its items are.
            items: how many.
            estimate: what the cost model says that it takes.
            before: batches in flight at the device, this one included, which may run before it.
        """
        p, pace = self._policy, self._of(hello, kind)
        usual = min(p.overdue_max_s, max(p.overdue_min_s, p.overdue_factor * estimate * before))
        grown = min(p.overdue_max_s, usual * 2.0 ** max(0, min(pace.given_up, 32) + 1 - SAME))
        return max(grown, min(PATIENT_S, PACE * pace.of(items) * before))

    def _of(self, hello: Hello, kind: Kind) -> _Pace:
        key = (hello.device_id, kind)
        pace = self._paces.setdefault(key, _Pace())
        self._paces.move_to_end(key)
        if len(self._paces) > LIMIT:
            self._paces.popitem(last=False)
        return pace
