"""The whole service on the device double with the default model's shapes: right answers, faults, recovery.

Every answer is held against the reference, and /health must never contradict what a client meets. With
HAILO_CLIP_SOAK=1 (``make soak``) all arrangements of devices and workers and all faults are gone through.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.doubles.hailo_double import Double, install
from tests.doubles.hailo_serve import HailoService, Package, default_package
from tests.doubles.running_service import eventually

pytestmark = pytest.mark.xdist_group("serve")

SOAK = bool(os.environ.get("HAILO_CLIP_SOAK"))
ALL = list(itertools.product((1, 2, 3, 4), (1, 2, 3, 4)))  # devices, workers on each
LOST = [  # what happens to a batch, and what /health then says of it
    ("infer=62", "HAILO_COMMUNICATION_CLOSED (62)"),
    ("hang_s=1000000000", "no answer within 4 s"),
    ("infer=4", "HAILO_TIMEOUT (4)"),
    ("infer=63", "HAILO_STREAM_ABORT (63)"),
    ("infer=87", "HAILO_DRIVER_TIMEOUT (87)"),
    ("infer=97", "HAILO_DEVICE_TEMPORARILY_UNAVAILABLE (97)"),
    ("infer=77", "HAILO_RPC_FAILED (77)"),
    ("infer=8", "HAILO_INTERNAL_FAILURE (8)"),
    ("run_async=82", "HAILO_QUEUE_IS_FULL (82)"),
]
REFUSED = [  # what a worker meets while it loads, and what /health then says of it
    ("configure=93", ["HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE (93)", "models pull"]),
    ("configure=26", ["HAILO_INVALID_HEF (26)", "models verify"]),
    ("create=74", ["HAILO_OUT_OF_PHYSICAL_DEVICES (74)", "fuser -v /dev/hailo", "SHARED"]),
    ("create=36", ["HAILO_DRIVER_OPERATION_FAILED (36)", "ls -l /dev/hailo"]),
    ("create=89", ["HAILO_CONNECTION_REFUSED (89)"]),
    ("scan=64", ["HAILO_DRIVER_NOT_INSTALLED (64)", "sudo apt install hailo-h10-all"]),
    ("gone=1", ["no Hailo device", "/dev/hailo0"]),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return default_package(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(tmp_path / "devices", monkeypatch)


def fault(text: str) -> dict[str, Any]:
    name, _, value = text.partition("=")
    return {name: float(value) if "." in value else int(value)}


class Watch:
    """Asks /health all the while, and keeps what it said that was not "healthy"."""

    def __init__(self, service: HailoService) -> None:
        self.ill: list[dict[str, Any]] = []
        self._service = service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            status, told = self._service.health()
            if status != 200:
                self.ill.append(told)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()


# Devices and workers.


@pytest.mark.parametrize(("devices", "each"), ALL if SOAK else [(1, 1), (2, 2), (4, 1)])
def test_devices_and_workers(
    tmp_path: Path, double: Double, package: Package, devices: int, each: int
) -> None:
    with HailoService(tmp_path, double, package, devices, devices * each) as service:
        service.wait_ready()
        eventually(lambda: service.holders() == [each] * devices)
        assert service.out.read_text().rstrip().endswith(f"encoder=hailo workers={devices * each}")
        assert service.health()[1]["backend"] == "hailo"
        assert set(service.ask_all(range(30))) == {200}
        body, _ = service.picture(1)
        prompts = ["a photo of a cat", "a photo of a dog", "a café, crème brûlée & more"]
        status, told = service.request("POST", "/v1/classify", body | {"prompts": prompts, "threshold": 0.0})
        assert status == 200
        assert told["model"] == "clip-resnet-50x4"
        assert service.stop() == 0
        assert service.holders() == [0] * devices


# One device: what happens while it is away.


@pytest.mark.parametrize(("how", "words"), LOST if SOAK else LOST[:2])
def test_the_only_device_is_lost_and_comes_back(
    tmp_path: Path, double: Double, package: Package, how: str, words: str
) -> None:
    with HailoService(tmp_path, double, package, 1, 2) as service, ThreadPoolExecutor(1) as client:
        service.wait_ready()
        double.fault(**fault(how))
        waiting = client.submit(service.ask, 100)
        service.unhealthy(words)
        status, told = service.request("POST", "/v1/embed/text", {"text": "another"})
        assert (status, told["error"].partition(":")[0]) == (503, "the service cannot answer now")
        double.fault()
        assert waiting.result() == 200  # it was accepted, and the device came back before its deadline
        service.wait_healthy()
        assert service.ask(100) == service.ask(101) == 200  # nothing was blamed for it
        eventually(lambda: service.holders() == [2])


@pytest.mark.parametrize(("how", "words"), REFUSED if SOAK else REFUSED[:1])
def test_a_device_that_cannot_be_used_yet(
    tmp_path: Path, double: Double, package: Package, how: str, words: list[str]
) -> None:
    settings = {"HAILO_CLIP__WORKERS__DEVICES": "[0001:01:00.0]"}  # listed, so that no scan stops the start
    double.fault(**fault(how))
    with HailoService(tmp_path, double, package, 1, 1, **settings) as service:
        eventually(lambda: service.answers)
        service.unhealthy("worker-0", *words)
        double.fault()
        service.wait_healthy()
        assert service.ask(1) == 200


def test_a_device_that_another_program_holds_is_taken_when_it_is_free(
    tmp_path: Path, double: Double, package: Package
) -> None:
    held = double.platform.VDevice()  # in the group UNIQUE, as most programs open it
    with HailoService(tmp_path, double, package, 1, 1) as service:
        eventually(lambda: service.answers)
        service.unhealthy("HAILO_DEVICE_IN_USE (73)", "fuser -v /dev/hailo", 'group_id "SHARED"')
        held.release()
        service.wait_healthy()
        assert service.ask(1) == 200


def test_a_device_that_computes_rubbish_is_found_out(
    tmp_path: Path, double: Double, package: Package
) -> None:
    settings = {"HAILO_CLIP__QUEUE__REQUEST_TIMEOUT_S": "2"}
    with HailoService(tmp_path, double, package, 1, 1, **settings) as service:
        service.wait_ready()
        double.fault(nan=True)
        statuses = [service.ask(seed) for seed in range(100, 103)]
        assert statuses[0] == 500
        assert set(statuses) <= {500, 503, 504}  # 504: accepted, and then the worker was given up
        service.unhealthy("not finite")
        double.fault()
        service.wait_healthy()
        assert service.ask(200) == 200


# Several devices: what happens to one is the others' work, and no client's trouble.


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, package: Package, patch: pytest.MonkeyPatch
) -> Iterator[HailoService]:
    directory = tmp_path_factory.mktemp("pair")
    double = install(directory / "devices", patch)
    with HailoService(directory, double, package, 2, 2) as service:
        service.wait_ready()
        yield service


HARM = ["gone=1", "infer=62", "crash=1", "hang_s=1000000000"]
MORE = ["infer=4", "infer=63", "infer=87", "infer=97", "run_async=4", "run_async=63", "kill", "stop"]


@pytest.mark.parametrize("how", HARM + MORE if SOAK else HARM)
def test_one_of_two_devices_is_harmed_and_comes_back(pair: HailoService, how: str) -> None:
    eventually(lambda: pair.holders() == [1, 1])
    pair.wait_healthy()
    first = pair.devices[0]
    (pid,) = [client["pid"] for client in pair.double.clients(first)]
    seeds = itertools.count(1000 * (1 + (HARM + MORE).index(how)))
    with Watch(pair) as watch:
        if how in ("kill", "stop"):
            os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        else:
            pair.double.fault(first, **fault(how))
        statuses: list[int] = []
        deadline = time.monotonic() + 40
        while psutil.pid_exists(pid) or len(statuses) < 24:  # until the harm was noticed
            assert time.monotonic() < deadline, "nobody noticed"
            statuses += pair.ask_all(itertools.islice(seeds, 8))
        pair.double.fault()
        eventually(lambda: pair.holders() == [1, 1])
        statuses += pair.ask_all(itertools.islice(seeds, 16))
    assert set(statuses) == {200}
    assert watch.ill == []
