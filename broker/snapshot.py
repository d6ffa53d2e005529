"""The broker's status as plain values: what `hailo-clip top`, the supervisor and /metrics read."""

from __future__ import annotations

from typing import Any

from hailo_clip.broker.scheduler import Scheduler
from hailo_clip.broker.states import WorkerState


def snapshot(scheduler: Scheduler, now: float) -> dict[str, Any]:
    """Everything an operator may want to know, as msgpack values.

    Keys: state, reason, model, fingerprint, encoder, broker_epoch, uptime_s, accepted/in_flight/waiting
    counts, limits, tenants (name -> waiting requests), workers, devices, cache, labels, metrics,
    lost_workers ([name, pid] of those given up that may still run).
    """
    s = scheduler
    state, reason = s.health(now)
    return {
        "state": state,
        "reason": reason,
        "model": s.policy.model,
        "fingerprint": s.policy.fingerprint,
        "encoder": s.policy.encoder,
        "broker_epoch": s.policy.broker_epoch,
        "uptime_s": now - s.started,
        "in_flight": len(s.ledger.requests),
        "waiting": s.ledger.waiting,
        "places": s.ledger.tenants.places,
        "waiting_bytes": s.ledger.waiting_bytes,
        "max_depth": s.policy.max_depth,
        "max_bytes": s.policy.max_bytes,
        "retry_after_s": s.admission.retry_after(now),
        "tenants": s.ledger.tenants.counts(),
        "workers": _workers(s, now),
        "devices": _devices(s, now),
        "cache": {"entries": len(s.cache), "bytes": s.cache.bytes, "max_entries": s.cache.max_entries},
        "labels": {"sets": len(s.labels), "bytes": s.labels.bytes, "max_sets": s.policy.max_label_sets},
        "quarantine": len(s.quarantine),
        "frontends": len(s.frontends),
        "lost_workers": [list(lost) for lost in s.recovery.lost_workers(now)],
        "gauges": _gauges(s, now),
        "metrics": s.metrics.snapshot(),
    }


def _workers(s: Scheduler, now: float) -> list[dict[str, Any]]:
    return [
        {
            "name": w.hello.worker,
            "pid": w.hello.pid,
            "device": w.hello.device_id,
            "encoder": w.hello.encoder,
            "state": "suspended" if now < w.breaker.suspended_until else w.state.value,
            "in_flight": sum(len(run.jobs) for run in w.inflight),
            "batches": w.batches,
            "cosine": w.cosine,
            "silent_s": now - w.last_seen,
        }
        for w in s.pool.workers.values()
    ]


def _devices(s: Scheduler, now: float) -> list[dict[str, Any]]:
    return [
        {
            "id": d.id,
            "workers": len(d.workers),
            "in_flight": d.inflight,
            "busy_s": max(0.0, d.busy_until - now) if d.inflight else 0.0,
        }
        for d in s.pool.devices.values()
    ]


def _gauges(s: Scheduler, now: float) -> list[list[Any]]:
    """Values for shared.metrics.GAUGES as [name, labels, value]."""
    ready_devices = {w.hello.device_id for w in s.pool.ready(now)}
    gauges: list[list[Any]] = [
        ["up", [], 1],
        ["ready", [], int(s.health(now)[0] == "ready")],
        ["model_info", [s.policy.model, s.policy.encoder, s.policy.fingerprint], 1],
        ["uptime_seconds", [], now - s.started],
        ["queue_depth", [], s.ledger.waiting],
        ["queue_places", [], s.ledger.tenants.places],
        ["queue_limit", [], s.policy.max_depth],
        ["queue_bytes", [], s.ledger.waiting_bytes],
        ["queue_limit_bytes", [], s.policy.max_bytes],
        ["in_flight", [], len(s.ledger.requests)],
        ["tenants_waiting", [], len(s.ledger.tenants)],
        ["devices", [], len(ready_devices)],
        ["prompt_cache_entries", [], len(s.cache)],
        ["prompt_cache_bytes", [], s.cache.bytes],
        ["label_sets", [], len(s.labels)],
        ["label_sets_bytes", [], s.labels.bytes],
    ]
    for state in (WorkerState.LOADING, WorkerState.READY, WorkerState.STOPPING):
        gauges.append(["workers", [state.value], s.pool.count(state)])
    return gauges
