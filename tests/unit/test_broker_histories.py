"""Random histories of the whole broker: whatever comes in whatever order, the promises hold.

After every step the scheduler's own books must agree (`check_invariants`), and so must those of this file,
which go by what the broker was told and what it said: one right answer for each request by its deadline, the
queue's bounds, bounded attempts, no idle device while work waits. At the end of each history everything must
come to an end, and nothing may be left behind.

``HAILO_CLIP_HISTORIES=20000 pytest tests/unit/test_broker_histories.py`` runs more than the usual few.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import msgpack
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hailo_clip.broker.recovery import MAX_LOSSES, MAX_RUNS
from hailo_clip.broker.scheduler import Scheduler
from hailo_clip.broker.snapshot import snapshot
from hailo_clip.broker.states import JobState, RequestState
from hailo_clip.broker.work import RequestKey
from hailo_clip.shared import messages as m
from hailo_clip.shared.messages import Kind
from tests.doubles.broker_world import (
    DIMENSION,
    ENCODER_ERROR,
    Item,
    PaperWorker,
    World,
    check_reply,
    embedding,
    image,
    prompt,
)

FRONTENDS = [b"frontend-0", b"frontend-1"]
NAMES = ["w0", "w1", "w2", "w3"]
DEVICES = ["d0", "d1"]
TTLS = [30.0, 8.0, 2.0, 0.3, 0.02, 0.001, 300.0, 0.0, -1.0]
CODES = {
    "internal",
    "draining",
    "model_mismatch",
    "unavailable",
    "queue_full",
    "deadline_unreachable",
    "deadline_exceeded",
}
OVERLOAD = {"queue_full", "deadline_unreachable"}
ITEM_CODES = {"inference_failed", "quarantined"}
FORGED = Item(Kind.IMAGE, b"never sent!!")
TWIN = Item(Kind.IMAGE, b"poison twin!")
POISON = {image(n).payload for n in (3, 10, 17, 24, 31)} | {prompt(9, 9).payload, TWIN.payload}
"""What kills whoever runs it; all images but `TWIN` come once."""

SHARED = {f"p{n}": prompt(1, n) for n in (1, 2, 3)} | {"poison prompt": prompt(9, 9), "poison twin": TWIN}
ITEMS = ["image", "new", *SHARED]


def once(payload: bytes) -> bool:
    """True for an image that only one item ever had."""
    return len(payload) == 12 and payload != TWIN.payload


def wrong_frames(how: str, count: int) -> tuple[bytes, ...]:
    """A payload of embeddings that no sound worker gives for `count` items."""
    rows = np.full((count, DIMENSION), 0.5, np.float32)
    if how == "none":
        return ()
    if how == "short":
        return (rows.tobytes()[:-4],)
    if how == "long":
        return (rows.tobytes() + b"\0\0\0\0",)
    spot = {"nan": np.nan, "inf": np.inf, "huge": 3e38, "off": 0.6}
    rows[-1, 0] = spot[how]
    return (rows.tobytes(),)


class Histories(RuleBasedStateMachine):
    """See the module docstring.

    Attributes:
        pending: deadline of each request that still has an answer to come.
        ran: how often each image was in a batch that was lost, or failed, while it ran.
        turns: since when, at the latest, each batch is the first of its worker.
        over: batches that nobody waits for any more: answered, or of workers given up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.images = 0
        self.pending: dict[RequestKey, float] = {}
        self.dispatches: Counter[bytes] = Counter()
        self.ran: Counter[bytes] = Counter()
        self.turns: dict[int, float] = {}
        self.over: list[tuple[PaperWorker, m.Batch]] = []
        self.steps = 0

    @property
    def scheduler(self) -> Scheduler:
        return self.world.scheduler

    @initialize(
        depth=st.integers(1, 6),
        max_batch=st.integers(1, 4),
        inflight=st.integers(1, 3),
        cache=st.sampled_from([1000, 2, 0]),
        nbytes=st.sampled_from([1 << 20, 40, 1]),
        lead=st.sampled_from([0.005, 0.0, 10.0]),
        workers=st.integers(0, 3),
    )
    def configure(
        self, depth: int, max_batch: int, inflight: int, cache: int, nbytes: int, lead: float, workers: int
    ) -> None:
        self.world = World(
            max_depth=depth,
            max_batch=max_batch,
            inflight_per_device=inflight,
            cache_entries=cache,
            max_bytes=nbytes,
            stage_lead_s=lead,
        )
        for i in range(workers):
            self.world.worker(NAMES[i], DEVICES[i % 2], max_batch=max_batch)

    # Frontends

    def _item(self, what: str) -> Item:
        if what in SHARED:
            return SHARED[what]
        self.images += 1
        return image(self.images) if what == "image" else prompt(7, self.images)

    @rule(
        requests=st.lists(
            st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5),
            min_size=1,
            max_size=3,
        ),
        tenant=st.sampled_from(["anna", "ben", "cleo"]),
        weight=st.sampled_from([1.0, 0.01, 5.0]),
        bulk=st.booleans(),
        ttl=st.sampled_from(TTLS),
        frontend=st.sampled_from(FRONTENDS),
    )
    def requests_arrive(self, requests: list[list[str]], frontend: bytes, ttl: float, **who: Any) -> None:
        for items in requests:
            key = self.world.post(*map(self._item, items), ttl=ttl, frontend=frontend, **who)
            self.pending[key] = self.world.now + ttl
        self.world.flush()

    @rule(
        count=st.integers(6, 14),
        hurry=st.floats(0.02, 0.3),
        tenant=st.sampled_from(["anna", "ben"]),
        frontend=st.sampled_from(FRONTENDS),
    )
    def list_in_a_hurry_arrives(self, count: int, hurry: float, tenant: str, frontend: bytes) -> None:
        items = [self._item("image") for _ in range(count)]
        key = self.world.submit(*items, ttl=hurry, frontend=frontend, tenant=tenant)
        self.pending[key] = self.world.now + hurry

    @rule(how=st.sampled_from(["short image", "long image", "odd text", "long text", "model"]))
    def unusable_request_arrives(self, how: str) -> None:
        wrong = {
            "short image": Item(Kind.IMAGE, b"x"),
            "long image": Item(Kind.IMAGE, b"x" * 13),
            "odd text": Item(Kind.TEXT, b"12345"),
            "long text": Item(Kind.TEXT, b"1234" * 9),
            "model": image(0),
        }
        print_ = "another" if how == "model" else self.scheduler.policy.fingerprint
        key = self.world.post(image(0), wrong[how], fingerprint=print_)
        self.pending[key] = self.world.now + 30.0
        self.world.flush()
        assert isinstance(self.world.only(key), m.Refused)

    @precondition(lambda self: self.pending)
    @rule(pick=st.integers(0, 50), what=st.sampled_from(["image", "p1"]))
    def same_id_again(self, pick: int, what: str) -> None:
        frontend, number = self._pick(list(self.pending), pick)
        self.world.submit(self._item(what), frontend=frontend, number=number, ttl=1000.0)

    @precondition(lambda self: self.pending)
    @rule(pick=st.integers(0, 50))
    def client_goes(self, pick: int) -> None:
        key = self._pick(list(self.pending), pick)
        self.world.cancel(key)
        self.pending.pop(key)

    @rule(frontend=st.sampled_from(FRONTENDS), number=st.integers(0, 9))
    def frontend_says_something_else(self, frontend: bytes, number: int) -> None:
        key = (frontend, number + 10**6)
        self.world.cancel(key)
        self.scheduler.from_frontend(self.world.now, frontend, m.Ping(number, (("classify", 200, 1),)))
        self.scheduler.from_frontend(self.world.now, frontend, m.Control(number, "status"))
        self.scheduler.malformed("frontend")
        self.world.flush()
        assert self.world.pongs.pop().seq == number

    @rule(frontend=st.sampled_from(FRONTENDS))
    def frontend_goes(self, frontend: bytes) -> None:
        self.scheduler.unreachable(self.world.now, "frontend", frontend)
        self.world.flush()

    # Workers

    def _registered(self) -> list[PaperWorker]:
        return [w for w in self.world.workers.values() if self.world.registered(w)]

    def _busy(self) -> list[PaperWorker]:
        return [w for w in self._registered() if w.batches]

    def _pick(self, choices: list[Any], pick: int) -> Any:
        return choices[pick % len(choices)]

    @rule(name=st.sampled_from(NAMES), device=st.sampled_from(DEVICES), max_batch=st.integers(1, 4))
    def worker_starts(self, name: str, device: str, max_batch: int) -> None:
        self.world.worker(name, device, max_batch=max_batch)

    @rule(
        name=st.sampled_from(NAMES),
        grace=st.sampled_from([0.0, 2.0, 30.0]),
        wrong=st.sampled_from([{}, {"fingerprint": "another"}, {"dimension": 5}, {"max_batch": 0}]),
    )
    def worker_begins_to_load(self, name: str, grace: float, wrong: dict[str, Any]) -> None:
        worker = self.world.hello(name, **{"grace_s": grace, **wrong})
        assert self.world.registered(worker) == (not wrong)
        assert isinstance(worker.heard[-1], m.Reject if wrong else m.Welcome)

    @precondition(lambda self: self._registered())
    @rule(pick=st.integers(0, 9), same_peer=st.booleans(), same_name=st.booleans())
    def worker_registers_anew(self, pick: int, same_peer: bool, same_name: bool) -> None:
        old = self._pick(self._registered(), pick)
        name = old.hello.worker if same_name else "w9"
        peer = {"peer": old.peer} if same_peer else {}
        self.world.worker(name, old.hello.device_id, max_batch=old.hello.max_batch, **peer)
        if same_peer or old.hello.worker == name:
            assert not self.world.registered(old)
        else:
            assert self.world.registered(old) or old.peer in self.world.unroutable

    @precondition(lambda self: self._registered())
    @rule(
        pick=st.integers(0, 9),
        what=st.sampled_from(
            ["ready", "beat", "hello", "leave", "bye", "failed", "device lost", "odd result"]
        ),
    )
    def worker_says(self, pick: int, what: str) -> None:
        worker = self._pick(self._registered(), pick)
        said: dict[str, m.FromWorker] = {
            "ready": m.Ready(worker.epoch, 1.0),
            "beat": m.Beat(worker.epoch),
            "hello": worker.hello,
            "leave": m.Leave(worker.epoch),
            "bye": m.Bye(worker.epoch),
            "failed": m.Failed(worker.epoch, "out of memory"),
            "device lost": m.Failed(worker.epoch, "it does not answer", device_fault=True),
            "odd result": m.Result(worker.epoch, 10**9, 0.1, (), wrong_frames("off", 1)),
        }
        if what == "device lost":
            self._acquit(worker)
        self.world.tell(worker, said[what])
        if worker.peer not in self.world.unroutable:
            assert self.world.registered(worker) == (what not in ("bye", "failed", "device lost"))

    def _acquit(self, worker: PaperWorker) -> None:
        """The device is to blame: what the worker had counts as never sent."""
        for batch in worker.batches:
            self.dispatches.subtract(bytes(f) for f in batch.frames)
            self.over.append((worker, batch))
        worker.batches.clear()

    @precondition(lambda self: self._busy())
    @rule(pick=st.integers(0, 9), times=st.integers(1, 4), device_s=st.sampled_from([0.0, 0.01, 0.2, 1e6]))
    def worker_works(self, pick: int, times: int, device_s: float) -> None:
        for _ in range(times):
            busy = self._busy()
            if not busy:
                return
            worker = self._pick(busy, pick)
            if any(bytes(f) in POISON for f in worker.batches[0].frames):
                self._die(worker)
                return
            self.over.append((worker, worker.batches[0]))
            self.world.answer(worker, device_s=device_s)

    @precondition(lambda self: self._busy())
    @rule(pick=st.integers(0, 9), how=st.sampled_from(["short", "long", "none", "nan", "inf", "huge", "off"]))
    def worker_answers_nonsense(self, pick: int, how: str) -> None:
        worker = self._pick(self._busy(), pick)
        batch = worker.batches[0]
        self.world.tell(worker, worker.result(batch, frames=wrong_frames(how, len(batch.frames))))
        assert not self.world.registered(worker)

    @precondition(lambda self: self._busy())
    @rule(pick=st.integers(0, 9), failed=st.one_of(st.just(15), st.integers(0, 15)))
    def worker_fails_items(self, pick: int, failed: int) -> None:
        worker = self._pick(self._busy(), pick)
        batch = worker.batches[0]
        errors = [ENCODER_ERROR if failed >> i & 1 else None for i in range(len(batch.frames))]
        self.ran.update(bytes(f) for f, e in zip(batch.frames, errors, strict=True) if e is not None)
        worker.batches.pop(0)
        self.over.append((worker, batch))
        self.world.tell(worker, worker.result(batch, errors=errors))

    @precondition(lambda self: self.over)
    @rule(pick=st.integers(0, 99))
    def late_or_repeated_result_arrives(self, pick: int) -> None:
        worker, batch = self._pick(self.over, pick)
        rows = b"".join(embedding(FORGED.kind, FORGED.payload) for _ in batch.frames)
        late = self.world.metric("late_results_total")
        self.world.tell(worker, worker.result(batch, frames=(rows,)))
        assert self.world.metric("late_results_total") == late + 1

    @precondition(lambda self: self._registered())
    @rule(pick=st.integers(0, 9))
    def worker_dies(self, pick: int) -> None:
        self._die(self._pick(self._registered(), pick))

    def _die(self, worker: PaperWorker) -> None:
        self.world.now += 0.001
        self.world.unroutable.add(worker.peer)
        self.scheduler.unreachable(self.world.now, "backend", worker.peer)
        self.world.flush()

    @precondition(lambda self: self._registered())
    @rule(pick=st.integers(0, 9))
    def worker_dies_unnoticed(self, pick: int) -> None:
        """The next message to it, or its silence, will tell."""
        self.world.unroutable.add(self._pick(self._registered(), pick).peer)

    # Time

    @rule(seconds=st.sampled_from([0.001, 0.006, 0.02, 0.1, 0.25, 0.6]))
    def time_passes(self, seconds: float) -> None:
        self.world.after(seconds)

    @rule(seconds=st.sampled_from([1.3, 3.0, 12.0, 100.0]))
    def broker_stalls(self, seconds: float) -> None:
        sound = [w for w in self._registered() if self._sound(w)]
        self.world.after(seconds)
        assert all(self.world.registered(w) for w in sound), "nobody is late because the broker was"

    def _sound(self, worker: PaperWorker) -> bool:
        """Neither silent nor slow so far."""
        known, now = self.world.known(worker), self.world.now
        slow = known.inflight and now - (known.inflight[0].running_since or now) > 4.0
        return known.silent_after > now + 0.5 and not slow and worker.peer not in self.world.unroutable

    @rule(seconds=st.sampled_from([1.3, 3.0, 12.0, 100.0]), first=st.sampled_from(["request", "result"]))
    def broker_stalls_and_finds_messages(self, seconds: float, first: str) -> None:
        self.world.now += seconds
        if first == "request":
            self.requests_arrive([["image"]], FRONTENDS[0], 30.0, tenant="dora")
        elif self._busy():
            self.worker_works(0, 1, 0.01)
        else:
            self.world.flush()

    @rule(seconds=st.sampled_from([0.5, 3.5, 7.0]), beating=st.integers(0, 15))
    def life_goes_on(self, seconds: float, beating: int) -> None:
        workers = [w for i, w in enumerate(self._registered()) if beating >> i & 1]
        self.world.live(seconds, workers)

    @precondition(lambda self: self.steps > 25)
    @rule(really=st.sampled_from([False, False, False, True]))
    def operator_drains(self, really: bool) -> None:
        if really:
            self.scheduler.from_frontend(self.world.now, b"operator", m.Control(1, "drain"))
            self.world.flush()
            assert self.scheduler.health(self.world.now)[0] == "draining"

    # What must hold after every step

    @invariant()
    def books_agree(self) -> None:
        self.steps += 1
        self._read_batches()
        self._read_answers()
        self._notice_losses()
        self.scheduler.check_invariants()
        requests = self.scheduler.ledger.requests
        for key in [k for k in self.pending if k not in requests]:
            assert key[0] not in self.scheduler.frontends, f"{key} got no answer"
            self.pending.pop(key)
        assert requests.keys() == self.pending.keys()
        assert all(d > self.world.now for d in self.pending.values()), "a deadline passed without an answer"

    def _read_answers(self) -> None:
        for key, answers in self.world.answers.items():
            assert len(answers) == 1, f"{key} was answered {len(answers)} times"
            assert self.pending.pop(key, None) is not None, f"{key} was answered again, or after it left"
            answer = answers[0]
            if isinstance(answer, m.Reply):
                check_reply(self.world.asked[key], answer)
                assert {e[0] for e in answer.errors if e is not None} <= ITEM_CODES
            else:
                code, _, retry_after = answer.error
                assert code in CODES
                assert (retry_after is not None and 1 <= retry_after <= 60) == (
                    code in OVERLOAD or code in ("draining", "model_mismatch", "unavailable")
                )
        self.world.answers.clear()

    def _read_batches(self) -> None:
        for worker, batch in self.world.sent:
            count = len(batch.frames)
            assert 1 <= count <= min(self.scheduler.policy.max_batch, worker.hello.max_batch)
            assert all((len(f) == 12) == (batch.kind == Kind.IMAGE) for f in batch.frames)
            self.dispatches.update(bytes(f) for f in batch.frames)
        self.world.sent.clear()
        assert all(n <= MAX_LOSSES for p, n in self.dispatches.items() if once(p))

    def _notice_losses(self) -> None:
        """Workers that were given up in this step: what they were running ran in vain."""
        registered = {w.epoch: list(w.batches) for w in self._registered()}
        for epoch, worker in self.world.workers.items():
            if epoch not in registered and worker.batches:
                first = worker.batches[0]
                if self.turns.get(first.batch_id, self.world.now) < self.world.now:
                    self.ran.update(bytes(f) for f in first.frames)
                self.over += [(worker, batch) for batch in worker.batches]
                worker.batches.clear()
        assert all(n <= MAX_RUNS for p, n in self.ran.items() if once(p))
        for batches in registered.values():
            if batches:
                self.turns.setdefault(batches[0].batch_id, self.world.now)
            suspects = [b for b in batches if any(self.ran[bytes(f)] and once(bytes(f)) for f in b.frames)]
            assert all(len(b.frames) == 1 for b in suspects), "an item that failed must run alone"

    @invariant()
    def queue_is_bounded(self) -> None:
        ledger, p = self.scheduler.ledger, self.scheduler.policy
        assert ledger.waiting <= p.max_depth
        waiting = [r for r in ledger.requests.values() if r.state is RequestState.WAITING]
        lists = sorted(r.places for r in waiting if r.places > 1)
        assert sum(lists[:-1]) < p.max_depth
        assert ledger.waiting_bytes <= p.max_bytes or ledger.waiting == 1
        assert len(self.scheduler.cache) <= p.cache_entries

    @invariant()
    def no_device_idles_while_work_waits(self) -> None:
        now, pool = self.world.now, self.scheduler.pool
        waiting = self.scheduler.ledger.waiting_jobs
        with_room = [d for d in pool.devices.values() if d.inflight < pool.limit and d.candidate(now)]
        if with_room and sum(waiting.values()):
            assert all(d.inflight for d in with_room)
            again = [j for j in self.scheduler.dispatcher._again if j.state is JobState.WAITING]
            if again and again[0].suspect:
                return  # it waits for a device that is idle, and others wait behind it
            lead = self.scheduler.policy.stage_lead_s
            assert all(now < d.busy_until - lead for d in with_room)
        assert self.scheduler.wake_at(now) >= now

    def teardown(self) -> None:
        """Everything ends, and nothing is left."""
        self.world.after(1001.0)
        self.books_agree()
        assert not self.pending
        for worker in self._registered():
            if len(worker.hello.epoch) % 2:
                self._die(worker)
        for _ in range(2000):
            if not self.scheduler.pool.workers:
                break
            self.world.after(1.0)
        self.books_agree()
        s = self.scheduler
        msgpack.packb(snapshot(s, self.world.now))
        assert not s.pool.workers and not s.pool.devices
        assert not s.ledger.requests and not s.ledger.flights
        assert set(s.ledger.waiting_jobs.values()) == {0}
        assert len(s.ledger.queue) == 0 and not s.ledger.queue.flows()
        assert s.ledger.waiting == s.ledger.waiting_bytes == len(s.ledger.tenants) == 0
        s.dispatcher.run(self.world.now)
        assert s.dispatcher.stage_at is None
        assert self.world.metric("accepted_total") == sum(
            value for (name, _), value in s.metrics.counters.items() if name == "finished_total"
        )


Histories.TestCase.settings = settings(
    max_examples=int(os.environ.get("HAILO_CLIP_HISTORIES", "300")),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestHistories = Histories.TestCase
