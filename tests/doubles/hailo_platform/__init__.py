"""A double of Hailo's Python package: the part of its API that runs inference, and its traps.

Written from HailoRT 5.2.0's public sources, to be put on PYTHONPATH (its parent folder) where the real
package is not. Names and behaviour are the vendor's where a program can trip over them:

- run() and AsyncInferJob.wait() hide failures; outputs are overwritten even by a failed inference;
- an exception that leaves a callback ends the process;
- ``VDevice(params, device_ids=[...])`` drops `params`; a list of ids must be a list;
- groups: "UNIQUE" shares with nobody and waits 5 s, other names share with their like, all others get 73/74;
- opening, configuring and releasing hold the GIL; any error of run_async shuts the model down;
- buffers must be writable and contiguous, only their size in bytes is looked at, when they are submitted;
- a hung device may write to its buffers later; completions carry exceptions without a cause.

Where it departs from the real one: one call of run_async is one launch of a + b*n seconds; a HEF is a file
of ours (`_hef.py`) whose network is worked out by numpy.

The environment (read at each use):

- HAILO_DOUBLE_DIR: directory where processes meet at the devices: locks, clients, faults.json.
- HAILO_DOUBLE_DEVICES: comma-separated ids; default one device, 0001:01:00.0.
- HAILO_DOUBLE_TIME_SCALE: factor on all times, default 1.
- HAILO_DOUBLE_COMPUTES_NOTHING: if set, all outputs are ones; for benchmarks of what is around the device,
  since a real one leaves the host's processors alone.

faults.json holds ``{device id or "*": {fault: value}}`` and may change at any time; see `_chip.Faults`.
"""

from ._infer import AsyncInferCompletionInfo, AsyncInferJob, ConfiguredInferModel, FormatType, InferModel  # noqa: TID252
from ._status import (  # noqa: TID252
    HailoCommunicationClosedException,
    HailoRTException,
    HailoRTStreamAbortedByUser,
)
from ._vdevice import HEF, Device, HailoSchedulingAlgorithm, VDevice  # noqa: TID252

__version__ = "5.2.0"

__all__ = [
    "HEF",
    "AsyncInferCompletionInfo",
    "AsyncInferJob",
    "ConfiguredInferModel",
    "Device",
    "FormatType",
    "HailoCommunicationClosedException",
    "HailoRTException",
    "HailoRTStreamAbortedByUser",
    "HailoSchedulingAlgorithm",
    "InferModel",
    "VDevice",
]
