"""What `serve` settles before it starts anything: model, port, run directory, the children's commands."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hailo_clip.ops.notify import Notifier
from hailo_clip.ops.processes import Processes, how_it_ended
from hailo_clip.ops.serve import check_port, children, resolve, serve, write_config
from hailo_clip.ops.supervisor import reachable
from hailo_clip.shared.config import Config, Server, load_config
from hailo_clip.shared.errors import ModelError, SetupError

EMULATED = "emulated-clip-resnet-50x4"


def config(tmp_path: Path, **flags: object) -> Config:
    chosen = {"model.name": EMULATED, "model.dir": tmp_path / "models", "broker.run_dir": tmp_path / "run"}
    given = {key.replace("__", "."): value for key, value in flags.items()}
    return load_config(None, {}, chosen | given, system_file=Path("/nonexistent"))


def test_the_children_read_what_was_settled(tmp_path: Path) -> None:
    resolved = resolve(config(tmp_path))
    assert (resolved.model.encoder, resolved.model.dir) == ("emulated", tmp_path / "models")
    file = write_config(resolved, tmp_path / "run")
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_config(file, {}) == resolved


def test_one_broker_then_workers_by_name_then_the_api(tmp_path: Path) -> None:
    made = children(config(tmp_path, workers__count=3), Path("/run/c.yaml"))
    assert [(c.name, c.role) for c in made] == [
        ("broker", "broker"),
        ("worker-0", "worker"),
        ("worker-1", "worker"),
        ("worker-2", "worker"),
        ("api", "api"),
    ]
    assert made[1].argv[-5:] == ("worker", "--name", "worker-0", "--config", "/run/c.yaml")


def test_workers_are_spread_over_the_devices_listed(tmp_path: Path) -> None:
    made = children(config(tmp_path, workers__count=3, workers__devices=["emu:0", "emu:1"]), Path("/c"))
    devices = [c.argv[c.argv.index("--device") + 1] for c in made if c.role == "worker"]
    assert devices == ["emu:0", "emu:1", "emu:0"]


def test_a_model_that_is_not_installed_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="models pull clip-resnet-50x4"):
        serve(config(tmp_path, model__name="clip-resnet-50x4"), {})
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        wanted = config(tmp_path, server__host="127.0.0.1", server__port=port)
        with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1 port {port}: another program has"):
            serve(wanted, {})
    assert not (tmp_path / "run" / "config.yaml").exists()
    check_port(wanted.server)  # free again


def test_a_state_directory_that_cannot_be_used_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    with pytest.raises(SetupError, match=r"cannot be made: .*; set \$XDG_STATE_HOME to another place"):
        serve(config(tmp_path), {})


def test_an_address_that_is_not_this_machines() -> None:
    with pytest.raises(SetupError, match="choose an address of this machine with --host"):
        check_port(Server(host="203.0.113.7", port=5000))


def test_a_second_serve_in_one_run_directory_is_refused(tmp_path: Path) -> None:
    import fcntl

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (tmp_path / "run").mkdir(mode=0o700)
    with (tmp_path / "run" / "serve.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match="another `hailo-clip serve` uses the run directory"):
            serve(config(tmp_path, server__host="127.0.0.1", server__port=port), {})


def test_an_address_to_reach_a_listener_at() -> None:
    assert [reachable(h) for h in ("0.0.0.0", "::", "10.0.0.1")] == ["127.0.0.1", "::1", "10.0.0.1"]


# systemd


def test_states_go_to_the_notify_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).send("READY=1", "STATUS=two\nlines")
        assert systemd.recv(100) == b"READY=1\nSTATUS=two lines"


def test_states_go_to_an_abstract_socket() -> None:
    name = f"hailo-clip-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).send("WATCHDOG=1")
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_without_systemd_or_with_a_dead_one_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).send("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).send("READY=1")


# Processes


def test_children_do_not_get_what_is_meant_for_the_supervisor(tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "HAILO_CLIP__SERVER__PORT": "1",
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1",
        "HAILO_CLIP_EMULATED_FAULTS": "nan",
    }
    processes = Processes(environ)
    out = tmp_path / "env"
    processes.start("a", ["/bin/sh", "-c", f"env > {out}.new; mv {out}.new {out}"])
    while not list(processes.reap()):
        pass
    inherited = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert inherited["HAILO_CLIP_PARENT_PID"] == str(os.getpid())
    assert inherited["HAILO_CLIP_EMULATED_FAULTS"] == "nan"
    assert not {"HAILO_CLIP__SERVER__PORT", "NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(inherited)


def test_a_child_takes_what_it_left_behind_with_it(tmp_path: Path) -> None:
    """As when a frontend's master crashes: its processes would keep the port."""
    processes = Processes({"PATH": os.environ["PATH"]})
    processes.start("a", ["/bin/sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; exit 3"])
    ended: list[tuple[str, int]] = []
    while not ended:
        ended = list(processes.reap())
    assert ended == [("a", 3)]
    orphan = int((tmp_path / "pid").read_text())
    assert not _lives(orphan)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-60, "killed by signal 60")],
)
def test_how_it_ended(code: int, words: str) -> None:
    assert how_it_ended(code) == words


def _lives(pid: int) -> bool:
    """True unless the process is gone or a zombie that nobody has waited for yet."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state in "ZX":
            return False
        os.sched_yield()
    return True
