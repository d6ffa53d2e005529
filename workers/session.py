"""What a worker says to the broker and when: a pure state machine, time is an argument.

=========  ==========================================================================================
phase      meaning
=========  ==========================================================================================
JOINING    `Hello` sent (again every second, with the same epoch) until `Welcome` comes
SERVING    registered; beats; `Ready` once the model is loaded and its canary passed; takes batches
LEAVING    `Leave` sent; finishes what it has; `Bye` once the broker's `Stop` came and nothing is left
DONE       an `Exit` was given
=========  ==========================================================================================

A fence, an unknown broker epoch or a silent broker starts a new registration with a new epoch; results
of batches of an older epoch are dropped, since the broker has long sent their items to somebody else. An
encoder that is loaded has to pass its canary again then: it may hang in the very batch that the broker gave
this worker up for. If the canary does not come back, the worker ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from hailo_clip.shared import messages as m
from hailo_clip.workers.watch import Watch

JOIN_AGAIN_S = 1.0
LEAVE_S = 1.0
"""How long the broker has to answer a farewell; less than a supervisor in a hurry waits."""


class Phase(Enum):
    """See the module docstring."""

    JOINING = "joining"
    SERVING = "serving"
    LEAVING = "leaving"
    DONE = "done"


class ExitCode(IntEnum):
    """Why the worker process ends, as its exit status.

    HELD: the device can't be used now, and time may mend it: another program has it, or it was lost.
    UNFIT: device, driver, files and model do not fit each other; somebody has to mend that first.
    """

    FINE = 0
    FAILED = 1
    REJECTED = 3
    FENCED = 4
    STUCK = 5
    HELD = 6
    UNFIT = 7


@dataclass(frozen=True, slots=True)
class Say:
    """An action: send this to the broker."""

    message: m.FromWorker


@dataclass(frozen=True, slots=True)
class Encode:
    """An action: hand this batch to the encoder's thread."""

    batch: m.Batch


@dataclass(frozen=True, slots=True)
class RunCanary:
    """An action: let the encoder's thread run the canary."""


@dataclass(frozen=True, slots=True)
class Exit:
    """An action: end the process, after what was said has left."""

    code: ExitCode
    reason: str


Action = Say | Encode | RunCanary | Exit


class Session:
    """See the module docstring.

    Args:
        hello: the registration; its epoch is replaced by `new_epoch()` each time.
        new_epoch: gives a random string.
        now: seconds of a monotonic clock, as in every call.
    """

    def __init__(self, hello: m.Hello, new_epoch: Callable[[], str], now: float) -> None:
        self._hello = hello
        self._new_epoch = new_epoch
        self._actions: list[Action] = []
        self._heartbeat_s = 1.0
        self._liveness = 3
        self._broker_epoch = ""
        self._stopped = False
        self._busy = 0
        self._watch = Watch(now)
        self._batches: m.Timings = ()
        self._leave_by = 0.0
        self._heard = now
        self._next = now
        self.phase = Phase.JOINING
        self._join(now)

    @property
    def epoch(self) -> str:
        """The registration's epoch."""
        return self._hello.epoch

    def actions(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    def wake_at(self) -> float:
        """When `tick` next has something to do."""
        return self._next

    def received(self, now: float, message: m.ToWorker) -> None:
        """A message of the broker; those of another epoch are ignored."""
        if message.epoch != self.epoch or self.phase is Phase.DONE:
            return
        self._heard = now
        match message:
            case m.Welcome():
                self._welcome(now, message)
            case m.Batch():
                self._busy += 1
                self._watch.busy(now)
                self._actions.append(Encode(message))
            case m.BeatAck():
                if message.broker_epoch != self._broker_epoch and self.phase is not Phase.JOINING:
                    self._broker_lost(now)
            case m.Fence():
                self._fenced(now, message)
            case m.Reject():
                self._exit(ExitCode.REJECTED, f"the broker rejected this worker: {message.reason}")
            case m.Stop():
                self._stopped = True
                self._leave_if_done()

    def loaded(self, now: float, cosine: float, batches: m.Timings = ()) -> None:
        """The model is loaded (or the canary ran again): its canary passed with this cosine, in `batches`."""
        self._watch.passed(now, cosine, sum(seconds for _, seconds in batches))
        self._batches = batches
        if self.phase is Phase.SERVING:
            self._say(m.Ready(self.epoch, cosine, batches))

    def failed(self, reason: str, code: ExitCode = ExitCode.FAILED) -> None:
        """The encoder can't be used (any more); the broker hears why, also right behind a `Hello`."""
        if self.phase is not Phase.DONE:
            self._say(m.Failed(self.epoch, reason, code in (ExitCode.HELD, ExitCode.UNFIT)))
        self._exit(code, reason)

    def encoded(self, now: float, result: m.Result) -> None:
        """The encoder's thread is done with a batch; dropped when its epoch is over."""
        self._watch.worked(now, result.device_s)
        if result.epoch == self.epoch and self.phase in (Phase.SERVING, Phase.LEAVING):
            self._busy -= 1
            self._say(result)
            self._leave_if_done()

    def leave(self, now: float) -> None:
        """The process was told to end."""
        if self.phase is Phase.SERVING:
            self.phase = Phase.LEAVING
            self._leave_by = now + LEAVE_S
            self._next = min(self._next, self._leave_by)
            self._say(m.Leave(self.epoch))
        elif self.phase is Phase.JOINING:
            self._exit(ExitCode.FINE, "told to stop before it was registered")

    def tick(self, now: float) -> None:
        """Time passed: beat, join again, or notice that the broker is gone."""
        if now < self._next or self.phase is Phase.DONE:
            return
        if self.phase is not Phase.LEAVING:
            turn_s = JOIN_AGAIN_S if self.phase is Phase.JOINING else self._heartbeat_s
            if stuck := self._watch.waits(turn_s):
                self.failed(stuck, ExitCode.STUCK)
                return
        if self.phase is Phase.JOINING:
            self._say(self._hello)
            self._next = now + JOIN_AGAIN_S
            return
        if now - self._heard > self._heartbeat_s * self._liveness:
            self._broker_lost(now)
            return
        if self.phase is Phase.LEAVING and not self._stopped and now >= self._leave_by:
            self._exit(ExitCode.FINE, "the broker did not answer the farewell")
            return
        self._say(m.Beat(self.epoch))
        self._next = now + self._heartbeat_s
        self._canary_if_due(now)

    def _canary_if_due(self, now: float) -> None:
        if self.phase is not Phase.LEAVING and self._watch.due(now, busy=self._busy > 0):
            self._watch.started()
            self._actions.append(RunCanary())

    def _join(self, now: float) -> None:
        self._hello = replace(self._hello, epoch=self._new_epoch())
        self._busy = 0
        self.phase = Phase.JOINING
        self._heard = now
        self._next = now + JOIN_AGAIN_S
        self._say(self._hello)
        self._watch.doubt()
        self._canary_if_due(now)

    def _welcome(self, now: float, welcome: m.Welcome) -> None:
        if self.phase is not Phase.JOINING:
            return
        self.phase = Phase.SERVING
        self._broker_epoch = welcome.broker_epoch
        self._heartbeat_s = welcome.heartbeat_s
        self._next = now + welcome.heartbeat_s
        if self._watch.cosine is not None and self._watch.proved(now):
            self._say(m.Ready(self.epoch, self._watch.cosine, self._batches))
        else:
            self._watch.doubt()
            self._canary_if_due(now)

    def _fenced(self, now: float, fence: m.Fence) -> None:
        if fence.final:
            self._exit(ExitCode.FENCED, f"given up by the broker: {fence.reason}")
        elif self.phase is Phase.LEAVING:
            self._exit(ExitCode.FINE, "given up by the broker while leaving")
        else:
            self._join(now)

    def _broker_lost(self, now: float) -> None:
        if self.phase is Phase.LEAVING:
            self._exit(ExitCode.FINE, "the broker is gone")
        else:
            self._join(now)

    def _leave_if_done(self) -> None:
        if self.phase is Phase.LEAVING and self._stopped and not self._busy:
            self._say(m.Bye(self.epoch))
            self._exit(ExitCode.FINE, "left in good order")

    def _say(self, message: m.FromWorker) -> None:
        self._actions.append(Say(message))

    def _exit(self, code: ExitCode, reason: str) -> None:
        if self.phase is not Phase.DONE:
            self.phase = Phase.DONE
            self._actions.append(Exit(code, reason))
