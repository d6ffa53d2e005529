"""What a worker says and when: joining, serving, leaving, fences, a broker that restarts or goes away."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hailo_clip.shared import messages as m
from hailo_clip.workers.session import (
    JOIN_AGAIN_S,
    LEAVE_S,
    Action,
    Encode,
    Exit,
    ExitCode,
    Phase,
    RunCanary,
    Say,
    Session,
)
from hailo_clip.workers.watch import CANARY_BUSY_S, CANARY_IDLE_S, PATIENCE, PATIENCE_S

HELLO = m.Hello("w0", "", 7, "d0", "emulated", "m", "f" * 32, 4, 8, 60.0)
BROKER = "broker-1"


class Rig:
    """A session, its clock, and what it did since the last look."""

    def __init__(self) -> None:
        self.now = 100.0
        numbers = itertools.count(1)
        self.session = Session(HELLO, lambda: f"epoch-{next(numbers)}", self.now)

    @property
    def epoch(self) -> str:
        return self.session.epoch

    @property
    def phase(self) -> Phase:
        return self.session.phase

    def did(self) -> list[Action]:
        return self.session.actions()

    def said(self) -> list[m.FromWorker]:
        """What it said; it did nothing else."""
        actions = self.did()
        assert all(isinstance(a, Say) for a in actions), actions
        return [a.message for a in actions if isinstance(a, Say)]

    def rejoins(self) -> m.Hello:
        """It registers anew and has its encoder prove itself, and does nothing else; what it said."""
        said, ran = self.did()
        assert isinstance(said, Say) and isinstance(said.message, m.Hello) and ran == RunCanary()
        return said.message

    def passes(self, cosine: float = 0.999, batches: m.Timings = ()) -> None:
        """The canary comes back."""
        self.session.loaded(self.now, cosine, batches)

    def exit(self) -> Exit:
        """The exit that it asked for, as its last action."""
        *_, last = self.did()
        assert isinstance(last, Exit) and self.phase is Phase.DONE
        return last

    def hears(self, message: m.ToWorker) -> None:
        self.session.received(self.now, message)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.session.tick(self.now)

    def batch(self, number: int = 1, epoch: str | None = None) -> m.Batch:
        return m.Batch(epoch or self.epoch, number, 0, ("t",), (b"x",))

    def result(self, number: int = 1, epoch: str | None = None) -> m.Result:
        return m.Result(epoch or self.epoch, number, 0.1, (), (b"y",))

    def encoded(self, result: m.Result) -> None:
        self.session.encoded(self.now, result)

    def ack(self, broker: str = BROKER) -> None:
        self.hears(m.BeatAck(broker, self.epoch))


def joining() -> Rig:
    rig = Rig()
    rig.did()
    return rig


def serving(*, loaded: bool = True) -> Rig:
    rig = joining()
    if loaded:
        rig.session.loaded(rig.now, 0.999)
    rig.hears(m.Welcome(BROKER, rig.epoch, 1.0))
    rig.did()
    return rig


def busy() -> Rig:
    rig = serving()
    rig.hears(rig.batch())
    rig.did()
    return rig


def leaving() -> Rig:
    rig = busy()
    rig.session.leave(rig.now)
    rig.did()
    return rig


def done() -> Rig:
    rig = serving()
    rig.session.failed("broken")
    rig.did()
    return rig


STATES: dict[Phase, Callable[[], Rig]] = {
    Phase.JOINING: joining,
    Phase.SERVING: busy,
    Phase.LEAVING: leaving,
    Phase.DONE: done,
}


# Joining


def test_it_says_hello_at_once_and_every_second_with_the_same_epoch():
    rig = Rig()
    (hello,) = rig.said()
    assert isinstance(hello, m.Hello) and hello.epoch == rig.epoch and hello.worker == "w0"
    assert rig.session.wake_at() == rig.now + JOIN_AGAIN_S
    rig.after(JOIN_AGAIN_S - 0.01)
    assert rig.said() == []
    for _ in range(3):
        rig.after(JOIN_AGAIN_S)
        assert rig.said() == [hello]


def test_welcomed_before_it_is_loaded_it_is_ready_when_loaded():
    rig = joining()
    rig.hears(m.Welcome(BROKER, rig.epoch, 0.5))
    assert rig.phase is Phase.SERVING and rig.said() == []
    rig.session.loaded(rig.now, 0.98)
    assert rig.said() == [m.Ready(rig.epoch, 0.98)]
    rig.after(0.5)
    assert rig.said() == [m.Beat(rig.epoch)]


def test_loaded_before_it_is_welcomed_it_is_ready_when_welcomed():
    rig = joining()
    rig.session.loaded(rig.now, 0.98)
    assert rig.said() == []
    rig.hears(m.Welcome(BROKER, rig.epoch, 1.0))
    assert rig.said() == [m.Ready(rig.epoch, 0.98)]


def test_a_second_welcome_changes_nothing():
    rig = serving()
    rig.hears(m.Welcome("broker-2", rig.epoch, 9.0))
    assert rig.said() == []
    rig.after(1.0)
    assert rig.said() == [m.Beat(rig.epoch)]


def test_a_rejection_ends_it():
    rig = joining()
    rig.hears(m.Reject(rig.epoch, "another model"))
    assert rig.exit() == Exit(ExitCode.REJECTED, "the broker rejected this worker: another model")


def test_told_to_stop_before_it_is_registered_it_just_ends():
    rig = joining()
    rig.session.leave(rig.now)
    assert rig.exit().code is ExitCode.FINE


def test_an_acknowledgement_before_the_welcome_does_not_make_it_join_again():
    rig = joining()
    epoch = rig.epoch
    rig.ack()
    assert rig.epoch == epoch and rig.said() == []


# Serving


def test_batches_go_to_the_encoder_and_results_to_the_broker():
    rig = serving()
    batch = rig.batch(5)
    rig.hears(batch)
    assert rig.did() == [Encode(batch)]
    rig.encoded(rig.result(5))
    assert rig.said() == [rig.result(5)]


def test_it_beats_every_heartbeat_while_the_broker_answers():
    rig = serving()
    for _ in range(10):
        rig.after(1.0)
        assert rig.said() == [m.Beat(rig.epoch)]
        rig.ack()
    assert rig.session.wake_at() == rig.now + 1.0


def test_a_broker_that_is_silent_for_three_heartbeats_is_lost():
    rig = busy()
    old = rig.epoch
    for _ in range(3):
        rig.after(1.0)
        assert rig.said() == [m.Beat(old)]
    rig.after(1.0)
    assert rig.rejoins().epoch != old and rig.phase is Phase.JOINING
    rig.encoded(rig.result(1, epoch=old))
    assert rig.said() == []


def test_anything_of_its_epoch_shows_that_the_broker_lives():
    rig = serving()
    for number in range(1, 6):
        rig.after(2.0)
        rig.hears(rig.batch(number))
        rig.encoded(rig.result(number))
    assert rig.phase is Phase.SERVING


def test_after_a_pause_of_its_own_it_first_hears_what_waited():
    """SIGSTOP, SIGCONT: the shell hands messages over before it ticks."""
    rig = serving()
    rig.now += 30.0
    rig.ack()
    rig.after(0.0)
    assert rig.phase is Phase.SERVING and rig.said() == [m.Beat(rig.epoch)]


def test_a_restarted_broker_is_joined_anew():
    rig = busy()
    old = rig.epoch
    rig.ack("broker-2")
    assert rig.rejoins().epoch == rig.epoch != old
    rig.hears(m.Welcome("broker-2", rig.epoch, 1.0))
    assert rig.said() == []
    rig.passes(0.98)
    assert rig.said() == [m.Ready(rig.epoch, 0.98)]
    rig.encoded(rig.result(1, epoch=old))
    assert rig.said() == []
    rig.ack("broker-2")
    assert rig.phase is Phase.SERVING


def test_a_fence_makes_it_register_anew_without_loading_again():
    rig = busy()
    old = rig.epoch
    rig.hears(m.Fence(old, "silent", False))
    assert rig.rejoins().epoch != old
    rig.passes(0.98)
    assert rig.said() == []
    rig.hears(m.Welcome(BROKER, rig.epoch, 1.0))
    assert rig.said() == [m.Ready(rig.epoch, 0.98)]
    rig.hears(m.Fence(old, "silent", False))  # once more, late
    assert rig.said() == [] and rig.phase is Phase.SERVING


def test_a_final_fence_ends_it():
    rig = busy()
    rig.hears(m.Fence(rig.epoch, "its name was taken", True))
    assert rig.exit() == Exit(ExitCode.FENCED, "given up by the broker: its name was taken")


@pytest.mark.parametrize("state", [joining, serving, busy, leaving])
@pytest.mark.parametrize("code", [ExitCode.FAILED, ExitCode.HELD, ExitCode.UNFIT])
def test_a_broken_encoder_is_reported_and_ends_it(state, code):
    rig = state()
    rig.session.failed("no device", code)
    said = m.Failed(rig.epoch, "no device", device_fault=code is not ExitCode.FAILED)
    assert rig.did() == [Say(said), Exit(code, "no device")]


# The canary


def until_canary(rig: Rig, seconds: float, *, each_s: Callable[[int], None] = lambda _: None) -> None:
    """The canary runs after `seconds`, within two, and not before."""
    begin = rig.now
    while RunCanary() not in rig.did():
        rig.ack()
        each_s(int(rig.now))
        rig.after(1.0)
        assert rig.now < begin + 2 * seconds
    assert begin + seconds < rig.now <= begin + seconds + 2.0


def test_the_canary_runs_again_after_a_minute_without_work():
    rig = serving()
    until_canary(rig, CANARY_IDLE_S)
    for _ in range(4):  # it is running: not a second time
        rig.ack()
        rig.after(1.0)
    assert RunCanary() not in rig.did()
    rig.passes(0.97)
    assert rig.said() == [m.Ready(rig.epoch, 0.97)]
    until_canary(rig, CANARY_IDLE_S)


def test_under_load_the_canary_runs_every_five_minutes():
    rig = serving()

    def work(number: int) -> None:
        rig.encoded(rig.result(number))
        rig.hears(rig.batch(number + 1))

    rig.hears(rig.batch(int(rig.now)))
    until_canary(rig, CANARY_BUSY_S, each_s=work)
    rig.passes(0.97)
    assert rig.said() == [m.Ready(rig.epoch, 0.97)]
    until_canary(rig, CANARY_BUSY_S, each_s=work)


@pytest.mark.parametrize("broker", ["restarted", "silent", "fenced"])
def test_an_encoder_that_hangs_is_never_called_ready_again(broker):
    """It hangs in a batch. The worker lives and joins, but its canary does not come back."""
    rig = busy()
    if broker == "restarted":
        rig.ack("broker-2")
    elif broker == "fenced":
        rig.hears(m.Fence(rig.epoch, "silent", False))
    else:
        for _ in range(4):
            rig.after(1.0)
    rejoined = rig.now
    rig.did()
    if broker != "silent":
        rig.hears(m.Welcome("broker-2", rig.epoch, 1.0))
    while rig.phase is not Phase.DONE:
        rig.hears(m.BeatAck("broker-2", rig.epoch))
        rig.after(1.0)
    actions = rig.did()
    assert not any(isinstance(a, Say) and isinstance(a.message, m.Ready) for a in actions)
    failed, last = actions[-2:]
    assert isinstance(failed, Say) and isinstance(failed.message, m.Failed)
    assert isinstance(last, Exit) and last.code is ExitCode.STUCK
    assert last.reason == "the encoder is stuck: its canary did not end, nor any batch, for 6 s"
    assert PATIENCE_S < rig.now - rejoined <= PATIENCE_S + 1.0


def test_a_canary_that_hangs_between_batches_ends_the_worker():
    rig = serving()
    until_canary(rig, CANARY_IDLE_S)
    for _ in range(int(PATIENCE_S) + 1):
        rig.ack()
        rig.hears(rig.batch(1))  # work that comes does not show that the encoder moves
        rig.after(1.0)
    assert rig.exit().code is ExitCode.STUCK


def test_a_slow_encoder_is_given_its_time():
    """Its canary takes 6 s; two batches, of half a minute each, were with it when the broker restarted."""
    rig = joining()
    rig.passes(batches=((1, 2.0), (1, 4.0)))
    rig.hears(m.Welcome(BROKER, rig.epoch, 1.0))
    old = rig.epoch
    for number in (1, 2):
        rig.hears(rig.batch(number))
    rig.ack("broker-2")
    rig.hears(m.Welcome("broker-2", rig.epoch, 1.0))

    def turns(seconds: int) -> None:
        for _ in range(seconds):
            rig.hears(m.BeatAck("broker-2", rig.epoch))
            rig.after(1.0)

    for number in (1, 2):
        turns(30)
        rig.encoded(rig.result(number, epoch=old))
    turns(int(PATIENCE * 6.0))
    rig.did()
    rig.passes()
    assert rig.said() == [m.Ready(rig.epoch, 0.999)]


def test_time_in_which_the_worker_itself_was_stopped_does_not_count():
    rig = busy()
    rig.ack("broker-2")
    rig.hears(m.Welcome("broker-2", rig.epoch, 1.0))
    for _ in range(3):
        rig.now += 60.0  # SIGSTOP, SIGCONT
        rig.hears(m.BeatAck("broker-2", rig.epoch))
        rig.after(0.0)
    rig.did()
    rig.passes()
    assert rig.said() == [m.Ready(rig.epoch, 0.999)]


def test_a_proof_from_before_a_long_wait_for_a_broker_is_renewed():
    rig = joining()
    rig.passes()
    for _ in range(int(CANARY_IDLE_S) + 1):
        rig.after(1.0)
    rig.did()
    rig.hears(m.Welcome(BROKER, rig.epoch, 1.0))
    assert rig.did() == [RunCanary()]
    rig.passes(0.98)
    assert rig.said() == [m.Ready(rig.epoch, 0.98)]


def test_a_canary_that_was_running_when_the_broker_went_is_proof_enough():
    rig = serving()
    until_canary(rig, CANARY_IDLE_S)
    rig.hears(m.Fence(rig.epoch, "silent", False))
    assert RunCanary() not in rig.did(), "it is on its way"
    rig.hears(m.Welcome(BROKER, rig.epoch, 1.0))
    assert rig.said() == []
    rig.passes()
    assert rig.said() == [m.Ready(rig.epoch, 0.999)]


def test_what_the_canary_took_is_told_with_each_ready():
    rig = joining()
    slow, quick = ((2, 3.0), (3, 4.0)), ((2, 0.3), (3, 0.4))
    rig.passes(0.98, slow)
    rig.hears(m.Welcome(BROKER, rig.epoch, 1.0))
    assert rig.said() == [m.Ready(rig.epoch, 0.98, slow)]
    until_canary(rig, CANARY_IDLE_S)
    rig.passes(0.98, quick)
    assert rig.said() == [m.Ready(rig.epoch, 0.98, quick)]


def test_an_encoder_that_still_loads_when_the_broker_restarts_has_no_canary_to_run():
    rig = serving(loaded=False)
    rig.ack("broker-2")
    (hello,) = rig.said()
    assert isinstance(hello, m.Hello)
    rig.hears(m.Welcome("broker-2", rig.epoch, 1.0))
    assert rig.said() == []
    rig.passes()
    assert rig.said() == [m.Ready(rig.epoch, 0.999)]


@pytest.mark.parametrize("what", ["a batch runs", "work comes", "not loaded"])
def test_the_canary_does_not_run(what):
    rig = serving(loaded=what != "not loaded")
    if what == "a batch runs":
        rig.hears(rig.batch(1))
    for i in range(150):
        rig.ack()
        if what == "work comes" and i % 30 == 0:
            rig.hears(rig.batch(i))
            rig.encoded(rig.result(i))
        rig.after(1.0)
    assert RunCanary() not in rig.did()


# Leaving


def test_it_finishes_what_it_has_and_says_goodbye():
    rig = serving()
    for number in (1, 2):
        rig.hears(rig.batch(number))
    rig.did()
    rig.session.leave(rig.now)
    assert rig.said() == [m.Leave(rig.epoch)]
    rig.encoded(rig.result(1))
    rig.hears(rig.batch(3))  # sent before the broker heard it
    rig.hears(m.Stop(rig.epoch))
    rig.encoded(rig.result(2))
    assert rig.did() == [Say(rig.result(1)), Encode(rig.batch(3)), Say(rig.result(2))]
    rig.encoded(rig.result(3))
    last = [Say(rig.result(3)), Say(m.Bye(rig.epoch)), Exit(ExitCode.FINE, "left in good order")]
    assert rig.did() == last


def test_idle_or_still_loading_it_leaves_at_the_brokers_word():
    for rig in (serving(), serving(loaded=False)):
        rig.session.leave(rig.now)
        rig.session.loaded(rig.now, 1.0)
        assert rig.said() == [m.Leave(rig.epoch)]
        rig.hears(m.Stop(rig.epoch))
        assert rig.did() == [Say(m.Bye(rig.epoch)), Exit(ExitCode.FINE, "left in good order")]


def test_told_twice_it_says_it_once():
    rig = busy()
    rig.session.leave(rig.now)
    rig.session.leave(rig.now)
    assert rig.said() == [m.Leave(rig.epoch)]


def test_leaving_it_beats_on_while_it_finishes():
    rig = leaving()
    rig.hears(m.Stop(rig.epoch))
    for _ in range(20):
        rig.after(1.0)
        rig.ack()
    assert rig.said() == [m.Beat(rig.epoch)] * 20
    rig.encoded(rig.result(1))
    assert rig.exit().code is ExitCode.FINE


def test_a_broker_that_does_not_answer_the_farewell_is_left_anyway():
    rig = leaving()
    begin = rig.now
    while rig.phase is Phase.LEAVING:
        rig.ack()
        rig.after(0.25)
        assert rig.now <= begin + LEAVE_S + 1.0
    assert rig.exit().code is ExitCode.FINE


@pytest.mark.parametrize("how", ["silent", "fenced", "restarted"])
def test_leaving_it_never_joins_again(how):
    rig = leaving()
    epoch = rig.epoch
    if how == "silent":
        for _ in range(5):
            rig.after(1.0)
    elif how == "fenced":
        rig.hears(m.Fence(epoch, "silent", False))
    else:
        rig.ack("broker-2")
    actions = rig.did()
    assert isinstance(actions[-1], Exit) and actions[-1].code is ExitCode.FINE
    assert rig.epoch == epoch


# Every message in every phase

MESSAGES: dict[str, Callable[[str], m.ToWorker]] = {
    "welcome": lambda e: m.Welcome(BROKER, e, 1.0),
    "reject": lambda e: m.Reject(e, "why"),
    "batch": lambda e: m.Batch(e, 9, 0, ("t",), (b"x",)),
    "ack": lambda e: m.BeatAck(BROKER, e),
    "other broker's ack": lambda e: m.BeatAck("broker-2", e),
    "fence": lambda e: m.Fence(e, "why", False),
    "final fence": lambda e: m.Fence(e, "why", True),
    "stop": m.Stop,
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("phase", Phase)
def test_a_message_of_another_epoch_changes_nothing(phase, name):
    rig = STATES[phase]()
    rig.hears(MESSAGES[name]("epoch-0"))
    assert rig.did() == [] and rig.phase is phase


@pytest.mark.parametrize("name", MESSAGES)
def test_after_the_exit_nothing_is_said_or_done(name):
    rig = done()
    rig.hears(MESSAGES[name](rig.epoch))
    rig.encoded(rig.result(1))
    rig.session.loaded(rig.now, 1.0)
    rig.session.leave(rig.now)
    rig.session.failed("again")
    rig.after(100.0)
    assert rig.did() == [] and rig.phase is Phase.DONE


AFTER: dict[tuple[Phase, str], Phase] = {
    (Phase.JOINING, "welcome"): Phase.SERVING,
    (Phase.JOINING, "reject"): Phase.DONE,
    (Phase.JOINING, "final fence"): Phase.DONE,
    (Phase.SERVING, "reject"): Phase.DONE,
    (Phase.SERVING, "other broker's ack"): Phase.JOINING,
    (Phase.SERVING, "fence"): Phase.JOINING,
    (Phase.SERVING, "final fence"): Phase.DONE,
    (Phase.LEAVING, "reject"): Phase.DONE,
    (Phase.LEAVING, "other broker's ack"): Phase.DONE,
    (Phase.LEAVING, "fence"): Phase.DONE,
    (Phase.LEAVING, "final fence"): Phase.DONE,
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("phase", [Phase.JOINING, Phase.SERVING, Phase.LEAVING])
def test_each_message_in_each_phase_leads_where_it_should(phase, name):
    rig = STATES[phase]()
    rig.hears(MESSAGES[name](rig.epoch))
    assert rig.phase is AFTER.get((phase, name), phase)


class Fuzz(RuleBasedStateMachine):
    """Anything in any order: one exit at most, as the last thing; each result is said at most once."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.epochs = {self.rig.epoch}
        self.results: list[m.Result] = []
        self.exited = False
        self.told_to_leave = False
        self.log: list[Action] = []
        self.number = 0

    @rule(name=st.sampled_from(sorted(MESSAGES)), current=st.sampled_from([True, True, True, False]))
    def hears(self, name: str, current: bool) -> None:
        message = MESSAGES[name](self.rig.epoch if current else min(self.epochs))
        if isinstance(message, m.Batch):
            self.number += 1
            message = replace(message, batch_id=self.number)  # a broker numbers each anew
        self.rig.hears(message)

    @rule(times=st.integers(1, 3))
    def works(self, times: int) -> None:
        self.rig.hears(m.Welcome(BROKER, self.rig.epoch, 1.0))
        for _ in range(times):
            self.number += 1
            self.rig.hears(self.rig.batch(self.number))

    @rule(pick=st.integers(0, 9))
    def encoder_is_done(self, pick: int) -> None:
        if self.results:
            self.rig.encoded(self.results.pop(pick % len(self.results)))

    @rule(cosine=st.floats(0, 1))
    def loaded(self, cosine: float) -> None:
        self.rig.session.loaded(self.rig.now, cosine)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 3.5, 61.0]))
    def passes(self, seconds: float) -> None:
        self.rig.after(seconds)

    @rule(really=st.sampled_from([False, False, False, True]))
    def ends(self, really: bool) -> None:
        if really:
            self.rig.session.failed("broken")

    @rule(really=st.sampled_from([False, False, True]))
    def leave(self, really: bool) -> None:
        if really:
            self.told_to_leave = True
            self.rig.session.leave(self.rig.now)

    @invariant()
    def what_it_does_makes_sense(self) -> None:
        if self.told_to_leave:
            assert self.rig.phase in (Phase.LEAVING, Phase.DONE)
        for action in self.rig.did():
            assert not self.exited, f"{action} after the exit"
            self.log.append(action)
            match action:
                case Encode(batch):
                    self.results.append(m.Result(batch.epoch, batch.batch_id, 0.1, (), (b"y",)))
                case Say(m.Hello() as hello):
                    self.epochs.add(hello.epoch)
                case Say(said):
                    assert said.epoch in self.epochs
                case Exit():
                    self.exited = True
        assert self.exited == (self.rig.phase is Phase.DONE)
        assert self.rig.session._busy >= 0
        if not self.exited:
            assert self.rig.session.wake_at() <= self.rig.now + 1.0

    def teardown(self) -> None:
        self.what_it_does_makes_sense()
        said = [(a.message.epoch, a.message.batch_id) for a in self.log if _is_result(a)]  # type: ignore[union-attr]
        assert all(n == 1 for n in Counter(said).values())
        byes = [i for i, a in enumerate(self.log) if isinstance(a, Say) and isinstance(a.message, m.Bye)]
        if byes:
            epoch = self.rig.epoch
            given = Counter(
                a.batch.batch_id for a in self.log if isinstance(a, Encode) and a.batch.epoch == epoch
            )
            assert given == Counter(number for e, number in said if e == epoch), "nothing is left unanswered"
        for _ in range(8):
            self.rig.after(1.0)
        if self.told_to_leave and not self.results:
            assert self.rig.phase is Phase.DONE


def _is_result(action: Action) -> bool:
    return isinstance(action, Say) and isinstance(action.message, m.Result)


Fuzz.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFuzz = Fuzz.TestCase
