"""How busy the Hailo encoder keeps a device: items a second against the device double's own limit.

Run from the repository's root: ``make bench-encoder``, or ``python -m tests.doubles.bench [seconds]
[rounds]``. The double takes the times of a Hailo-10H (a + b*n for a batch of n), so the limit is known: 157
images or 73.6 prompts a second a device. Each worker is a process with a closed loop of full batches, handed
over one ahead or not. The double computes nothing here, but inputs have the sizes of CLIP ResNet-50x4: 249 kB
an image, 197 kB a prompt. Told are the median of the rounds, and the worst and best as shares of the limit.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from hailo_clip.shared.messages import Kind
from hailo_clip.shared.models import DEFAULT
from hailo_clip.workers.catalog import make_encoder, spread
from hailo_clip.workers.encoder import Pending
from hailo_clip.workers.pipeline import Inputs, Pipeline
from hailo_clip.workers.timing import service_time
from tests.doubles.hailo_double import FIRST, SECOND, environment
from tests.doubles.tiny_clip import build_package, make_tiny_clip, random_images, random_prompt

BATCH = 8


def main() -> None:
    """Print one line for each arrangement of workers and devices."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as home:
        clip = make_tiny_clip(dimension=640, width=640, size=288, vocabulary=2000)
        build_package(Path(home), clip, backends=("hailo",))
        head = f"{'kind':6} {'devices':>7} {'workers':>7} {'ahead':>5} {'items/s':>8} {'of limit':>8}"
        print(f"{head} {'worst':>6} {'best':>6}")
        for kind in Kind:
            for devices, workers, ahead in ((1, 1, False), (1, 1, True), (1, 2, True), (2, 2, True)):
                rates = sorted(
                    measured(Path(home), kind, devices, workers, ahead, seconds) for _ in range(rounds)
                )
                limit = devices * BATCH / service_time(DEFAULT, kind).of(BATCH)
                row = f"{kind.name.lower():6} {devices:7} {workers:7} {'yes' if ahead else 'no':>5}"
                rate = statistics.median(rates)
                shares = f"{rate / limit:8.3f} {rates[0] / limit:6.3f} {rates[-1] / limit:6.3f}"
                print(f"{row} {rate:8.1f} {shares}", flush=True)


def measured(home: Path, kind: Kind, devices: int, workers: int, ahead: bool, seconds: float) -> float:
    """Items a second of all workers together."""
    context = multiprocessing.get_context("spawn")
    spans: Any = context.Queue()
    start = context.Barrier(workers)
    ids = [FIRST, SECOND][:devices]
    processes = [
        context.Process(target=work, args=(home, ids, device, kind, ahead, seconds, start, spans))
        for device in spread(ids, workers)
    ]
    for process in processes:
        process.start()
    done = [spans.get(timeout=60 + seconds) for _ in processes]
    for process in processes:
        process.join()
    items, begins, ends = zip(*done, strict=True)
    return float(sum(items) / (max(ends) - min(begins)))


def work(
    home: Path, ids: list[str], device: str, kind: Kind, ahead: bool, seconds: float, start: Any, spans: Any
) -> None:
    """One worker's closed loop; puts its items, and when it began and ended, into `spans`."""
    told = environment(home / "devices", ids, time_scale=1)
    os.environ.update(told, HAILO_DOUBLE_COMPUTES_NOTHING="1")
    sys.path.insert(0, told["PYTHONPATH"])
    from hailo_clip.shared.models import open_model

    encoder = make_encoder(open_model("tiny", home), "hailo", device, BATCH, run_dir=home)
    encoder.load()
    inputs: Inputs = random_images(BATCH, 288) if kind is Kind.IMAGE else [random_prompt(9, 2000)] * BATCH
    pipeline = Pipeline(encoder)
    most = pipeline.depth if ahead else 1
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    under_way: deque[Pending] = deque()
    start.wait()
    began, items = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        while len(under_way) < most:
            under_way.append(pipeline.submit(inputs, lambda: done.put(None)))
        done.get(timeout=30)
        assert np.isfinite(under_way.popleft().result()).all()
        items += BATCH
    spans.put((items, began, time.monotonic()))
    encoder.close()


if __name__ == "__main__":
    main()
