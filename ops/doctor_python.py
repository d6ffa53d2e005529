"""Doctor's look at Python: its version, this package's dependencies, the encoders' libraries."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hailo_clip.ops.doctor_finding import Finding, ok, problem, warning

OLDEST: Final = (3, 11)
PROJECT: Final = "hailo-clip"
SYSTEM_VENV: Final = "python3 -m venv --system-site-packages .venv, and install hailo-clip into that"

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(\[[^]]*\])?\s*([^;]*?)\s*(;.*)?")
_BOUND = re.compile(r"(>=|<)\s*([0-9.]+)")


def python() -> Iterator[Finding]:
    """Version of Python, and of what this package needs."""
    here = f"Python {sys.version.split()[0]} in {sys.prefix}"
    if sys.version_info < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        yield problem("python", f"{here}; {wanted} or newer is needed", f"make a venv with Python {wanted}")
    else:
        yield ok("python", here)
    faults = list(_packages())
    yield from faults
    if not faults:
        yield ok("packages", "all that hailo-clip needs is installed, in versions that it allows")


def encoders(needs_hailo: bool) -> Iterator[Finding]:
    """Which encoders' libraries can be imported; they are not imported here."""
    there = {name: importlib.util.find_spec(name) is not None for name in ("hailo_platform", "onnxruntime")}
    if there["hailo_platform"]:
        yield ok("hailort", "its Python package hailo_platform is installed")
        yield from _numpy()
    elif needs_hailo:
        yield problem("hailort", "its Python package hailo_platform is not installed", hailort_fix())
    else:
        text = "its Python package is not installed; without a Hailo device it is not needed"
        yield ok("hailort", text, f"with one: {hailort_fix()}")
    if there["onnxruntime"]:
        yield ok("onnxruntime", f"version {_version('onnxruntime')}: models run on the CPU too")
    elif needs_hailo or there["hailo_platform"]:
        yield ok("onnxruntime", "not installed; it is needed for the CPU encoder and the demo model only")
    else:
        yield problem(
            "onnxruntime",
            "neither HailoRT nor onnxruntime is installed, so no model can be run",
            "pip install 'hailo-clip[demo]'",
        )


def resize() -> Iterator[Finding]:
    """Whether the part that needs a compiler was installed."""
    try:
        importlib.import_module("hailo_clip.api._resample")
    except ImportError as e:
        there = not isinstance(e, ModuleNotFoundError)
        why = f"the compiled part does not load ({e})" if there else "there was no compiler to build with"
        yield warning(
            "resize",
            f"Pillow resizes the images, which takes three times as long: {why}",
            "sudo apt install gcc python3-dev, then: pip install --force-reinstall --no-deps .",
        )
    else:
        yield ok("resize", "images are resized with vector instructions")


def hailort_fix() -> str:
    """How to get `hailo_platform`; a venv that hides the system's packages is told apart."""
    if hidden_by_venv():
        return (
            f"sudo apt install python3-h10-hailort; this venv hides the system's packages, so: {SYSTEM_VENV}"
        )
    return "sudo apt install python3-h10-hailort, or install the wheel from Hailo's Developer Zone"


def hidden_by_venv(prefix: Path | None = None) -> bool:
    """True when this Python runs in a venv that does not see the system's packages."""
    file = (prefix or Path(sys.prefix)) / "pyvenv.cfg"
    try:
        lines = file.read_text(encoding="utf-8").lower().splitlines()
    except OSError:
        return False
    return not any(line.replace(" ", "") == "include-system-site-packages=true" for line in lines)


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "5.2.0 (release,app)" is (5, 2, 0)."""
    found = re.match(r"\d+(\.\d+)*", version.strip())
    return tuple(int(n) for n in found[0].split(".")) if found else ()


def _packages() -> Iterator[Finding]:
    """What is missing, or of a version that this package does not allow."""
    try:
        requirements = importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        yield problem("packages", f"{PROJECT} itself is not installed", "pip install .")
        return
    for requirement in requirements:
        found = _REQUIREMENT.fullmatch(requirement)
        if found is None or found[4]:  # what an extra needs is not needed by all
            continue
        name, bounds = found[1], found[3]
        version = _version(name)
        if not version:
            yield problem("packages", f"{name} is missing", f"pip install '{name}{bounds}'")
        elif not _allowed(version, bounds):
            yield problem(
                "packages", f"{name} is {version}, allowed is {bounds}", f"pip install '{name}{bounds}'"
            )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _allowed(version: str, bounds: str) -> bool:
    found = release(version)
    return all((found >= release(bound)) is (sign == ">=") for sign, bound in _BOUND.findall(bounds))


def _numpy() -> Iterator[Finding]:
    """HailoRT's package is built against numpy 1 below Python 3.13 (its setup.py says numpy<2)."""
    version = _version("numpy")
    if sys.version_info < (3, 13) and release(version) >= (2,):
        yield warning(
            "numpy",
            f"numpy is {version}, but HailoRT's package asks for numpy below 2 on Python below 3.13",
            "pip install 'numpy<2'",
        )
