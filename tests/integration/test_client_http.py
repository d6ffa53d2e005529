"""Both clients against a whole service: one that starts, one that is overrun, one that wants a key."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hailo_clip.api.client import (
    AsyncClient,
    BadRequest,
    Client,
    DeadlineExceeded,
    Embedding,
    Overloaded,
    RequestFailed,
    RetryPolicy,
    Unauthorized,
)
from tests.doubles.running_service import RunningService

pytestmark = pytest.mark.xdist_group("serve")

CAT = Path(__file__).parent.parent.parent / "examples/photos/cat.jpg"
PATIENT = RetryPolicy(attempts=1000, base_s=0.05, cap_s=0.2)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, str]]:
    """A service with a short queue, and the key that it wants."""
    directory = tmp_path_factory.mktemp("client")
    keys = directory / "keys"
    command = [sys.executable, "-m", "hailo_clip.ops.cli", "keys", "create", "tester", "--file", str(keys)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    (key,) = [word for word in made.stdout.split() if word.startswith("hc_")]
    settings = {"HAILO_CLIP__AUTH__KEYS_FILE": str(keys), "HAILO_CLIP__QUEUE__MAX_DEPTH": "4"}
    running = RunningService(directory, **settings)
    # Nobody listens at first, then it is starting: the first call outlasts both.
    with Client(running.url, api_key=key, retry=PATIENT, deadline_s=40) as client:
        client.embed_text("the first of all")
    yield running, key
    running.end()


def test_a_key_is_needed(keyed: tuple[RunningService, str]):
    service, key = keyed
    with Client(service.url) as client, pytest.raises(Unauthorized) as caught:
        client.embed_text("x")
    assert caught.value.status == 401
    with Client(service.url, api_key=key) as client:
        assert client.health()
        assert client.embed_text("x").vector.shape == (640,)


def test_an_image_is_the_same_in_every_form(keyed: tuple[RunningService, str]):
    service, key = keyed
    with Client(service.url, api_key=key) as client:
        expected = client.embed_image(CAT).vector
        assert np.linalg.norm(expected) == pytest.approx(1, abs=1e-5)
        picture = Image.open(CAT)
        small = picture.resize((288, 288))  # what the encoder sees, so that no resizing differs
        for image in (CAT.read_bytes(), str(CAT)):
            np.testing.assert_array_equal(client.embed_image(image).vector, expected)
        forms = client.embed_images([small, np.asarray(small)])
        np.testing.assert_array_equal(forms.whole()[0], forms.whole()[1])
        np.testing.assert_array_equal(client.embed_image(small).vector, forms.vectors[0])


def test_an_overrun_service_answers_everybody_in_the_end(keyed: tuple[RunningService, str]):
    service, key = keyed

    async def crowd(retry: RetryPolicy) -> list[Embedding | RequestFailed]:
        async with AsyncClient(service.url, api_key=key, retry=retry) as client:
            calls = [client.embed_text(f"{retry.attempts} attempts, number {i}") for i in range(40)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, (Embedding, RequestFailed)) for answer in answers)
        return answers  # type: ignore[return-value]

    refused = [a for a in asyncio.run(crowd(RetryPolicy(attempts=1))) if isinstance(a, RequestFailed)]
    assert refused
    for error in refused:
        assert isinstance(error, Overloaded)
        assert (error.retry_after_s or 0) >= 1
    assert all(isinstance(answer, Embedding) for answer in asyncio.run(crowd(PATIENT)))


def test_a_deadline_that_nothing_can_meet(keyed: tuple[RunningService, str]):
    service, key = keyed
    with Client(service.url, api_key=key) as client, pytest.raises((DeadlineExceeded, Overloaded)):
        client.embed_image(CAT, deadline_s=0.002)


def test_what_the_service_refuses_is_told_in_its_words(keyed: tuple[RunningService, str]):
    service, key = keyed
    with Client(service.url, api_key=key) as client:
        with pytest.raises(BadRequest, match="Invalid 'top_k'") as caught:
            client.classify(CAT, ["a cat"], top_k=0, request_id="mine")
        assert (caught.value.status, caught.value.request_id) == (400, "mine")
        with pytest.raises(BadRequest, match="Missing or invalid 'prompts' array"):
            client.classify(CAT)
