"""CPU time and memory of a service's processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MODULE = "hailo_clip.ops.cli"


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one moment.

    Attributes:
        name: its part in the service.
        cpu_s: CPU seconds so far.
        rss_mib: resident memory. pss_mib: the same with pages that are shared divided by their users.
    """

    name: str
    cpu_s: float
    rss_mib: float
    pss_mib: float


Usages = Mapping[int, Usage]
"""By process id."""


def usages(root: int) -> dict[int, Usage]:
    """The process `root` and all its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: dict[int, Usage] = {}
    taken: set[str] = set()
    todo = [root]
    while todo:
        pid = todo.pop(0)
        usage = _usage(pid, taken)
        if usage is not None:
            found[pid] = usage
            taken.add(usage.name)
        todo += sorted(children.get(pid, []))
    return found


def cpu_shares(before: Usages, after: Usages, seconds: float) -> dict[str, float]:
    """Cores that each process used between two moments; a process that is new counts from its start."""
    return {
        usage.name: (usage.cpu_s - (before[pid].cpu_s if pid in before else 0.0)) / seconds
        for pid, usage in after.items()
    }


def part(argv: Sequence[str]) -> str:
    """What a process is by its command line: "serve", "broker", "worker-0"; else its program or script."""
    if _MODULE in argv:
        rest = argv[argv.index(_MODULE) + 1 :]
        return rest[rest.index("--name") + 1] if "--name" in rest else rest[0]
    if "hailo-clip" in Path(argv[1] if len(argv) > 1 else "").name:
        return argv[2] if len(argv) > 2 else "hailo-clip"
    if "-c" in argv:
        return "spawned"
    named = [a for a in argv[1:] if not a.startswith("-")]
    return Path((named or argv)[0]).name if argv else "?"


def _parent(entry: Path) -> int | None:
    fields = _stat(entry)
    return int(fields[1]) if fields else None


def _stat(entry: Path) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty when it is gone or a zombie."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def _usage(pid: int, taken: set[str]) -> Usage | None:
    entry = Path("/proc") / str(pid)
    fields = _stat(entry)
    try:
        argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        rollup = dict(line.split(":", 1) for line in (entry / "smaps_rollup").read_text().splitlines()[1:])
    except OSError:
        return None
    if not fields or not argv:
        return None
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
    return Usage(_unique(part(argv), taken), cpu_s, _mib(rollup["Rss"]), _mib(rollup["Pss"]))


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}/{number}"
    return unique


def _mib(kib: str) -> float:
    return int(kib.removesuffix("kB")) / 1024
