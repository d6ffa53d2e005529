"""The device double, installed for one test: what a test can do to its devices and see of them."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hailo_clip.workers.hailo import LOG_VARIABLE

HERE = Path(__file__).parent
FIRST, SECOND = "0001:01:00.0", "0002:01:00.0"


def environment(root: Path, devices: list[str], time_scale: float = 0) -> dict[str, str]:
    """What a process needs in its environment to use the double, with PYTHONPATH for child processes."""
    return {
        "HAILO_DOUBLE_DIR": str(root),
        "HAILO_DOUBLE_DEVICES": ",".join(devices),
        "HAILO_DOUBLE_TIME_SCALE": str(time_scale),
        "PYTHONPATH": str(HERE),
    }


@dataclass
class Double:
    """Devices `FIRST` and `SECOND`, below `root`."""

    root: Path

    @property
    def platform(self) -> Any:
        """The double, as a program imports it."""
        return importlib.import_module("hailo_platform")

    def fault(self, device_id: str = "*", **faults: Any) -> None:
        """From now on, `faults` (see the double's `Faults`) and no others."""
        draft = self.root / "faults.draft"
        draft.write_text(json.dumps({device_id: faults}))
        draft.replace(self.root / "faults.json")

    def clients(self, device_id: str = FIRST) -> list[dict[str, Any]]:
        """Who has the device open: group, pid and the batch sizes they configured."""
        self.platform  # noqa: B018  (imports what the next line looks up)
        chip = sys.modules["hailo_platform._chip"].Chip(device_id)
        try:
            found: list[dict[str, Any]] = chip.clients()
            return found
        finally:
            chip.close()


def install(root: Path, patch: pytest.MonkeyPatch) -> Double:
    """Put the double where `import hailo_platform` finds it, until the test ends."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "hailo_platform"]:
        patch.delitem(sys.modules, name)
    patch.setitem(sys.modules, "hailo_platform", sys)  # so that it is gone when the test is
    del sys.modules["hailo_platform"]
    patch.syspath_prepend(str(HERE))
    for key, value in environment(root, [FIRST, SECOND]).items():
        if key != "PYTHONPATH":
            patch.setenv(key, value)
    patch.setenv(LOG_VARIABLE, "")  # so that it is put back, whatever a test does to it
    patch.delenv(LOG_VARIABLE)
    root.mkdir(exist_ok=True)
    return Double(root)
