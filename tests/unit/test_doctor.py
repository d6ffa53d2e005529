"""`hailo-clip doctor`, whole: what it looks at beside the devices, its trial of the model, its output."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import resource
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hailo_clip.ops import doctor, doctor_library, doctor_python, doctor_service
from hailo_clip.ops.cli import main
from hailo_clip.ops.doctor_finding import Finding, Level, Machine
from hailo_clip.shared.config import Config, load_config
from hailo_clip.shared.manifest import Backend
from tests.doubles.fake_pi import FakePi
from tests.doubles.hailo_double import FIRST, SECOND, Double, environment, install
from tests.doubles.tiny_clip import build_package, export_hefs, make_tiny_clip, sign

CLIP = make_tiny_clip()
NAME = "clip-resnet-50x4"


@pytest.fixture
def pi(tmp_path: Path) -> FakePi:
    return FakePi(tmp_path / "pi")


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    for name, value in environment(tmp_path / "devices", [FIRST, SECOND]).items():
        monkeypatch.setenv(name, value)
    return install(tmp_path / "devices", monkeypatch)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories and a free port of this test's own, for this process and for what it starts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "empty.yaml").touch()
    for key, value in {
        "HAILO_CLIP_CONFIG": tmp_path / "empty.yaml",
        "HAILO_CLIP__SERVER__PORT": port,
        "HAILO_CLIP__SERVER__HOST": "127.0.0.1",
        "HAILO_CLIP__MODEL__DIR": tmp_path / "models",
        "HAILO_CLIP__BROKER__RUN_DIR": tmp_path / "run",
        "XDG_STATE_HOME": tmp_path / "state",
    }.items():
        monkeypatch.setenv(key, str(value))
    return tmp_path


def config(**flags: object) -> Config:
    return load_config(None, None, {key.replace("__", "."): value for key, value in flags.items()})


def examined(pi: FakePi, **flags: object) -> dict[str, Finding]:
    """The worst finding of each topic; each warning and problem must say what mends it."""
    found = list(doctor.examine(config(**flags), (), pi.machine))
    assert all(f.fix for f in found if f.level is not Level.OK), found
    order = [Level.OK, Level.WARNING, Level.PROBLEM]
    return {f.topic: f for f in sorted(found, key=lambda f: order.index(f.level))}


def package(tmp_path: Path, name: str = NAME, *backends: str) -> None:
    build_package(tmp_path / "models", CLIP, name, backends=backends or ("hailo", "onnx"))


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make it look as if `packages` were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in packages else real(name, *rest)
    )


# The whole.


def test_a_pi_in_good_order(pi: FakePi, double: Double, place: Path) -> None:
    package(place)
    found = examined(pi.whole())
    assert {t: f.text for t, f in found.items() if f.level is Level.PROBLEM} == {}
    assert found["trial"].text == (
        f"{NAME} runs on the device: lowest cosine 1.000000 on hailo, the floor is 0.9999"
    )
    assert set(found) >= {"python", "packages", "hailort", "onnxruntime", "bus", "driver", "node", "device"}
    assert set(found) >= {"holder", "model", "port", "run_dir", "state_dir", "disk", "limits", "memory"} - {
        "memory"  # the faked /proc does not tell
    }
    assert double.clients() == []


def test_a_machine_without_any_of_it_says_what_to_type(
    pi: FakePi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "Machine", lambda: pi.machine)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"problem  model        model {NAME} is not installed in " in out
    assert f"-> hailo-clip models pull {NAME}, or: hailo-clip serve --model demo\n" in out
    assert out.endswith("\n1 problem\n")


def test_json_is_for_programs_and_the_exit_code_for_scripts(
    pi: FakePi,
    double: Double,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "Machine", lambda: pi.machine)
    monkeypatch.setattr(doctor_python, "_numpy", lambda: iter(()))
    package(place)
    pi.whole()
    assert main(["doctor", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["healthy"] is True
    assert {frozenset(f) for f in told["findings"]} == {frozenset({"level", "topic", "text", "fix"})}
    assert {f["level"] for f in told["findings"]} == {"ok"}
    double.fault(FIRST, firmware="5.1.1")
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is False
    assert [f["topic"] for f in told["findings"] if f["level"] == "problem"] == ["device"]


def test_warnings_alone_are_no_failure(
    pi: FakePi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "Machine", lambda: pi.machine)
    assert main(["doctor", "--model", "demo"]) == 0
    out = capsys.readouterr().out
    assert "warning  model        model demo is not installed in " in out
    assert "; serve --model demo fetches it when it starts\n" in out


def test_a_configuration_that_is_wrong_is_one_of_the_problems(
    pi: FakePi, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "Machine", lambda: pi.machine)
    (place / "empty.yaml").write_text("queue: {max_depth: -1}\nserver: {prot: 5}\n")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "queue.max_depth" in out
    assert "server.prot" in out
    assert "hailo-clip config --reference" in out


# Python and packages.


def test_a_package_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "msgpack":
            raise importlib.metadata.PackageNotFoundError(name)
        return "4.3.9" if name == "falcon" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {f.text: f.fix for f in doctor_python.python() if f.level is Level.PROBLEM}
    assert found == {
        "falcon is 4.3.9, allowed is <5,>=4.4": "pip install 'falcon<5,>=4.4'",
        "msgpack is missing": "pip install 'msgpack<2,>=1.1'",
    }


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModuleNotFoundError("No module named _resample"), "there was no compiler to build with"),
        (ImportError("invalid ELF header"), "the compiled part does not load (invalid ELF header)"),
    ],
)
def test_a_package_without_its_compiled_part(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, text: str
) -> None:
    def load(name: str) -> None:
        assert name == "hailo_clip.api._resample"
        raise error

    monkeypatch.setattr(importlib, "import_module", load)
    (found,) = doctor_python.resize()
    assert found.level is Level.WARNING
    assert found.text.endswith(text)
    assert found.fix.startswith("sudo apt install gcc python3-dev")


def test_hailort_is_missing_where_there_is_a_device(pi: FakePi, place: Path) -> None:
    found = examined(pi.whole())
    assert found["hailort"].level is Level.PROBLEM
    assert "sudo apt install python3-h10-hailort" in found["hailort"].fix
    package(place, NAME, "hailo")
    assert "sudo apt install python3-h10-hailort" in examined(pi)["model"].fix


def test_a_venv_that_hides_the_systems_packages(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    assert doctor_python.hidden_by_venv(tmp_path)
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    assert not doctor_python.hidden_by_venv(tmp_path)
    assert not doctor_python.hidden_by_venv(tmp_path / "none")


def test_nothing_to_run_a_model_with(pi: FakePi, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(place, NAME, "onnx")
    without(monkeypatch, "onnxruntime", "hailo_platform")
    found = examined(pi)
    assert found["onnxruntime"].level is Level.PROBLEM
    assert found["onnxruntime"].fix == "pip install 'hailo-clip[demo]'"
    assert found["model"].fix == "pip install 'hailo-clip[onnx]'"


# The model, and its fit to the device.


def test_a_model_for_another_chip(pi: FakePi, double: Double, place: Path) -> None:
    manifest = build_package(place / "models", CLIP, NAME, backends=("hailo",))
    export_hefs(manifest.path(""), CLIP, arch="hailo8")
    sign(manifest)
    finding = examined(pi.whole())["trial"]
    assert finding.level is Level.PROBLEM
    assert (
        "image.hef: loading the network failed with HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE (93)" in finding.text
    )
    assert f"type: hailo-clip models pull {NAME} --replace" in finding.fix


def test_a_device_that_another_program_holds(pi: FakePi, double: Double, place: Path) -> None:
    package(place)
    pi.whole().process(4711, "hailo-ollama", "hailo0")
    with double.platform.VDevice():
        assert examined(pi)["trial"].level is Level.OK  # on the other device
        with double.platform.VDevice(device_ids=[SECOND]):
            found = examined(pi)
    assert found["holder"].text == "devices are open in: hailo-ollama (4711)"
    assert found["trial"].level is Level.PROBLEM
    assert "HAILO_DEVICE_IN_USE (73)" in found["trial"].text
    assert "sudo fuser -v /dev/hailo*" in found["trial"].fix


def test_a_device_that_computes_rubbish(pi: FakePi, double: Double, place: Path) -> None:
    package(place)
    double.fault(nan=True)
    finding = examined(pi.whole())["trial"]
    assert finding.level is Level.PROBLEM
    assert "not finite" in finding.text
    assert f"hailo-clip models verify {NAME} --encoder hailo" in finding.fix


def test_a_device_that_hangs_does_not_hang_the_doctor(
    pi: FakePi, double: Double, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(place)
    monkeypatch.setattr(doctor_library, "TRIAL_S", 3.0)
    double.fault(hang_s=1e9)
    finding = examined(pi.whole())["trial"]
    assert finding.level is Level.PROBLEM
    assert "HailoRT did not answer within 3 s" in finding.text
    assert "sudo poweroff" in finding.fix


def test_a_device_that_takes_the_process_along(pi: FakePi, double: Double, place: Path) -> None:
    package(place)
    double.fault(crash=True)
    assert "ended by signal 9" in examined(pi.whole())["trial"].text


def test_quick_leaves_the_device_alone(
    pi: FakePi,
    double: Double,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "Machine", lambda: pi.machine)
    package(place)
    pi.whole()
    double.fault(create=87)
    assert main(["doctor", "--quick"]) == 0
    assert "trial" not in capsys.readouterr().out
    assert main(["doctor"]) == 1
    assert "HAILO_DRIVER_TIMEOUT (87)" in capsys.readouterr().out


def test_no_trial_of_what_is_known_to_be_wrong_or_runs_elsewhere(
    pi: FakePi, double: Double, place: Path
) -> None:
    package(place)
    assert "trial" not in examined(pi.whole(), model__encoder="onnx")
    (place / "models" / NAME / "image.hef").write_bytes(b"short")
    found = examined(pi)
    assert "trial" not in found
    assert "image.hef has 5 bytes, expected are" in found["model"].text
    assert found["model"].fix.startswith(f"hailo-clip models pull {NAME}")


def test_a_model_without_golden_embeddings_of_this_encoder(pi: FakePi, double: Double, place: Path) -> None:
    manifest = build_package(place / "models", CLIP, NAME, backends=("onnx",))
    export_hefs(manifest.path(""), CLIP)
    sign(replace(manifest, backends={**manifest.backends, "hailo": Backend("image.hef", "text.hef")}))
    finding = examined(pi.whole())["model"]
    assert finding.level is Level.PROBLEM
    assert finding.fix == f"hailo-clip models verify {NAME} --encoder hailo --record"


def test_other_models_are_told_too(pi: FakePi, place: Path) -> None:
    package(place, "tiny", "onnx")
    (place / "models" / "broken").mkdir()
    (place / "models" / "broken" / "model.yaml").write_text("name: [")
    found = [f for f in doctor.examine(config(model__name="tiny"), (), pi.machine) if "model" in f.topic]
    assert [(f.level.value, f.topic) for f in found] == [("ok", "model"), ("warning", "models")]
    assert examined(pi, model__name="emulated-clip-vit-b-32")["model"].level is Level.WARNING
    assert "there is no model 'nothing'" in examined(pi, model__name="nothing")["model"].text


# The service and the machine.


def test_a_port_that_another_program_has(pi: FakePi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        finding = examined(pi, server__port=number)["port"]
    assert finding.level is Level.PROBLEM
    assert "another program has the port; choose a free one with --port" in finding.text
    assert finding.fix == f"sudo ss -ltnp 'sport = :{number}' names the program"


@pytest.fixture
def service() -> Iterator[tuple[int, dict[str, str]]]:
    """The port of something that answers GET /health as it is told to."""
    told: dict[str, str] = {"service": "hailo-clip", "model": NAME, "status": "healthy"}

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if told["status"] == "healthy" else 503)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port, told
        server.shutdown()
        thread.join()


def test_a_service_that_runs_is_left_alone(
    pi: FakePi, double: Double, place: Path, service: tuple[int, dict[str, str]]
) -> None:
    package(place)
    number, told = service
    double.fault(create=73)  # what a trial would meet
    found = examined(pi.whole(), server__port=number)
    assert found["service"].text == f"hailo-clip runs on port {number} with {NAME}, healthy"
    assert "trial" not in found
    told.update(status="unhealthy", reason="the device is gone")
    finding = examined(pi, server__port=number)["service"]
    assert finding.level is Level.PROBLEM
    assert finding.text.endswith("unhealthy: the device is gone")


def test_directories_that_cannot_be_used(pi: FakePi, place: Path) -> None:
    (place / "file").touch()
    found = examined(pi, broker__run_dir=place / "file")
    assert found["run_dir"].level is Level.PROBLEM
    assert "is a link or no directory" in found["run_dir"].text or "cannot be made" in found["run_dir"].text


def test_limits_that_are_low(pi: FakePi, monkeypatch: pytest.MonkeyPatch) -> None:
    (pi.root / "proc/meminfo").write_text("MemTotal: 2000000 kB\nMemAvailable:     300000 kB\n")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    monkeypatch.setattr(doctor_service, "LOW_DISK", 1 << 62)
    found = examined(pi)
    assert found["limits"].text == "256 open files are allowed"
    assert found["limits"].fix == "ulimit -n 1024; LimitNOFILE in systemd"
    assert found["memory"].text == "307 MB available"
    assert {found[t].level for t in ("limits", "memory", "disk")} == {Level.WARNING}


def test_this_very_machine_can_be_looked_at() -> None:
    topics = {f.topic for f in doctor.examine(config(), (), Machine(), trial=False)}
    assert topics >= {"python", "hailort", "bus", "model", "port", "run_dir", "limits", "memory"}
