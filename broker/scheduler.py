"""The broker's mind: messages and time in, messages out. No sockets, no clock, no threads.

`Scheduler.from_frontend`, `from_worker`, `unreachable` and `tick` take an event and the time (seconds of
a monotonic clock) and change the state; `flush` dispatches and returns the actions (`Send`, `Note`) in
order, ticking when it is time; what is due before it can be had from `answers`. `wake_at` says when it next
has something to do.

The parts: `admission` (who is let in), `ledger` (who waits for what; exactly one answer each),
`fairqueue` (whose turn it is), `dispatcher` (which batch goes where, when), `pool` (workers and devices),
`recovery` (losses, retries, quarantine), `costs` (what a batch takes), `promptcache`, `labels`,
`frontends` (who is connected).
"""

from __future__ import annotations

from hailo_clip.broker.admission import Admission
from hailo_clip.broker.costs import CostModel
from hailo_clip.broker.dispatcher import Dispatcher
from hailo_clip.broker.fairqueue import FairQueue
from hailo_clip.broker.frontends import Frontends
from hailo_clip.broker.labels import LabelStore
from hailo_clip.broker.ledger import Ledger
from hailo_clip.broker.policy import Policy
from hailo_clip.broker.pool import Pool
from hailo_clip.broker.promptcache import PromptCache
from hailo_clip.broker.quarantine import Quarantine
from hailo_clip.broker.recovery import Recovery
from hailo_clip.broker.states import WorkerState
from hailo_clip.broker.work import Action, Job, Send
from hailo_clip.broker.workforce import Workforce
from hailo_clip.shared import messages as m
from hailo_clip.shared.metrics import Metrics

_TICK_S = 0.25
_STALL_S = 1.0


class Scheduler:
    """See the module docstring."""

    def __init__(self, policy: Policy, now: float) -> None:
        self.policy = policy
        self.metrics = Metrics()
        self.costs = CostModel(policy.max_batch)
        self.cache = PromptCache(policy.cache_entries)
        self.labels = LabelStore(policy)
        self.pool = Pool(policy.inflight_per_device)
        self.quarantine = Quarantine(policy.quarantine_s)
        self.outbox: list[Action] = []
        queue: FairQueue[Job] = FairQueue(self.costs.item)
        self.ledger = Ledger(queue, self.cache, self.metrics, self.outbox, policy.note_endings)
        self.admission = Admission(policy, self.ledger, self.pool, self.costs, self.quarantine)
        self.dispatcher = Dispatcher(policy, self.ledger, self.pool, self.costs, self.metrics, self.outbox)
        self.recovery = Recovery(
            self.ledger, self.pool, self.dispatcher, self.quarantine, self.metrics, self.outbox
        )
        self.workforce = Workforce(
            policy, self.ledger, self.pool, self.costs, self.recovery, self.metrics, self.outbox
        )
        self.frontends = Frontends(policy.broker_epoch)
        self.started = now
        self._ticked = now

    # Events from frontends

    def from_frontend(self, now: float, peer: bytes, message: m.FromFrontend) -> None:
        """A frontend's message; `Control` is the shell's, which answers it with a snapshot."""
        self.workforce.learn()
        self.frontends.heard(now, peer)
        match message:
            case m.Submit():
                self._submit(now, peer, message)
            case m.Cancel():
                self.ledger.cancel((peer, message.request_id))
            case m.Ping():
                former = self.frontends.former(peer, message.session)
                if former is not None:  # its connection broke: it sends again what it had in flight there
                    self._frontend_gone(former)
                for endpoint, code, count in message.http:
                    self.metrics.count("requests_total", endpoint, str(code), by=count)
                self.outbox.append(Send("frontend", peer, self._pong(now, peer, message.seq)))
            case m.Control():
                if message.verb == "drain":
                    self.admission.draining = True
            case _:
                self.outbox.append(Send("frontend", peer, self.labels.answer(message)))

    def _submit(self, now: float, peer: bytes, submit: m.Submit) -> None:
        if (peer, submit.request_id) in self.ledger.requests:
            return  # sent again after a reconnection: the first one is still being answered
        if self.ledger.tenants.places >= self.policy.max_depth:
            self.ledger.expire(now)
            self._dispatch(now)  # places may be free that this round's messages did not use yet
        refusal = self.admission.admit(now, peer, submit)
        if refusal is not None:
            self.metrics.count("rejected_total", refusal.code)
            self.outbox.append(Send("frontend", peer, m.Refused(submit.request_id, refusal.to_wire())))

    # Events from workers and the shell

    def from_worker(self, now: float, peer: bytes, message: m.FromWorker) -> None:
        """A worker's message."""
        self.workforce.learn()
        self.workforce.message(now, peer, message)

    def unreachable(self, now: float, plane: str, peer: bytes) -> None:
        """A message to `peer` could not be delivered: it is gone."""
        self.metrics.count("undeliverable_total", plane)
        if plane == "frontend":
            self._frontend_gone(peer)
        else:
            self.workforce.unreachable(now, peer)

    def malformed(self, plane: str) -> None:
        """A message that does not follow the protocol came in."""
        self.metrics.count("protocol_errors_total", plane)

    def tick(self, now: float) -> None:
        """Time passed: expire, and give up who has been silent or has run for too long."""
        self._forgive_own_stall(now)
        self._ticked = now
        self.ledger.expire(now)
        self.quarantine.expire(now)
        self.workforce.tick(now)
        for peer in self.frontends.silent(now - self.policy.frontend_silence_s):
            self._frontend_gone(peer)

    def flush(self, now: float) -> list[Action]:
        """Dispatch what can be, and hand out the actions gathered since the last call."""
        self.workforce.learn()
        if now >= self._ticked + _TICK_S:
            self.tick(now)
        self.ledger.expire(now)
        self._dispatch(now)
        return self.answers()

    def answers(self) -> list[Action]:
        """Hand out what is gathered already: answers need not wait for what `flush` still has to do."""
        actions = self.outbox.copy()
        self.outbox.clear()
        return actions

    def wake_at(self, now: float) -> float:
        """When to call `flush` next, if nothing arrives before."""
        times = [self._ticked + _TICK_S]
        if self.dispatcher.stage_at is not None:
            times.append(self.dispatcher.stage_at)
        if (deadline := self.ledger.next_deadline()) is not None:
            times.append(deadline)
        return max(now, min(times))

    def health(self, now: float) -> tuple[str, str]:
        """("starting" | "ready" | "unhealthy" | "draining", why)."""
        if self.admission.draining:
            return "draining", "the service is shutting down"
        if self.pool.any_ready(now):
            return "ready", ""
        if not self.workforce.ever_ready and not self.recovery.last_loss:
            loading = self.pool.count(WorkerState.LOADING)
            if loading:
                return "starting", f"workers loading the model: {loading}"
            if now < self.started + self.policy.starting_s:
                return "starting", "no worker has connected yet"
        return "unhealthy", self.recovery.last_loss or "no worker is connected"

    def check_invariants(self) -> None:
        """Raise AssertionError unless every part's books agree. For tests."""
        self.ledger.check_invariants()
        self.labels.check_invariants()
        self.pool.check_invariants()

    def _pong(self, now: float, peer: bytes, seq: int) -> m.Pong:
        p = self.policy
        state, reason = self.health(now)
        ready = len(self.pool.ready(now))
        session = self.frontends.session(peer)
        return m.Pong(seq, session, state, reason, ready, p.model, p.fingerprint, p.encoder)

    def _dispatch(self, now: float) -> None:
        before = self.ledger.departures
        self.dispatcher.run(now)
        self.admission.departed(now, self.ledger.departures - before)
        if not self.ledger.requests:
            self.ledger.queue.settle()

    def _forgive_own_stall(self, now: float) -> None:
        """When the broker itself was paused, nobody else was silent in that time."""
        gap = now - self._ticked - _TICK_S
        if gap >= _STALL_S:
            self.workforce.forgive(now, gap)
            self.frontends.forgive(gap)

    def _frontend_gone(self, peer: bytes) -> None:
        self.frontends.gone(peer)
        for key in self.ledger.of_frontend(peer):
            self.ledger.cancel(key)
