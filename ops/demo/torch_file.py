"""Reading the weights of a legacy PyTorch file (before its zip format) without PyTorch.

The file is five pickles, then the storages::

    magic number | protocol 1001 | system facts | the object | storage keys | (int64 length, raw data) ...

Unpickling may run any code that the file names, so names are looked up in a list of the four that a
dictionary of float tensors needs, and each stands for a harmless function of this module. Any other name
is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hailo_clip.shared.errors import ModelError

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001


@dataclass(frozen=True, slots=True)
class _Storage:
    """A run of `length` numbers of one type that is known by `key`."""

    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage: offset and strides in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The tensors of the file with the bytes `data`, by name.

    Raises:
        ModelError: it is no such file, is damaged, or names anything but tensors of float32 and int64.
    """
    stream = io.BytesIO(data)
    try:
        if _Reader(stream).load() != _MAGIC or _Reader(stream).load() != _PROTOCOL:
            raise ModelError("not a PyTorch file of the legacy format")
        if not _Reader(stream).load()["little_endian"]:
            raise ModelError("the PyTorch file is big-endian")
        named = _Reader(stream, _ALLOWED).load()
        keys = _Reader(stream).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
    ) as e:
        raise ModelError(f"the PyTorch file cannot be read: {e!r}") from e
    if not isinstance(named, dict) or not all(isinstance(t, _Tensor) for t in named.values()):
        raise ModelError("the PyTorch file holds something else than named tensors")
    storages = {t.storage.key: t.storage for t in named.values()}
    raw = _read_storages(stream, keys, storages)
    return {str(name): _view(str(name), t, raw[t.storage.key]) for name, t in named.items()}


def _float_storage() -> np.dtype[Any]:
    return np.dtype("<f4")


def _long_storage() -> np.dtype[Any]:
    return np.dtype("<i8")


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _Tensor:
    """Stands for torch._utils._rebuild_tensor_v2; what follows the strides matters to training alone."""
    if not isinstance(storage, _Storage):
        raise ModelError("the PyTorch file holds a tensor without a storage")
    return _Tensor(storage, offset, tuple(size), tuple(stride))


_ALLOWED: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): _float_storage,
    ("torch", "LongStorage"): _long_storage,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows the names in `allowed` and no other."""

    def __init__(self, stream: io.BytesIO, allowed: dict[tuple[str, str], Callable[..., Any]] | None = None):
        super().__init__(stream)
        self._allowed = allowed or {}

    def find_class(self, module: str, name: str) -> Any:
        """What a pickled name stands for. Raises `ModelError` for every name that is not allowed."""
        try:
            return self._allowed[module, name]
        except KeyError:
            raise ModelError(f"the PyTorch file names {module}.{name}, which is not allowed") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage for ``("storage", type, key, device, length, None)``."""
        if not isinstance(pid, tuple) or len(pid) != 6 or pid[0] != "storage" or pid[5] is not None:
            raise ModelError(f"the PyTorch file refers to {pid!r}, which is not a plain storage")
        _, kind, key, _, length, _ = pid
        if kind not in (_float_storage, _long_storage) or not isinstance(length, int) or length < 0:
            raise ModelError(f"the PyTorch file has a storage of {kind!r}, length {length!r}")
        return _Storage(str(key), kind(), length)


def _read_storages(
    stream: io.BytesIO, keys: list[str], storages: dict[str, _Storage]
) -> dict[str, npt.NDArray[Any]]:
    """The numbers of each storage, in the order of `keys`, as the file has them."""
    raw = {}
    for key in keys:
        if key not in storages:
            raise ModelError(f"the PyTorch file has a storage {key} that no tensor uses")
        length = int.from_bytes(stream.read(8), "little", signed=True)
        body = stream.read(storages[key].length * storages[key].dtype.itemsize)
        if length != storages[key].length or len(body) != length * storages[key].dtype.itemsize:
            raise ModelError(f"the PyTorch file is cut short or damaged at storage {key}")
        raw[key] = np.frombuffer(body, storages[key].dtype)
    missing = sorted(storages.keys() - raw.keys())
    if missing:
        raise ModelError(f"the PyTorch file lacks storage {missing[0]}")
    return raw


def _view(name: str, t: _Tensor, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The tensor's numbers, in C order."""
    numbers = (t.offset, *t.shape, *t.strides)
    if len(t.shape) != len(t.strides) or not all(isinstance(x, int) and x >= 0 for x in numbers):
        raise ModelError(f"tensor {name} has shape {t.shape}, strides {t.strides}, offset {t.offset}")
    last = t.offset + sum((n - 1) * s for n, s in zip(t.shape, t.strides, strict=True))
    if prod(t.shape) > raw.size or (0 not in t.shape and last >= raw.size):
        raise ModelError(f"tensor {name} reaches beyond its storage")
    steps = tuple(s * raw.itemsize for s in t.strides)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(raw[t.offset :], t.shape, steps))
