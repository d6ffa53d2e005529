"""InferModel and what hangs from it: streams, bindings, the configured model, jobs."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._chip import hold_gil, time_scale  # noqa: TID252
from ._core import Core, Request  # noqa: TID252
from ._hef import Network, Stream  # noqa: TID252
from ._status import HailoRTException, fail, uncaused  # noqa: TID252

Array = npt.NDArray[Any]


class FormatType(enum.Enum):
    AUTO = 0
    UINT8 = 1
    UINT16 = 2
    FLOAT32 = 3


_SIZES = {FormatType.UINT8: 1, FormatType.UINT16: 2, FormatType.FLOAT32: 4}
_DTYPES: dict[FormatType, type[np.generic]] = {
    FormatType.UINT8: np.uint8,
    FormatType.UINT16: np.uint16,
    FormatType.FLOAT32: np.float32,
}


@dataclass
class Format:
    type: FormatType
    order: str = "NHWC"


class AsyncInferCompletionInfo:
    def __init__(self, exception: Exception | None) -> None:
        self._exception = exception

    @property
    def exception(self) -> Exception | None:
        return self._exception


class InferModel:
    """A network to be configured; made by VDevice.create_infer_model."""

    class InferStream:
        def __init__(self, stream: Stream) -> None:
            self._stream = stream
            self.format = Format(FormatType[stream.type])

        @property
        def name(self) -> str:
            return self._stream.name

        @property
        def shape(self) -> list[int]:
            return list(self._stream.shape)

        @property
        def quant_infos(self) -> list[Any]:
            return [(0.0, 1.0)]

        def set_format_type(self, type: FormatType) -> None:
            self.format.type = type

        def frame_bytes(self) -> int:
            return int(np.prod(self._stream.shape)) * _SIZES[self.format.type]

    def __init__(self, network: Network, core: Core) -> None:
        self._network = network
        self._core = core
        self._batch_size = 0
        self.inputs = [self.InferStream(s) for s in network.inputs]
        self.outputs = [self.InferStream(s) for s in network.outputs]

    @property
    def input_names(self) -> list[str]:
        return [s.name for s in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return [s.name for s in self.outputs]

    def input(self, name: str = "") -> InferStream:
        return _named(self.inputs, name)

    def output(self, name: str = "") -> InferStream:
        return _named(self.outputs, name)

    def set_batch_size(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def configure(self) -> ConfiguredInferModel:
        faults = self._core.chip.faults()
        hold_gil(faults.get("configure_gil_s", 0) * time_scale())
        if "configure" in faults:
            raise fail(faults["configure"])
        if faults.get("arch", "hailo10h") != self._network.arch:
            raise fail(93)
        if not 0 <= self._batch_size <= 63:
            raise fail(2)
        self._core.chip.note_model(self._network.name, self._batch_size)
        return ConfiguredInferModel(self, self._network, self._core)


class Bindings:
    """Buffers of one frame."""

    class InferStream:
        def __init__(self) -> None:
            self.buffer: Array | None = None

        def set_buffer(self, buffer: Array) -> None:
            if not buffer.flags.c_contiguous:
                raise HailoRTException("Buffer must be C_CONTIGUOUS")
            if not buffer.flags.writeable:
                raise ValueError("array is not writeable")
            self.buffer = buffer

        def get_buffer(self, tf_format: bool | None = False) -> Array | None:
            return self.buffer

    def __init__(self, inputs: list[str], outputs: list[str]) -> None:
        self._inputs = {name: self.InferStream() for name in inputs}
        self._outputs = {name: self.InferStream() for name in outputs}

    def input(self, name: str = "") -> InferStream:
        return _one(self._inputs, name)

    def output(self, name: str = "") -> InferStream:
        return _one(self._outputs, name)


class ConfiguredInferModel:
    """A network on the device."""

    def __init__(self, model: InferModel, network: Network, core: Core) -> None:
        self._model = model
        self._network = network
        self._core = core
        self._shut = False
        self._ongoing = 0
        self._room = threading.Condition()
        self._done = 0

    def __enter__(self) -> ConfiguredInferModel:
        return self

    def __exit__(self, *args: object) -> None:
        self._shut = True

    def create_bindings(self) -> Bindings:
        return Bindings(self._model.input_names, self._model.output_names)

    def get_async_queue_size(self) -> int:
        return int(self._core.chip.faults().get("queue", 32))

    def wait_for_async_ready(self, timeout_ms: int = 1000, frames_count: int = 1) -> None:
        with self._room:
            size = self.get_async_queue_size()
            if not self._room.wait_for(lambda: size - self._ongoing >= frames_count, timeout_ms / 1000):
                raise fail(4)

    def run_async(
        self, bindings: list[Bindings], callback: Callable[..., None] | None = None
    ) -> AsyncInferJob:
        try:
            self._check(bindings)
        except HailoRTException:
            self._shut = True
            raise
        job = AsyncInferJob()

        def completed(status: int) -> None:
            self._completed(len(bindings), status)
            if callback is not None:
                info = AsyncInferCompletionInfo(uncaused(status) if status else None)
                callback(completion_info=info)
            job.over.set()

        if bindings:  # nothing ever completes an empty one
            with self._room:
                self._ongoing += len(bindings)
            self._core.put(self._request(bindings, completed))
        return job

    def run(self, bindings: list[Bindings], timeout: int) -> None:
        self.run_async(bindings).wait(timeout)

    def shutdown(self) -> None:
        self._shut = True

    def _request(self, bindings: list[Bindings], completed: Callable[[int], None]) -> Request:
        (source,), (target,) = self._model.inputs, self._model.outputs
        return Request(
            self._network,
            [b for b in (binding.input().buffer for binding in bindings) if b is not None],
            [b for b in (binding.output().buffer for binding in bindings) if b is not None],
            _DTYPES[source.format.type],
            _DTYPES[target.format.type],
            completed,
        )

    def _completed(self, frames: int, status: int) -> None:
        with self._room:
            self._ongoing -= frames
            self._done += 1
            self._room.notify_all()
        if status:
            self._shut = True

    def _check(self, bindings: list[Bindings]) -> None:
        faults = self._core.chip.faults()
        if self._shut or self._core.closed:
            raise fail(63)
        if "run_async" in faults and self._done >= faults.get("run_async_after", 0):
            raise fail(faults["run_async"])
        if self._ongoing + len(bindings) > self.get_async_queue_size():
            raise fail(82)
        for binding in bindings:
            for stream in self._model.inputs:
                _check_size(binding.input(stream.name).buffer, stream)
            for stream in self._model.outputs:
                _check_size(binding.output(stream.name).buffer, stream)


class AsyncInferJob:
    """A submitted batch. It tells that it is over, never that it failed."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def wait(self, timeout_ms: int) -> None:
        if not self.over.wait(timeout_ms / 1000):
            raise fail(4)


def _named(streams: list[InferModel.InferStream], name: str) -> InferModel.InferStream:
    found = [s for s in streams if name in ("", s.name)]
    if len(found) != 1:
        raise fail(61)
    return found[0]


def _one(streams: dict[str, Bindings.InferStream], name: str) -> Bindings.InferStream:
    if name == "" and len(streams) == 1:
        return next(iter(streams.values()))
    if name not in streams:
        raise fail(61)
    return streams[name]


def _check_size(buffer: Array | None, stream: InferModel.InferStream) -> None:
    if buffer is None or buffer.nbytes != stream.frame_bytes():
        raise fail(6)
