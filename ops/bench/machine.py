"""On what a benchmark ran: without it, no figure means anything."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from hailo_clip import __version__


def machine() -> dict[str, object]:
    """Version, processor, cores, system and how busy it was before."""
    return {
        "version": __version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def machine_line() -> str:
    """The same as one line."""
    m = machine()
    return (
        f"hailo-clip {m['version']}, {m['cores']} cores ({m['processor']}), {m['system']}, "
        f"Python {m['python']}, load average before {os.getloadavg()[0]:.2f}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or "unknown"
