"""Reading a safetensors file: 8 bytes of header length, a JSON header, then raw little-endian tensors."""

from __future__ import annotations

import json
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import ModelError

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}
_MAX_HEADER: Final = 100_000_000  # the format's own limit, bytes


def load(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The tensors of the file with the bytes `data`, by name, as read-only views of `data`.

    Raises:
        ModelError: it is not a safetensors file, or holds a type that is not float32, float16, int64 or
            int32.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _MAX_HEADER):
        raise ModelError("safetensors: the header is cut short")
    try:
        header = json.loads(data[8 : 8 + length])
        entries = {k: (v["dtype"], v["shape"], v["data_offsets"]) for k, v in header.items() if k[:2] != "__"}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"safetensors: the header cannot be read: {e!r}") from e
    body = memoryview(data)[8 + length :]
    return {name: _tensor(name, body, *entry) for name, entry in entries.items()}


def _tensor(name: str, body: memoryview, dtype: str, shape: list[int], span: list[int]) -> npt.NDArray[Any]:
    if dtype not in _DTYPES:
        raise ModelError(f"safetensors: {name} has type {dtype}, expected one of {', '.join(_DTYPES)}")
    begin, end = span
    if not 0 <= begin <= end <= len(body) or end - begin != prod(shape) * _DTYPES[dtype].itemsize:
        raise ModelError(f"safetensors: {name} {shape} does not fit its {end - begin} bytes at {begin}")
    return np.frombuffer(body[begin:end], _DTYPES[dtype]).reshape(shape)
