"""While a tenant's refusal holds, its further images are refused by their headers alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hailo_clip.api import refusals
from hailo_clip.api.refusals import HOLD_S, MAX_TENANTS, Refusals
from hailo_clip.shared.errors import QueueFull
from tests.doubles.frontend import CLASSIFY, GOOD, TEXT, Frontend, configured

FULL = QueueFull("10 requests wait, at most 10 may", retry_after_s=2.5)


@pytest.fixture
def frontend() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as made:
        yield made


def test_a_refusal_holds_for_its_tenant_and_its_time() -> None:
    known = Refusals()
    known.check("a", 10.0)
    known.note("a", 10.0, FULL)
    known.check("b", 10.0)
    with pytest.raises(QueueFull) as again:
        known.check("a", 10.0 + 0.9 * HOLD_S)
    assert (again.value.message, again.value.retry_after_s) == (FULL.message, 2.5)
    known.check("a", 10.0 + 1.1 * HOLD_S)


def test_the_memory_of_refusals_is_bounded() -> None:
    known = Refusals()
    for i in range(3 * MAX_TENANTS):
        known.note(str(i), 0.0, FULL)
    assert len(known._last) <= MAX_TENANTS


def test_images_are_refused_unread_while_a_refusal_holds(
    frontend: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "HOLD_S", 30.0)

    frontend.broker.answer = frontend.broker.refuse(FULL.to_wire())
    first = frontend.post(CLASSIFY, GOOD)
    assert (first.status_code, first.json, first.headers["retry-after"]) == (
        429,
        {"error": FULL.message},
        "3",
    )
    frontend.broker.answer = frontend.broker.embed
    again = frontend.post(CLASSIFY, GOOD)
    assert (again.status_code, again.json, again.headers["retry-after"]) == (
        429,
        {"error": FULL.message},
        "3",
    )
    assert len(frontend.broker.submits) == 1
    assert frontend.post(TEXT, {"text": "may be cached"}).status_code == 200
    monkeypatch.setattr(refusals, "HOLD_S", 0.001)
    time.sleep(0.002)
    assert frontend.post(CLASSIFY, GOOD).status_code == 200
