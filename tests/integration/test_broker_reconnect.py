"""The connection between a frontend and a broker that are both well breaks: nothing is lost with it."""

from __future__ import annotations

import time

import pytest

from tests.doubles.processes import Service, counter, image

pytestmark = pytest.mark.xdist_group("broker-losses")


def test_what_was_in_flight_is_answered_once_on_the_next_connection():
    with Service() as service, service.wired_frontend() as (frontend, wire):
        service.broker()
        service.worker("w0", faults="time_scale=30")
        frontend.until_workers(1)
        numbers = [frontend.submit([image(i)]) for i in range(6)]
        frontend.until(lambda: service.snapshot()["in_flight"] == len(numbers))
        wire.cut()
        cut_at = time.monotonic()
        frontend.until_settled()
        after = service.snapshot()
    for number in numbers:
        assert frontend.check(number).errors == (None,)
        assert frontend.sent[number] == 2
        assert frontend.replies[number] == 1
        assert frontend.settled_at[number] - cut_at < 5.0
    assert after["in_flight"] == 0
    assert counter(after, "accepted_total") == 12
    assert counter(after, "finished_total", "answered") == counter(after, "finished_total", "cancelled") == 6


def test_a_wire_that_breaks_again_and_again_loses_nothing_and_ends_no_request_twice():
    with Service() as service, service.wired_frontend() as (frontend, wire):
        service.broker()
        service.worker("w0", faults="time_scale=1")
        frontend.until_workers(1)
        numbers: list[int] = []
        for _ in range(5):
            numbers += [frontend.submit([image(len(numbers) + i)]) for i in range(8)]
            wire.cut()
            frontend.until_settled()
    for number in numbers:
        assert frontend.check(number).errors == (None,)
        assert frontend.replies[number] <= frontend.sent[number] <= 2
