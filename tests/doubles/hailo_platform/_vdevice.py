"""VDevice, Device and HEF: what opens a device and what looks at one."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ._chip import UNIQUE, Chip, device_ids, faults, hold_gil, time_scale  # noqa: TID252
from ._core import Core  # noqa: TID252
from ._hef import Network, load_hef  # noqa: TID252
from ._infer import InferModel  # noqa: TID252
from ._status import HailoRTException, HailoRTStatusException, fail  # noqa: TID252


class HailoSchedulingAlgorithm(enum.Enum):
    NONE = 0
    ROUND_ROBIN = 1


@dataclass
class VDeviceParams:
    """Parameters as the native layer keeps them: setting the ids sets their number."""

    scheduling_algorithm: HailoSchedulingAlgorithm = HailoSchedulingAlgorithm.ROUND_ROBIN
    group_id: str = UNIQUE
    multi_process_service: bool = False
    device_count: int = 1
    _ids: list[str] = field(default_factory=list)

    @property
    def device_ids(self) -> list[str]:
        return list(self._ids)

    @device_ids.setter
    def device_ids(self, ids: list[str]) -> None:
        if not isinstance(ids, list):
            raise TypeError("incompatible function arguments: device_ids takes a list")
        self._ids = list(ids)
        self.device_count = len(ids)


class VDevice:
    """A device opened by this process."""

    def __init__(self, params: VDeviceParams | None = None, *, device_ids: list[str] | None = None) -> None:
        self._core: Core | None = None
        self._pid = os.getpid()
        if params is None:
            params = VDeviceParams()
        if device_ids:
            if params.device_ids:
                raise fail(6)
            params = VDeviceParams()  # as the real one does: all that was asked for is gone
            params.device_ids = list(device_ids)
        self._core = Core(_opened(params))

    @staticmethod
    def create_params() -> VDeviceParams:
        return VDeviceParams()

    def __enter__(self) -> VDevice:
        return self

    def __exit__(self, *args: object) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "_core", None) is not None:
            self.release()

    def release(self) -> None:
        if self._core is None:
            return
        core, self._core = self._core, None
        told = core.chip.faults()
        hold_gil(told.get("release_gil_s", 0) * time_scale())
        core.close()
        core.chip.close()
        if "release" in told:
            raise HailoRTStatusException(str(told["release"]))

    def get_physical_devices_ids(self) -> list[str]:
        assert self._core is not None
        return [self._core.chip.device_id]

    def create_infer_model(self, hef_source: str | bytes, name: str = "") -> InferModel:
        if os.getpid() != self._pid:
            raise HailoRTException("InferModel can be created only from the process VDevice was created in.")
        if not isinstance(hef_source, (str, bytes)):
            raise TypeError("incompatible function arguments: create_infer_model_from_file takes a str")
        if self._core is None:
            raise fail(8)
        return InferModel(_read(hef_source), self._core)


class HEF:
    """A HEF looked at on the host."""

    def __init__(self, hef_source: str | bytes) -> None:
        if not isinstance(hef_source, (str, bytes)):
            raise ValueError("HEF can only be created from a file path (str) or a buffer (bytes)")
        self._network = _read(hef_source)

    def get_network_group_names(self) -> list[str]:
        return [self._network.name]

    def get_input_vstream_infos(self, name: str | None = None) -> list[Any]:
        return [SimpleNamespace(name=s.name, shape=tuple(s.shape)) for s in self._network.inputs]

    def get_output_vstream_infos(self, name: str | None = None) -> list[Any]:
        return [SimpleNamespace(name=s.name, shape=tuple(s.shape)) for s in self._network.outputs]


class Device:
    """A device looked at, without opening it for inference."""

    def __init__(self, device_id: str | None = None) -> None:
        found = self.scan()
        if device_id is None and not found:
            raise HailoRTException("HailoRT device not found in the system")
        self.device_id = device_id or found[0]
        if self.device_id not in found:
            raise HailoRTStatusException("61")

    @classmethod
    def scan(cls) -> list[str]:
        told = faults("*")
        if "scan" in told:
            raise HailoRTStatusException(str(told["scan"]))
        return device_ids()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *args: object) -> None:
        self.release()

    def release(self) -> None:
        pass

    @property
    def control(self) -> Any:
        return SimpleNamespace(identify=self._identify, get_chip_temperature=self._temperature)

    def _identify(self) -> Any:
        told = faults(self.device_id)
        if "identify" in told:
            raise fail(told["identify"])
        return SimpleNamespace(
            device_architecture=SimpleNamespace(name=told.get("arch", "hailo10h").upper()),
            firmware_version=f"{told.get('firmware', '5.2.0')} (release,app)",
            serial_number="HLDOUBLE000001",
        )

    def _temperature(self) -> Any:
        heat = faults(self.device_id).get("heat", 41.5)
        if heat is None:
            raise fail(7)
        return SimpleNamespace(ts0_temperature=heat, ts1_temperature=heat + 0.4)


def _opened(params: VDeviceParams) -> Chip:
    """A chip of the devices asked for, or of the first that is free."""
    if params.multi_process_service:
        raise fail(6)
    if params.device_count != 1:
        raise fail(74)
    wanted = params.device_ids or device_ids()
    if not set(wanted) <= set(device_ids()):
        raise fail(61)
    for device_id in wanted:
        told = faults(device_id)
        hold_gil(told.get("create_gil_s", 0) * time_scale())
        if "create" in told:
            raise fail(told["create"])
        chip = Chip(device_id)
        if chip.open(params.group_id):
            return chip
        chip.close()
    raise fail(73 if params.device_ids else 74)


def _read(source: str | bytes) -> Network:
    if isinstance(source, bytes):
        return load_hef(source)
    try:
        return load_hef(Path(source).read_bytes())
    except OSError as e:
        raise fail(13) from e
