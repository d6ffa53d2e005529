"""The safetensors reader."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hailo_clip.ops.demo import safetensors
from hailo_clip.shared.errors import ModelError


def a_file(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_tensors_and_passes_over_metadata() -> None:
    a, b = np.arange(6, dtype="<f4").reshape(2, 3), np.array([7, -1], "<i8")
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("I64", [2], 24, 40),
        "a": entry("F32", [2, 3], 0, 24),
    }
    got = safetensors.load(a_file(header, a.tobytes() + b.tobytes()))
    assert sorted(got) == ["a", "b"]
    np.testing.assert_array_equal(got["a"], a)
    np.testing.assert_array_equal(got["b"], b)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut short"),
        (b"\xff" * 8, "cut short"),
        ((50).to_bytes(8, "little") + b"{}", "cut short"),
        ((3).to_bytes(8, "little") + b"nah", "cannot be read"),
        (a_file({"a": {"dtype": "F32"}}, b""), "cannot be read"),
        (a_file([1], b""), "cannot be read"),
        (a_file({"a": entry("BF16", [1], 0, 2)}, b"xx"), "type BF16"),
        (a_file({"a": entry("F32", [2], 0, 4)}, b"xxxx"), "does not fit"),
        (a_file({"a": entry("F32", [2], 0, 8)}, b"xxxx"), "does not fit"),
        (a_file({"a": entry("F32", [1], -4, 0)}, b"xxxx"), "does not fit"),
    ],
)
def test_refuses_damaged_files(data: bytes, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        safetensors.load(data)
