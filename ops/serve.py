"""What `hailo-clip serve` does before and around the supervisor: model, port, run directory, children."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from hailo_clip.ops.devices import scan
from hailo_clip.ops.lifecycle import Child, Pool
from hailo_clip.ops.supervisor import Supervisor, reachable
from hailo_clip.shared.config import Config, Server, dump_config, run_dir, state_dir
from hailo_clip.shared.errors import SetupError
from hailo_clip.shared.lock import only_one
from hailo_clip.shared.logs import setup_logs
from hailo_clip.shared.models import DEMO, installed, models_dir, open_model, resolve_encoder
from hailo_clip.workers.catalog import spread

log = logging.getLogger(__name__)

CONFIG_NAME = "config.yaml"
LOCK_NAME = "serve.lock"
HAILORT_LOGS = "hailort"
"""Folder in the state directory with a folder for each process that uses HailoRT, which logs there."""


def serve(config: Config, environ: Mapping[str, str] | None = None) -> int:
    """Serve until stopped; the exit code.

    Raises:
        ModelError: the model is not installed or nothing here can run it; the message says what to type.
        SetupError: the port is taken, another `serve` has the run directory, or it or the state directory
            can't be used.
    """
    env = os.environ if environ is None else environ
    setup_logs(config.log, "serve")
    resolved = resolve(config)
    directory = _check_places(resolved)
    taken = f"another `hailo-clip serve` uses the run directory {directory}; choose one with --run-dir"
    with only_one(directory / LOCK_NAME, taken):
        file = write_config(resolved, directory)
        log.info("starting", extra={"model": resolved.model.name, "encoder": resolved.model.encoder})
        return Supervisor(
            resolved, children(resolved, file), env, lambda pool: _say_ready(resolved, pool)
        ).run()


def resolve(config: Config) -> Config:
    """`config` with everything settled that its children must agree on: model, encoder, devices, directories.

    The demo model is built when it is missing and asked for by name; no other model ever takes the
    place of the one asked for.

    Raises:
        ModelError: as `serve` does.
        SetupError: the encoder is hailo, `workers.devices` is auto, and there is no device, or HailoRT does
            not answer.
    """
    directory = models_dir(config.model.dir)
    if config.model.name == DEMO and DEMO not in installed(directory):
        _check_places(config)  # before a long download rather than after it
        _build_demo(directory)
    manifest = open_model(config.model.name, directory)
    encoder = resolve_encoder(config.model.encoder, manifest)
    model = dataclasses.replace(config.model, dir=directory, encoder=encoder)
    broker = dataclasses.replace(config.broker, run_dir=run_dir(config))
    workers = dataclasses.replace(config.workers, devices=_devices(config, encoder))
    return dataclasses.replace(config, model=model, broker=broker, workers=workers)


def children(config: Config, file: Path) -> list[Child]:
    """The processes of the service, each reading its configuration from `file`."""
    command = (sys.executable, "-m", "hailo_clip.ops.cli")
    ending = ("--config", str(file))
    workers = [
        Child(name, "worker", (*command, "worker", "--name", name, *device, *ending))
        for name, device in ((f"worker-{i}", d) for i, d in enumerate(_device_flags(config)))
    ]
    broker = Child("broker", "broker", (*command, "broker", *ending))
    return [broker, *workers, Child("api", "api", (*command, "api", *ending))]


def check_port(server: Server) -> None:
    """Raise `SetupError` when the REST API could not listen where it is told to."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as e:
        raise SetupError(f"cannot listen on {server.host} port {server.port}: {_port_advice(e)}") from e


def write_config(config: Config, directory: Path) -> Path:
    """Write `config` to a file in `directory` that only this user can read; its path."""
    path = directory / CONFIG_NAME
    partial = path.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(dump_config(config))
    partial.replace(path)
    return path


def _port_advice(e: OSError) -> str:
    if e.errno == errno.EADDRINUSE:
        return "another program has the port; choose a free one with --port"
    if e.errno == errno.EACCES:
        return "ports below 1024 need root; choose another with --port"
    return f"{e.strerror or e}; choose an address of this machine with --host"


def _devices(config: Config, encoder: str) -> str | tuple[str, ...]:
    """`workers.devices` with "auto" settled where it means devices that have to be looked for.

    A list is taken as it is, also when one of its devices is not there now: its workers say so and try
    again, and the others serve.
    """
    wanted = config.workers.devices
    if encoder != "hailo" or isinstance(wanted, tuple):
        return wanted
    found = tuple(scan(state_dir(config) / HAILORT_LOGS / "scan"))
    log.info("Hailo devices found", extra={"devices": ", ".join(found)})
    idle = found[config.workers.count :]
    if idle:
        log.warning(
            f"{len(idle)} of {len(found)} devices stay idle; --workers {len(found)} uses them all",
            extra={"idle": ", ".join(idle)},
        )
    return found


def _device_flags(config: Config) -> list[tuple[str, ...]]:
    """Each worker's flag for its device: in turn when they are listed, none where it chooses itself."""
    devices, count = config.workers.devices, config.workers.count
    if not isinstance(devices, tuple) or not devices:
        return [()] * count
    return [("--device", device) for device in spread(devices, count)]


def _check_places(config: Config) -> Path:
    """Make sure of the port and of both directories; the run directory. Raises `SetupError`."""
    check_port(config.server)
    state_dir(config)
    return run_dir(config)


def _build_demo(directory: Path) -> None:
    from hailo_clip.ops.models_pull import pull

    print(
        f"The demo model is not installed yet; it is built now in {directory} (about 100 MB).",
        file=sys.stderr,
    )
    pull(DEMO, directory)


def _say_ready(config: Config, pool: Pool) -> None:
    """Print the one line that people wait for."""
    host = reachable(config.server.host)
    address = f"[{host}]" if ":" in host else host
    some, wanted = pool.ready_workers, config.workers.count
    line = (
        f"ready: http://{address}:{config.server.port} model={config.model.name} "
        f"encoder={config.model.encoder} workers={some if some == wanted else f'{some}/{wanted}'}"
    )
    try:
        print(line, flush=True)
    except OSError as e:  # nobody reads standard output any more: no reason to stop serving
        log.warning("cannot write to standard output", extra={"reason": str(e)})
        log.info(line)
