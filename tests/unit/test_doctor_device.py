"""Doctor's look at a machine's Hailo devices: each thing that can be wrong is named, with what mends it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from hailo_clip.ops.doctor_device import hardware, holders
from hailo_clip.ops.doctor_finding import Finding, Level, guarded
from hailo_clip.ops.doctor_library import library
from tests.doubles.fake_pi import FakePi
from tests.doubles.hailo_double import FIRST, SECOND, Double, environment, install


@pytest.fixture
def pi(tmp_path: Path) -> FakePi:
    return FakePi(tmp_path / "pi")


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    for name, value in environment(tmp_path / "devices", [FIRST, SECOND]).items():
        monkeypatch.setenv(name, value)
    return install(tmp_path / "devices", monkeypatch)


def told(findings: Iterable[Finding]) -> list[tuple[str, str, str]]:
    """Each finding; a warning or a problem must say what mends it."""
    found = list(findings)
    assert all(f.fix for f in found if f.level is not Level.OK), found
    return [(f.level.value, f.topic, f.text) for f in found]


def only(findings: Iterable[Finding], level: str) -> Finding:
    (found,) = [f for f in findings if f.level.value == level]
    return found


def test_a_device_in_good_order(pi: FakePi) -> None:
    node = pi.root / "dev/hailo0"
    assert told(hardware(pi.whole().machine, True, True)) == [
        ("ok", "bus", "Hailo-10H at 0001:01:00.0, 8 GT/s"),
        ("ok", "driver", "hailo1x_pci 5.2.0"),
        ("ok", "node", f"{node} can be opened by this user"),
    ]


def test_the_node_of_later_drivers(pi: FakePi) -> None:
    found = told(hardware(pi.card().driver("5.3.0").node("h1x-0").machine, True, True))
    assert found[-1][::2] == ("ok", f"{pi.root}/dev/h1x-0 can be opened by this user")


def test_no_device_is_a_problem_where_one_is_needed(pi: FakePi) -> None:
    finding = only(hardware(pi.machine, needed=True, answers=False), "problem")
    assert finding.text == "there is no Hailo device on the PCI bus"
    assert "lspci -d 1e60:" in finding.fix


def test_elsewhere_it_is_none_and_owners_are_told_what_to_look_at(pi: FakePi) -> None:
    finding = only(hardware(pi.machine, needed=False, answers=False), "ok")
    assert finding.text.endswith("models run on the CPU")
    assert "lspci -d 1e60:" in finding.fix


def test_a_bus_that_cannot_be_seen_is_no_problem_when_the_device_answers(pi: FakePi) -> None:
    assert "HailoRT finds devices" in only(hardware(pi.machine, needed=True, answers=True), "ok").text


def test_a_device_of_another_kind(pi: FakePi) -> None:
    finding = only(hardware(pi.card(kind="0x2864").driver().node().machine, True, True), "problem")
    assert "kind 0x2864, not a Hailo-10H" in finding.text
    assert "--encoder onnx" in finding.fix


def test_a_slow_link(pi: FakePi) -> None:
    finding = only(hardware(pi.card(speed="5.0 GT/s PCIe").driver().node().machine, True, True), "warning")
    assert "its link is slow: 5 GT/s" in finding.text
    assert "dtparam=pciex1_gen=3" in finding.fix


def test_a_link_that_does_not_tell_its_speed(pi: FakePi) -> None:
    found = told(hardware(pi.card(speed="Unknown").driver().node().machine, True, True))
    assert found[0] == ("ok", "bus", "Hailo-10H at 0001:01:00.0")


def test_no_driver_and_no_node(pi: FakePi) -> None:
    found = list(hardware(pi.card().machine, True, False))
    assert [(f.level.value, f.topic) for f in found[1:]] == [("problem", "driver"), ("problem", "node")]
    assert "sudo apt install hailo-h10-all" in found[1].fix
    assert "the driver has not started the device" in found[2].text
    assert "dmesg" in found[2].fix


def test_the_driver_of_another_device(pi: FakePi) -> None:
    finding = only(hardware(pi.card().driver("4.23.0", "hailo_pci").node().machine, True, False), "problem")
    assert "hailo_pci, which is for Hailo-8" in finding.text
    assert "sudo apt purge hailo-all" in finding.fix


def test_a_node_that_may_not_be_opened(pi: FakePi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: "hailo" not in str(path))  # tests may run as root
    finding = only(hardware(pi.card().driver().node(mode=0o600).machine, True, False), "problem")
    assert "can't be opened by this user (its mode is 600)" in finding.text
    assert finding.fix.startswith(f"sudo chmod 666 {pi.root}/dev/hailo0")


def test_what_may_not_be_looked_at_stops_nothing() -> None:
    def look() -> Iterator[Finding]:
        raise PermissionError(13, "Permission denied", "/sys/bus/pci")
        yield

    finding = only(guarded("bus", look()), "warning")
    assert "Permission denied" in finding.text
    assert finding.fix == "sudo hailo-clip doctor"


# Who has a device open.


def test_nobody_holds_it(pi: FakePi) -> None:
    pi.whole().process(10, "bash")
    assert told(holders(pi.machine)) == [("ok", "holder", "no process has a device open")]


def test_without_a_node_there_is_nothing_to_hold(pi: FakePi) -> None:
    assert told(holders(pi.machine)) == []


def test_other_programs_that_hold_it_are_named(pi: FakePi) -> None:
    pi.whole().process(4711, "hailo-ollama", "hailo0").process(99, "python3", "hailo0").process(
        5, "sh", "null"
    )
    finding = only(holders(pi.machine), "warning")
    assert finding.text == "devices are open in: python3 (99), hailo-ollama (4711)"
    assert "group_id SHARED" in finding.fix
    assert "systemctl stop" in finding.fix


def test_our_own_workers_are_no_strangers(pi: FakePi) -> None:
    pi.whole().process(7, "python", "hailo0", cmdline="python -m hailo_clip.ops.cli worker --name worker-0")
    assert told(holders(pi.machine)) == [
        ("ok", "holder", "devices are open in 1 processes of hailo-clip alone"),
    ]


def test_processes_that_hide_are_counted(pi: FakePi, monkeypatch: pytest.MonkeyPatch) -> None:
    pi.whole().process(7, "secret", "hailo0")
    iterdir = Path.iterdir

    def refused(self: Path) -> Iterator[Path]:
        if self.name == "fd":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert "(1 of other users could not be looked at; sudo fuser -v" in told(holders(pi.machine))[0][2]


# What HailoRT says.


def test_versions_that_fit_and_devices_that_answer(pi: FakePi, double: Double, tmp_path: Path) -> None:
    assert told(library(pi.whole().machine, tmp_path / "log")) == [
        ("ok", "hailort", "HailoRT 5.2.0 answers"),
        ("ok", "device", f"{FIRST}: HAILO10H, firmware 5.2.0 (release,app), 42 °C"),
        ("ok", "device", f"{SECOND}: HAILO10H, firmware 5.2.0 (release,app), 42 °C"),
    ]


@pytest.mark.parametrize(
    ("libhailort", "driver", "message"),
    [
        ("5.1.1", "5.2.0", "HailoRT's package is 5.2.0, libhailort is 5.1.1; they must"),
        ("5.2.0", "5.3.0", "HailoRT's package is 5.2.0, the driver is 5.3.0; they must"),
        (
            "4.23.0",
            "4.23.0",
            "HailoRT's package is 5.2.0, libhailort is 4.23.0 and the driver is 4.23.0; they must",
        ),
    ],
)
def test_versions_that_do_not_fit(
    pi: FakePi, double: Double, tmp_path: Path, libhailort: str, driver: str, message: str
) -> None:
    pi.card().driver(driver).node().libhailort(libhailort)
    finding = only(library(pi.machine, tmp_path), "problem")
    assert finding.text.startswith(message)
    assert "full-upgrade" in finding.fix


def test_a_library_beside_an_older_one_is_fine(pi: FakePi, double: Double, tmp_path: Path) -> None:
    assert told(library(pi.whole().libhailort("5.1.1").machine, tmp_path))[0][0] == "ok"


def test_a_release_older_than_the_published_hefs(
    pi: FakePi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "lib" / "hailo_platform"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(
        "__version__ = '5.1.1'\nclass Device:\n    @staticmethod\n    def scan():\n        return []\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    pi.card().driver("5.1.1").node().libhailort("5.1.1")
    found = list(library(pi.machine, tmp_path))
    assert [(f.level.value, f.topic) for f in found] == [("warning", "hailort"), ("problem", "device")]
    assert "the published HEFs were compiled for 5.2.0" in found[0].text
    assert "install 5.2.0 or later from Hailo's Developer Zone" in found[0].fix


def test_a_package_that_cannot_be_imported_names_the_library_that_is_there(
    pi: FakePi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "lib" / "hailo_platform"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(
        "raise ImportError('libhailort.so.5.2.0: cannot open shared object file')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    finding = only(library(pi.libhailort("5.1.1").machine, tmp_path), "problem")
    assert "libhailort.so.5.2.0: cannot open shared object file" in finding.text
    assert "(libhailort here: 5.1.1)" in finding.text
    assert "full-upgrade" in finding.fix


@pytest.mark.parametrize(
    ("status", "words", "fix"),
    [
        (64, "HAILO_DRIVER_NOT_INSTALLED (64)", "sudo apt install hailo-h10-all"),
        (76, "HAILO_INVALID_DRIVER_VERSION (76)", "sudo apt full-upgrade"),
        (36, "HAILO_DRIVER_OPERATION_FAILED (36)", "sudo poweroff"),
    ],
)
def test_a_driver_that_refuses(
    pi: FakePi, double: Double, tmp_path: Path, status: int, words: str, fix: str
) -> None:
    double.fault(scan=status)
    finding = only(library(pi.whole().machine, tmp_path / "log"), "problem")
    assert words in finding.text
    assert fix in finding.fix
    assert fix not in finding.text
    assert f"{tmp_path}/log/hailort.log" in finding.fix


def test_a_device_that_does_not_answer(pi: FakePi, double: Double, tmp_path: Path) -> None:
    double.fault(SECOND, identify=62)
    finding = only(library(pi.whole().machine, tmp_path), "problem")
    assert f"{SECOND}: identifying the device failed with HAILO_COMMUNICATION_CLOSED (62)" in finding.text
    assert "power-cycle" in finding.fix


def test_the_wrong_firmware(pi: FakePi, double: Double, tmp_path: Path) -> None:
    double.fault(FIRST, firmware="5.1.1")
    finding = only(library(pi.whole().machine, tmp_path), "problem")
    assert (
        "firmware 5.1.1 (release,app), 42 °C; HailoRT is 5.2.0, they must be of one version" in finding.text
    )
    assert "reboot" in finding.fix


def test_another_architecture(pi: FakePi, double: Double, tmp_path: Path) -> None:
    double.fault(FIRST, arch="hailo15h")
    finding = only(library(pi.whole().machine, tmp_path), "problem")
    assert "HAILO15H" in finding.text
    assert "HEFs for HAILO10H do not run on it" in finding.text


def test_a_hot_device(pi: FakePi, double: Double, tmp_path: Path) -> None:
    double.fault(FIRST, heat=91.0)
    finding = only(library(pi.whole().machine, tmp_path), "warning")
    assert "91 °C: it is hot" in finding.text
    assert "fan" in finding.fix


def test_a_device_that_does_not_tell_its_temperature(pi: FakePi, double: Double, tmp_path: Path) -> None:
    double.fault(heat=None)
    assert told(library(pi.whole().machine, tmp_path))[1][2].endswith("firmware 5.2.0 (release,app)")
