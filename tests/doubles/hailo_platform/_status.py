"""Status numbers as exceptions, with and without a cause."""

from __future__ import annotations

NAMES = {
    2: "HAILO_INVALID_ARGUMENT",
    4: "HAILO_TIMEOUT",
    6: "HAILO_INVALID_OPERATION",
    8: "HAILO_INTERNAL_FAILURE",
    13: "HAILO_OPEN_FILE_FAILURE",
    26: "HAILO_INVALID_HEF",
    36: "HAILO_DRIVER_OPERATION_FAILED",
    61: "HAILO_NOT_FOUND",
    62: "HAILO_COMMUNICATION_CLOSED",
    63: "HAILO_STREAM_ABORT",
    64: "HAILO_DRIVER_NOT_INSTALLED",
    71: "HAILO_OUT_OF_FW_MEMORY",
    73: "HAILO_DEVICE_IN_USE",
    74: "HAILO_OUT_OF_PHYSICAL_DEVICES",
    77: "HAILO_RPC_FAILED",
    82: "HAILO_QUEUE_IS_FULL",
    87: "HAILO_DRIVER_TIMEOUT",
    89: "HAILO_CONNECTION_REFUSED",
    93: "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE",
    96: "HAILO_DEVICE_NOT_CONNECTED",
    97: "HAILO_DEVICE_TEMPORARILY_UNAVAILABLE",
}


class HailoRTStatusException(Exception):
    """What the native layer raises: args[0] is the number, as text."""


class HailoRTException(Exception):
    pass


class HailoRTTimeout(HailoRTException):
    pass


class HailoRTStreamAborted(HailoRTException):
    pass


class HailoRTStreamAbortedByUser(HailoRTException):
    pass


class HailoRTInvalidOperationException(HailoRTException):
    pass


class HailoRTInvalidArgumentException(HailoRTException):
    pass


class HailoRTNotFoundException(HailoRTException):
    pass


class HailoRTInvalidHEFException(HailoRTException):
    pass


class HailoRTHEFNotCompatibleWithDevice(HailoRTException):
    pass


class HailoRTDriverOperationFailedException(HailoRTException):
    pass


class HailoCommunicationClosedException(HailoRTException):
    pass


_CLASSES: dict[int, type[HailoRTException]] = {
    2: HailoRTInvalidArgumentException,
    4: HailoRTTimeout,
    6: HailoRTInvalidOperationException,
    26: HailoRTInvalidHEFException,
    36: HailoRTDriverOperationFailedException,
    61: HailoRTNotFoundException,
    62: HailoCommunicationClosedException,
    63: HailoRTStreamAborted,
    93: HailoRTHEFNotCompatibleWithDevice,
}


def uncaused(status: int) -> HailoRTException:
    """The exception for a number as a completion carries it: nothing behind it says the number."""
    if status in _CLASSES:
        return _CLASSES[status]("something went wrong. See hailort.log for more information")
    return HailoRTException(f"libhailort failed with error: {status} ({NAMES.get(status, '?')})")


def fail(status: int) -> HailoRTException:
    """The exception for a number as a call raises it: ``raise fail(73)``."""
    error = uncaused(status)
    error.__cause__ = HailoRTStatusException(str(status))
    return error
