"""The ten ways to trip over HailoRT that the encoder must not fall for. Each test fails without its care."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers import hailo_model
from hailo_clip.workers.hailo import HailoEncoder
from hailo_clip.workers.hailo_model import Flight, Meter, Slot
from hailo_clip.workers.hailo_status import DeviceAbsent, DeviceBusy, DeviceLost, HailoError, SetupFault
from tests.doubles.hailo_double import FIRST, SECOND, Double, install
from tests.doubles.tiny_clip import build_package, make_tiny_clip, random_images, random_prompt

CLIP = make_tiny_clip()
IMAGES = random_images(3, CLIP.size)
PROMPTS = [random_prompt(n) for n in (4, 9)]
IMAGE_TRUTH = np.stack([CLIP.image_features(i) for i in IMAGES])


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(tmp_path / "devices", monkeypatch)


@pytest.fixture
def package(tmp_path: Path) -> Manifest:
    return build_package(tmp_path, CLIP, backends=("hailo",))


@pytest.fixture
def encoder(double: Double, package: Manifest) -> Iterator[HailoEncoder]:
    made = opened(package)
    yield made
    made.close()


def opened(package: Manifest, device_id: str = FIRST) -> HailoEncoder:
    made = HailoEncoder(package, device_id, 8)
    made.load()
    return made


def works(encoder: HailoEncoder) -> bool:
    return bool((encoder.encode_images(IMAGES) * IMAGE_TRUTH).sum(axis=1).min() >= 0.99999)


# 1. run() and wait() report no failure, and the output is overwritten all the same.
@pytest.mark.parametrize("status", [4, 8, 62, 63, 77, 87, 97])
def test_a_failed_inference_is_never_believed(encoder: HailoEncoder, double: Double, status: int) -> None:
    double.fault(infer=status)
    with pytest.raises(HailoError, match=rf"\({status}\)") as caught:
        encoder.encode_images(IMAGES)
    assert caught.value.status == status
    assert caught.value.fatal
    assert caught.value.transient


def test_a_failed_prompt_is_never_believed(encoder: HailoEncoder, double: Double) -> None:
    double.fault(infer=87)
    with pytest.raises(DeviceLost, match="HAILO_DRIVER_TIMEOUT"):
        encoder.encode_tokens(PROMPTS)


# 2. An exception that leaves the callback ends the process: this one, if it did.
def test_whoever_is_told_may_fail(encoder: HailoEncoder, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise SystemExit("the worker's queue is gone")

    pending = encoder.submit_images(IMAGES, fail)
    assert (pending.result() * IMAGE_TRUTH).sum(axis=1).min() >= 0.99999
    assert works(encoder)
    assert "could not be told" in caplog.text


def test_a_completion_of_an_unknown_kind_is_a_failure() -> None:
    flight = Flight(Slot(np.zeros(1), np.zeros(1)), 1, lambda: None, Meter())
    flight.land(completion_info=SimpleNamespace())
    assert flight.wait()
    assert isinstance(flight.error, AttributeError)


# 3. and 4. VDevice(device_ids=[...]) drops the group; processes share a device only in one group, and never
# with multi_process_service.
def test_workers_share_a_device_in_one_group(double: Double, package: Manifest) -> None:
    encoders = [opened(package), opened(package)]
    assert [c["group"] for c in double.clients()] == ["SHARED", "SHARED"]
    assert all(works(e) for e in encoders)
    for encoder in encoders:
        encoder.close()
    assert double.clients() == []


def test_another_program_of_the_group_may_use_the_device(encoder: HailoEncoder, double: Double) -> None:
    params = double.platform.VDevice.create_params()
    params.group_id = "SHARED"
    with double.platform.VDevice(params):
        assert len(double.clients()) == 2
        assert works(encoder)


# 5. Another group: busy, with who may hold the device and when to try again.
def test_a_device_held_by_another_program_says_so(double: Double, package: Manifest) -> None:
    with double.platform.VDevice():  # as most programs open it: group UNIQUE
        with pytest.raises(DeviceBusy, match=r"HAILO_DEVICE_IN_USE \(73\).*group id") as caught:
            opened(package)
        assert "fuser -v /dev/hailo" in caught.value.message
        assert '"SHARED"' in caught.value.message
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 5
    opened(package).close()


def test_no_free_device(double: Double, package: Manifest) -> None:
    double.fault(create=74)
    with pytest.raises(DeviceBusy, match=r"HAILO_OUT_OF_PHYSICAL_DEVICES \(74\)"):
        opened(package)


# 6. One VDevice is one device, and without an id it is always the first.
def test_each_worker_gets_its_own_device(double: Double, package: Manifest) -> None:
    encoder = opened(package, SECOND)
    assert len(double.clients(SECOND)) == 1
    assert double.clients(FIRST) == []
    assert works(encoder)
    encoder.close()


def test_a_device_that_is_not_there(double: Double, package: Manifest) -> None:
    with pytest.raises(
        DeviceAbsent, match=f"no Hailo device 0009:01:00.0; there are: {FIRST}, {SECOND}"
    ) as e:
        opened(package, "0009:01:00.0")
    assert e.value.transient  # a device that was lost comes back


def test_no_device_at_all(double: Double, package: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAILO_DOUBLE_DEVICES", "")
    with pytest.raises(DeviceAbsent, match=r"no Hailo device was found.*sudo apt install"):
        opened(package)


def test_another_device_than_asked_for_is_refused(
    double: Double, package: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double.platform.VDevice, "get_physical_devices_ids", lambda self: [SECOND])
    with pytest.raises(SetupFault, match=f"asked HailoRT for the device {FIRST} and was given {SECOND}"):
        opened(package)
    assert double.clients() == []


# 7. Releasing a device keeps all threads waiting, a dead one perhaps for long: nobody would hear why.
def test_a_fault_is_not_held_up_by_a_release(double: Double, package: Manifest) -> None:
    encoder = opened(package)
    double.fault(infer=87, release_gil_s=1e6)
    with pytest.raises(DeviceLost):
        encoder.encode_images(IMAGES)
    encoder.close()
    assert len(double.clients()) == 1  # it was not released: the end of the process does that


def test_nor_is_a_fault_while_loading(double: Double, package: Manifest) -> None:
    encoder = HailoEncoder(package, FIRST, 8)
    double.fault(configure=87, release_gil_s=1e6)
    with pytest.raises(DeviceLost, match="loading the network failed with HAILO_DRIVER_TIMEOUT"):
        encoder.load()
    encoder.close()
    assert len(double.clients()) == 1


# 8. An error of run_async shuts the model down: nothing more is sent to it, a new encoder works.
def test_after_an_error_the_encoder_is_done_for(double: Double, package: Manifest) -> None:
    encoder = opened(package)
    pending = encoder.submit_images(IMAGES, lambda: None)
    double.fault(run_async=8)
    with pytest.raises(HailoError, match=r"queueing a batch failed with HAILO_INTERNAL_FAILURE") as caught:
        encoder.encode_images(IMAGES)
    double.fault()
    for again in (lambda: encoder.encode_images(IMAGES), pending.result):
        with pytest.raises(EncoderError) as repeated:
            again()
        assert repeated.value is caught.value
    encoder.close()
    fresh = opened(package)
    assert works(fresh)
    fresh.close()


def test_a_full_queue_shuts_it_down_too(encoder: HailoEncoder, double: Double) -> None:
    double.fault(run_async=82)
    with pytest.raises(HailoError, match="HAILO_QUEUE_IS_FULL") as caught:
        encoder.encode_images(IMAGES)
    assert caught.value.fatal


# 9. After a timeout the device may still write to the buffers.
def test_buffers_of_a_hung_batch_are_never_used_again(
    double: Double, package: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned: list[object] = []
    monkeypatch.setattr(hailo_model, "FIRST_TIMEOUT_S", 0.05)
    monkeypatch.setattr(hailo_model, "_ABANDONED", abandoned)
    encoder = opened(package)
    double.fault(hang_s=0.3)
    with pytest.raises(DeviceLost, match=r"no answer within 0\.05 s") as caught:
        encoder.encode_images(IMAGES)
    assert caught.value.fatal
    double.fault()
    (slot,) = [a for a in abandoned if isinstance(a, Slot)]
    with pytest.raises(DeviceLost):
        encoder.encode_images(IMAGES)
    deadline = time.monotonic() + 10
    while not np.all(slot.outputs[:3].view(np.uint8) == 0x4C):  # the late write
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setattr(hailo_model, "FIRST_TIMEOUT_S", 20)
    fresh = opened(package)
    assert works(fresh)
    fresh.close()


def test_a_device_that_has_worked_is_waited_for_less_long(
    double: Double, package: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hailo_model, "TIMEOUT_S", 0.05)
    encoder = opened(package)
    double.fault(slow=3)  # the first batch may take longer than the bound of those that follow
    monkeypatch.setenv("HAILO_DOUBLE_TIME_SCALE", "1")
    assert works(encoder)
    with pytest.raises(DeviceLost, match=r"no answer within 0\.05 s"):
        encoder.encode_images(IMAGES)
    encoder.close()


# 10. Workers with equal batch sizes share one copy of the networks on the device.
def test_the_batch_size_is_that_of_the_configuration(encoder: HailoEncoder, double: Double) -> None:
    encoder.encode_images(IMAGES)
    encoder.encode_tokens(PROMPTS[:1])
    (client,) = double.clients()
    assert client["batch_sizes"] == {"image_encoder": 8, "text_encoder": 8}
