"""When the client sends again: the pure decision, and the course of a call by a clock of the test's."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.api import client_calls as calls
from hailo_clip.api.client_calls import Terms
from hailo_clip.api.client_errors import (
    BadRequest,
    DeadlineExceeded,
    ModelChanged,
    NotFound,
    Overloaded,
    RequestFailed,
    ServerFault,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    UnsupportedMediaType,
    error_of,
    retry_after_s,
)
from hailo_clip.api.client_exchange import Exchange, Settings
from hailo_clip.api.client_results import Health
from hailo_clip.api.client_retry import RetryPolicy, pause_s

POLICY = RetryPolicy(attempts=4, base_s=0.5, cap_s=3.0)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def overloaded(after: float | None = None) -> Overloaded:
    return Overloaded("the queue is full", retry_after_s=after)


# The decision


@pytest.mark.parametrize(
    ("attempt", "luck", "after", "expected"),
    [
        (1, 0.0, None, 0.0),
        (1, 0.5, None, 0.25),
        (2, 0.5, None, 0.5),
        (3, 0.5, None, 1.0),
        (1, 0.0, 2.0, 2.0),
        (2, 0.5, 2.0, 2.5),
        (4, 0.0, None, None),  # the attempts are used up
    ],
)
def test_the_pause_is_what_was_asked_for_and_a_random_part_of_a_growing_bound(attempt, luck, after, expected):
    assert pause_s(POLICY, overloaded(after), attempt, 10.0, 100.0, luck) == expected


def test_the_bound_grows_no_further_than_the_cap():
    patient = RetryPolicy(attempts=10_000, base_s=0.5, cap_s=3.0)
    assert pause_s(patient, overloaded(), 9_999, 0.0, 100.0, 0.5) == 1.5


@pytest.mark.parametrize(
    "error",
    [BadRequest, Unauthorized, NotFound, ModelChanged, ServerFault, DeadlineExceeded, UnexpectedAnswer],
)
def test_what_a_retry_would_not_mend_is_not_sent_again(error: type[RequestFailed]):
    assert pause_s(POLICY, error("x"), 1, 0.0, 100.0, 0.0) is None


@pytest.mark.parametrize("error", [Overloaded, Unavailable, Unreachable])
def test_what_a_retry_may_mend_is(error: type[RequestFailed]):
    assert pause_s(POLICY, error("x"), 1, 0.0, 100.0, 0.0) == 0.0


def test_no_pause_that_the_deadline_would_end():
    assert pause_s(POLICY, overloaded(2.0), 1, 10.0, 12.001, 0.0) == 2.0
    assert pause_s(POLICY, overloaded(2.0), 1, 10.0, 12.0, 0.0) is None


@given(
    attempt=st.integers(1, 10**6),
    after=st.none() | st.floats(0, 1e6),
    now=st.floats(0, 1e6),
    left=st.floats(0, 1e3),
    luck=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_ends_before_the_deadline_and_is_at_least_what_was_asked_for(attempt, after, now, left, luck):
    pause = pause_s(RetryPolicy(attempts=10**7), overloaded(after), attempt, now, now + left, luck)
    if pause is not None:
        assert pause >= (after or 0.0)
        assert now + pause < now + left


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base_s": -1.0}, {"base_s": 5.0, "cap_s": 1.0}])
def test_a_policy_that_cannot_be(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="a retry policy needs"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


# Errors


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (302, UnexpectedAnswer),
        (400, BadRequest),
        (401, Unauthorized),
        (403, BadRequest),
        (404, NotFound),
        (405, BadRequest),
        (409, ModelChanged),
        (413, TooLarge),
        (415, UnsupportedMediaType),
        (429, Overloaded),
        (500, ServerFault),
        (502, ServerFault),
        (503, Unavailable),
        (504, DeadlineExceeded),
        (599, ServerFault),
    ],
)
def test_every_status_is_a_typed_error(status: int, error: type[RequestFailed]):
    found = error_of(status, {"x-request-id": "r-1"}, b'{"error": "so it is"}', NOON)
    assert type(found) is error
    assert (found.status, found.reason, found.request_id) == (status, "so it is", "r-1")
    assert str(found) == f"the service answered {status}: so it is"
    assert pickle.loads(pickle.dumps(found)).status == status


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "as OpenAI says it"}}', "as OpenAI says it"),
        (b"<html>", "Bad Gateway"),
        (b"", "Bad Gateway"),
        (b"[]", "Bad Gateway"),
        (b'{"error": 7}', "Bad Gateway"),
        (b"\xff", "Bad Gateway"),
        (b"[" * 100_000, "Bad Gateway"),
    ],
)
def test_the_words_of_an_error(body: bytes, reason: str):
    assert error_of(502, {}, body, NOON).reason == reason
    assert error_of(599, {}, b"", NOON).reason == "no reason given"


def test_an_error_tells_when_to_try_again():
    found = error_of(429, {"retry-after": "2"}, b'{"error": "queue full"}', NOON)
    assert found.retry_after_s == 2.0
    assert str(found) == "the service answered 429: queue full (try again in 2 s)"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 17 ", 17.0),
        (format_datetime(NOON + timedelta(seconds=30), usegmt=True), 30.0),
        ("Mon, 04 May 2026 12:00:05 -0000", 5.0),
        (format_datetime(NOON - timedelta(hours=1), usegmt=True), 0.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("²", None),
    ],
)
def test_retry_after(value: str, seconds: float | None):
    assert retry_after_s(value, NOON) == seconds


# The course of a call


ANSWER = b'{"status": "healthy", "model": "demo", "backend": "onnx"}'


def exchange(deadline_s: float = 10.0, attempts: int = 3, patient: bool = True) -> Exchange[Health]:
    call = calls.Call("GET", "/health", calls.health().read, patient=patient)
    settings = Settings(retry=RetryPolicy(attempts, base_s=0.0, cap_s=0.0), deadline_s=deadline_s)
    return Exchange(call, settings, Terms(), 100.0)


def test_an_answer_ends_it():
    under_way = exchange()
    assert under_way.attempt(100.0).timeout_s == 10.0
    assert under_way.answered(200, {}, ANSWER, 100.1) is None
    assert under_way.result.status == "healthy"


def test_each_attempt_has_the_time_that_is_left_and_the_same_id():
    under_way = exchange()
    first = under_way.attempt(100.0)
    assert under_way.answered(429, {"retry-after": "3"}, b"{}", 101.0) == 3.0
    second = under_way.attempt(104.0)
    assert (first.timeout_s, second.timeout_s) == (10.0, 6.0)
    assert (first.headers["X-Deadline-Ms"], second.headers["X-Deadline-Ms"]) == ("10000", "6000")
    assert first.headers["X-Request-Id"] == second.headers["X-Request-Id"]


def test_it_gives_up_after_its_attempts():
    under_way = exchange(attempts=2)
    under_way.attempt(100.0)
    assert under_way.lost("Connection refused", 100.0) == 0.0
    under_way.attempt(100.0)
    with pytest.raises(
        Unreachable, match=r"no service answers at http://127\.0\.0\.1:5000: Connection refused"
    ):
        under_way.lost("Connection refused", 100.0)


def test_it_gives_up_at_once_when_the_wait_is_too_long():
    under_way = exchange()
    under_way.attempt(100.0)
    with pytest.raises(Unavailable) as caught:
        under_way.answered(503, {"retry-after": "10"}, b"{}", 100.0)
    assert caught.value.retry_after_s == 10.0


def test_the_deadline_is_the_calls_and_not_an_attempts():
    under_way = exchange()
    under_way.attempt(100.0)
    with pytest.raises(DeadlineExceeded, match="did not answer within 10 s"):
        under_way.lost("timed out", 110.0)
    with pytest.raises(DeadlineExceeded):
        under_way.attempt(110.0)


def test_what_asks_how_things_are_is_not_sent_again():
    under_way = exchange(patient=False)
    under_way.attempt(100.0)
    with pytest.raises(Unreachable):
        under_way.lost("Connection refused", 100.0)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_that_cannot_be(deadline_s: float):
    with pytest.raises(ValueError, match="deadline_s must be above 0"):
        Settings(deadline_s=deadline_s)
    with pytest.raises(ValueError, match="deadline_s must be above 0"):
        Exchange(calls.health(), Settings(), Terms(deadline_s=deadline_s), 0.0)


@pytest.mark.parametrize("request_id", ["", "two words", "new\nline", "x" * 129])
def test_a_request_id_that_cannot_be(request_id: str):
    with pytest.raises(ValueError, match="request_id must be"):
        Exchange(calls.health(), Settings(), Terms(request_id=request_id), 0.0)
