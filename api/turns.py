"""Whose image is decoded next. Pure.

A thread is given to the tenant that has used the least thread time for its weight; one that was idle starts
level with the least of those that wait, so that idling earns nothing. Only `backlog` jobs may wait: when they
do, the tenant with the most waiting jobs for its weight gives its newest up to one that has clearly fewer.
The same aims as the broker's fair queue has for devices, for the step before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One piece of work of a tenant, whose share is `weight` relative to others."""

    tenant: str
    weight: float = 1.0


@dataclass(slots=True)
class _Tenant:
    """Thread time used, in seconds for a weight of 1, and what waits and runs."""

    used: float
    waiting: deque[Job] = field(default_factory=deque)
    running: int = 0


class Turns:
    """See the module's text.

    Args:
        threads: jobs that run at once.
        backlog: jobs that may wait.
    """

    def __init__(self, threads: int, backlog: int) -> None:
        self._threads, self._backlog = threads, backlog
        self._tenants: dict[str, _Tenant] = {}
        self._waiting = 0
        self._running = 0
        self._level = 0.0

    def __len__(self) -> int:
        """Jobs that wait or run."""
        return self._waiting + self._running

    def enter(self, job: Job) -> Job | None:
        """`job` arrives; gives the job that has no place now, perhaps itself, None when there is room."""
        refused = None
        if self._waiting >= self._backlog and self._running >= self._threads:
            refused = self._victim(job)
            if refused is job:
                return job
            self.leave(refused)
        tenant = self._tenants.get(job.tenant)
        if tenant is None:
            tenant = self._tenants[job.tenant] = _Tenant(self._level)
        tenant.waiting.append(job)
        self._waiting += 1
        return refused

    def next(self) -> Job | None:
        """The job that starts now, if one waits and a thread is free."""
        if self._running >= self._threads or not self._waiting:
            return None
        tenant = min((t for t in self._tenants.values() if t.waiting), key=lambda t: t.used)
        self._level = max(self._level, tenant.used)
        tenant.running += 1
        self._waiting -= 1
        self._running += 1
        return tenant.waiting.popleft()

    def finished(self, job: Job, seconds: float) -> None:
        """`job`, which ran, took `seconds` of a thread."""
        tenant = self._tenants[job.tenant]
        tenant.used += seconds / job.weight
        tenant.running -= 1
        self._running -= 1
        self._forget(job.tenant)

    def leave(self, job: Job) -> None:
        """Nobody wants `job` any more; one that runs or is done is none of this method's business."""
        tenant = self._tenants.get(job.tenant)
        if tenant is not None and job in tenant.waiting:
            tenant.waiting.remove(job)
            self._waiting -= 1
            self._forget(job.tenant)

    def check_invariants(self) -> None:
        """Raise AssertionError unless the books agree. For tests."""
        assert self._waiting == sum(len(t.waiting) for t in self._tenants.values())
        assert self._running == sum(t.running for t in self._tenants.values())
        assert 0 <= self._running <= self._threads
        assert self._waiting <= self._backlog + self._threads
        assert all(t.waiting or t.running for t in self._tenants.values())

    def _victim(self, job: Job) -> Job:
        """The newest job of who would have the most waiting, with `job` counted."""
        own = self._tenants.get(job.tenant)
        crowd, victim = ((len(own.waiting) if own else 0) + 1) / job.weight, job
        for tenant in self._tenants.values():
            if tenant.waiting and len(tenant.waiting) / tenant.waiting[-1].weight > crowd:
                victim = tenant.waiting[-1]
                crowd = len(tenant.waiting) / victim.weight
        return victim

    def _forget(self, name: str) -> None:
        """Drop the books of a tenant without jobs; it comes back at the level of the others."""
        tenant = self._tenants[name]
        if not tenant.waiting and not tenant.running:
            del self._tenants[name]
