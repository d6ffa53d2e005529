"""The prompt cache: bounded, least recently used first out, and carried across restarts or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import resource
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailo_clip.broker.cachefile import EVERY_S, CacheFile
from hailo_clip.broker.promptcache import MAGIC, PromptCache, pack
from tests.doubles.broker_world import policy

PRINT = "0123456789abcdef" * 2
OTHER = "f" * 32


def filled(count: int, *, size: int = 16, **limits: int) -> PromptCache:
    cache = PromptCache(**{"max_entries": 1000, **limits})
    for i in range(count):
        cache.put(b"key%d" % i, bytes([i % 256]) * size)
    return cache


def keys(cache: PromptCache) -> list[bytes]:
    return list(cache._entries)


def dump(cache: PromptCache, fingerprint: str) -> bytes:
    return b"".join(pack(cache.entries(), fingerprint))


def signed(body: bytes) -> bytes:
    """A file whose checksum is right, whatever its body is."""
    return MAGIC + hashlib.sha256(body).digest() + body


# Bounds


def test_it_gives_what_was_put():
    cache = filled(3)
    assert cache.get(b"key1") == b"\x01" * 16
    assert cache.get(b"key9") is None
    assert len(cache) == 3


def test_the_least_recently_used_goes_first():
    cache = filled(3, max_entries=3)
    cache.get(b"key0")
    cache.put(b"new", b"v")
    assert keys(cache) == [b"key2", b"key0", b"new"]


def test_putting_again_replaces_and_refreshes():
    cache = filled(3, max_entries=3)
    cache.put(b"key0", b"longer value than before")
    cache.put(b"new", b"v")
    assert cache.get(b"key0") == b"longer value than before"
    assert cache.get(b"key1") is None


def test_bytes_are_bounded_too():
    one = filled(1).bytes
    cache = filled(50, max_bytes=10 * one + 20)
    assert len(cache) == 10 and cache.bytes <= cache.max_bytes
    assert keys(cache)[-1] == b"key49"


def test_no_entries_means_off():
    cache = filled(3, max_entries=0)
    assert len(cache) == 0 and cache.bytes == 0 and cache.get(b"key0") is None


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 60), st.booleans()), max_size=80),
    st.integers(0, 6),
    st.integers(0, 1500),
)
def test_it_equals_a_plain_list(steps, max_entries, max_bytes):
    cache = PromptCache(max_entries, max_bytes)
    plain: list[tuple[bytes, bytes]] = []
    for key_number, size, is_put in steps:
        key = b"k%d" % key_number
        found = next((v for k, v in plain if k == key), None)
        rest = [e for e in plain if e[0] != key]
        if is_put:
            cache.put(key, b"x" * size)
            plain = [*rest, (key, b"x" * size)]
            while len(plain) > max_entries or sum(len(k) + len(v) + 200 for k, v in plain) > max_bytes:
                plain.pop(0)
        else:
            assert cache.get(key) == found
            plain = [*rest, (key, found)] if found is not None else plain
        assert list(cache._entries.items()) == plain
        assert cache.bytes == sum(len(k) + len(v) + 200 for k, v in plain)


# Across restarts


def test_round_trip_keeps_entries_and_order():
    cache = filled(20)
    cache.get(b"key3")
    again = PromptCache(1000)
    assert again.load(dump(cache, PRINT), PRINT, 16) == 20
    assert keys(again) == keys(cache)
    assert again.bytes == cache.bytes and again.changes == 0


def test_a_smaller_cache_takes_the_most_recent():
    again = PromptCache(5)
    assert again.load(dump(filled(20), PRINT), PRINT, 16) == 5
    assert keys(again) == [b"key%d" % i for i in range(15, 20)]


def test_an_empty_cache_makes_a_round_trip():
    assert PromptCache(5).load(dump(PromptCache(5), PRINT), PRINT, 16) == 0
    for count in (63, 64, 65, 200):  # it is packed in pieces
        again = PromptCache(200)
        assert again.load(dump(filled(count), PRINT), PRINT, 16) == count
        assert again.entries() == filled(count).entries()


def refused(data: bytes, match: str = ".", fingerprint: str = PRINT, value_bytes: int = 16) -> None:
    cache = PromptCache(1000)
    cache.put(b"held", b"v" * 16)
    before = (keys(cache), cache.bytes, cache.changes)
    with pytest.raises(ValueError, match=match):
        cache.load(data, fingerprint, value_bytes)
    assert (keys(cache), cache.bytes, cache.changes) == before


def test_a_file_of_another_model_is_refused():
    refused(dump(filled(3), OTHER), "another model")


def test_embeddings_of_another_size_are_refused():
    refused(dump(filled(3), PRINT), "wrong size", value_bytes=20)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 39, 40, 60, 72, 76, 79, 90, -1])
def test_a_truncated_file_is_refused(cut):
    refused(dump(filled(3), PRINT)[:cut])


def test_every_flipped_byte_is_noticed():
    data = dump(filled(2), PRINT)
    for i in range(len(data)):
        refused(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])


@pytest.mark.parametrize("cut", range(1, 59))
def test_a_body_that_ends_early_under_a_right_checksum_is_refused(cut):
    """As another version of this program, or a hand, might leave it."""
    body = dump(filled(2), PRINT)[40:]
    assert len(body) == 36 + 2 * (4 + 4 + 4 + 16)
    refused(signed(body[:-cut]))


@pytest.mark.parametrize("count", [0, 1, 3, 2**32 - 1])
def test_a_wrong_count_is_refused(count):
    body = dump(filled(2), PRINT)[40:]
    refused(signed(body[:32] + struct.pack("<I", count) + body[36:]))


def test_a_length_beyond_the_end_is_refused():
    body = bytearray(dump(filled(2), PRINT)[40:])
    body[36:40] = struct.pack("<I", 2**32 - 1)
    refused(signed(bytes(body)))


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(noise):
    refused(noise)
    refused(signed(noise))
    with contextlib.suppress(ValueError):
        PromptCache(10).load(signed(PRINT.encode() + noise), PRINT, 4)


# The file


class Log:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "hailo_clip.broker")
        self._caplog = caplog

    def __contains__(self, text: str) -> bool:
        return any(text in r.getMessage() for r in self._caplog.records)


@pytest.fixture
def logged(caplog):
    return Log(caplog)


def await_writing(file: CacheFile) -> None:
    """Until what was begun is written; `save` would also begin."""
    file._thread.submit(lambda: None).result()


def cache_file(directory: Path | None, fingerprint: str = PRINT, entries: int = 100) -> CacheFile:
    return CacheFile(PromptCache(entries), policy(fingerprint=fingerprint, cache_entries=entries), directory)


def put(file: CacheFile, *names: bytes) -> CacheFile:
    for name in names:
        file._cache.put(name, name.ljust(16))
    return file


def test_saved_and_loaded(tmp_path, logged):
    put(cache_file(tmp_path / "state"), b"a", b"b").save()
    again = cache_file(tmp_path / "state")
    again.load()
    assert keys(again._cache) == [b"a", b"b"]
    assert "prompt cache loaded" in logged
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["prompts-paper.cache"]


def test_no_file_yet_is_no_news(tmp_path, logged):
    cache_file(tmp_path).load()
    assert "cache" not in logged


def test_a_damaged_file_is_logged_and_ignored(tmp_path, logged):
    put(cache_file(tmp_path), b"a").save()
    path = tmp_path / "prompts-paper.cache"
    body = path.read_bytes()[40:-3]
    path.write_bytes(signed(body))
    again = cache_file(tmp_path)
    again.load()
    assert len(again._cache) == 0 and "prompt cache file ignored" in logged


def test_a_file_of_another_model_is_logged_and_replaced(tmp_path, logged):
    put(cache_file(tmp_path, OTHER), b"a").save()
    mine = cache_file(tmp_path)
    mine.load()
    assert "another model" in logged
    put(mine, b"b").save()
    again = cache_file(tmp_path)
    again.load()
    assert keys(again._cache) == [b"b"]


def test_it_is_written_now_and_then_and_only_after_changes(tmp_path):
    file = put(cache_file(tmp_path), b"a")
    path = tmp_path / "prompts-paper.cache"
    file.save_now_and_then(1000.0)
    assert not path.exists()
    file.save_now_and_then(1000.0 + EVERY_S)
    await_writing(file)
    first = path.stat().st_ino
    file.save_now_and_then(1000.0 + 2 * EVERY_S)
    await_writing(file)
    assert path.stat().st_ino == first
    put(file, b"b").save_now_and_then(1000.0 + 2.5 * EVERY_S)
    await_writing(file)
    assert path.stat().st_ino == first
    file.save_now_and_then(1000.0 + 3.5 * EVERY_S)
    await_writing(file)
    assert path.stat().st_ino != first


def test_a_slow_disk_holds_nobody_up_and_the_last_save_waits_for_it(tmp_path, monkeypatch):
    """The disk takes nothing until `disk` is set; meanwhile the broker goes on, and the cache changes."""
    disk, begun, fsync = threading.Event(), [], os.fsync

    def slow(handle: int) -> None:
        begun.append(handle)
        assert disk.wait(30)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", slow)
    file = put(cache_file(tmp_path), b"a", b"b")
    for tick in range(10):  # one at a time, however long it takes
        file.save_now_and_then(1000.0 + tick * EVERY_S)
        put(file, b"c%d" % tick)
    end = threading.Timer(0.2, disk.set)
    end.start()
    file.save()
    end.join()
    assert len(begun) == 2 and not file._cache.changes
    again = cache_file(tmp_path)
    again.load()
    assert again._cache.entries() == file._cache.entries()
    assert [p.name for p in tmp_path.iterdir()] == ["prompts-paper.cache"]


def test_what_could_not_be_written_is_tried_again_at_the_next_time(tmp_path, logged):
    place = tmp_path / "state"
    place.write_text("a file where the directory should be")
    file = put(cache_file(place), b"a")
    for tick in range(2):
        file.save_now_and_then(1000.0 + tick * EVERY_S)
    await_writing(file)
    assert "prompt cache not written" in logged
    place.unlink()
    file.save_now_and_then(1000.0 + 2 * EVERY_S)
    await_writing(file)
    assert (place / "prompts-paper.cache").exists()


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = put(cache_file(None), b"a")
    file.load()
    file.save_now_and_then(1000.0)
    file.save_now_and_then(2000.0)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_logged(tmp_path, logged):
    (tmp_path / "state").write_text("a file where the directory should be")
    file = put(cache_file(tmp_path / "state"), b"a")
    file.load()
    file.save()
    assert "prompt cache not written" in logged
    assert file._cache.changes  # to be tried again


def test_a_disk_that_takes_no_more_is_logged_and_keeps_no_debris(tmp_path, logged):
    """The limit on file sizes stands in for the disk's end: the write stops in the middle."""
    file = put(cache_file(tmp_path), b"old")
    file.save()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    put(file, b"new")
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        for _ in range(3):
            file.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "prompt cache not written" in logged
    assert [p.name for p in tmp_path.iterdir()] == ["prompts-paper.cache"]
    again = cache_file(tmp_path)
    again.load()
    assert keys(again._cache) == [b"old"]


def test_a_place_that_is_taken_is_logged_and_keeps_no_debris(tmp_path, logged):
    (tmp_path / "prompts-paper.cache").mkdir()
    put(cache_file(tmp_path), b"a").save()
    assert "prompt cache not written" in logged
    assert [p.name for p in tmp_path.iterdir()] == ["prompts-paper.cache"]
