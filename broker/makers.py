"""Who made what since it last proved itself, for taking it back when the next proof fails. Pure."""

from __future__ import annotations

from collections import OrderedDict

from hailo_clip.shared.messages import Hello

LIMIT = 1000


class Makers:
    """A number for each worker process, new whenever its canary passes.

    What is marked with a number was made since then; marks with an older number of the same process are
    proved and mean nothing any more. A process keeps its number when it registers anew, as the same encoder
    goes on. At most `LIMIT` processes are remembered, those that passed a canary last.
    """

    def __init__(self) -> None:
        self._last = 0
        self._numbers: OrderedDict[tuple[str, int, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._numbers)

    def passed(self, hello: Hello) -> None:
        """Its canary passed: what it made until now is right."""
        self._last += 1
        self._numbers[_process(hello)] = self._last
        self._numbers.move_to_end(_process(hello))
        if len(self._numbers) > LIMIT:
            self._numbers.popitem(last=False)

    def number(self, hello: Hello) -> int:
        """The mark for what it makes now, 0 for none."""
        return self._numbers.get(_process(hello), 0)

    def gone(self, hello: Hello) -> int:
        """The process ends; the mark of what it made since its canary passed last, 0 for none."""
        return self._numbers.pop(_process(hello), 0)


def _process(hello: Hello) -> tuple[str, int, str]:
    return hello.worker, hello.pid, hello.device_id
