"""Single tensors of a published safetensors file, fetched by HTTP ranges.

The file is 8 bytes of header length (little-endian), a JSON header with each tensor's type, shape and place,
then the tensors' raw little-endian bytes. Weights of hundreds of megabytes hold the few that the host needs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hailo_clip.ops.fetch import Progress
from hailo_clip.ops.models_pull_http import Client
from hailo_clip.shared.errors import ModelError

_SIZES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MAX_HEADER: Final = 100_000_000  # the format's own limit, bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """Type, shape and place in the file (first byte, the one after the last) of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    span: tuple[int, int]


def read_header(client: Client, url: str) -> dict[str, Tensor]:
    """The tensors of the safetensors file at `url`, by name.

    Raises:
        ModelError: it can't be fetched, or is no such file.
    """
    length = int.from_bytes(client.read(url, 0, 8), "little")
    if not 2 <= length <= _MAX_HEADER:
        raise ModelError(f"{url} is no safetensors file: its header would have {length} bytes")
    data = client.read(url, 8, 8 + length)
    try:
        header = json.loads(data)
        return {name: _entry(name, e, 8 + length) for name, e in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"{url} is no safetensors file: its header cannot be read: {e!r}") from e


def fetch_tensor(
    client: Client, url: str, header: dict[str, Tensor], name: str, target: Path, progress: Progress
) -> npt.NDArray[np.float32]:
    """The tensor `name` of the file at `url` as float32; its raw bytes are kept at `target`.

    Raises:
        ModelError: there is no such tensor, it has a type that is none of floating point, or it can't be
            fetched.
    """
    if name not in header:
        near = sorted(n for n in header if "text" in n or "token" in n) or sorted(header)
        raise ModelError(f"{url} holds no tensor {name!r}; it holds {', '.join(near[:12])}, ...")
    tensor = header[name]
    size = tensor.span[1] - tensor.span[0]
    if tensor.dtype not in _SIZES or size != prod(tensor.shape) * _SIZES[tensor.dtype]:
        raise ModelError(
            f"{url}: {name} has type {tensor.dtype} and shape {list(tensor.shape)} in {size} bytes; expected "
            f"one of {', '.join(_SIZES)}, and that they fit"
        )
    client.fetch(url, target, progress, f"fetching {name}", tensor.span)
    return _floats(target.read_bytes(), tensor)


def _entry(name: str, entry: dict[str, Any], base: int) -> Tensor:
    begin, end = (int(n) for n in entry["data_offsets"])
    shape = tuple(int(n) for n in entry["shape"])
    if not 0 <= begin <= end or any(n < 0 for n in shape):
        raise ValueError(f"{name} has impossible offsets")
    return Tensor(name, str(entry["dtype"]), shape, (base + begin, base + end))


def _floats(data: bytes, tensor: Tensor) -> npt.NDArray[np.float32]:
    """Raw bytes as float32; bfloat16 is the upper half of a float32."""
    if tensor.dtype == "BF16":
        raw = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        raw = np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[tensor.dtype]).astype(np.float32)
    return np.ascontiguousarray(raw.reshape(tensor.shape))
