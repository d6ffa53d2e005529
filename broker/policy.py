"""The broker's settings and what it must know of the model, fixed at start."""

from __future__ import annotations

from dataclasses import dataclass

from hailo_clip.shared.config import Config
from hailo_clip.shared.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the scheduler decides by. Times are seconds, sizes bytes.

    Attributes:
        broker_epoch: random, new at each broker start.
        image_bytes: size of one image item's payload. max_tokens: most ids of a text item.
        max_label_sets, max_label_bytes: most label sets, and memory that they may take.
        inflight_per_device: batches a device has at most: one running, one staged.
        stage_lead_s: how long before a running batch should end the next one is staged. Until then late
            items may still join it; any later and the device might run dry.
        bulk_share: weight of class bulk relative to interactive.
        heartbeat_s: of workers. liveness: missed heartbeats after which a worker is given up.
        frontend_silence_s: silence after which a frontend's requests are dropped.
        quarantine_s: how long an input that killed a worker is refused.
        overdue_factor, overdue_min_s, overdue_max_s: a batch may take factor times its estimate, within
            these bounds, before its worker counts as hung.
        starting_s: how long after start "no worker yet" is called starting.
        note_endings: log how each request ended.
    """

    broker_epoch: str
    model: str
    fingerprint: str
    encoder: str
    dimension: int
    image_bytes: int
    max_tokens: int
    max_depth: int = 10
    max_bytes: int = 256 << 20
    max_batch: int = 8
    cache_entries: int = 10_000
    max_label_sets: int = 1000
    max_label_bytes: int = 64 << 20
    inflight_per_device: int = 2
    stage_lead_s: float = 0.006
    bulk_share: float = 0.1
    heartbeat_s: float = 1.0
    liveness: int = 3
    frontend_silence_s: float = 10.0
    quarantine_s: float = 60.0
    overdue_factor: float = 10.0
    overdue_min_s: float = 5.0
    overdue_max_s: float = 60.0
    starting_s: float = 10.0
    note_endings: bool = False


def policy_from(config: Config, manifest: Manifest, encoder: str, broker_epoch: str) -> Policy:
    """The `Policy` for this configuration and model."""
    return Policy(
        broker_epoch=broker_epoch,
        model=manifest.name,
        fingerprint=manifest.fingerprint(encoder),
        encoder=encoder,
        dimension=manifest.dimension,
        image_bytes=manifest.image.size**2 * 3,
        max_tokens=manifest.text.context_length,
        max_depth=config.queue.max_depth,
        max_bytes=int(config.queue.max_bytes_mib * (1 << 20)),
        max_batch=config.workers.max_batch,
        cache_entries=config.cache.max_entries,
        max_label_sets=config.labels.max_sets,
        max_label_bytes=config.labels.max_mib << 20,
        note_endings=config.log.level == "debug",
    )
