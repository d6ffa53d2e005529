"""The small parts of the frontends, each alone: addresses, ranking, intake, bodies, imports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from hailo_clip.api import body
from hailo_clip.api.body import BodyFeed, ByteBudget, read_body
from hailo_clip.api.call import Call, client_address, networks, open_call
from hailo_clip.api.fields import Picture
from hailo_clip.api.gunicorn_conf import settings
from hailo_clip.api.intake import CACHED_PROMPTS, INLINE_CHARACTERS, Asker, Intake
from hailo_clip.api.problems import retry_after
from hailo_clip.api.ranking import cosine_scores, ranked
from hailo_clip.shared.config import Config, Queue, Server
from hailo_clip.shared.errors import (
    BodyTooLarge,
    ClientError,
    DeadlineExceeded,
    QueueFull,
    RequestTimeout,
    ServiceError,
)
from hailo_clip.shared.models import open_model
from hailo_clip.shared.tokenizer import ClipTokenizer, TokenIds, Tokenizer
from tests.doubles.frontend import MODEL, http_scope

PROXIES = networks(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # not a proxy: what it claims is nothing
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # the first could be made up
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, garbage"], "10.0.0.1"),
        ("2001:db8::1", ["2001:0db9:0:0::5"], "2001:db9::/64"),
        ("2001:db9:1:2:3:4:5:6", [], "2001:db9:1:2::/64"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),  # IPv4 on a socket for both
        ("::ffff:192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.1:51234"], "198.51.100.1"),  # some proxies add the port
        ("10.0.0.1", ["[2001:db9::5]:443, [2001:db8::1]"], "2001:db9::/64"),
        ("10.0.0.1", ["198.51.100.1:port"], "198.51.100.1"),
        ("10.0.0.1", ["[198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["a:b:c"], "10.0.0.1"),
        ("::1", [], "::1"),
        ("local", ["198.51.100.1"], "local"),
    ],
)
def test_client_address(peer: str, forwarded: list[str], expected: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == expected


def test_a_tenant_is_the_connections_address_unless_proxies_are_trusted() -> None:
    scope = http_scope("GET", "/", {"X-Forwarded-For": "198.51.100.1"}, client=("10.0.0.1", 1))
    assert open_call(scope, ()).tenant == "10.0.0.1"
    assert open_call(scope, PROXIES).tenant == "198.51.100.1"
    assert open_call({**scope, "client": None}, PROXIES).tenant == "local"


def test_ranking_keeps_the_order_of_equal_scores_and_cuts_at_threshold_and_top_k() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.1, 0.9], dtype=np.float32)
    prompts = ["a", "b", "c", "d", "e"]
    assert [entry["text"] for entry in ranked(prompts, scores, 5, 0.0)] == ["b", "e", "a", "c", "d"]
    assert [(e["text"], e["rank"]) for e in ranked(prompts, scores, 3, 0.0)] == [("b", 1), ("e", 2), ("a", 3)]
    assert [entry["text"] for entry in ranked(prompts, scores, 5, 0.5)] == ["b", "e", "a", "c"]
    assert ranked(prompts, scores, 5, 1.0) == []


def test_scores_are_cosines_between_0_and_1() -> None:
    image = np.array([1.0, 0.0], dtype=np.float32)
    texts = np.array([[1.0 + 1e-6, 0.0], [-1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
    np.testing.assert_allclose(cosine_scores(image, texts), [1.0, 0.0, 0.6], atol=1e-6)
    assert cosine_scores(image, texts).max() <= 1.0


def test_equal_texts_score_equally_wherever_they_stand() -> None:
    rng = np.random.default_rng(7)
    image = np.full(640, 0.04, dtype=np.float32)
    texts = np.repeat(np.abs(rng.standard_normal((1, 640))).astype(np.float32), 37, axis=0)
    assert len(set(cosine_scores(image, texts * np.float32(0.01)).tolist())) == 1


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (0.0, "1"), (1.2, "2"), (1e9, "3600")])
def test_retry_after_is_whole_seconds(seconds: float | None, header: str | None) -> None:
    assert retry_after(ServiceError("x", retry_after_s=seconds)) == header


# Intake


class SlowTokenizer(Tokenizer):
    """One that waits until it is let go, and counts."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen: list[str] = []

    def encode(self, text: str) -> TokenIds:
        self.seen.append(text)
        assert self.go.wait(10)
        return np.array([1, len(text), 2], dtype=np.int32)


LONG = "x" * (INLINE_CHARACTERS + 1)


def intake(tokenizer: Tokenizer, threads: int = 1, backlog: int = 1) -> Intake:
    made = Intake(open_model(MODEL, __file__), tokenizer, threads, backlog)  # type: ignore[arg-type]
    made.start()
    return made


def asker(tenant: str = "t", left_s: float = 10.0) -> Asker:
    return Asker(tenant, 1.0, left_s)


def test_more_jobs_than_may_wait_are_a_429_and_cancelled_ones_make_room() -> None:
    async def main() -> None:
        tokenizer = SlowTokenizer()
        made = intake(tokenizer)
        running = asyncio.create_task(made.prompts([LONG], asker()))
        waiting = asyncio.create_task(made.prompts([LONG + "y"], asker()))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match=r"^1 images wait to be decoded, no more may$"):
            await made.prompts([LONG + "z"], asker())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        late = asyncio.create_task(made.prompts([LONG + "w"], asker()))
        await asyncio.sleep(0)
        tokenizer.go.set()
        assert await running == [np.array([1, len(LONG), 2], dtype="<i4").tobytes()]
        await late
        assert tokenizer.seen == [LONG, LONG + "w"]
        made.close()

    asyncio.run(main())


def test_of_a_list_that_is_refused_nothing_stays_in_line() -> None:
    async def main() -> None:
        tokenizer = SlowTokenizer()
        made = intake(tokenizer, threads=2)
        running = [asyncio.create_task(made.prompts([LONG + str(i)], asker())) for i in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await made.images([Picture("a", data=b"one"), Picture("b", data=b"two")], asker())
        await asyncio.sleep(0)
        next_one = asyncio.create_task(made.prompts([LONG + "next"], asker()))
        await asyncio.sleep(0)
        tokenizer.go.set()
        await asyncio.gather(next_one, *running)
        made.close()

    asyncio.run(main())


def test_a_flooding_tenant_makes_room_for_another() -> None:
    async def main() -> None:
        tokenizer = SlowTokenizer()
        made = intake(tokenizer, backlog=2)
        flood = [asyncio.create_task(made.prompts([LONG + str(i)], asker("flood"))) for i in range(3)]
        await asyncio.sleep(0)
        light = asyncio.create_task(made.prompts([LONG + "light"], asker("light")))
        with pytest.raises(QueueFull):
            await flood[2]
        tokenizer.go.set()
        await asyncio.gather(light, *flood[:2])
        assert tokenizer.seen == [LONG + "0", LONG + "light", LONG + "1"]
        made.close()

    asyncio.run(main())


def test_who_waits_beyond_the_deadline_gets_a_504_and_leaves_the_line() -> None:
    async def main() -> None:
        tokenizer = SlowTokenizer()
        made = intake(tokenizer)
        running = asyncio.create_task(made.prompts([LONG], asker()))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await made.prompts([LONG + "late"], asker(left_s=0.01))
        tokenizer.go.set()
        await running
        await made.prompts([LONG + "next"], asker())
        assert tokenizer.seen == [LONG, LONG + "next"]
        made.close()

    asyncio.run(main())


def test_a_long_list_has_one_deadline_and_what_is_left_of_it_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded = []

    def slow(data: bytes, size: int, field: str, memory: object) -> object:
        decoded.append(field)
        time.sleep(0.05)
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr("hailo_clip.api.intake.decode_image", slow)

    async def main() -> None:
        made = intake(ClipTokenizer(77), backlog=64)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await made.images([Picture(str(i), data=b"x") for i in range(60)], asker(left_s=0.2))
        assert time.monotonic() - began < 1.5
        made.close()
        assert 1 <= len(decoded) <= 6

    asyncio.run(main())


def test_prompts_are_tokenised_once_and_the_memory_of_them_is_bounded() -> None:
    async def main() -> None:
        tokenizer = SlowTokenizer()
        tokenizer.go.set()
        made = intake(tokenizer)
        assert await made.prompts(["a", "bb", "a"], asker()) == [
            np.array([1, n, 2], dtype="<i4").tobytes() for n in (1, 2, 1)
        ]
        await made.prompts(["a"], asker())
        assert tokenizer.seen == ["a", "bb"]
        for i in range(CACHED_PROMPTS):
            await made.prompts([f"prompt {i}"], asker())
        await made.prompts(["a"], asker())
        assert tokenizer.seen[-1] == "a"
        made.close()

    asyncio.run(main())


def test_what_is_no_image_is_named_as_the_client_does() -> None:
    async def main() -> None:
        made = intake(ClipTokenizer(77))
        [fault] = await made.images([Picture("photo", data=b"no image")], asker())
        assert isinstance(fault, ClientError)
        assert "'photo'" in fault.message
        made.close()

    asyncio.run(main())


# Bodies


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_a_body_is_read_within_limit_and_budget() -> None:
    async def main() -> None:
        budget, call = ByteBudget(20), Call("r", "t", "POST", "/")
        assert await read_body(chunks(b"abc", b"def"), call, 6, budget) == b"abcdef"
        assert (call.body_bytes, budget.held) == (6, 6)
        over = Call("r", "t", "POST", "/")
        with pytest.raises(BodyTooLarge):
            await read_body(chunks(b"abc", b"d"), over, 3, budget)
        assert (over.body_bytes, budget.held) == (3, 9)
        with pytest.raises(QueueFull, match=r"^your request bodies hold 9 bytes, at most 10 may$"):
            await read_body(chunks(b"ab"), Call("r", "t", "POST", "/"), 9, budget)
        await read_body(chunks(b"0123456789"), Call("r", "other", "POST", "/"), 10, budget)
        with pytest.raises(QueueFull, match=r"^request bodies hold 19 bytes, at most 20 may$"):
            await read_body(chunks(b"ab"), Call("r", "third", "POST", "/"), 9, budget)

    asyncio.run(main())


def test_a_body_that_never_ends_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(RequestTimeout, match=r"^The body did not arrive within 0\.01 s$"):
            await read_body(stuck(), Call("r", "t", "POST", "/"), 10, ByteBudget(10))

    monkeypatch.setattr(body, "READ_TIMEOUT_S", 0.01)
    asyncio.run(main())


def test_a_refused_body_is_thrown_away_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        received = 0

        async def receive() -> dict[str, object]:
            nonlocal received
            received += 1
            return {"type": "http.request", "body": b"x" * 100, "more_body": received < 5}

        feed = BodyFeed(receive)
        await feed.drain()
        assert (feed.finished, received) == (True, 5)
        received = -100
        endless = BodyFeed(receive)
        await endless.drain()
        assert (endless.finished, received) == (False, -90)

    monkeypatch.setattr(body, "DRAIN_BYTES", 1000)
    asyncio.run(main())


# Around


def test_gunicorn_waits_longer_than_any_request() -> None:
    values = settings(Config(queue=Queue(request_timeout_s=12.5), server=Server(host="::", port=5050)))
    assert values["bind"] == "[::]:5050"
    assert values["graceful_timeout"] >= 13
    assert values["control_socket_disable"] is True


def test_frontends_load_neither_encoders_nor_the_other_processes() -> None:
    program = "import sys, hailo_clip.api.server; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "hailo_clip.api.gateway" in loaded
    assert not {"onnxruntime", "onnx", "hailo_platform", "hailo_clip.broker", "hailo_clip.workers"} & loaded
