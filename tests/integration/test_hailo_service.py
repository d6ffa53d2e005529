"""Broker and worker processes with the Hailo encoder, against the device double."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hailo_clip.shared.messages import Kind
from tests.doubles.hailo_double import FIRST, SECOND, Double, environment, install
from tests.doubles.processes import Child, Frontend, Service
from tests.doubles.tiny_clip import build_package, make_tiny_clip, random_images, random_prompt

CLIP = make_tiny_clip()
IMAGES = random_images(12, CLIP.size)
PROMPTS = [random_prompt(n, seed=n) for n in range(2, 14)]


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    double = install(tmp_path / "devices", monkeypatch)
    path = environment(double.root, [])["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH")))))
    return double


@pytest.fixture
def service(tmp_path: Path, double: Double) -> Iterator[Service]:
    models = tmp_path / "models"
    build_package(models, CLIP, backends=("hailo", "onnx"))
    with Service({"model.name": "tiny", "model.dir": str(models)}) as service:
        service.broker()
        yield service


def worker(service: Service, name: str, device: str) -> Child:
    return service.worker(name, device, faults="")


def ask_everything(frontend: Frontend) -> None:
    """All images and prompts in one request; every embedding must be the reference's."""
    items = [(Kind.IMAGE, i.tobytes()) for i in IMAGES] + [(Kind.TEXT, p.tobytes()) for p in PROMPTS]
    answer = frontend.ask(*items)
    truth = [CLIP.image_features(i) for i in IMAGES] + [CLIP.text_features(p) for p in PROMPTS]
    assert answer.errors == (None,) * len(items)
    assert (answer.embeddings * np.stack(truth)).sum(axis=1).min() >= 0.99999


def test_two_devices_with_two_workers_each(service: Service, double: Double) -> None:
    for i, device in enumerate((FIRST, SECOND, FIRST, SECOND)):
        worker(service, f"w{i}", device)
    with service.frontend() as frontend:
        frontend.until_workers(4)
        assert frontend.health.encoder == "hailo"
        ask_everything(frontend)
    assert [len(double.clients(d)) for d in (FIRST, SECOND)] == [2, 2]


def test_a_load_that_keeps_all_threads_waiting_is_waited_for(
    service: Service, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAILO_DOUBLE_TIME_SCALE", "1")
    double.fault(create_gil_s=4.5)  # longer than the silence that costs a worker in service its place
    child = worker(service, "w0", FIRST)
    with service.frontend() as frontend:
        assert frontend.until(lambda: frontend.health.ready_workers == 1) > 4
        ask_everything(frontend)
    assert not service.snapshot()["lost_workers"]
    assert child.alive


@pytest.mark.parametrize("fault", [{"infer": 87}, {"run_async": 62}])
def test_a_lost_device_ends_the_worker_with_the_reason_and_another_takes_over(
    service: Service, double: Double, fault: dict[str, int]
) -> None:
    first = worker(service, "w0", FIRST)
    with service.frontend() as frontend:
        frontend.until_workers(1)
        double.fault(FIRST, **fault)
        number = frontend.submit([(Kind.IMAGE, IMAGES[0].tobytes())])
        assert first.wait() != 0
        assert f"({next(iter(fault.values()))})" in first.logged()
        worker(service, "w1", SECOND)
        frontend.until_settled()
        (row,) = frontend.answer(number).embeddings
        assert row is not None
        assert row @ CLIP.image_features(IMAGES[0]) >= 0.99999


def test_a_held_device_is_told_and_taken_when_it_is_free(service: Service, double: Double) -> None:
    with double.platform.VDevice():
        held = worker(service, "w0", FIRST)
        assert held.wait() != 0
    assert "HAILO_DEVICE_IN_USE (73)" in held.logged()
    worker(service, "w0", FIRST)
    with service.frontend() as frontend:
        frontend.until_workers(1)
        ask_everything(frontend)
