"""`hailo-clip doctor`: looks at everything that the service needs, and says what mends what is wrong."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hailo_clip import __version__
from hailo_clip.ops import doctor_device, doctor_library, doctor_python, doctor_service
from hailo_clip.ops.doctor_finding import Finding, Level, Machine, guarded, problem
from hailo_clip.ops.serve import HAILORT_LOGS
from hailo_clip.shared.config import Config, state_dir
from hailo_clip.shared.errors import ModelError, SetupError
from hailo_clip.shared.models import models_dir, open_model


def examine(
    config: Config, faults: Sequence[str] = (), machine: Machine | None = None, *, trial: bool = True
) -> Iterator[Finding]:
    """Everything, a finding at a time.

    Args:
        config: what `serve` would use; defaults where that is not valid.
        faults: what is wrong with the configuration.
        machine: where to look.
        trial: run the model's golden inputs on the device, unless the service does already.
    """
    here = machine or Machine()
    for fault in faults:
        yield problem("config", fault, "hailo-clip config --reference tells what is allowed")
    needed = needs_hailo(config, here)
    yield from doctor_python.python()
    yield from doctor_python.resize()
    yield from doctor_python.encoders(needed)
    found: list[Finding] = []
    if importlib.util.find_spec("hailo_platform") is not None:
        found = list(doctor_library.library(here, _logs(config)))
    answers = any(f.topic == "device" and f.level is not Level.PROBLEM for f in found)
    yield from guarded("bus", doctor_device.hardware(here, needed, answers))
    yield from found
    yield from guarded("holder", doctor_device.holders(here))
    installed = list(guarded("model", doctor_service.model(config)))
    yield from installed
    service = list(doctor_service.port(config))
    if trial and not any(f.level is Level.PROBLEM for f in (*found, *installed)):
        yield from doctor_library.trial(config, here, _logs(config), running=service[0].topic == "service")
    yield from service
    yield from doctor_service.directories(config)
    yield from doctor_service.limits(here)


def _logs(config: Config) -> Path:
    """Where HailoRT logs what happens here; a directory for once where there is no state directory."""
    try:
        return state_dir(config) / HAILORT_LOGS / "doctor"
    except SetupError:
        return Path(tempfile.mkdtemp(prefix="hailo-clip-doctor-"))


def needs_hailo(config: Config, machine: Machine) -> bool:
    """True when this service is to run on a Hailo device: it was told so, has one, or has HEFs alone."""
    wanted = config.model.encoder
    if wanted != "auto":
        return wanted == "hailo"
    if doctor_device.cards(machine) or doctor_device.nodes(machine):
        return True
    try:
        manifest = open_model(config.model.name, models_dir(config.model.dir))
    except ModelError:
        return False
    return set(manifest.backends) == {"hailo"}


def as_text(findings: Sequence[Finding]) -> str:
    """For people: a line each, the fix below it, and how many there are of each kind."""
    lines = []
    for f in findings:
        lines.append(f"{f.level.value:<8} {f.topic:<12} {f.text}")
        if f.fix:
            lines.append(f"{'':<8} {'':<12} -> {f.fix}")
    return "\n".join([*lines, "", _summary(findings)])


def as_json(findings: Sequence[Finding]) -> str:
    """For programs."""
    told = [{"level": f.level.value, "topic": f.topic, "text": f.text, "fix": f.fix} for f in findings]
    return json.dumps({"version": __version__, "healthy": healthy(findings), "findings": told}, indent=2)


def healthy(findings: Sequence[Finding]) -> bool:
    """True when nothing is a problem."""
    return not any(f.level is Level.PROBLEM for f in findings)


def _summary(findings: Sequence[Finding]) -> str:
    found = []
    for level in (Level.PROBLEM, Level.WARNING):
        count = sum(f.level is level for f in findings)
        if count:
            found.append(f"{count} {level.value}{'s' if count != 1 else ''}")
    return ", ".join(found) or "nothing is wrong"
