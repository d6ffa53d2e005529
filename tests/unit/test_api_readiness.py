"""/readyz and what stands behind it, and the question for the broker's status."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from hailo_clip.api import enquiry
from hailo_clip.api.enquiry import Enquiry
from hailo_clip.api.health import Link, health_of
from hailo_clip.api.readiness import checks_of
from hailo_clip.shared.messages import Control, Pong, Status
from tests.doubles.frontend import Frontend, configured


@pytest.fixture(scope="module")
def shared() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as frontend:
        yield frontend


@pytest.fixture
def frontend(shared: Frontend) -> Iterator[Frontend]:
    yield shared
    shared.broker.snapshot = None
    shared.mend()


def pong(state: str, ready_workers: int, fingerprint: str) -> Pong:
    reason = "" if state == "ready" else f"it is {state}"
    return Pong(1, "epoch.1", state, reason, ready_workers, "m", fingerprint, "onnx")


PONGS = [
    None,
    *(
        pong(state, count, fingerprint)
        for state, fingerprint in itertools.product(("starting", "ready", "unhealthy", "draining"), "ab")
        for count in ((1, 2) if state == "ready" else (0, 1) if state == "draining" else (0,))
    ),
]


@pytest.mark.parametrize("link", get_args(Link))
@pytest.mark.parametrize("answer", PONGS)
def test_all_checks_hold_exactly_when_the_service_is_ready(link: Link, answer: Pong | None) -> None:
    checks = checks_of(link, answer, "a")
    assert [check.name for check in checks] == ["broker", "model", "workers", "intake"]
    assert all(check.ok for check in checks) == health_of(link, answer, "a").ready
    assert all(check.ok != bool(check.reason) for check in checks)


def verbose(frontend: Frontend) -> tuple[int, dict[str, str]]:
    """The code of /readyz?verbose and the reason of each check, empty where it holds."""
    result = frontend.request("GET", "/readyz", query_string="verbose")
    assert result.json["status"] == ("ready" if result.status_code == 200 else "not ready")
    shown = {check["name"]: check.get("reason", "") for check in result.json["checks"]}
    assert [check["ok"] for check in result.json["checks"]] == [not reason for reason in shown.values()]
    return result.status_code, shown


def test_verbose_lists_each_check(frontend: Frontend) -> None:
    assert verbose(frontend) == (200, {"broker": "", "model": "", "workers": "", "intake": ""})
    frontend.ail("unhealthy", "worker w0: silent")
    assert verbose(frontend) == (
        503,
        {"broker": "", "model": "", "workers": "worker w0: silent", "intake": ""},
    )
    frontend.ail("draining", "the service is shutting down")
    code, shown = verbose(frontend)
    assert (code, shown["intake"]) == (503, "the service is shutting down")


def test_a_broker_with_another_model_is_named(frontend: Frontend) -> None:
    right = frontend.broker.fingerprint
    frontend.broker.fingerprint = "0123456789abcdef"
    try:
        frontend.ail("ready", "")
        code, shown = verbose(frontend)
    finally:
        frontend.broker.fingerprint = right
    assert (code, shown["broker"], shown["workers"], shown["intake"]) == (503, "", "", "")
    assert "0123456789abcdef" in shown["model"] and right in shown["model"]


@pytest.mark.parametrize("query", ["", "verbose=false"])
def test_without_verbose_there_is_only_the_result(frontend: Frontend, query: str) -> None:
    assert frontend.request("GET", "/readyz", query_string=query).json == {"status": "ready"}


def test_verbose_is_a_switch(frontend: Frontend) -> None:
    result = frontend.request("GET", "/readyz", query_string="verbose=maybe")
    assert (result.status_code, list(result.json)) == (400, ["error"])
    assert "verbose" in result.json["error"]


# The question for the broker's status


def asked(steps: Any) -> Any:
    """Run `steps`, a function of an enquiry and the list of what it sent."""
    sent: list[Control] = []

    async def main() -> Any:
        return await steps(Enquiry(sent.append), sent)

    return asyncio.run(main())


def test_who_asks_meanwhile_shares_the_answer() -> None:
    async def steps(one: Enquiry, sent: list[Control]) -> None:
        first, second = asyncio.create_task(one.ask()), asyncio.create_task(one.ask())
        await asyncio.sleep(0)
        assert sent == [Control(1, "status")]
        first.cancel()  # its client went away
        await asyncio.sleep(0)
        assert one.answered(Status(1, {"state": "ready"}))
        assert await second == {"state": "ready"}
        third = asyncio.create_task(one.ask())
        await asyncio.sleep(0)
        assert sent[1:] == [Control(2, "status")]
        assert not one.answered(Status(1, {}))  # late, or twice
        assert one.answered(Status(2, {"state": "draining"}))
        assert await third == {"state": "draining"}
        assert not one.answered(Status(2, {}))

    asked(steps)


def test_silence_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enquiry, "STATUS_S", 0.01)

    async def steps(one: Enquiry, sent: list[Control]) -> None:
        assert await one.ask() is None
        assert not one.answered(Status(1, {}))
        late = asyncio.create_task(one.ask())
        await asyncio.sleep(0)
        one.give_up()
        assert await late is None

    asked(steps)


def test_the_gateway_asks_the_broker(frontend: Frontend) -> None:
    frontend.broker.snapshot = {"state": "ready", "waiting": 3}
    assert frontend.status() == {"state": "ready", "waiting": 3}
    assert frontend.broker.controls[-1].verb == "status"
