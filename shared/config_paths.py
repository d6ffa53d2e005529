"""Where the processes of one service meet and keep things: run directory, state directory, endpoints."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from hailo_clip.shared.config_kinds import IPC_PATH_MAX
from hailo_clip.shared.config_schema import Config
from hailo_clip.shared.errors import SetupError


def run_dir(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """The directory of the sockets, made with mode 0700 if it is not there.

    `broker.run_dir`, else $RUNTIME_DIRECTORY (systemd), else ``hailo-clip-PORT`` in $XDG_RUNTIME_DIR, else
    ``/tmp/hailo-clip-UID-PORT``; the port keeps two services of one user apart.

    Raises:
        SetupError: it can't be made, or is a link, someone else's, or writable by others: whoever can
            replace a socket can read every request.
    """
    return _private(config.broker.run_dir or _default_run_dir(config, _env(environ)), "broker.run_dir")


def state_dir(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """The directory of what outlives a restart (prompt cache, device logs), made if it is not there.

    $STATE_DIRECTORY (systemd), else ``hailo-clip-PORT`` in $XDG_STATE_HOME or ``~/.local/state``.

    Raises:
        SetupError: as in `run_dir`.
    """
    env = _env(environ)
    if env.get("STATE_DIRECTORY"):
        return _private(_first(env["STATE_DIRECTORY"]), "$STATE_DIRECTORY")
    base = Path(env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return _private(base / f"hailo-clip-{config.server.port}", "$XDG_STATE_HOME")


def frontend_endpoint(config: Config, environ: Mapping[str, str] | None = None) -> str:
    """The ZeroMQ endpoint between frontends and broker. Raises `SetupError` as `run_dir` does."""
    return config.broker.frontend or _ipc(run_dir(config, environ) / "frontend.sock")


def backend_endpoint(config: Config, environ: Mapping[str, str] | None = None) -> str:
    """The ZeroMQ endpoint between workers and broker. Raises `SetupError` as `run_dir` does."""
    return config.broker.backend or _ipc(run_dir(config, environ) / "backend.sock")


def _env(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ


def _first(paths: str) -> Path:
    """The first of several: systemd puts the service's own first, and colons between."""
    return Path(paths.split(":", maxsplit=1)[0])


def _default_run_dir(config: Config, env: Mapping[str, str]) -> Path:
    if env.get("RUNTIME_DIRECTORY"):
        return _first(env["RUNTIME_DIRECTORY"])
    session = Path(env.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if session.is_dir():
        return session / f"hailo-clip-{config.server.port}"
    return Path(f"/tmp/hailo-clip-{os.getuid()}-{config.server.port}")  # noqa: S108  (checked by _private)


def _private(path: Path, named_by: str) -> Path:
    """`path` as a directory that only this user can write."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as e:
        raise SetupError(f"{path} cannot be made: {e.strerror}; set {named_by} to another place") from e
    if not stat.S_ISDIR(found.st_mode):
        raise SetupError(f"{path} is a link or no directory; remove it, or set {named_by} to another place")
    if found.st_uid != os.getuid():
        raise SetupError(f"{path} belongs to user {found.st_uid}; set {named_by} to another place")
    if found.st_mode & 0o022:
        raise SetupError(f"{path} can be written by others; run: chmod 700 {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise SetupError(f"{path} cannot be written to; set {named_by} to another place")
    return path


def _ipc(path: Path) -> str:
    size = len(os.fsencode(path))
    if size > IPC_PATH_MAX:
        raise SetupError(
            f"the socket path {path} has {size} bytes, a Unix socket takes {IPC_PATH_MAX}; "
            "set broker.run_dir to a shorter path"
        )
    return f"ipc://{path}"
