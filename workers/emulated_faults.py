"""Fault switches of the emulated encoder, for tests of everything around it.

They are read from $HAILO_CLIP_EMULATED_FAULTS, comma-separated, ``name`` or ``name=value``, for example
``slow=10,crash_after=5,only=emu:1``. No other encoder looks at them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hailo_clip.shared.errors import EncoderError

VARIABLE = "HAILO_CLIP_EMULATED_FAULTS"
POISON = bytes.fromhex("deadbeef") * 4
"""An image whose bytes contain these is poison (they survive a lossless file of the model's own size)."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and when. N counts calls of encode_images and encode_tokens in this process.

    Attributes:
        time_scale: factor on all service times; 0 for none.
        slow: another factor on them.
        nan: embeddings are NaN and get past this encoder's own check.
        wrong_dim: embeddings have one value too many and get past it too.
        fail: every call raises `EncoderError`. fail_fatal: the same, as a fatal one.
        hang_after: after N calls the next one never returns and keeps the device.
        crash_after: after N calls the next one kills the process while it has the device.
        crash_with: "kill" (SIGKILL) or "exit" (status 70).
        poison: what an item that is `POISON`, or has `poison_token`, does: "raise", "crash" or "hang".
        poison_token: token id that makes a prompt poison.
        load_fail: `load` raises a fatal `EncoderError`.
        load_slow_s: seconds that `load` takes.
        only: the device id that all this is limited to, but for time_scale; empty for every device.
    """

    time_scale: float = 1.0
    slow: float = 1.0
    nan: bool = False
    wrong_dim: bool = False
    fail: bool = False
    fail_fatal: bool = False
    hang_after: int | None = None
    crash_after: int | None = None
    crash_with: str = "kill"
    poison: str = ""
    poison_token: int | None = None
    load_fail: bool = False
    load_slow_s: float = 0.0
    only: str = ""

    def at(self, device_id: str) -> Faults:
        """The faults that `device_id` has."""
        return self if self.only in ("", device_id) else Faults(time_scale=self.time_scale)


def parse_faults(text: str) -> Faults:
    """`text` as `Faults`; an empty text means none.

    Raises:
        EncoderError: fatal; a name is unknown or its value can't be.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        if name not in _READERS:
            raise EncoderError(f"{VARIABLE}: {name!r} is none of {', '.join(_READERS)}", fatal=True)
        try:
            values[name] = _READERS[name](value)
        except ValueError as e:
            raise EncoderError(f"{VARIABLE}: {name}={value!r}: {e}", fatal=True) from None
    return Faults(**values)


def faults_from(environ: Mapping[str, str]) -> Faults:
    """The faults that the environment asks for. Raises `EncoderError` as `parse_faults` does."""
    return parse_faults(environ.get(VARIABLE, ""))


def described(faults: Faults) -> str:
    """The switches that are not at their default, for the log; empty when there are none."""
    changed = (
        (f.name, getattr(faults, f.name))
        for f in dataclasses.fields(Faults)
        if getattr(faults, f.name) != f.default
    )
    return ", ".join(f"{name}={value}" for name, value in changed)


def _flag(value: str) -> bool:
    if value not in ("", "1"):
        raise ValueError("takes no value")
    return True


def _natural(value: str) -> int:
    if not value.isdecimal():
        raise ValueError("must be a whole number, 0 or more")
    return int(value)


def _factor(value: str) -> float:
    number = float(value.removesuffix("x"))
    if not 0 <= number < 1e6:
        raise ValueError("must be 0 or more, below 1e6")
    return number


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return read


_READERS: dict[str, Callable[[str], Any]] = {
    "time_scale": _factor,
    "slow": _factor,
    "nan": _flag,
    "wrong_dim": _flag,
    "fail": _flag,
    "fail_fatal": _flag,
    "hang_after": _natural,
    "crash_after": _natural,
    "crash_with": _choice("kill", "exit"),
    "poison": _choice("raise", "crash", "hang"),
    "poison_token": _natural,
    "load_fail": _flag,
    "load_slow_s": _factor,
    "only": str,
}
