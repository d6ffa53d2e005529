"""Every status number of HailoRT becomes an error with its name, its meaning here and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from hailo_clip.shared.errors import EncoderError
from hailo_clip.workers.hailo_status import (
    ADVICE,
    NAMES,
    DeviceBusy,
    DeviceLost,
    DeviceShort,
    HailoError,
    HefUnfit,
    SetupFault,
    hailo_error,
    hailo_errors,
    status_of,
)
from tests.doubles.hailo_platform._status import NAMES as DOUBLE_NAMES
from tests.doubles.hailo_platform._status import HailoRTStatusException, fail, uncaused

DEVICE = "0001:01:00.0"


def test_the_names_stand_at_their_numbers() -> None:
    known = {
        0: "SUCCESS",
        4: "TIMEOUT",
        26: "INVALID_HEF",
        36: "DRIVER_OPERATION_FAILED",
        73: "DEVICE_IN_USE",
    }
    known |= {74: "OUT_OF_PHYSICAL_DEVICES", 77: "RPC_FAILED", 87: "DRIVER_TIMEOUT"}
    known |= {93: "HEF_NOT_COMPATIBLE_WITH_DEVICE", 97: "DEVICE_TEMPORARILY_UNAVAILABLE"}
    assert len(NAMES) == 98
    assert {n: NAMES[n] for n in known} == {n: f"HAILO_{name}" for n, name in known.items()}
    assert {n: NAMES[n] for n in DOUBLE_NAMES} == DOUBLE_NAMES


@pytest.mark.parametrize("status", range(1, 98))
def test_every_number_has_a_message(status: int) -> None:
    error = hailo_error(fail(status), "encoding", DEVICE)
    assert error.status == status
    assert error.fatal
    assert f"{NAMES[status]} ({status})" in error.message
    assert DEVICE in error.message
    assert (error.retry_after_s is not None) == error.transient


def test_no_number_has_two_advices() -> None:
    numbers = [n for advice in ADVICE for n in advice.numbers]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    ("status", "kind", "transient", "words"),
    [
        (73, DeviceBusy, True, ["fuser -v /dev/hailo", 'group_id "SHARED"']),
        (74, DeviceBusy, True, ["fuser -v /dev/hailo", 'group_id "SHARED"']),
        (93, HefUnfit, False, ["another kind of device", "hailo-clip models pull"]),
        (26, HefUnfit, False, ["broken", "hailo-clip models verify"]),
        (91, HefUnfit, False, ["broken", "hailo-clip models verify"]),
        (92, HefUnfit, False, ["compiler"]),
        (4, DeviceLost, True, ["did not answer in time", "starts anew"]),
        (62, DeviceLost, True, ["connection to the device was lost"]),
        (63, DeviceLost, True, ["connection to the device was lost"]),
        (77, DeviceLost, True, ["did not answer"]),
        (87, DeviceLost, True, ["reset", "poweroff"]),
        (89, DeviceLost, True, ["refused"]),
        (97, DeviceLost, True, ["did not answer in time"]),
        (36, SetupFault, False, ["ls -l /dev/hailo", "dmesg"]),
        (64, SetupFault, False, ["driver is not installed", "sudo apt install"]),
        (76, SetupFault, False, ["different versions"]),
        (6, SetupFault, False, ["hailo-clip doctor"]),
        (71, DeviceShort, True, ["memory is full"]),
        (3, DeviceShort, True, ["workers.max_batch"]),
        (8, DeviceLost, True, ["hailort.log"]),
    ],
)
def test_what_a_number_means_and_what_to_do(
    status: int, kind: type[HailoError], transient: bool, words: list[str]
) -> None:
    error = hailo_error(fail(status), "opening the device", DEVICE)
    assert type(error) is kind
    assert error.transient is transient
    assert all(word in error.message for word in words), error.message


@pytest.mark.parametrize("status", sorted(DOUBLE_NAMES))
def test_the_number_is_found_however_it_is_carried(status: int) -> None:
    assert status_of(fail(status)) == status
    assert status_of(uncaused(status)) == status
    assert status_of(HailoRTStatusException(str(status))) == status


def test_errors_of_another_kind_have_no_number() -> None:
    assert status_of(ValueError("array is not writeable")) is None
    error = hailo_error(ValueError("array is not writeable"), "queueing a batch", DEVICE)
    assert error.status is None
    assert "queueing a batch failed: ValueError: array is not writeable" in error.message


def test_a_number_of_a_later_release() -> None:
    error = hailo_error(HailoRTStatusException("142"), "encoding", DEVICE)
    assert "unknown status (142)" in error.message


def test_errors_in_a_block_are_turned_and_ours_pass() -> None:
    with (
        pytest.raises(HefUnfit, match=r"text\.hef") as caught,
        hailo_errors("loading", DEVICE, Path("text.hef")),
    ):
        raise fail(93)
    assert isinstance(caught.value.__cause__, Exception)
    ours = EncoderError("ours")
    with pytest.raises(EncoderError) as passed, hailo_errors("loading", DEVICE):
        raise ours
    assert passed.value is ours
