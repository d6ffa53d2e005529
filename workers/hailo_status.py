"""HailoRT's status numbers as errors that say what happened, what it means here and what to do.

Numbers and names are those of HailoRT 5.2.0 (`hailo_status` in its C header). The vendor's package is not
imported here: an exception is told by the number it carries, by its class's name or by its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hailo_clip.shared.errors import EncoderError

GROUP_ID = "SHARED"
"""The group of all VDevices here: programs that name the same group share a device (see hailo.py)."""

RETRY_S = 5.0
"""Seconds to leave a device alone after a transient fault: it serves a UNIQUE opener for as long."""

_NAMES = """
SUCCESS UNINITIALIZED INVALID_ARGUMENT OUT_OF_HOST_MEMORY TIMEOUT INSUFFICIENT_BUFFER INVALID_OPERATION
NOT_IMPLEMENTED INTERNAL_FAILURE DATA_ALIGNMENT_FAILURE CHUNK_TOO_LARGE INVALID_LOGGER_LEVEL
CLOSE_FAILURE OPEN_FILE_FAILURE FILE_OPERATION_FAILURE UNSUPPORTED_CONTROL_PROTOCOL_VERSION
UNSUPPORTED_FW_VERSION INVALID_CONTROL_RESPONSE FW_CONTROL_FAILURE ETH_FAILURE ETH_INTERFACE_NOT_FOUND
ETH_RECV_FAILURE ETH_SEND_FAILURE INVALID_FIRMWARE INVALID_CONTEXT_COUNT INVALID_FRAME INVALID_HEF
PCIE_NOT_SUPPORTED_ON_PLATFORM INTERRUPTED_BY_SIGNAL START_VDMA_CHANNEL_FAIL SYNC_VDMA_BUFFER_FAIL
STOP_VDMA_CHANNEL_FAIL CLOSE_VDMA_CHANNEL_FAIL ATR_TABLES_CONF_VALIDATION_FAIL EVENT_CREATE_FAIL
READ_EVENT_FAIL DRIVER_OPERATION_FAILED INVALID_FIRMWARE_MAGIC INVALID_FIRMWARE_CODE_SIZE
INVALID_KEY_CERTIFICATE_SIZE INVALID_CONTENT_CERTIFICATE_SIZE MISMATCHING_FIRMWARE_BUFFER_SIZES
INVALID_FIRMWARE_CPU_ID CONTROL_RESPONSE_MD5_MISMATCH GET_CONTROL_RESPONSE_FAIL
GET_D2H_EVENT_MESSAGE_FAIL MUTEX_INIT_FAIL OUT_OF_DESCRIPTORS UNSUPPORTED_OPCODE
USER_MODE_RATE_LIMITER_NOT_SUPPORTED RATE_LIMIT_MAXIMUM_BANDWIDTH_EXCEEDED
ANSI_TO_UTF16_CONVERSION_FAILED UTF16_TO_ANSI_CONVERSION_FAILED UNEXPECTED_INTERFACE_INFO_FAILURE
UNEXPECTED_ARP_TABLE_FAILURE MAC_ADDRESS_NOT_FOUND NO_IPV4_INTERFACES_FOUND SHUTDOWN_EVENT_SIGNALED
THREAD_ALREADY_ACTIVATED THREAD_NOT_ACTIVATED THREAD_NOT_JOINABLE NOT_FOUND COMMUNICATION_CLOSED
STREAM_ABORT DRIVER_NOT_INSTALLED NOT_AVAILABLE TRAFFIC_CONTROL_FAILURE INVALID_SECOND_STAGE
INVALID_PIPELINE NETWORK_GROUP_NOT_ACTIVATED VSTREAM_PIPELINE_NOT_ACTIVATED OUT_OF_FW_MEMORY
STREAM_NOT_ACTIVATED DEVICE_IN_USE OUT_OF_PHYSICAL_DEVICES INVALID_DEVICE_ARCHITECTURE
INVALID_DRIVER_VERSION RPC_FAILED INVALID_SERVICE_VERSION NOT_SUPPORTED NMS_BURST_INVALID_DATA
OUT_OF_HOST_CMA_MEMORY QUEUE_IS_FULL DMA_MAPPING_ALREADY_EXISTS CANT_MEET_BUFFER_REQUIREMENTS
DRIVER_INVALID_RESPONSE DRIVER_INVALID_IOCTL DRIVER_TIMEOUT DRIVER_INTERRUPTED CONNECTION_REFUSED
DRIVER_WAIT_CANCELED HEF_FILE_CORRUPTED HEF_NOT_SUPPORTED HEF_NOT_COMPATIBLE_WITH_DEVICE INVALID_HEF_USE
OPERATION_ABORTED DEVICE_NOT_CONNECTED DEVICE_TEMPORARILY_UNAVAILABLE
"""
NAMES = tuple(f"HAILO_{name}" for name in _NAMES.split())
"""The name of each status number: ``NAMES[73] == "HAILO_DEVICE_IN_USE"``."""


class HailoError(EncoderError):
    """Something HailoRT reported; the encoder it happened to can't be used again.

    Attributes:
        status: HailoRT's number, None when it gave none.
        transient: True when the same may succeed in a new process after `retry_after_s` seconds; False
            when somebody has to mend something first.
    """

    transient = True

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message, fatal=True, retry_after_s=RETRY_S if self.transient else None)
        self.status = status


class DeviceBusy(HailoError):
    """Another program holds the device."""


class DeviceLost(HailoError):
    """The device or the way to it failed while it was in use."""


class DeviceAbsent(HailoError):
    """The device is not there: not fitted, not started yet, or lost and on its way back."""


class DeviceShort(HailoError):
    """Memory of the host or the device ran out."""


class HefUnfit(HailoError):
    """The HEF is broken, or not for this device."""

    transient = False


class SetupFault(HailoError):
    """Driver, firmware, library and this program don't fit each other, or the device can't be opened."""

    transient = False


@dataclass(frozen=True, slots=True)
class Advice:
    """What a group of status numbers means in this program, and what to do about it."""

    error: type[HailoError]
    numbers: tuple[int, ...]
    meaning: str
    remedy: str


_VERSIONS = "HailoRT's package, libhailort, driver and firmware must be of one version: sudo apt full-upgrade"
_RESTARTS = (
    "the worker starts anew by itself; if it recurs: dmesg | grep -i hailo, then power-cycle the device"
)

ADVICE = (
    Advice(
        DeviceBusy,
        (73, 74),
        "another program holds the device under another group id, or all of it",
        "see which with: sudo fuser -v /dev/hailo*; stop it, or have it open its VDevice with "
        f'group_id "{GROUP_ID}" as this one does',
    ),
    Advice(
        HefUnfit,
        (93, 75),
        "the HEF was compiled for another kind of device",
        "this service needs HEFs for Hailo-10H (hailo10h); type: hailo-clip models pull MODEL --replace",
    ),
    Advice(
        HefUnfit,
        (26, 91, 94, 24),
        "the HEF is broken",
        "type: hailo-clip models verify MODEL, and if it says so: hailo-clip models pull MODEL",
    ),
    Advice(
        HefUnfit,
        (92,),
        "the HEF was made by a compiler that this HailoRT does not know",
        f"take a HEF of the matching release, or update HailoRT. {_VERSIONS}",
    ),
    Advice(
        DeviceLost,
        (4, 77, 97),
        "the device did not answer in time",
        _RESTARTS,
    ),
    Advice(
        DeviceLost,
        (62, 63, 69, 70, 72, 90, 95, 96, 88),
        "the connection to the device was lost",
        _RESTARTS,
    ),
    Advice(
        DeviceLost,
        (87,),
        "the driver waited for the device in vain; it may need a reset",
        f"{_RESTARTS} (sudo poweroff, not only a reboot)",
    ),
    Advice(
        DeviceLost,
        (89,),
        "the server on the device refused the connection; it may be starting still",
        _RESTARTS,
    ),
    Advice(
        SetupFault,
        (36,),
        "the driver refused an operation: this user may not open the device, or the device was lost",
        "look at: ls -l /dev/hailo* /dev/h1x*, and at: dmesg | grep -i hailo; a lost device comes back "
        "when its power was cut (sudo poweroff, not only a reboot)",
    ),
    Advice(
        SetupFault,
        (64,),
        "the driver is not installed or not loaded",
        "type: sudo apt install hailo-h10-all, and reboot",
    ),
    Advice(
        SetupFault,
        (15, 16, 17, 23, 48, 76, 78, 85, 86),
        "driver, library and firmware are of different versions",
        _VERSIONS,
    ),
    Advice(
        SetupFault,
        (2, 5, 6, 7, 61, 79, 84),
        "HailoRT does not allow what this program asked for",
        "check that the device is a Hailo-10H and that HailoRT is 5.2 or later (hailo-clip doctor)",
    ),
    Advice(
        SetupFault,
        (13, 14),
        "a file could not be opened or read",
        "check that the HEF is there and that this user may read it",
    ),
    Advice(
        DeviceShort,
        (71,),
        "the device's memory is full of other models",
        "stop other programs that use it, or run fewer models",
    ),
    Advice(
        DeviceShort,
        (3, 47, 81),
        "the host ran out of memory for the device",
        "free memory, or lower workers.max_batch and workers.count",
    ),
)

_UNKNOWN = Advice(DeviceLost, (), "HailoRT failed", f"see hailort.log in the state directory; {_RESTARTS}")
_BY_NUMBER = {number: advice for advice in ADVICE for number in advice.numbers}

_BY_TYPE = {
    "InvalidProtocolVersionException": 15,
    "HailoRTFirmwareControlFailedException": 18,
    "HailoRTUnsupportedOpcodeException": 48,
    "HailoRTInvalidFrameException": 25,
    "HailoRTTimeout": 4,
    "HailoRTStreamAborted": 63,
    "HailoRTStreamAbortedByUser": 63,
    "HailoRTInvalidOperationException": 6,
    "HailoRTInvalidArgumentException": 2,
    "HailoRTNotFoundException": 61,
    "HailoRTInvalidHEFException": 26,
    "HailoRTHEFNotCompatibleWithDevice": 93,
    "HailoRTEthException": 19,
    "HailoRTDriverOperationFailedException": 36,
    "HailoCommunicationClosedException": 62,
    "HailoRTNetworkGroupNotActivatedException": 69,
}
"""Status numbers of the exceptions that have a class of their own; all others are told by their text."""

_TEXT = re.compile(r"libhailort failed with error: (\d+)")


def status_of(error: BaseException) -> int | None:
    """HailoRT's status number behind an exception, None when there is none.

    Most exceptions have it in their cause, as text; those of a completion have no cause and are told by
    class or text; calls that the vendor's package does not wrap raise the cause itself.
    """
    for e in (error.__cause__, error):
        if e is not None and e.args and str(e.args[0]).isdecimal():
            return int(e.args[0])
    if type(error).__name__ in _BY_TYPE:
        return _BY_TYPE[type(error).__name__]
    found = _TEXT.search(str(error))
    return int(found.group(1)) if found else None


def hailo_error(error: BaseException, doing: str, device_id: str, hef: Path | None = None) -> HailoError:
    """The typed error for an exception of HailoRT.

    Args:
        error: what was raised, or what a completion carried.
        doing: what was going on: "opening the device", "encoding".
        device_id: the device.
        hef: the network's file, when the fault may be its.
    """
    status = status_of(error)
    where = f"Hailo device {device_id}" + (f", {hef}" if hef is not None else "")
    if status is None:
        text = f"{where}: {doing} failed: {type(error).__name__}: {error}"
        return _UNKNOWN.error(f"{text}. {_UNKNOWN.remedy}", None)
    advice = _BY_NUMBER.get(status, _UNKNOWN)
    name = NAMES[status] if status < len(NAMES) else "unknown status"
    return advice.error(
        f"{where}: {doing} failed with {name} ({status}): {advice.meaning}. {advice.remedy}", status
    )


def split_remedy(message: str) -> tuple[str, str]:
    """The message of a `HailoError` as what happened and what to do; no remedy where it is another's."""
    known = (advice.remedy for advice in (*ADVICE, _UNKNOWN))
    remedy = max((r for r in known if message.endswith(r)), key=len, default="")
    return message.removesuffix(remedy).rstrip(". "), remedy


@contextmanager
def hailo_errors(doing: str, device_id: str, hef: Path | None = None) -> Iterator[None]:
    """Turn whatever the body raises, but for an `EncoderError`, into the typed error for it."""
    try:
        yield
    except EncoderError:
        raise
    except Exception as e:
        raise hailo_error(e, doing, device_id, hef) from e
