"""The life of the whole service as a pure state machine: events in, actions out, time as an argument.

Phases::

    STARTING --ready--> SERVING --stop--> DRAINING --empty or too late--> STOPPING --all gone--> DONE
        |                                    ^                               ^
        +--------------- stop ---------------+         stop again -----------+

- Children that die are started again with back-off (restarts.py) until the service drains; then only
  workers are, because accepted requests may need them. A worker whose device is held or lost, or whose
  device and files do not fit, says so by its exit code and gets more time (`PAUSE_S`).
- A worker that the broker has given up for `LOST_S` and that still lives is killed: it hangs.
- A broker that leaves `UNANSWERED` questions in a row open hangs, and is killed.
- Draining: the broker refuses new requests and answers those it accepted. It ends when nothing is in
  flight, when `drain_s` passed, or when the broker died or stopped answering.
- Stopping: SIGTERM to the api, then to the workers, then to the broker, each role when the one before is
  gone; SIGKILL to what outlives its bound. A second wish to stop sends SIGTERM to all at once, a third
  SIGKILL.
- A child that exits with code 2 before the service was ever ready found its configuration wrong; as a
  restart would find the same, the service stops with code 2.

The caller does the actions, and reports what happens as further events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hailo_clip.ops.restarts import Policy, Restarts

ROLES = ("api", "worker", "broker")
"""The order in which they stop: requests come in at the first."""

STOP_S: Mapping[str, float] = {"api": 10.0, "worker": 12.0, "broker": 5.0}
"""Seconds from SIGTERM to SIGKILL."""

HURRY_S = 2.0
LOST_S = 5.0
SILENT_S = 3.0
UNANSWERED = 10
EXIT_CONFIG = 2
PAUSE_S: Mapping[int, float] = {6: 5.0, 7: 15.0}
"""Least seconds until a worker is started again, by its exit code (`workers.session.ExitCode`): HELD, since
a device serves another opener for 5 s, and UNFIT, which time alone does not mend."""


class Phase(Enum):
    """Where the service is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Child:
    """A process of the service: its name, its role (one of `ROLES`) and its command."""

    name: str
    role: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """What the broker said about itself: see `hailo_clip.ops.broker_link.pool_of`."""

    state: str
    reason: str = ""
    ready_workers: int = 0
    in_flight: int = 0
    lost: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the child; report `spawned`, or `exited` when that fails."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send the child SIGTERM."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send the child and all of its group SIGKILL."""

    name: str


@dataclass(frozen=True, slots=True)
class AskDrain:
    """Tell the broker to drain."""


@dataclass(frozen=True, slots=True)
class Say:
    """Log `text` at `level` ("info", "warning", "error") with `fields`."""

    level: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell people and systemd the new state: "ready", "unhealthy" or "stopping", and why."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do; exit with `code`."""

    code: int


Action = Spawn | Terminate | Kill | AskDrain | Say | Announce | Done


@dataclass(slots=True)
class _Process:
    """A child and what became of it. Alive: `pid` is set. Waiting for its restart: `due` is set."""

    child: Child
    restarts: Restarts
    pid: int | None = None
    due: float | None = None
    lost_since: float | None = None
    kill_at: float | None = None
    killed: bool = False


class Lifecycle:
    """See the module's text.

    Args:
        children: in the order in which they are started.
        drain_s: most seconds that draining may take.
        policy: when children are restarted.
    """

    def __init__(self, children: Sequence[Child], drain_s: float, policy: Policy | None = None) -> None:
        chosen = policy or Policy()
        self.phase = Phase.STARTING
        self._processes = {c.name: _Process(c, Restarts(chosen)) for c in children}
        self._drain_s = drain_s
        self._drain_until = 0.0
        self._heard_at = 0.0
        self._unanswered = 0
        self._announced = ""
        self._wishes = 0
        self._code = 0

    # Events

    def start(self, now: float) -> list[Action]:
        """Begin: start every child."""
        self._heard_at = now
        return [Spawn(name) for name in self._processes]

    def spawned(self, name: str, pid: int, now: float) -> list[Action]:
        """The child `name` runs as `pid`."""
        process = self._processes[name]
        process.pid, process.due, process.lost_since = pid, None, None
        process.kill_at, process.killed = None, False
        process.restarts.started(now)
        if process.child.role == "broker":
            self._unanswered = 0
        return [Say("info", f"started {name}", {"child_pid": pid}), *self._proceed(now)]

    def exited(self, name: str, code: int | None, reason: str, now: float) -> list[Action]:
        """The child `name` is gone (or could not be started), with an exit code where there is one."""
        process = self._processes[name]
        process.pid = None
        if self.phase is Phase.STARTING and code == EXIT_CONFIG:
            self._code = EXIT_CONFIG
            text = f"{name} found its configuration wrong (see above), so a restart is no help"
            return [Say("error", text), *self._stopping(now)]
        if not self._restarts(process.child):
            return [Say("info", f"{name} is gone", {"reason": reason}), *self._proceed(now)]
        delay = process.restarts.died(now)
        if process.child.role == "worker":
            delay = max(delay, PAUSE_S.get(code or 0, 0.0))
        process.due = now + delay
        text = f"{name} died ({reason}); it is started again in {delay:g} s"
        return [Say("warning", text, {"reason": reason, "delay_s": delay}), *self._proceed(now)]

    def heard(self, pool: Pool, now: float) -> list[Action]:
        """The broker answered."""
        self._heard_at, self._unanswered = now, 0
        if self.phase is Phase.DRAINING and pool.in_flight == 0 and pool.state == "draining":
            return [Say("info", "drained: every accepted request is answered"), *self._stopping(now)]
        actions = self._judge_lost(pool.lost, now)
        if self.phase is Phase.SERVING:
            actions += self._announce("ready" if pool.state == "ready" else "unhealthy", pool.reason)
        return actions

    def unanswered(self) -> list[Action]:
        """A question to the broker got no answer in its time."""
        self._unanswered += 1
        hung = [p for p in self._alive() if p.child.role == "broker" and not p.killed]
        if self.phase not in (Phase.STARTING, Phase.SERVING) or self._unanswered < UNANSWERED or not hung:
            return []
        hung[0].killed = True
        text = f"the broker hangs: {self._unanswered} questions in a row without an answer; killing it"
        return [Say("warning", text), Kill(hung[0].child.name)]

    def answers_http(self, now: float) -> list[Action]:
        """The REST API answered that it is healthy: a canary passed, and requests get through."""
        if self.phase is not Phase.STARTING:
            return []
        self.phase = Phase.SERVING
        return self._announce("ready", "")

    def stop_wished(self, reason: str, now: float) -> list[Action]:
        """Somebody wants the service to stop; each further wish makes it faster."""
        self._wishes += 1
        if self._wishes == 1 and self.phase in (Phase.STARTING, Phase.SERVING):
            return self._draining(reason, now)
        if self._wishes >= 3:
            return self._kill_all()
        if self.phase is Phase.DRAINING:
            return [Say("warning", f"{reason} again: not waiting any longer"), *self._stopping(now)]
        return self._proceed(now)

    def tick(self, now: float) -> list[Action]:
        """Time passed."""
        actions = self._proceed(now)  # first, because it may end all restarts
        for process in self._processes.values():
            if process.due is not None and process.due <= now:
                process.due = None
                actions.append(Spawn(process.child.name))
        return actions

    def wakes_at(self) -> float | None:
        """When `tick` wants to be called next, None when nothing is planned."""
        times = [t for p in self._processes.values() for t in (p.due, p.kill_at) if t is not None]
        if self.phase is Phase.DRAINING:
            times += [self._drain_until, max(self._heard_at, self._drain_until - self._drain_s) + SILENT_S]
        return min(times, default=None)

    # Inside

    def _alive(self) -> list[_Process]:
        return [p for p in self._processes.values() if p.pid is not None]

    def _restarts(self, child: Child) -> bool:
        if self.phase in (Phase.STARTING, Phase.SERVING):
            return True
        return self.phase is Phase.DRAINING and child.role == "worker"

    def _announce(self, state: str, reason: str) -> list[Action]:
        """An `Announce` when the state is another than the one announced last."""
        if state == self._announced:
            return []
        self._announced = state
        return [Announce(state, reason)]

    def _judge_lost(self, lost: frozenset[tuple[str, int]], now: float) -> list[Action]:
        """Kill workers of ours that live although the broker has given them up for `LOST_S`."""
        actions: list[Action] = []
        for process in self._alive():
            if process.child.role != "worker" or (process.child.name, process.pid) not in lost:
                process.lost_since = None
                continue
            process.lost_since = now if process.lost_since is None else process.lost_since
            if now - process.lost_since >= LOST_S and not process.killed:
                process.killed = True
                name = process.child.name
                text = f"{name} hangs: it lives, and the broker has not heard from it; killing it"
                actions += [Say("warning", text, {"child_pid": process.pid}), Kill(name)]
        return actions

    def _kill_all(self) -> list[Action]:
        alive = self._alive()
        for process in alive:
            process.killed, process.kill_at = True, None
        return [Kill(process.child.name) for process in alive]

    def _draining(self, reason: str, now: float) -> list[Action]:
        self.phase = Phase.DRAINING
        self._drain_until = now + self._drain_s
        text = f"{reason}: accepted requests are answered, new ones get 503"
        return [Say("info", text), *self._announce("stopping", reason), AskDrain(), *self._proceed(now)]

    def _stopping(self, now: float) -> list[Action]:
        self.phase = Phase.STOPPING
        for process in self._processes.values():
            process.due = None
        return [*self._announce("stopping", ""), *self._proceed(now)]

    def _proceed(self, now: float) -> list[Action]:
        """What time or a death makes possible while draining and stopping."""
        if self.phase is Phase.DRAINING:
            why = self._drain_ended(now)
            return [Say("warning", f"draining ends: {why}"), *self._stopping(now)] if why else []
        if self.phase is not Phase.STOPPING:
            return []
        if not self._alive():
            self.phase = Phase.DONE
            return [Done(self._code)]
        return self._terminate(now)

    def _drain_ended(self, now: float) -> str:
        """Why draining has no point any longer, empty while it has."""
        if not any(p.child.role == "broker" for p in self._alive()):
            return "the broker is gone"
        if now >= self._drain_until:
            return f"it took longer than {self._drain_s:g} s"
        if now - max(self._heard_at, self._drain_until - self._drain_s) >= SILENT_S:
            return "the broker does not answer"
        return ""

    def _terminate(self, now: float) -> list[Action]:
        """SIGTERM to the first role that is alive (to all in a hurry), SIGKILL to what outlived its bound."""
        actions: list[Action] = []
        hurry = self._wishes >= 2
        present = [role for role in ROLES if any(p.child.role == role for p in self._alive())]
        for process in self._alive():
            if not process.killed and (hurry or process.child.role == present[0]):
                actions += self._end(process, hurry, now)
        return actions

    def _end(self, process: _Process, hurry: bool, now: float) -> list[Action]:
        """The next step against one child: SIGTERM, later SIGKILL, or nothing yet."""
        name = process.child.name
        bound = HURRY_S if hurry else STOP_S[process.child.role]
        if process.kill_at is None:
            process.kill_at = now + bound
            return [Terminate(name)]
        process.kill_at = min(process.kill_at, now + bound)
        if now < process.kill_at:
            return []
        process.killed, process.kill_at = True, None
        return [Say("warning", f"{name} does not stop; killing it"), Kill(name)]
