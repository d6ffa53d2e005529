"""Doctor's look at the Hailo devices from outside: bus, driver, device nodes, and who has them open.

Facts from HailoRT's public sources: the driver's module is hailo1x_pci (hailo_pci is for Hailo-8); its
nodes are /dev/hailo0, from 5.3 on /dev/h1x-0, which its udev rule opens for everybody; Hailo-10H is the
PCI device 1e60:45c4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hailo_clip.ops.doctor_finding import Finding, Machine, ok, problem, warning

VENDOR: Final = "0x1e60"
HAILO_10H: Final = "0x45c4"
MODULE: Final = "hailo1x_pci"
OLD_MODULE: Final = "hailo_pci"
INSTALL: Final = "sudo apt install dkms && sudo apt install hailo-h10-all && sudo reboot"
POWER: Final = "dmesg | grep -i hailo; then sudo poweroff, unplug the power for 10 s and start again"
_GEN3 = (
    "add dtparam=pciex1_gen=3 to /boot/firmware/config.txt, then: sudo reboot (Raspberry Pi 5; the AI HAT+ 2 "
    "does it by itself)"
)


@dataclass(frozen=True, slots=True)
class Card:
    """A Hailo device on the PCI bus: where, what, and how fast its link is (GT/s, None: not told)."""

    address: str
    kind: str
    speed: float | None


def cards(machine: Machine) -> list[Card]:
    """The Hailo devices on the PCI bus, whether or not a driver knows them."""
    found = []
    for place in sorted((machine.sys / "bus" / "pci" / "devices").glob("*")):
        if read(place / "vendor") == VENDOR:
            speed = read(place / "current_link_speed").split(" ")[0]
            known = float(speed) if speed.replace(".", "", 1).isdecimal() else None
            found.append(Card(place.name, read(place / "device"), known))
    return found


def nodes(machine: Machine) -> list[Path]:
    """The device nodes."""
    return sorted([*machine.dev.glob("hailo[0-9]*"), *machine.dev.glob("h1x-[0-9]*")])


def hardware(machine: Machine, needed: bool, answers: bool) -> Iterator[Finding]:
    """Bus, driver and device nodes. `needed`: the service is to run on Hailo. `answers`: a device does."""
    there = cards(machine)
    if not there and answers:
        yield ok("bus", "the PCI bus can't be seen from here (a container?), but HailoRT finds devices")
    elif not there:
        yield _absent(needed)
    for card in there:
        yield from _card(card)
    if there or nodes(machine):
        yield from _driver(machine)
        yield from _nodes(machine)


def holders(machine: Machine) -> Iterator[Finding]:
    """Who has a device node open."""
    wanted = {str(n) for n in nodes(machine)}
    if not wanted:
        return
    held, ours, hidden = _open_files(machine.proc, wanted)
    if held:
        yield warning(
            "holder",
            "devices are open in: " + ", ".join(held) + _hidden(hidden),
            "fine for programs that open their VDevice with group_id SHARED; stop the others (hailo-ollama "
            "does not share): sudo systemctl stop NAME, or sudo kill PID",
        )
    elif ours:
        yield ok("holder", f"devices are open in {ours} processes of hailo-clip alone" + _hidden(hidden))
    else:
        yield ok("holder", "no process has a device open" + _hidden(hidden))


def _absent(needed: bool) -> Finding:
    text = "there is no Hailo device on the PCI bus"
    fix = "power off, seat board and ribbon cable anew, sudo rpi-eeprom-update -a, then look: lspci -d 1e60:"
    if needed:
        return problem("bus", text, fix)
    return ok("bus", f"{text}; models run on the CPU", f"if there should be one: {fix}")


def _card(card: Card) -> Iterator[Finding]:
    if card.kind != HAILO_10H:
        yield problem(
            "bus",
            f"the Hailo device at {card.address} is of kind {card.kind}, not a Hailo-10H ({HAILO_10H})",
            "this service's HEFs need a Hailo-10H (Raspberry Pi AI HAT+ 2); use --encoder onnx here",
        )
    elif card.speed is not None and card.speed < 8:
        yield warning("bus", f"Hailo-10H at {card.address}, but its link is slow: {card.speed:g} GT/s", _GEN3)
    else:
        yield ok("bus", f"Hailo-10H at {card.address}" + (f", {card.speed:g} GT/s" if card.speed else ""))


def _driver(machine: Machine) -> Iterator[Finding]:
    modules = machine.sys / "module"
    if (modules / MODULE).is_dir():
        yield ok("driver", f"{MODULE} {read(modules / MODULE / 'version')}".strip())
    elif (modules / OLD_MODULE).is_dir():
        yield problem(
            "driver",
            f"the driver loaded is {OLD_MODULE}, which is for Hailo-8; Hailo-10H needs {MODULE}",
            f"sudo apt purge hailo-all hailo-dkms hailort; {INSTALL}",
        )
    else:
        yield problem(
            "driver", f"the driver {MODULE} is not loaded", f"{INSTALL}; then: dmesg | grep -i hailo"
        )


def _nodes(machine: Machine) -> Iterator[Finding]:
    there = nodes(machine)
    if not there:
        yield problem(
            "node", "there is no /dev/hailo0 and no /dev/h1x-0: the driver has not started the device", POWER
        )
    for node in there:
        if os.access(node, os.R_OK | os.W_OK):
            yield ok("node", f"{node} can be opened by this user")
        else:
            mode = f"{node.stat().st_mode & 0o777:o}"
            yield problem(
                "node",
                f"{node} can't be opened by this user (its mode is {mode})",
                f"sudo chmod 666 {node} for now; for good, reinstall the driver's udev rule: sudo apt "
                "install --reinstall h10-hailort-pcie-driver && sudo reboot",
            )


def _open_files(proc: Path, wanted: set[str]) -> tuple[list[str], int, int]:
    """Who has one of `wanted` open, as "NAME (PID)"; processes of ours that do; those that hide it."""
    held, ours, hidden = [], 0, 0
    for process in sorted(proc.glob("[0-9]*"), key=lambda p: (len(p.name), p.name)):
        try:
            links = {str(fd.readlink()) for fd in (process / "fd").iterdir()}
        except PermissionError:
            hidden += 1
            continue
        except OSError:  # it has ended meanwhile
            continue
        if wanted & links:
            own = "hailo_clip" in read(process / "cmdline")
            ours += own
            held += [] if own else [f"{read(process / 'comm') or '?'} ({process.name})"]
    return held, ours, hidden


def _hidden(count: int) -> str:
    return (
        f" ({count} of other users could not be looked at; sudo fuser -v /dev/hailo* does)" if count else ""
    )


def read(path: Path) -> str:
    """What a small file says, empty when there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
