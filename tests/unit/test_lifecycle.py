"""The service's life: starting, restarting, killing what hangs, draining, stopping, each with its bounds."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hailo_clip.ops.lifecycle import (
    HURRY_S,
    LOST_S,
    SILENT_S,
    STOP_S,
    UNANSWERED,
    Action,
    Announce,
    AskDrain,
    Child,
    Done,
    Kill,
    Lifecycle,
    Phase,
    Pool,
    Say,
    Spawn,
    Terminate,
)
from hailo_clip.workers.session import ExitCode

CHILDREN = [Child(n, n.split("-")[0], ("x",)) for n in ("broker", "worker-0", "worker-1", "api")]
READY = Pool("ready", ready_workers=2)
DRAIN_S = 30.0


class World:
    """A lifecycle whose actions are carried out on paper."""

    def __init__(self) -> None:
        self.life = Lifecycle(CHILDREN, DRAIN_S)
        self.now = 100.0
        self.pids: dict[str, int] = {}
        self.done: int | None = None
        self.spawns = 0
        self.killed: set[str] = set()

    def do(self, actions: list[Action]) -> list[Action]:
        """Carry `actions` out; all that came of it, without what was only said."""
        taken: list[Action] = []
        for action in actions:
            if not isinstance(action, Say):
                taken.append(action)
            if isinstance(action, Spawn):
                self.spawns += 1
                self.pids[action.name] = 1000 + self.spawns
                taken += self.do(self.life.spawned(action.name, self.pids[action.name], self.now))
            if isinstance(action, Kill):
                self.killed.add(action.name)
            if isinstance(action, Done):
                assert self.done is None
                self.done = action.code
        return taken

    def start(self) -> list[Action]:
        return self.do(self.life.start(self.now))

    def serve(self) -> World:
        self.start()
        self.do(self.life.heard(READY, self.now))
        self.do(self.life.answers_http(self.now))
        return self

    def die(self, name: str, code: int = 1) -> list[Action]:
        del self.pids[name]
        self.killed.discard(name)
        return self.do(self.life.exited(name, code, f"exit code {code}", self.now))

    def after(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.do(self.life.tick(self.now))

    def hear(
        self, state: str = "ready", in_flight: int = 0, lost: frozenset[tuple[str, int]] = frozenset()
    ) -> list[Action]:
        pool = dataclasses.replace(READY, state=state, in_flight=in_flight, lost=lost, reason=f"is {state}")
        return self.do(self.life.heard(pool, self.now))

    def stop(self) -> list[Action]:
        return self.do(self.life.stop_wished("SIGTERM", self.now))


def test_everything_starts_in_order_and_is_ready_only_when_http_answers() -> None:
    world = World()
    assert world.start() == [Spawn("broker"), Spawn("worker-0"), Spawn("worker-1"), Spawn("api")]
    assert world.hear("ready") == []
    assert world.do(world.life.answers_http(world.now)) == [Announce("ready")]
    assert world.life.phase is Phase.SERVING
    assert world.do(world.life.answers_http(world.now)) == []


def test_a_child_that_dies_is_started_again_after_its_delay() -> None:
    world = World().serve()
    assert world.die("worker-0", -9) == []
    assert world.life.wakes_at() == pytest.approx(world.now + 0.2)
    assert world.after(0.1) == []
    assert world.after(0.11) == [Spawn("worker-0")]
    assert world.life.wakes_at() is None
    world.die("worker-0")
    assert world.after(0.3) == []
    assert world.after(0.11) == [Spawn("worker-0")]


@pytest.mark.parametrize(("code", "pause"), [(ExitCode.HELD, 5.0), (ExitCode.UNFIT, 15.0)])
def test_a_worker_whose_device_is_not_to_be_had_gets_more_time(code: ExitCode, pause: float) -> None:
    world = World().serve()
    world.die("worker-0", code)
    assert world.after(pause - 0.1) == []
    assert world.after(0.11) == [Spawn("worker-0")]
    for _ in range(12):
        world.die("worker-0", code)
        world.after(31.0)
    world.die("worker-0", code)
    assert world.life.wakes_at() == pytest.approx(world.now + 30.0)  # the back-off still grows


def test_exit_codes_of_workers_mean_nothing_in_other_roles() -> None:
    world = World().serve()
    world.die("api", ExitCode.UNFIT)
    assert world.after(0.21) == [Spawn("api")]


def test_the_state_is_announced_when_it_changes_and_only_then() -> None:
    world = World().serve()
    assert world.hear("ready") == []
    assert world.hear("unhealthy") == [Announce("unhealthy", "is unhealthy")]
    assert world.hear("starting") == []
    assert world.hear("ready") == [Announce("ready", "is ready")]


def test_a_worker_that_the_broker_gave_up_is_killed_after_a_while_if_it_still_lives() -> None:
    world = World().serve()
    lost = frozenset({("worker-1", world.pids["worker-1"]), ("worker-9", 4)})  # 4 is nobody of ours
    assert world.hear(lost=lost) == []
    world.now += LOST_S - 0.1
    assert world.hear(lost=lost) == []
    world.now += 0.2
    assert world.hear(lost=lost) == [Kill("worker-1")]
    assert world.hear(lost=lost) == []
    world.die("worker-1", -9)
    assert world.after(0.2) == [Spawn("worker-1")]
    assert world.hear(lost=lost) == []  # another process now


def test_a_worker_that_came_back_in_time_is_not_killed() -> None:
    world = World().serve()
    lost = frozenset({("worker-1", world.pids["worker-1"])})
    world.hear(lost=lost)
    world.now += LOST_S - 0.1
    world.hear()
    world.now += 0.2
    assert world.hear(lost=lost) == []


@pytest.mark.parametrize("name", ["broker", "api", "worker-0"])
@pytest.mark.parametrize("theirs", ["left", "worker-1"])
def test_a_lost_worker_of_another_machine_kills_nobody_here(name: str, theirs: str) -> None:
    """Its process id may be that of any child here; a child of another role may even have its name."""
    world = World().serve()
    lost = frozenset({(theirs, world.pids[name])})
    if name != "worker-0":
        lost |= {(name, world.pids[name])}
    for _ in range(3):
        assert world.hear(lost=lost) == []
        world.now += LOST_S


def test_a_broker_that_never_answers_is_killed() -> None:
    world = World().serve()
    for _ in range(UNANSWERED - 1):
        assert world.do(world.life.unanswered()) == []
    world.hear()
    for _ in range(UNANSWERED - 1):
        assert world.do(world.life.unanswered()) == []
    assert world.do(world.life.unanswered()) == [Kill("broker")]
    assert world.do(world.life.unanswered()) == []
    world.die("broker", -9)
    assert world.after(0.2) == [Spawn("broker")]
    assert world.do(world.life.unanswered()) == []  # another process, which has its own ten


def test_a_wrong_configuration_found_by_a_child_stops_the_start() -> None:
    world = World()
    world.start()
    assert world.die("worker-0", 2) == [Announce("stopping"), Terminate("api")]
    for name in ("api", "worker-1", "broker"):
        world.die(name, 0)
    assert world.done == 2


def test_later_the_same_exit_code_is_a_death_like_any_other() -> None:
    world = World().serve()
    world.die("worker-0", 2)
    assert world.after(0.2) == [Spawn("worker-0")]


def test_stopping_drains_then_ends_api_workers_broker_in_this_order() -> None:
    world = World().serve()
    assert world.stop() == [Announce("stopping", "SIGTERM"), AskDrain()]
    assert world.hear("ready", in_flight=0) == []  # an answer from before the broker drained
    assert world.hear("draining", in_flight=3) == []
    assert world.hear("draining", in_flight=0) == [Terminate("api")]
    assert world.die("api", 0) == [Terminate("worker-0"), Terminate("worker-1")]
    assert world.die("worker-1", 0) == []
    assert world.die("worker-0", 0) == [Terminate("broker")]
    assert world.die("broker", 0) == [Done(0)]
    assert world.life.phase is Phase.DONE


def test_while_draining_only_workers_are_started_again() -> None:
    world = World().serve()
    world.stop()
    world.hear("draining", in_flight=1)
    world.die("worker-0")
    world.die("api")
    assert world.after(0.2) == [Spawn("worker-0")]
    assert world.life.phase is Phase.DRAINING


def test_a_restart_that_is_due_when_draining_ends_does_not_happen() -> None:
    world = World().serve()
    world.stop()
    world.die("worker-0")
    world.hear("draining", in_flight=1)
    world.now += 0.2
    assert world.hear("draining", in_flight=0) == [Terminate("api")]
    assert Spawn("worker-0") not in world.after(1.0)


@pytest.mark.parametrize("why", ["late", "silent", "dead"])
def test_draining_ends_without_the_brokers_word(why: str) -> None:
    world = World().serve()
    world.stop()
    if why == "dead":
        assert world.die("broker") == [Terminate("api")]
        return
    if why == "silent":
        assert world.life.wakes_at() == pytest.approx(world.now + SILENT_S)
        assert world.after(SILENT_S - 0.1) == []
        assert world.after(0.2) == [Terminate("api")]
        return
    for _ in range(int(DRAIN_S) - 1):
        world.now += 1
        assert world.hear("draining", in_flight=1) == []
    assert world.after(1.1) == [Terminate("api")]


def test_what_does_not_end_in_its_time_is_killed() -> None:
    world = World().serve()
    world.stop()
    world.hear("draining")
    assert world.life.wakes_at() == pytest.approx(world.now + STOP_S["api"])
    assert world.after(STOP_S["api"] - 0.1) == []
    assert world.after(0.1) == [Kill("api")]
    assert world.after(60) == []  # nothing more can be done than that
    world.die("api", -9)
    assert world.after(STOP_S["worker"]) == [Kill("worker-0"), Kill("worker-1")]


def test_a_second_wish_ends_everything_at_once_and_a_third_kills() -> None:
    world = World().serve()
    world.stop()
    world.hear("draining", in_flight=5)
    assert world.stop() == [Terminate(n) for n in ("broker", "worker-0", "worker-1", "api")]
    assert world.after(HURRY_S - 0.1) == []
    world.die("api", 0)
    assert world.stop() == [Kill(n) for n in ("broker", "worker-0", "worker-1")]
    for name in ("worker-0", "worker-1", "broker"):
        world.die(name, -9)
    assert world.done == 0


def test_a_second_wish_while_stopping_shortens_the_wait() -> None:
    world = World().serve()
    world.stop()
    world.hear("draining")
    assert world.stop() == [Terminate("broker"), Terminate("worker-0"), Terminate("worker-1")]
    assert world.after(HURRY_S) == [Kill(n) for n in ("broker", "worker-0", "worker-1", "api")]


def test_a_stop_before_anything_is_ready_needs_no_answer_of_the_broker() -> None:
    world = World()
    world.start()
    world.stop()
    assert world.after(SILENT_S) == [Terminate("api")]


def test_a_child_that_cannot_be_started_is_tried_again() -> None:
    life = Lifecycle(CHILDREN, DRAIN_S)
    life.start(0.0)
    (said,) = life.exited("api", None, "could not be started: out of memory", 0.0)
    assert isinstance(said, Say)
    assert "out of memory" in said.text
    assert life.tick(0.2) == [Spawn("api")]


class Histories(RuleBasedStateMachine):
    """Random deaths, answers, wishes and time; see the invariants."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.world.start()

    @precondition(lambda self: self.over())
    @rule()
    def it_is_started_anew(self) -> None:
        self.begin()

    def over(self) -> bool:
        return self.world.done is not None

    @precondition(lambda self: not self.over())
    @rule(index=st.integers(0, 3), code=st.sampled_from([0, 1, 2, -9]))
    def some_child_dies(self, index: int, code: int) -> None:
        name = CHILDREN[index].name
        if name in self.world.pids:
            self.world.die(name, code)

    @precondition(lambda self: not self.over())
    @rule(state=st.sampled_from(["starting", "ready", "unhealthy", "draining"]), flying=st.integers(0, 1))
    def the_broker_answers(self, state: str, flying: int) -> None:
        self.world.hear(state, flying, frozenset(self.world.pids.items()))

    @precondition(lambda self: not self.over())
    @rule()
    def the_broker_does_not_answer(self) -> None:
        self.world.do(self.world.life.unanswered())

    @precondition(lambda self: not self.over())
    @rule()
    def http_answers(self) -> None:
        self.world.do(self.world.life.answers_http(self.world.now))

    @precondition(lambda self: not self.over())
    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.world.after(seconds)

    @precondition(lambda self: not self.over())
    @rule()
    def a_stop_is_wished(self) -> None:
        self.world.stop()

    @invariant()
    def nothing_lives_after_the_end_and_nothing_is_forgotten_before(self) -> None:
        world = self.world
        if world.done is not None:
            assert not world.pids
            assert world.life.phase is Phase.DONE
        elif world.life.phase in (Phase.STARTING, Phase.SERVING):
            dead = len(CHILDREN) - len(world.pids)
            assert (world.life.wakes_at() is not None) == (dead > 0)
        elif world.life.phase is Phase.DRAINING:
            assert world.life.wakes_at() is not None

    def teardown(self) -> None:
        """Whatever happened: a stop ends everything within the bounds, if SIGKILL does its work."""
        world = self.world
        if world.done is None:
            world.stop()
        for _ in range(200):
            if world.done is not None:
                return
            world.after(1.0)
            for name in sorted(world.killed):
                world.die(name, -9)
        raise AssertionError("the service never ended")


Histories.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase
