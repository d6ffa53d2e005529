"""The configuration: sources, order, checks, messages, the reference, and where files go."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hailo_clip.shared.config import (
    SETTINGS,
    Config,
    backend_endpoint,
    dump_config,
    frontend_endpoint,
    load_config,
    reference,
    run_dir,
    state_dir,
)
from hailo_clip.shared.errors import ConfigError, SetupError

ROOT = Path(__file__).parents[2]
NOWHERE = Path("/nonexistent/hailo-clip.yaml")


def load(
    text: str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    tmp: Path | None = None,
) -> Config:
    """The configuration from a file with `text`, an environment and flags, and nothing of this machine."""
    path = None
    if text is not None:
        assert tmp is not None
        path = tmp / "c.yaml"
        path.write_text(text, encoding="utf-8")
    return load_config(path, env or {}, flags, system_file=NOWHERE)


def refusal(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**given)
    return caught.value.message


def test_the_defaults_that_the_specification_names() -> None:
    config = load()
    assert (config.server.host, config.server.port) == ("0.0.0.0", 5000)
    assert (config.model.name, config.workers.count, config.queue.max_depth) == ("clip-resnet-50x4", 2, 10)
    assert config == Config()


def test_every_default_is_allowed_by_its_own_rule() -> None:
    for setting in SETTINGS.values():
        assert setting.kind.check(setting.default) == setting.default, setting.key


def test_flags_override_environment_overrides_file_overrides_defaults(tmp_path: Path) -> None:
    text = "queue: {max_depth: 1, max_bytes_mib: 1, request_timeout_s: 1}\n"
    env = {"HAILO_CLIP__QUEUE__MAX_DEPTH": "2", "HAILO_CLIP__QUEUE__MAX_BYTES_MIB": "2"}
    queue = load(text, env, {"queue.max_depth": 3, "server.port": None}, tmp=tmp_path).queue
    assert (queue.max_depth, queue.max_bytes_mib, queue.request_timeout_s) == (3, 2, 1.0)


def test_the_file_is_named_by_flag_else_variable_else_the_system(tmp_path: Path) -> None:
    for port in (1, 2, 3):
        (tmp_path / f"{port}.yaml").write_text(f"server: {{port: {port}}}")
    one, two, three = (tmp_path / f"{port}.yaml" for port in (1, 2, 3))
    env = {"HAILO_CLIP_CONFIG": str(two)}
    assert load_config(one, env, system_file=three).server.port == 1
    assert load_config(None, env, system_file=three).server.port == 2
    assert load_config(None, {}, system_file=three).server.port == 3
    assert load_config(None, {"HAILO_CLIP_CONFIG": ""}, system_file=NOWHERE).server.port == 5000


@pytest.mark.parametrize(
    ("env", "named_by"), [({}, "--config"), ({"HAILO_CLIP_CONFIG": "/no"}, "$HAILO_CLIP_CONFIG")]
)
def test_a_named_file_must_exist(env: dict[str, str], named_by: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{named_by} names /no, which does not exist")):
        load_config(None if env else Path("/no"), env)


def test_a_file_that_is_there_but_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(None, {}, system_file=tmp_path)  # a directory


@pytest.mark.parametrize("text", ["", "# nothing\n", "server:\nqueue: {}\n", "---\n"])
def test_empty_files_and_sections_are_fine(tmp_path: Path, text: str) -> None:
    assert load(text, tmp=tmp_path) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "queue: {max_dept: 5}",
            "queue.max_dept ({file}): there is no such setting; did you mean queue.max_depth?",
        ),
        (
            "server: {max_depth: 5}",
            "server.max_depth ({file}): there is no such setting; did you mean queue.max_depth?",
        ),
        ("qeue: {max_depth: 5}", "qeue ({file}): there is no such setting; did you mean queue?"),
        (
            "zzz: 1",
            "zzz ({file}): there is no such setting; the sections are "
            "server, model, workers, queue, broker, cache, labels, auth, log",
        ),
        ("server: {port: 0}", "server.port = 0 ({file}): must be a whole number from 1 to 65535"),
        ("server: {port: '80'}", "server.port = '80' ({file}): must be a whole number from 1 to 65535"),
        ("server: {port: true}", "server.port = True ({file}): must be a whole number from 1 to 65535"),
        ("server: {port: 5e3}", "server.port = 5000.0 ({file}): must be a whole number from 1 to 65535"),
        ("server: {port: null}", "server.port = null ({file}): must be a whole number from 1 to 65535"),
        ("server: {host: 'a b'}", "server.host = 'a b' ({file}): must be an IP address or host name"),
        (
            "queue: {request_timeout_s: .nan}",
            "queue.request_timeout_s = nan ({file}): must be a number from 0.1 to 3600",
        ),
        ("cache: {persist: 1}", "cache.persist = 1 ({file}): must be true or false"),
        (
            "log: {level: Warn}",
            "log.level = 'Warn' ({file}): must be one of debug, info, warning, error; did you mean warning?",
        ),
        (
            "broker: {frontend: 'udp://x:1'}",
            "broker.frontend = 'udp://x:1' ({file}): must be ipc://PATH (at most 107 bytes of path) "
            "or tcp://HOST:PORT, or null",
        ),
        ("server: 5", "server = 5 ({file}): must hold settings such as 'key: value'"),
        (
            "server: {trusted_proxies: [10.0.0.0/8, me]}",
            "server.trusted_proxies = ['10.0.0.0/8', 'me'] ({file}): must be a list, "
            "each entry an IP address or network such as 10.0.0.0/8",
        ),
        ("[1, 2]", "{file} must hold sections such as 'server:', it holds [1, 2]"),
        (
            "a: [",
            "{file}: not valid YAML: expected the node content, but found '<stream end>' (line 1, column 5)",
        ),
        (
            "log: {level: info, level: debug}",
            "{file}: not valid YAML: the key 'level' stands twice (line 1, column 20)",
        ),
        (
            "server:\n  ? [a]\n  : 1",
            "{file}: not valid YAML: a key is a list or a mapping (line 2, column 5)",
        ),
        (
            "[" * 3000,
            "{file}: not valid YAML here: it is nested too deeply",
        ),
    ],
)
def test_messages_for_files(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(text=text, tmp=tmp_path) == message.format(file=tmp_path / "c.yaml")


def test_messages_for_environment_and_flags() -> None:
    env = {
        "HAILO_CLIP__QUEUE__MAX_DEPHT": "5",
        "HAILO_CLIP__QUEUE__MAX_DEPTH": "many",
        "HAILO_CLIP__LOG": "x",
    }
    assert refusal(env=env, flags={"server.port": 70000, "workers.max_batch": 0}).splitlines() == [
        "log (environment variable HAILO_CLIP__LOG): is a section, its settings are log.level, log.format",
        "queue.max_depht (environment variable HAILO_CLIP__QUEUE__MAX_DEPHT): "
        "there is no such setting; did you mean queue.max_depth?",
        "queue.max_depth = 'many' (environment variable HAILO_CLIP__QUEUE__MAX_DEPTH): "
        "must be a whole number from 1 to 100000",
        "server.port = 70000 (--port): must be a whole number from 1 to 65535",
        "workers.max_batch = 0 (the command line): must be a whole number from 1 to 63",
    ]


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("WORKERS__DEVICES", "[0000:01:00.0, hailo-1]", ("0000:01:00.0", "hailo-1")),
        ("WORKERS__DEVICES", "auto", "auto"),
        ("SERVER__TRUSTED_PROXIES", "[127.0.0.1, '::1', 10.0.0.0/8]", ("127.0.0.1", "::1", "10.0.0.0/8")),
        ("SERVER__HOST", "::1", "::1"),
        ("QUEUE__REQUEST_TIMEOUT_S", "2.5", 2.5),
        ("QUEUE__REQUEST_TIMEOUT_S", "1e1", 10.0),
        ("CACHE__PERSIST", "no", False),
        ("MODEL__NAME", "1e3", "1e3"),
        ("MODEL__DIR", "/a b", Path("/a b")),
        ("MODEL__DIR", "", None),
        ("BROKER__FRONTEND", "null", None),
        ("BROKER__FRONTEND", "ipc:///run/x.sock", "ipc:///run/x.sock"),
    ],
)
def test_any_setting_by_environment(variable: str, text: str, value: object) -> None:
    section, key = variable.lower().split("__")
    config = load(env={f"HAILO_CLIP__{variable}": text, "HAILO_CLIP_OTHER": "not ours to judge"})
    assert getattr(getattr(config, section), key) == value


def test_a_device_id_is_text_and_not_a_number_in_base_60(tmp_path: Path) -> None:
    assert load("workers: {devices: [0000:01:00.0]}", tmp=tmp_path).workers.devices == ("0000:01:00.0",)


def test_paths_become_absolute_and_the_home_directory_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load(flags={"model.dir": "~/models"}).model.dir == Path("/home/me/models")
    assert load(flags={"model.dir": "models"}).model.dir == Path.cwd() / "models"


def test_tcp_endpoints_need_keys() -> None:
    message = refusal(flags={"broker.frontend": "tcp://10.0.0.1:5555"})
    assert message.startswith(
        "broker.frontend = 'tcp://10.0.0.1:5555' (the command line): tcp:// needs broker.curve_keys"
    )
    fine = load(flags={"broker.frontend": "tcp://10.0.0.1:5555", "broker.curve_keys": "/etc/keys"})
    assert frontend_endpoint(fine) == "tcp://10.0.0.1:5555"


def test_the_two_endpoints_must_differ() -> None:
    flags = {"broker.frontend": "ipc:///run/a", "broker.backend": "ipc:///run/a"}
    assert refusal(flags=flags).endswith("must differ from broker.frontend")


def test_a_dumped_configuration_reads_back_equal(tmp_path: Path) -> None:
    flags = {
        "workers.devices": ["0000:01:00.0", "on"],
        "broker.run_dir": "/run/x",
        "server.trusted_proxies": ["::1"],
        "model.name": "1e3",
    }
    config = load(flags=flags)
    assert load(dump_config(config), tmp=tmp_path) == config
    assert load(dump_config(Config()), tmp=tmp_path) == Config()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().server.port = 1  # type: ignore[misc]


def test_the_reference_in_the_docs_is_the_generated_one() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    shown = text.split("<!-- settings -->\n")[1].split("<!-- end of settings -->")[0]
    assert shown.strip() == reference().strip(), 'replace it by the output of "hailo-clip config --reference"'


def test_every_setting_has_a_line_of_doc_and_flags_are_unique() -> None:
    flags = [s.flag for s in SETTINGS.values() if s.flag]
    assert len(flags) == len(set(flags))
    assert all(s.doc and "\n" not in s.doc and "|" not in s.doc for s in SETTINGS.values())


# Directories and endpoints


def test_sockets_lie_in_a_private_run_directory(tmp_path: Path) -> None:
    config = load(flags={"broker.run_dir": tmp_path / "a" / "run"})
    made = run_dir(config, {})
    assert made == tmp_path / "a" / "run"
    assert made.stat().st_mode & 0o777 == 0o700
    assert frontend_endpoint(config, {}) == f"ipc://{made}/frontend.sock"
    assert backend_endpoint(config, {}) == f"ipc://{made}/backend.sock"
    assert run_dir(config, {}) == made


def test_two_services_of_one_user_do_not_share_a_run_directory(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert run_dir(load(), env) == tmp_path / "hailo-clip-5000"
    assert run_dir(load(flags={"server.port": 5050}), env) == tmp_path / "hailo-clip-5050"


def test_systemd_names_the_directories_when_it_runs_the_service(tmp_path: Path) -> None:
    env = {"RUNTIME_DIRECTORY": f"{tmp_path}/r:/other", "STATE_DIRECTORY": f"{tmp_path}/s"}
    assert run_dir(load(), env) == tmp_path / "r"
    assert state_dir(load(), env) == tmp_path / "s"


def test_without_a_session_the_run_directory_is_in_tmp_with_user_and_port() -> None:
    port = 1 + os.getpid() % 60000
    made = run_dir(load(flags={"server.port": port}), {"XDG_RUNTIME_DIR": "/nonexistent"})
    try:
        assert made == Path(f"/tmp/hailo-clip-{os.getuid()}-{port}")
    finally:
        made.rmdir()


def test_the_state_directory(tmp_path: Path) -> None:
    made = state_dir(load(), {"XDG_STATE_HOME": str(tmp_path / "state")})
    assert made == tmp_path / "state" / "hailo-clip-5000"
    assert made.is_dir()


def test_a_run_directory_that_others_could_tamper_with_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, why in [("link", "is a link"), ("file", "cannot be made"), ("open", "chmod 700")]:
        with pytest.raises(SetupError, match=why):
            run_dir(load(flags={"broker.run_dir": tmp_path / name}), {})


def test_a_run_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    other = Path("/usr")  # root's
    if os.getuid() == 0:
        other = tmp_path / "other"
        other.mkdir()
        os.chown(other, 12345, 12345)
    with pytest.raises(SetupError, match=f"belongs to user {other.stat().st_uid};"):
        run_dir(load(flags={"broker.run_dir": other}), {})


def test_a_socket_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    config = load(flags={"broker.run_dir": tmp_path / ("x" * 100)})
    with pytest.raises(SetupError, match=r"a Unix socket takes 107; set broker\.run_dir to a shorter path"):
        frontend_endpoint(config, {})
