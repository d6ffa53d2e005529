"""The gateway over real sockets: answers, faults of the broker, cancellation."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from hailo_clip.api.answer import Answer
from hailo_clip.api.gateway import Gateway
from hailo_clip.api.inflight import PING_S
from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.config import Broker, Config, Model, Queue
from hailo_clip.shared.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    LimitReached,
    Quarantined,
    QueueFull,
    ServiceError,
    Unavailable,
)
from hailo_clip.shared.label_messages import LabelRequest, Labels, ListLabels
from hailo_clip.shared.messages import Kind, Reply
from tests.doubles.fake_broker import FakeBroker, embedding_of
from tests.doubles.fake_labels import FakeLabels

ITEMS = [(Kind.IMAGE, b"image"), (Kind.TEXT, b"text")]
D = 640


@pytest.fixture
def config() -> Iterator[Config]:
    """An emulated model, and sockets in a directory of their own with a short name."""
    run_dir = Path(tempfile.mkdtemp(prefix="hc-"))
    yield Config(
        model=Model(name="emulated-clip-resnet-50x4"),
        broker=Broker(run_dir=run_dir),
        queue=Queue(request_timeout_s=20.0),
    )
    shutil.rmtree(run_dir)


def drive(config: Config, test: Callable[[FakeBroker, Gateway], Awaitable[None]]) -> None:
    """Run `test` with a broker and a gateway that has seen it ready; no callback may raise."""

    unhandled: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        with FakeBroker(config) as broker:
            gateway = Gateway(config, broker.manifest)
            await gateway.start()
            try:
                await until(lambda: gateway.health.ready)
                await asyncio.wait_for(test(broker, gateway), 30)
            finally:
                await gateway.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert unhandled == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def ask(gateway: Gateway, deadline_s: float = 10.0) -> Answer:
    return await gateway.submit(ITEMS, tenant="t", deadline_s=deadline_s, trace="r-1")


def test_embeddings_come_back_in_item_order(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        answer = await ask(gateway)
        assert answer.embeddings.dtype == np.float32
        np.testing.assert_array_equal(answer.embeddings[0], embedding_of(b"image", D))
        np.testing.assert_array_equal(answer.embeddings[1], embedding_of(b"text", D))
        assert (answer.errors, answer.queue_s, answer.device_s) == ((None, None), 0.001, 0.002)
        submit = broker.submits[0]
        assert (submit.trace, submit.tenant, submit.kinds) == ("r-1", "t", (0, 1))
        assert submit.fingerprint == broker.manifest.fingerprint("emulated")

    drive(config, test)


def test_label_sets_have_their_own_requests(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        listed, _ = await asyncio.gather(gateway.labels(ListLabels(0, ""), 10.0), ask(gateway))
        assert (listed.outcome, listed.listing) == (lm.LISTED, ())
        broker.labels.refusal = ("limit", "full", None)
        with pytest.raises(LimitReached, match="full"):
            await gateway.labels(ListLabels(0, ""), 10.0)
        assert gateway.in_flight == 0

    drive(config, test)


def test_an_answer_to_another_question_is_an_error(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: [Labels(submit.request_id, lm.MISSING)]
        with pytest.raises(ServiceError, match="the broker answered another question"):
            await ask(gateway)

        class Confused(FakeLabels):
            def answer(self, request: LabelRequest, fingerprint: str) -> list[Any]:
                return [Reply(request.request_id, (None,), 0.0, 0.0, 0, (b"",))]

        broker.labels = Confused()
        with pytest.raises(ServiceError, match="the broker answered another question"):
            await gateway.labels(ListLabels(0, ""), 10.0)

    drive(config, test)


def test_many_at_once_each_get_their_own(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        async def one(i: int) -> None:
            payload = f"item {i}".encode()
            answer = await gateway.submit([(Kind.TEXT, payload)], tenant="t", deadline_s=10.0, trace=str(i))
            np.testing.assert_array_equal(answer.embeddings[0], embedding_of(payload, D))

        await asyncio.gather(*(one(i) for i in range(250)))
        assert gateway.in_flight == 0

    drive(config, test)


def test_a_failed_item_does_not_fail_its_neighbours(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        failed = ("inference_failed", "worker-3: CUDA says no", None)
        broker.answer = lambda submit: broker.fail_items(submit, [failed, None])
        answer = await ask(gateway)
        np.testing.assert_array_equal(answer.rows(slice(1, 2))[0], embedding_of(b"text", D))
        with pytest.raises(InferenceFailed, match=r"^Failed to encode image$"):
            answer.rows(slice(0, 2))

    drive(config, test)


def test_an_item_in_quarantine_keeps_its_words(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        failed = ("quarantined", "this image killed a worker", None)
        broker.answer = lambda submit: broker.fail_items(submit, [failed, failed])
        answer = await ask(gateway)
        with pytest.raises(Quarantined, match="killed a worker"):
            answer.rows(slice(0, 1))

    drive(config, test)


def test_a_refusal_is_raised(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = broker.refuse(("queue_full", "10 requests wait", 1.5))
        with pytest.raises(QueueFull, match="10 requests wait") as refused:
            await ask(gateway)
        assert refused.value.retry_after_s == 1.5

    drive(config, test)


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: replace(r, errors=(None,)),
        lambda r: replace(r, frames=()),
        lambda r: replace(r, frames=(r.frames[0][:-4],)),
    ],
)
def test_a_reply_that_does_not_fit_is_a_500(config: Config, damage: Callable[[Reply], Reply]) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: [damage(m) for m in broker.embed(submit) if isinstance(m, Reply)]
        with pytest.raises(ServiceError, match="the broker answered"):
            await ask(gateway)

    drive(config, test)


def test_doubled_and_late_replies_are_dropped(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: broker.embed(submit) * 3
        await ask(gateway)
        await until(lambda: gateway.dropped == 2)
        await ask(gateway)

    drive(config, test)


def test_a_broker_that_never_answers_is_a_504_by_the_deadline(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: []
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.1 s"):
            await ask(gateway, deadline_s=0.1)
        assert gateway.in_flight == 0

    drive(config, test)


def test_cancelling_the_task_cancels_the_request(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: []
        task = asyncio.create_task(ask(gateway))
        await until(lambda: len(broker.submits) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: broker.cancels == [broker.submits[0].request_id])
        assert gateway.in_flight == 0

    drive(config, test)


def test_a_broker_killed_and_restarted_answers_what_was_pending(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: []
        task = asyncio.create_task(ask(gateway, deadline_s=20.0))
        await until(lambda: len(broker.submits) == 1)
        broker.kill()
        broker.answer = broker.embed
        broker.restart()
        answer = await task
        np.testing.assert_array_equal(answer.embeddings[0], embedding_of(b"image", D))
        first, second = broker.submits
        assert second == replace(first, ttl_s=second.ttl_s)
        assert second.ttl_s < first.ttl_s

    drive(config, test)


def test_a_broker_that_falls_silent_is_noticed_and_forgiven(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answers_pings = False
        await until(lambda: not gateway.health.ready)
        with pytest.raises(Unavailable, match="the broker does not answer"):
            await ask(gateway)
        with pytest.raises(Unavailable):
            gateway.require_ready()
        broker.answers_pings = True
        await until(lambda: gateway.health.ready)
        await ask(gateway)

    drive(config, test)


def test_an_event_loop_that_stalled_picks_up_where_it_was(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        tasks = [asyncio.create_task(ask(gateway)) for _ in range(3)]
        await asyncio.sleep(0)
        assert gateway.in_flight == 3
        time.sleep(PING_S + 0.1)  # the stall: timers are overdue while several answers wait
        await asyncio.gather(*tasks)
        assert gateway.health.ready

    drive(config, test)


def test_malformed_messages_change_nothing(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: []
        task = asyncio.create_task(ask(gateway))
        await until(lambda: len(broker.submits) == 1)
        broker.send_raw(b"\xc1 this is no msgpack", b"and a frame")
        broker.send(*broker.embed(broker.submits[0]))
        await task
        assert gateway.dropped == 1

    drive(config, test)


def test_closing_answers_what_waits(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        broker.answer = lambda submit: []
        task = asyncio.create_task(ask(gateway))
        await until(lambda: len(broker.submits) == 1)
        await gateway.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await task

    drive(config, test)


def test_what_comes_after_closing_is_refused(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        await gateway.close()
        for asked in (ask(gateway), gateway.labels(ListLabels(0, ""), 10.0)):
            with pytest.raises(Draining, match="shutting down") as refused:
                await asyncio.wait_for(asked, 5)
            assert refused.value.retry_after_s
        assert gateway.in_flight == 0

    drive(config, test)


def test_http_counts_reach_the_broker(config: Config) -> None:
    async def test(broker: FakeBroker, gateway: Gateway) -> None:
        gateway.count("/v1/classify", 200)
        gateway.count("/v1/classify", 200)
        await until(lambda: (("/v1/classify", 200, 2),) in [p.http for p in broker.pings])

    drive(config, test)
