"""Hailo devices are looked for in a child process, and `serve` spreads its workers over them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hailo_clip.ops.devices import Device, Found, look, scan
from hailo_clip.ops.serve import children, resolve
from hailo_clip.shared.config import Config, load_config
from hailo_clip.shared.errors import SetupError
from tests.doubles.hailo_double import FIRST, SECOND, Double, environment, install
from tests.doubles.tiny_clip import build_package, make_tiny_clip


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    """The double, for child processes as well."""
    for name, value in environment(tmp_path / "devices", [FIRST, SECOND]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return install(tmp_path / "devices", monkeypatch)


def fake_library(place: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A hailo_platform whose import runs `body`, for child processes."""
    (place / "hailo_platform").mkdir(parents=True)
    (place / "hailo_platform" / "__init__.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(place))


def config(tmp_path: Path, **settings: object) -> Config:
    build_package(tmp_path / "models", make_tiny_clip(), backends=("hailo", "onnx"))
    chosen = {"model.name": "tiny", "model.dir": tmp_path / "models", "broker.run_dir": tmp_path / "run"}
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return load_config(None, {}, chosen | given, system_file=Path("/nonexistent"))


def devices_of(config: Config) -> list[str]:
    made = [c.argv for c in children(config, Path("/c.yaml")) if c.role == "worker"]
    return [argv[argv.index("--device") + 1] for argv in made]


def test_devices_tell_what_they_are(double: Double) -> None:
    found = look(identify=True)
    device = Device(FIRST, "HAILO10H", "5.2.0 (release,app)", "HLDOUBLE000001", 41.9)
    assert found.version == "5.2.0"
    assert [d.id for d in found.devices] == [FIRST, SECOND]
    assert found.devices[0] == device
    assert "hailo_platform._chip" not in sys.modules  # this process has not loaded the library


def test_without_asking_the_devices_only_their_ids_are_known(double: Double) -> None:
    assert look(identify=False) == Found("5.2.0", (Device(FIRST), Device(SECOND)))


def test_the_librarys_log_goes_where_it_is_told(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os; open(os.environ['HAILORT_LOGGER_PATH'] + '/hailort.log', 'w'); raise ValueError('no')"
    fake_library(tmp_path / "lib", monkeypatch, code)
    with pytest.raises(SetupError, match="hailo_platform cannot be imported: no"):
        look(identify=False, log_dir=tmp_path / "logs")
    assert (tmp_path / "logs" / "hailort.log").exists()


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(SetupError, match="apt install python3-h10-hailort"):
        scan()


def test_no_device(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAILO_DOUBLE_DEVICES", "")
    with pytest.raises(SetupError, match=r"no Hailo device was found.*hailo-clip doctor"):
        scan()


def test_a_driver_that_refuses(double: Double) -> None:
    double.fault(scan=64)
    with pytest.raises(SetupError, match=r"HAILO_DRIVER_NOT_INSTALLED \(64\).*apt install hailo-h10-all"):
        scan()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('noise on standard output'); import time; time.sleep(60)", "did not answer within 1 s"),
        ("import os; os.abort()", "signal SIGABRT"),
        ("import os; os.write(2, b'bad firmware'); os._exit(3)", r"exit code 3\); it said: bad firmware"),
    ],
)
def test_a_library_that_hangs_or_dies_takes_nobody_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    fake_library(tmp_path, monkeypatch, body)
    with pytest.raises(SetupError, match=message):
        scan(timeout_s=1.0)


def test_what_the_library_prints_is_not_mistaken_for_the_answer(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
import os
os.write(1, b'{"ids": []}')
__version__ = "5.3.0"
class Device:
    @staticmethod
    def scan():
        print("[HailoRT] [info] scanning")
        return ["b", "a"]
"""
    fake_library(tmp_path / "lib", monkeypatch, body)
    assert look(identify=False) == Found("5.3.0", (Device("a"), Device("b")))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [FIRST]), (2, [FIRST, SECOND]), (4, [FIRST, SECOND, FIRST, SECOND])],
)
def test_auto_spreads_the_workers_over_the_devices(
    tmp_path: Path, double: Double, count: int, expected: list[str]
) -> None:
    resolved = resolve(config(tmp_path, workers__count=count))
    assert resolved.workers.devices == (FIRST, SECOND)
    assert devices_of(resolved) == expected


def test_devices_listed_are_taken_as_they_are(tmp_path: Path, double: Double) -> None:
    resolved = resolve(config(tmp_path, workers__count=2, workers__devices=["0009:01:00.0"]))
    assert devices_of(resolved) == ["0009:01:00.0", "0009:01:00.0"]


def test_auto_without_a_device_stops_the_start(
    tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAILO_DOUBLE_DEVICES", "")
    with pytest.raises(SetupError, match="hailo-clip serve --encoder onnx, or --model demo"):
        resolve(config(tmp_path))


def test_nothing_is_scanned_for_the_other_encoders(
    tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_library(tmp_path / "lib", monkeypatch, "raise SystemExit('imported')")
    assert resolve(config(tmp_path, model__encoder="onnx")).workers.devices == "auto"
    emulated = {"model__name": "emulated-clip-vit-b-32", "workers__devices": ["emu:0", "emu:1"]}
    (tmp_path / "other").mkdir()
    assert devices_of(resolve(config(tmp_path / "other", workers__count=3, **emulated))) == [
        "emu:0",
        "emu:1",
        "emu:0",
    ]


def test_devices_that_stay_idle_are_told(
    tmp_path: Path, double: Double, caplog: pytest.LogCaptureFixture
) -> None:
    resolve(config(tmp_path, workers__count=1))
    assert "1 of 2 devices stay idle; --workers 2 uses them all" in caplog.text
