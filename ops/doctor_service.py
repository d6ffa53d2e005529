"""Doctor's look at the service: configuration, model, port, directories, the machine's limits."""

from __future__ import annotations

import http.client
import importlib.util
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hailo_clip.ops.doctor_finding import Finding, Machine, ok, problem, warning
from hailo_clip.ops.doctor_python import hailort_fix
from hailo_clip.ops.serve import check_port
from hailo_clip.ops.supervisor import reachable
from hailo_clip.shared.canary import load_canary
from hailo_clip.shared.config import Config, run_dir, state_dir
from hailo_clip.shared.errors import ModelError, SetupError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import (
    DEMO,
    KNOWN,
    installed,
    is_emulated,
    models_dir,
    needed_files,
    open_model,
    resolve_encoder,
)

FILES: Final = 1024
"""File descriptors that a process should be allowed."""

LOW_MEMORY: Final = 1 << 30
LOW_DISK: Final = 1 << 30
_ASK_S = 2.0


def model(config: Config) -> Iterator[Finding]:
    """The configured model: is it there, whole, and is there something to run it; then the others."""
    name, directory = config.model.name, models_dir(config.model.dir)
    try:
        manifest = open_model(name, directory)
    except ModelError as e:
        first = e.message.splitlines()[0].removesuffix(". Type one of:").partition("; type: ")[0]
        if name == DEMO and name not in installed(directory):
            yield warning("model", f"{first}; serve --model {DEMO} fetches it when it starts", _get(name))
        else:
            yield problem("model", first, _get(name))
        manifest = None
    if manifest is not None:
        yield from _fit(config, manifest)
    for other in installed(directory):
        if other != name:
            yield from _other(other, directory)


def port(config: Config) -> Iterator[Finding]:
    """Is the port free, or is it this service that has it; then how it does."""
    server = config.server
    health = _health(server.host, server.port)
    if health is not None and health.get("service") == "hailo-clip":
        where = f"hailo-clip runs on port {server.port} with {health.get('model')}"
        if health.get("status") == "healthy":
            yield ok("service", f"{where}, healthy")
        else:
            why = f"{health.get('status')}: {health.get('reason')}"
            yield problem("service", f"{where}, {why}", "hailo-clip top, and the service's log")
        return
    try:
        check_port(server)
    except SetupError as e:
        yield problem("port", e.message, f"sudo ss -ltnp 'sport = :{server.port}' names the program")
    else:
        yield ok("port", f"port {server.port} is free")


def directories(config: Config) -> Iterator[Finding]:
    """The run and the state directory, made if need be, and the room for models."""
    for topic, make in (("run_dir", run_dir), ("state_dir", state_dir)):
        try:
            yield ok(topic, str(make(config)))
        except SetupError as e:
            yield problem(topic, e.message, "choose another place: hailo-clip config --reference")
    place = models_dir(config.model.dir)
    free = shutil.disk_usage(_existing(place)).free
    if free < LOW_DISK:
        yield warning("disk", f"{free / 1e6:.0f} MB free for models in {place}", "free some, or --models-dir")
    else:
        yield ok("disk", f"{free / 1e9:.0f} GB free for models in {place}")


def limits(machine: Machine) -> Iterator[Finding]:
    """Open files, memory."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        yield warning(
            "limits", f"{soft} open files are allowed", f"ulimit -n {FILES}; LimitNOFILE in systemd"
        )
    else:
        allowed = "any number of" if soft == resource.RLIM_INFINITY else soft
        yield ok("limits", f"{allowed} open files are allowed")
    available = _available(machine.proc)
    if available is not None and available < LOW_MEMORY:
        yield warning("memory", f"{available / 1e6:.0f} MB available", "stop other programs; fewer workers")
    elif available is not None:
        yield ok("memory", f"{available / 1e9:.1f} GB available")


def _fit(config: Config, manifest: Manifest) -> Iterator[Finding]:
    name = manifest.name
    if is_emulated(manifest):
        yield warning("model", f"{name} is emulated: its embeddings mean nothing", "choose a real model")
        return
    try:
        encoder = resolve_encoder(config.model.encoder, manifest)
        _check_sizes(manifest, encoder)
        golden = load_canary(manifest)
    except ModelError as e:
        yield problem("model", e.message, _lacking(config, manifest) or _get(name))
        return
    if encoder not in golden.expected:
        yield problem(
            "model",
            f"{name} has no golden embeddings for {encoder}, so it can't be served",
            f"hailo-clip models verify {name} --encoder {encoder} --record",
        )
    elif encoder in manifest.canary.floors:
        yield warning(
            "model",
            f"{name} is installed for {encoder}; its golden embeddings are another encoder's",
            f"hailo-clip models verify {name} --encoder {encoder} --record",
        )
    else:
        yield ok("model", f"{name} is installed for {encoder} (hailo-clip models verify {name} checks it)")


def _lacking(config: Config, manifest: Manifest) -> str:
    """How to get the library that the model's networks need, empty when it is there."""
    wanted = config.model.encoder
    encoders = [e for e in manifest.backends if wanted in ("auto", e)]
    if "hailo" in encoders and importlib.util.find_spec("hailo_platform") is None:
        return hailort_fix()
    if "onnx" in encoders and importlib.util.find_spec("onnxruntime") is None:
        return "pip install 'hailo-clip[onnx]'"
    return ""


def _other(name: str, directory: Path) -> Iterator[Finding]:
    try:
        manifest = open_model(name, directory)
        yield ok("models", f"{name} is installed for {', '.join(manifest.backends)}")
    except ModelError as e:
        yield warning("models", e.message, _get(name))


def _check_sizes(manifest: Manifest, encoder: str) -> None:
    """Raise `ModelError` when a file is missing or has another size; hashes take `models verify`."""
    for name in needed_files(manifest, encoder):
        path = manifest.path(name)
        size = path.stat().st_size if path.is_file() else None
        if size != manifest.files[name].size:
            found = "is missing" if size is None else f"has {size} bytes"
            raise ModelError(f"{path} {found}, expected are {manifest.files[name].size} bytes")


def _get(name: str) -> str:
    if name == DEMO or name not in KNOWN:
        return f"hailo-clip models pull {name}" if name == DEMO else "hailo-clip models list; --model NAME"
    return f"hailo-clip models pull {name}, or: hailo-clip serve --model {DEMO}"


def _health(host: str, number: int) -> dict[str, Any] | None:
    """What GET /health says, None when nothing that speaks JSON answers."""
    connection = http.client.HTTPConnection(reachable(host), number, timeout=_ASK_S)
    try:
        connection.request("GET", "/health")
        told = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return told if isinstance(told, dict) else None


def _existing(place: Path) -> Path:
    """`place`, or the nearest directory above it that is there."""
    while not place.exists():
        place = place.parent
    return place


def _available(proc: Path) -> int | None:
    """Bytes of memory that programs can still get, None where the kernel does not say."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
