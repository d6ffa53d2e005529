"""The legacy PyTorch reader, on files written opcode by opcode."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hailo_clip.ops.demo import torch_file
from hailo_clip.shared.errors import ModelError

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class Name:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Name
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Persistent:
    pid: Any


def emit(value: Any) -> bytes:
    """Pickle opcodes (protocol 2) for the few kinds of value that such a file has."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + struct.pack("<i", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(emit, value)) + b"t"
        case list():
            return b"](" + b"".join(map(emit, value)) + b"e"
        case dict():
            return b"}(" + b"".join(emit(k) + emit(v) for k, v in value.items()) + b"u"
        case Name():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return emit(value.function) + emit(value.arguments) + b"R"
        case Persistent():
            return emit(value.pid) + b"Q"
    raise TypeError(value)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + emit(value) + b"."


def storage(key: str, length: int, kind: str = "FloatStorage", view: Any = None) -> Persistent:
    return Persistent(("storage", Name("torch", kind), key, "cpu", length, view))


def tensor(
    store: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *, hooks: Any = None
) -> Call:
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    hooks = hooks or Call(Name("collections", "OrderedDict"), ())
    return Call(rebuild, (store, offset, shape, strides, False, hooks))


def a_file(named: Any, storages: dict[str, np.ndarray[Any, Any]]) -> bytes:
    head = MAGIC + pickled(1001) + pickled({"little_endian": True}) + pickled(named) + pickled(list(storages))
    return head + b"".join(struct.pack("<q", a.size) + a.tobytes() for a in storages.values())


SIX = np.arange(6, dtype="<f4")


def test_reads_tensors_of_both_types_with_offsets_and_strides() -> None:
    named = {
        "w": tensor(storage("a", 6), 0, (2, 3), (3, 1)),
        "transposed": tensor(storage("a", 6), 0, (3, 2), (1, 3)),
        "tail": tensor(storage("a", 6), 4, (2,), (1,)),
        "count": tensor(storage("b", 1, "LongStorage"), 0, (), ()),
    }
    got = torch_file.load(a_file(named, {"a": SIX, "b": np.array([2**40], "<i8")}))
    np.testing.assert_array_equal(got["w"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(got["transposed"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(got["tail"], [4, 5])
    assert got["count"] == 2**40
    assert all(t.flags.c_contiguous for t in got.values())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("posix", "system"),
        ("builtins", "eval"),
        ("os", "system"),
        ("torch", "DoubleStorage"),
        ("torch", "load"),
    ],
)
def test_refuses_every_other_name_without_running_it(module: str, name: str, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    argument = f"touch {trace}" if name == "system" else f"open({str(trace)!r}, 'w')"
    with pytest.raises(ModelError, match=rf"{module}\.{name}, which is not allowed"):
        torch_file.load(a_file(Call(Name(module, name), (argument,)), {}))
    assert not trace.exists()


def test_refuses_a_name_hidden_in_the_ignored_arguments(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    hooks = Call(Name("posix", "system"), (f"touch {trace}",))
    with pytest.raises(ModelError, match=r"posix\.system"):
        torch_file.load(a_file({"w": tensor(storage("a", 6), 0, (6,), (1,), hooks=hooks)}, {"a": SIX}))
    assert not trace.exists()


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_refuses_even_the_allowed_names_outside_the_object(place: int) -> None:
    parts = [MAGIC, pickled(1001), pickled({"little_endian": True}), pickled({}), pickled([])]
    parts[place] = pickled(Call(Name("collections", "OrderedDict"), ()))
    with pytest.raises(ModelError, match=r"collections\.OrderedDict, which is not allowed"):
        torch_file.load(b"".join(parts))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (2, 3), (3, 1)),
        (0, (7,), (1,)),
        (0, (2, 3), (4, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**9, 10**9), (0, 0)),
        (0, (2, 3), (1,)),
    ],
)
def test_refuses_a_tensor_that_is_not_inside_its_storage(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    with pytest.raises(ModelError, match="tensor w"):
        torch_file.load(a_file({"w": tensor(storage("a", 6), offset, shape, strides)}, {"a": SIX}))


def test_refuses_what_is_no_storage() -> None:
    odd = storage("a", 6, view=("part", 0, 6))
    with pytest.raises(ModelError, match="not a plain storage"):
        torch_file.load(a_file({"w": tensor(odd, 0, (6,), (1,))}, {"a": SIX}))
    odd = Persistent(("storage", Name("collections", "OrderedDict"), "a", "cpu", 6, None))
    with pytest.raises(ModelError, match="has a storage of"):
        torch_file.load(a_file({"w": tensor(odd, 0, (6,), (1,))}, {"a": SIX}))
    with pytest.raises(ModelError, match="without a storage"):
        torch_file.load(a_file({"w": tensor("a", 0, (6,), (1,))}, {"a": SIX}))


def test_refuses_anything_but_named_tensors() -> None:
    for content in ([1, 2], {"w": 3}, "hello"):
        with pytest.raises(ModelError, match="something else than named tensors"):
            torch_file.load(a_file(content, {}))


def test_refuses_damaged_files() -> None:
    whole = a_file({"w": tensor(storage("a", 6), 0, (6,), (1,))}, {"a": SIX})
    for length in range(0, len(whole), 3):
        with pytest.raises(ModelError):
            torch_file.load(whole[:length])
    with pytest.raises(ModelError, match="legacy"):
        torch_file.load(pickled(5) + whole)
    with pytest.raises(ModelError, match="lacks storage a"):
        torch_file.load(a_file({"w": tensor(storage("a", 6), 0, (6,), (1,))}, {}))
    with pytest.raises(ModelError, match="no tensor uses"):
        torch_file.load(a_file({"w": tensor(storage("a", 6), 0, (6,), (1,))}, {"a": SIX, "b": SIX}))
