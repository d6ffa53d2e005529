"""The Hailo devices of this machine, as a child process sees them (hailo_probe.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hailo_clip.shared.errors import SetupError

SCAN_S = 60.0
"""Longest wait for a scan. A driver that answers does it in well under a second."""

IDENTIFY_S = 60.0

LOG_VARIABLE = "HAILORT_LOGGER_PATH"
_SAID = 400


@dataclass(frozen=True, slots=True)
class Device:
    """One device, as far as it tells.

    Attributes:
        architecture: "HAILO10H". firmware, serial: as it says them.
        temperature: degrees Celsius, None where it does not tell.
        error: why it could not be asked, empty when it could.
    """

    id: str
    architecture: str = ""
    firmware: str = ""
    serial: str = ""
    temperature: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """HailoRT's version and the devices, sorted by id."""

    version: str
    devices: tuple[Device, ...] = field(default=())


def look(
    *,
    identify: bool,
    timeout_s: float = IDENTIFY_S,
    log_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Found:
    """Ask HailoRT for the devices, in a child process that is killed when it takes too long.

    Args:
        identify: ask each device what it is, too; without it only the ids are known.
        timeout_s: seconds to wait.
        log_dir: for HailoRT's log, unless $HAILORT_LOGGER_PATH names a place.
        environ: the child's environment; None: this process's.

    Raises:
        SetupError: HailoRT is not installed, failed, or did not answer in time; the message says what to do.
    """
    env = dict(os.environ if environ is None else environ)
    if log_dir is not None and not env.get(LOG_VARIABLE):
        log_dir.mkdir(parents=True, exist_ok=True)
        env[LOG_VARIABLE] = str(log_dir)
    command = [sys.executable, "-m", "hailo_clip.ops.hailo_probe", *(["--identify"] if identify else [])]
    told = _answer(*run_bounded(command, env, timeout_s))
    if "error" in told:
        raise SetupError(str(told["error"]))
    return Found(str(told["version"]), tuple(Device(id=i, **told["devices"].get(i, {})) for i in told["ids"]))


def scan(log_dir: Path | None = None, timeout_s: float = SCAN_S) -> list[str]:
    """Ids of the devices, at least one. Raises `SetupError` as `look` does, and when there is none."""
    found = [d.id for d in look(identify=False, timeout_s=timeout_s, log_dir=log_dir).devices]
    if not found:
        raise SetupError(
            "HailoRT is installed, but no Hailo device was found. Check with: lspci -d 1e60: (is it on the "
            "bus?), ls /dev/hailo* /dev/h1x* (is the driver loaded?) and hailo-clip doctor. Without a "
            "device, type: hailo-clip serve --encoder onnx, or --model demo"
        )
    return found


def run_bounded(command: list[str], env: Mapping[str, str], timeout_s: float) -> tuple[int, bytes, bytes]:
    """Run something that uses HailoRT; exit code (negative: the signal), standard output and error.

    Raises:
        SetupError: it took longer than `timeout_s` seconds, and was killed.
    """
    child = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise SetupError(
            f"HailoRT did not answer within {timeout_s:g} s: the driver or a device hangs. Look at: dmesg | "
            "grep -i hailo, then power-cycle the device (sudo poweroff, not only a reboot)"
        ) from None
    finally:
        if child.poll() is None:
            _end(child)
    return child.returncode, out, err


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill it. One that the driver holds in an uninterruptible call stays until the kernel lets go of it."""
    os.killpg(child.pid, signal.SIGKILL)
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    try:
        child.wait(1.0)
    except subprocess.TimeoutExpired:
        return


def _answer(code: int, out: bytes, err: bytes) -> dict[str, Any]:
    try:
        told = json.loads(out)
    except ValueError:
        told = None
    if code == 0 and isinstance(told, dict):
        return told
    said = err.decode(errors="replace").strip()[-_SAID:] or "nothing"
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    raise SetupError(f"HailoRT failed when asked for its devices ({how}); it said: {said}")
