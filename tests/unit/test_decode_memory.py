"""Memory for decoding: what fits goes at once, what does not waits, what never would goes alone."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image

from hailo_clip.api.decodememory import DecodeMemory, decoding_bytes
from hailo_clip.api.image import decode_image
from hailo_clip.shared.errors import ClientError


@contextmanager
def decoding(memory: DecodeMemory, nbytes: int) -> Iterator[threading.Event]:
    """A thread that decodes a picture of `nbytes` until this ends; the event says that it began."""
    began, end = threading.Event(), threading.Event()

    def run() -> None:
        with memory.room(nbytes):
            began.set()
            end.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield began
    finally:
        end.set()
        thread.join(10)


def test_what_fits_beside_others_does_not_wait() -> None:
    memory = DecodeMemory(100)
    with decoding(memory, 60) as one, decoding(memory, 40) as two:
        assert one.wait(5)
        assert two.wait(5)


def test_what_does_not_fit_waits_until_others_are_done() -> None:
    memory = DecodeMemory(100)
    with decoding(memory, 60) as one:
        assert one.wait(5)
        with memory.room(0):  # nothing is always there
            pass
        late = decoding(memory, 41)
        began = late.__enter__()
        assert not began.wait(0.1)
    assert began.wait(5)
    late.__exit__(None, None, None)


def test_what_never_fits_goes_alone() -> None:
    memory = DecodeMemory(100)
    with decoding(memory, 1000) as huge:
        assert huge.wait(5)
        late = decoding(memory, 1)
        began = late.__enter__()
        assert not began.wait(0.1)
    assert began.wait(5)
    late.__exit__(None, None, None)


def test_a_picture_that_is_damaged_gives_its_memory_back() -> None:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(out, "PNG")
    memory = DecodeMemory(decoding_bytes("PNG", 64, 64))
    for _ in range(3):
        with pytest.raises(ClientError):
            decode_image(out.getvalue()[:-200], 8, memory=memory)
    with decoding(memory, decoding_bytes("PNG", 64, 64)) as began:
        assert began.wait(5)


def test_four_photos_of_12_megapixels_are_decoded_at_once() -> None:
    memory = DecodeMemory()
    size = decoding_bytes("JPEG", 4000, 3000)
    with decoding(memory, size) as a, decoding(memory, size) as b, decoding(memory, size) as c:
        assert a.wait(5)
        assert b.wait(5)
        assert c.wait(5)
        with decoding(memory, size) as d:
            assert d.wait(5)
