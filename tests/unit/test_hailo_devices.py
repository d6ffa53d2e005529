"""Devices are found, and workers spread over them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.shared.errors import EncoderError
from hailo_clip.workers.catalog import devices_of, spread
from hailo_clip.workers.hailo_status import SetupFault
from tests.doubles.hailo_double import FIRST, SECOND, Double, install


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(tmp_path / "devices", monkeypatch)


def test_devices_are_scanned(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAILO_DOUBLE_DEVICES", f"{SECOND},{FIRST}")
    assert devices_of("hailo") == [FIRST, SECOND]


def test_no_driver_or_no_device(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAILO_DOUBLE_DEVICES", "")
    assert devices_of("hailo") == []


def test_a_scan_that_fails_raises_what_hailort_does_not_wrap(double: Double) -> None:
    double.fault(scan=85)
    with pytest.raises(SetupFault, match="looking for devices failed with HAILO_DRIVER_INVALID_RESPONSE"):
        devices_of("hailo")


def test_devices_of_the_others() -> None:
    assert devices_of("onnx") == ["cpu"]
    assert devices_of("emulated") == ["emu:0"]


@pytest.mark.parametrize(
    ("ids", "workers", "expected"),
    [
        (["a"], 3, ["a", "a", "a"]),
        (["a", "b"], 3, ["a", "b", "a"]),
        (["a", "b", "c"], 2, ["a", "b"]),
    ],
)
def test_workers_take_the_devices_in_turn(ids: list[str], workers: int, expected: list[str]) -> None:
    assert spread(ids, workers) == expected


@given(st.integers(1, 16), st.integers(1, 64))
def test_no_device_has_two_workers_more_than_another(devices: int, workers: int) -> None:
    ids = [str(i) for i in range(devices)]
    loads = [spread(ids, workers).count(i) for i in ids]
    assert sum(loads) == workers
    assert max(loads) - min(loads) <= 1


def test_no_device_to_spread_over() -> None:
    with pytest.raises(EncoderError, match="hailo-clip doctor"):
        spread([], 2)
