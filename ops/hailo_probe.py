"""Looks at the Hailo devices, in a process of its own: ``python -m hailo_clip.ops.hailo_probe [--identify]``.

HailoRT's library may take long, hang on a device that does not answer, or end the process; none of that may
happen to a supervisor or to `doctor`, so they start this and wait for a bounded time (devices.py). It prints
one JSON object::

    {"version": "5.2.0", "ids": ["0001:01:00.0"], "devices": {...}}      or {"error": "..."}

With --identify, `devices` holds for each id its architecture, firmware, serial and temperature (degrees
Celsius, null where the device does not tell), or an error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from hailo_clip.shared.errors import EncoderError
from hailo_clip.workers.hailo import devices, import_hailort
from hailo_clip.workers.hailo_status import hailo_errors


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; 0, also when that is an error."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--identify", action="store_true")
    identify = parser.parse_args(argv).identify
    # Native code writes to standard output as it likes; the answer goes to the real one.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        found = look(identify)
    except EncoderError as e:
        found = {"error": e.message}
    json.dump(found, answer)
    answer.flush()
    return 0


def look(identify: bool) -> dict[str, Any]:
    """What `main` prints. Raises `EncoderError`."""
    platform = import_hailort()
    ids = devices()
    told = {i: _identity(platform, i) for i in ids} if identify else {}
    return {"version": str(getattr(platform, "__version__", "")), "ids": ids, "devices": told}


def _identity(platform: Any, device_id: str) -> dict[str, Any]:
    try:
        with hailo_errors("identifying the device", device_id), platform.Device(device_id) as device:
            board = device.control.identify()
            return {
                "architecture": _word(board.device_architecture),
                "firmware": str(board.firmware_version),
                "serial": str(board.serial_number).rstrip("\0"),
                "temperature": _temperature(device),
            }
    except EncoderError as e:
        return {"error": e.message}


def _word(architecture: Any) -> str:
    """HAILO10H, whether the library gives an enum, its number's name or text."""
    return str(getattr(architecture, "name", architecture)).rpartition(".")[2]


def _temperature(device: Any) -> float | None:
    """The warmer of the two sensors; not every device tells."""
    try:
        heat = device.control.get_chip_temperature()
        return float(max(heat.ts0_temperature, heat.ts1_temperature))
    except Exception:  # noqa: BLE001  (of whatever kind: it is a nicety)
        return None


if __name__ == "__main__":
    sys.exit(main())
