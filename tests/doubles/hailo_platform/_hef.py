"""Networks as files: our own format, made of a magic line, a JSON line and numpy's .npz.

The vendor's format is closed; this one has just what the double needs to act alike.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._status import fail  # noqa: TID252

MAGIC = b"HAILO-DOUBLE-HEF 1\n"


@dataclass(frozen=True)
class Stream:
    """An input or output: shape without dimensions of no meaning, as the real API lists them."""

    name: str
    shape: list[int]
    type: str  # UINT8 or FLOAT32, what the network itself has


@dataclass(frozen=True)
class Network:
    """A compiled network: `kind` says which function of `_network.py` computes it."""

    name: str
    kind: str
    arch: str
    inputs: list[Stream]
    outputs: list[Stream]
    launch_s: float
    item_s: float
    facts: dict[str, Any]
    weights: dict[str, npt.NDArray[Any]]


def save_hef(path: Path, network: Network) -> None:
    """Write `network` to `path`."""
    header = asdict(network)
    del header["weights"]
    buffer = io.BytesIO()
    np.savez(buffer, **network.weights)  # type: ignore[arg-type]
    path.write_bytes(MAGIC + json.dumps(header).encode() + b"\n" + buffer.getvalue())


def load_hef(data: bytes) -> Network:
    """The network in `data`; status 26 when it is none."""
    if not data.startswith(MAGIC):
        raise fail(26)
    header, _, rest = data[len(MAGIC) :].partition(b"\n")
    try:
        facts = json.loads(header)
        with np.load(io.BytesIO(rest)) as stored:
            weights = {name: stored[name] for name in stored.files}
    except Exception as e:
        raise fail(26) from e
    inputs, outputs = ([Stream(**s) for s in facts.pop(k)] for k in ("inputs", "outputs"))
    return Network(**facts, inputs=inputs, outputs=outputs, weights=weights)
