"""Who the frontends are to the broker, and how a frontend learns that what it had in flight is lost."""

from __future__ import annotations

from collections import Counter

import pytest

from hailo_clip.api.inflight import PING_S, Action, Inflight, Outcome, Send, Settle
from hailo_clip.broker.frontends import Frontends
from hailo_clip.shared import messages as m
from tests.doubles.broker_world import FINGERPRINT, FRONTEND, Item, PaperWorker, World, image


class Wire:
    """A frontend's state machine and the scheduler, with a connection between them that breaks at will."""

    def __init__(self) -> None:
        self.world = World()
        self.worker: PaperWorker = self.world.worker()
        self.machine = Inflight(lambda encoder: FINGERPRINT, 10, 1000)
        self.outcomes: dict[int, Outcome] = {}
        self.sends: Counter[int] = Counter()
        self._connections = 0
        self._read: Counter[tuple[bytes, int]] = Counter()
        self.peer = b"front-0"
        self._do(self.machine.start(self.world.now))
        self.live(1.0)

    def submit(self, item: Item, ttl: float = 60.0) -> int:
        wanted = m.Submit(0, "trace", "anna", 1.0, False, ttl, "", (int(item.kind),), (item.payload,))
        number, actions = self.machine.submit(self.world.now, ttl, wanted)
        self._do(actions)
        return number

    def cut(self, *, noticed: bool) -> None:
        """The connection breaks and comes back: what is under way to the frontend is lost."""
        if noticed:
            self.world.unroutable.add(self.peer)
        self._connections += 1
        self.peer = f"front-{self._connections}".encode()

    def live(self, seconds: float, *, frozen: bool = False) -> None:
        """`seconds` pass in small steps; the frontend takes no part in them when `frozen`."""
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.live(0.25, [self.worker])
            if not frozen:
                self._hear()
                self._do(self.machine.tick(self.world.now))

    def _hear(self) -> None:
        pongs = [p for p in self.world.pongs if p.session == self._session()]
        self.world.pongs.clear()
        for pong in pongs:
            self._do(self.machine.received(self.world.now, pong))
        for (peer, number), answers in list(self.world.answers.items()):
            for answer in answers[self._read[peer, number] :]:
                self._read[peer, number] += 1
                if peer == self.peer:
                    self._do(self.machine.received(self.world.now, answer))

    def _session(self) -> str:
        frontends = self.world.scheduler.frontends
        return frontends.session(self.peer) if self.peer in frontends else "none"

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    if isinstance(message, m.Submit):
                        self.sends[message.request_id] += 1
                    self.world.scheduler.from_frontend(self.world.now, self.peer, message)
                    self.world.flush()
                case Settle(number, outcome):
                    assert number not in self.outcomes, "settled twice"
                    self.outcomes[number] = outcome


def batches(wire: Wire) -> int:
    return len(wire.world.sent)


@pytest.mark.parametrize("noticed", [False, True])
def test_what_was_in_flight_on_a_connection_that_broke_is_answered_on_the_next(noticed: bool) -> None:
    wire = Wire()
    number = wire.submit(image(1))
    wire.cut(noticed=noticed)
    wire.live(2 * PING_S)
    assert wire.sends[number] == 2
    ledger = wire.world.scheduler.ledger
    assert list(ledger.requests) == [(wire.peer, number)]  # the earlier copy is dropped, not run for nobody
    assert wire.world.metric("finished_total", "cancelled") == 1
    wire.world.answer_all()
    wire.live(1.0)
    assert isinstance(wire.outcomes[number], m.Reply)
    wire.live(30.0)
    assert (wire.sends[number], wire.machine.dropped) == (2, 0)


def test_an_answer_that_was_lost_with_its_connection_is_given_again() -> None:
    wire = Wire()
    number = wire.submit(image(1))
    wire.world.answer_all()  # leaves for the connection that breaks
    wire.cut(noticed=False)
    wire.live(2 * PING_S)
    wire.world.answer_all()
    wire.live(1.0)
    assert isinstance(wire.outcomes[number], m.Reply)


def test_a_frontend_that_was_frozen_for_so_long_that_it_was_given_up_sends_again() -> None:
    wire = Wire()
    for _ in range(300):
        wire.world.scheduler.costs.observe(m.Kind.IMAGE, 1, 4.0)  # slow enough to be at it for so long
    number = wire.submit(image(1))
    wire.live(11.0, frozen=True)
    assert not wire.world.scheduler.ledger.requests
    wire.live(2 * PING_S)
    assert wire.machine.health.ready
    wire.world.answer_all()
    wire.live(1.0)
    assert isinstance(wire.outcomes[number], m.Reply)


def test_a_request_that_reached_the_new_connection_before_the_ping_is_run_once() -> None:
    wire = Wire()
    wire.cut(noticed=False)
    number = wire.submit(image(1))
    wire.live(2 * PING_S)
    assert wire.sends[number] == 2
    assert batches(wire) == 1
    wire.world.answer_all()
    wire.live(1.0)
    assert isinstance(wire.outcomes[number], m.Reply)
    assert wire.machine.dropped == 0


def test_a_connection_that_holds_resends_nothing() -> None:
    wire = Wire()
    number = wire.submit(image(1), ttl=60.0)
    wire.live(4.0)
    wire.live(3.0, frozen=True)  # a pause that is not given up
    wire.live(4.0)
    assert wire.sends[number] == 1


def test_a_session_lasts_from_a_peers_first_message_until_it_is_given_up() -> None:
    frontends = Frontends("epoch")
    frontends.heard(1.0, b"a")
    frontends.heard(2.0, b"b")
    frontends.heard(3.0, b"a")
    first = frontends.session(b"a")
    assert first != frontends.session(b"b")
    assert frontends.silent(2.5) == [b"b"]
    frontends.forgive(1.0)
    assert frontends.silent(2.5) == []
    frontends.gone(b"a")
    frontends.gone(b"a")
    assert (b"a" in frontends, len(frontends)) == (False, 1)
    frontends.heard(4.0, b"a")
    assert frontends.session(b"a") != first
    assert Frontends("another epoch").former(b"a", first) is None


def test_nobody_ends_a_session_but_who_names_it_from_elsewhere() -> None:
    frontends = Frontends("epoch")
    for peer in (b"a", b"b"):
        frontends.heard(1.0, peer)
    assert frontends.former(b"b", frontends.session(b"a")) == b"a"
    for session in ("", "epoch.99", "other.1", frontends.session(b"b")):
        assert frontends.former(b"b", session) is None


def test_other_frontends_keep_what_they_have() -> None:
    wire = Wire()
    theirs = wire.world.submit(image(2), frontend=FRONTEND)
    wire.submit(image(1))
    wire.cut(noticed=False)
    wire.live(2 * PING_S)
    wire.world.answer_all()
    wire.world.reply(theirs)
