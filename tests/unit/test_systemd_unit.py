"""The systemd unit: what a Hailo device, the supervisor and the documentation need of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hailo_clip.ops.cli import build_parser

ROOT = Path(__file__).parent.parent.parent
UNIT = ROOT / "ops/systemd/hailo-clip.service"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Settings of all sections; no name comes twice but those of lists."""
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_device_is_let_through(settings: dict[str, str]) -> None:
    assert "PrivateDevices" not in settings
    assert settings["DevicePolicy"] == "closed"
    assert settings["DeviceAllow"] == "/dev/hailo0 rw"


def test_it_waits_for_the_canary_and_for_the_drain(settings: dict[str, str]) -> None:
    assert settings["Type"] == "notify"
    assert int(settings["TimeoutStartSec"]) >= 180  # workers.shell.GRACE_S
    assert int(settings["TimeoutStopSec"]) > 30  # queue.request_timeout_s
    assert settings["KillMode"] == "mixed"
    assert int(settings["WatchdogSec"]) >= 10


def test_a_configuration_that_is_wrong_is_not_tried_again(settings: dict[str, str]) -> None:
    assert settings["Restart"] == "always"
    assert settings["RestartPreventExitStatus"] == "2"


def test_it_starts_what_there_is(settings: dict[str, str]) -> None:
    program, *arguments = settings["ExecStart"].split()
    assert program.endswith("/bin/hailo-clip")
    assert build_parser().parse_args(arguments).command == "serve"


def test_the_documentation_installs_where_it_looks(settings: dict[str, str]) -> None:
    page = (ROOT / "docs/hailo.md").read_text()
    assert settings["ExecStart"].split()[0] in page
    assert settings["Environment"] in page
    assert str(UNIT.relative_to(ROOT)) in page
