"""Doctor's look at the Hailo devices through HailoRT: versions, what the devices say, a trial of the model.

All of it happens in child processes that are killed when they take too long (devices.py). From HailoRT's
public sources: package, libhailort (its file's name has the version), driver and firmware must be of one
version.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hailo_clip.ops.devices import LOG_VARIABLE, Device, Found, look, run_bounded
from hailo_clip.ops.doctor_device import MODULE, POWER, read
from hailo_clip.ops.doctor_finding import Finding, Machine, ok, problem, warning
from hailo_clip.ops.doctor_python import release
from hailo_clip.shared.config import Config
from hailo_clip.shared.errors import ModelError, SetupError
from hailo_clip.shared.models import models_dir, open_model, resolve_encoder
from hailo_clip.workers.hailo_status import split_remedy

ARCHITECTURE: Final = "HAILO10H"
ZOO_HAILORT: Final = (5, 2, 0)
"""The HailoRT that the published HEFs were compiled for."""

HOT: Final = 85.0
"""Degrees Celsius from which a device may slow down soon."""

TRIAL_S: Final = 180.0
"""Longest trial; a device may take tens of seconds to take a network."""

UPGRADE: Final = "sudo apt update && sudo apt full-upgrade && sudo reboot"


def library(machine: Machine, log_dir: Path) -> Iterator[Finding]:
    """What HailoRT says of itself and of the devices, asked in a process of its own."""
    there = ", ".join(_dotted(version) for version in _libraries(machine))
    try:
        found = look(identify=True, log_dir=log_dir, environ=machine.environ)
    except SetupError as e:
        text, remedy = split_remedy(e.message)
        if there and "cannot be imported" in text:
            text = f"{text} (libhailort here: {there})"
        yield problem("hailort", text, f"{remedy or UPGRADE} (HailoRT's log: {log_dir}/hailort.log)")
        return
    yield from _versions(found, _libraries(machine), read(machine.sys / "module" / MODULE / "version"))
    if not found.devices:
        yield problem("device", "HailoRT finds no device", POWER)
    for device in found.devices:
        yield from _device(device, found.version)


def trial(config: Config, machine: Machine, log_dir: Path, *, running: bool) -> Iterator[Finding]:
    """Run the configured model's golden inputs on the first device, where that is what would serve it.

    Args:
        config: names the model.
        machine: where to look.
        log_dir: for HailoRT's log.
        running: the service runs: its workers have passed this very test, and are not disturbed.
    """
    name, directory = config.model.name, models_dir(config.model.dir)
    try:
        if resolve_encoder(config.model.encoder, open_model(name, directory)) != "hailo" or running:
            return
    except ModelError:
        return  # the look at the model has told it
    command = [sys.executable, "-m", "hailo_clip.ops.cli", "models", "verify", name]
    command += ["--encoder", "hailo", "--models-dir", str(directory)]
    env = {**machine.environ}
    if not env.get(LOG_VARIABLE):
        env[LOG_VARIABLE] = str(log_dir)
    try:
        code, out, err = run_bounded(command, env, TRIAL_S)
    except SetupError as e:
        yield problem("trial", e.message, POWER)
        return
    said = (out if code == 0 else err).decode(errors="replace").strip().splitlines() or ["nothing"]
    if code == 0:
        told = next((line for line in reversed(said) if line.startswith("canary: lowest")), said[-1])
        yield ok("trial", f"{name} runs on the device: {told.removeprefix('canary: ')}")
        return
    again = f"hailo-clip models verify {name} --encoder hailo"
    text, remedy = split_remedy(said[-1].removeprefix("error: "))
    how = text if code > 0 else f"ended by signal {-code}: {text}"
    yield problem("trial", how, remedy.replace("MODEL", name) or f"after mending that: {again}")


def _versions(found: Found, libraries: list[tuple[int, ...]], driver: str) -> Iterator[Finding]:
    """Do package, libhailort and driver fit each other, and the published HEFs?"""
    version = release(found.version)[:3]
    others = {"libhailort": libraries, "the driver": [release(driver)[:3]] if driver else []}
    unlike = [
        f"{what} is {', '.join(map(_dotted, v))}" for what, v in others.items() if v and version not in v
    ]
    if unlike:
        yield problem(
            "hailort",
            f"HailoRT's package is {found.version}, {' and '.join(unlike)}; they must be of one version",
            UPGRADE,
        )
    elif version < ZOO_HAILORT:
        yield warning(
            "hailort",
            f"HailoRT is {found.version}; the published HEFs were compiled for {_dotted(ZOO_HAILORT)}: "
            "an older one may refuse them or lose the device under load",
            f"{UPGRADE}; where that brings none, install {_dotted(ZOO_HAILORT)} or later from Hailo's "
            "Developer Zone",
        )
    else:
        yield ok("hailort", f"HailoRT {found.version} answers")


def _device(device: Device, version: str) -> Iterator[Finding]:
    if device.error:
        text, remedy = split_remedy(device.error)
        yield problem("device", text, remedy or POWER)
        return
    heat = "" if device.temperature is None else f", {device.temperature:.0f} °C"
    text = f"{device.id}: {device.architecture}, firmware {device.firmware}{heat}"
    if device.architecture != ARCHITECTURE:
        yield problem(
            "device", f"{text}; HEFs for {ARCHITECTURE} do not run on it", "use --encoder onnx here"
        )
    elif release(device.firmware)[:3] != release(version)[:3]:
        yield problem("device", f"{text}; HailoRT is {version}, they must be of one version", UPGRADE)
    elif device.temperature is not None and device.temperature >= HOT:
        yield warning("device", f"{text}: it is hot and may slow down", "mount its heatsink and a fan")
    else:
        yield ok("device", text)


def _libraries(machine: Machine) -> list[tuple[int, ...]]:
    """Versions of libhailort that are installed, by the names of its files."""
    found = {
        release(file.name.removeprefix("libhailort.so."))
        for place in machine.lib
        for pattern in ("libhailort.so.*", "*/libhailort.so.*")
        for file in place.glob(pattern)
    }
    return sorted(version for version in found if len(version) >= 3)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
