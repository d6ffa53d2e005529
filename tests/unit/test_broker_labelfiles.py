"""The files of label sets: on the disk before a change is made; damage is put aside; disks may fail."""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hailo_clip.broker import labelfiles
from hailo_clip.broker.labelfiles import ASIDE, SUFFIX, LabelFiles, file_name
from hailo_clip.broker.labels import Change, LabelStore
from hailo_clip.broker.work import Send
from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.codec import decode_to_frontend, encode
from hailo_clip.shared.label_messages import DropLabels, LabelChange, Labels
from hailo_clip.shared.messages import Cancel, FromFrontend, Refused
from hailo_clip.shared.metrics import Metrics
from tests.doubles.broker_world import policy
from tests.unit.test_broker_labels import OTHER, file_of, get, put, rows

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
REFUSED = "label sets can't be stored: "


class Broker:
    """A store and its files, used as the shell does."""

    def __init__(self, directory: Path | None, **changes: Any) -> None:
        self.metrics = Metrics()
        self.store = LabelStore(policy(**changes))
        self.files = LabelFiles(self.store, directory, self.metrics)
        self.files.load()

    def ask(self, request: FromFrontend) -> bool:
        """Hand `request` in; True when it was taken."""
        return self.files.takes(b"f", request)

    def rings(self, seconds: float = 10.0) -> bool:
        return bool(select.select([self.files.bell], [], [], seconds)[0])

    def answer(self) -> str:
        """Outcome of the next change, or why there is none."""
        answers = outcomes(self.files.answers())
        while not answers:
            assert self.rings()
            answers = outcomes(self.files.answers())
        (answer,) = answers
        return answer

    def does(self, request: LabelChange) -> str:
        assert self.ask(request)
        return self.answer()

    def finds(self, name: str = "ppe") -> Labels:
        found = self.store.answer(get(name))
        assert isinstance(found, Labels)
        return found

    def failures(self) -> float:
        return self.metrics.value("label_write_failures_total")

    def names(self) -> list[str]:
        found = self.store.answer(lm.ListLabels(1, "acme"))
        assert isinstance(found, Labels)
        return [name for name, _, _ in found.listing]


def outcomes(answers: list[Send]) -> list[str]:
    """What each says; for a refusal its words."""
    said = []
    for plane, peer, message in answers:
        assert (plane, peer) == ("frontend", b"f")
        assert isinstance(message, Labels | Refused)
        assert decode_to_frontend(encode(message)) == [message]
        if isinstance(message, Refused):
            code, words, retry_after_s = message.error
            assert (code, retry_after_s) in (("unavailable", 5.0), ("queue_full", 5.0), ("limit", None))
            said.append(words)
        else:
            said.append(message.outcome)
    return said


@contextmanager
def broker(directory: Path | None, **changes: Any) -> Iterator[Broker]:
    made = Broker(directory, **changes)
    yield made
    made.files.finish()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hailo_clip.broker")
    return caplog


def test_the_answer_comes_after_the_file(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "label-sets"
    with broker(directory) as first:
        assert first.does(put()) == lm.CREATED
        assert [p.name for p in directory.iterdir()] == [file_name(("acme", "ppe"))]
        assert directory.stat().st_mode & 0o777 == 0o700
        with broker(directory) as killed:  # as if `first` had been killed here
            assert killed.names() == ["ppe"]
        assert "label sets loaded" in logged.text
        assert first.does(DropLabels(1, "acme", "ppe")) == lm.DROPPED
        assert list(directory.iterdir()) == []
    with broker(directory) as after:
        assert after.names() == []


def test_only_changes_are_taken(tmp_path: Path) -> None:
    with broker(tmp_path) as made:
        made.does(put())
        assert not made.ask(get())
        assert not made.ask(lm.ListLabels(1, "acme"))
        assert not made.ask(Cancel(1))
        for request, outcome in (
            (DropLabels(1, "acme", "other"), lm.MISSING),
            (put(expects="wrong"), lm.CONFLICT),
        ):
            assert made.ask(request)
            assert outcomes(made.files.answers()) == [outcome]  # at once: there is nothing to write
        assert not made.rings(0)
        assert made.files.answers() == []


def test_a_change_is_seen_when_it_is_on_the_disk_and_the_next_builds_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = threading.Semaphore(0)

    def slow(directory: Path, change: Change) -> OSError | None:
        assert steps.acquire(timeout=10)
        return write(directory, change)

    write = labelfiles.write
    monkeypatch.setattr(labelfiles, "write", slow)
    drop = DropLabels(1, "acme", "a")
    with broker(tmp_path, max_label_sets=1) as made:
        for request in (put("a"), put("a", seed=1), put("b"), drop, drop, put("b")):
            assert made.ask(request)
        seen = []
        for _ in range(4):
            seen.append((made.files.answers(), made.names(), len(list(tmp_path.iterdir()))))
            assert not made.rings(0.02)
            steps.release()
            assert made.rings()
        last = made.files.answers()
        assert made.names() == ["b"]
    assert [(outcomes(a), names, files) for a, names, files in seen] == [
        ([], [], 0),
        ([lm.CREATED], ["a"], 1),
        (
            [lm.REPLACED, "There is no place for another label set: 1 of 1 are kept; delete one first"],
            ["a"],
            1,
        ),
        ([lm.DROPPED, lm.MISSING], [], 0),
    ]
    assert outcomes(last) == [lm.CREATED]
    with broker(tmp_path) as after:
        assert after.names() == ["b"]


def test_no_more_wait_than_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelfiles, "MOST_WAITING", 3 * 1100)
    made = Broker(tmp_path)
    for name in ("a", "b", "c", "d"):
        assert made.ask(put(name))
    full = "too many changes of label sets wait for the disk"
    assert outcomes(made.files.finish()) == [full, lm.CREATED, lm.CREATED, lm.CREATED]
    assert made.names() == ["a", "b", "c"]
    assert made.files._waiting == 0
    monkeypatch.setattr(labelfiles, "MOST_WAITING", 1)
    with broker(tmp_path) as made:
        assert made.does(put("d")) == lm.CREATED  # one is always taken


def test_finish_writes_and_answers_what_is_left(tmp_path: Path) -> None:
    made = Broker(tmp_path)
    for name in ("a", "b", "c"):
        made.ask(put(name))
    assert outcomes(made.files.finish()) == [lm.CREATED] * 3
    with broker(tmp_path) as after:
        assert after.names() == ["a", "b", "c"]


def test_without_a_directory_nothing_is_taken_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with broker(None) as made:
        assert not made.ask(put())
        assert not made.ask(DropLabels(1, "acme", "ppe"))
        assert made.files.answers() == []
    assert list(tmp_path.iterdir()) == []


def kept(directory: Path, *names: str) -> None:
    made = Broker(directory)
    for name in names:
        made.ask(put(name))
    made.files.finish()


@pytest.mark.parametrize("spoil", ["cut", "flip", "empty", "directory"])
def test_a_damaged_file_is_put_aside_and_the_others_are_loaded(
    tmp_path: Path, spoil: str, logged: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path, "a", "b", "c")
    path = tmp_path / file_name(("acme", "b"))
    data = path.read_bytes()
    if spoil == "directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"cut": data[:-1], "flip": data[:60] + b"\0" + data[61:], "empty": b""}[spoil])
    with broker(tmp_path) as made:
        assert made.names() == ["a", "c"]
        assert "label set put aside" in logged.text
        assert path.with_suffix(ASIDE).exists() and not path.exists()
        assert made.does(put("b")) == lm.CREATED
    with broker(tmp_path) as made:
        assert made.names() == ["a", "b", "c"]


def test_what_a_killed_broker_left_is_swept_away_and_other_files_are_left_alone(tmp_path: Path) -> None:
    kept(tmp_path, "a")
    (tmp_path / "tmpabc123").write_bytes(b"half")
    (tmp_path / "README").write_text("mine")
    with broker(tmp_path) as made:
        assert made.names() == ["a"]
    assert {p.name for p in tmp_path.iterdir()} == {file_name(("acme", "a")), "README"}


def test_a_copied_file_goes_with_its_set(tmp_path: Path) -> None:
    kept(tmp_path / "old", "a")
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "old" / file_name(("acme", "a")), tmp_path / "new" / f"copy{SUFFIX}")
    with broker(tmp_path / "new") as made:
        assert made.names() == ["a"]
        made.does(DropLabels(1, "acme", "a"))
    with broker(tmp_path / "new") as made:
        assert made.names() == []


def test_what_has_no_place_stays_on_the_disk(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    kept(tmp_path, "a", "b", "c")
    with broker(tmp_path, max_label_sets=2) as made:
        assert len(made.names()) == 2
        assert "label set not loaded" in logged.text
    with broker(tmp_path) as made:
        assert made.names() == ["a", "b", "c"]


# Disks that fail


def test_a_directory_that_cannot_be_made_refuses_changes(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "label-sets"
    directory.write_text("a file where the directory should be")
    with broker(directory) as made:
        assert "label sets not loaded" in logged.text
        assert made.does(put()) == REFUSED + "Not a directory"
        assert "label set not written" in logged.text
        assert made.names() == []
        directory.unlink()
        assert made.does(put()) == lm.CREATED


def test_a_disk_that_takes_no_more_leaves_all_as_it_was(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    """The limit on file sizes stands in for the disk's end: the write stops in the middle."""
    kept(tmp_path, "a")
    old = (tmp_path / file_name(("acme", "a"))).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with broker(tmp_path) as made:
        before = made.finds("a")
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        try:
            assert made.does(put("a", seed=1)) == REFUSED + "File too large"
            assert made.does(put("b")) == REFUSED + "File too large"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "label set not written" in logged.text
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {file_name(("acme", "a")): old}
        assert (made.names(), made.finds("a"), made.failures()) == (["a"], before, 2)
        with broker(tmp_path) as killed:
            assert killed.finds("a") == before
        assert made.does(put("a", seed=1)) == lm.REPLACED
        assert (tmp_path / file_name(("acme", "a"))).read_bytes() == file_of(made.store, "a") != old
        assert (made.finds("a") != before, made.failures()) == (True, 2)


def fails(*_: Any, **__: Any) -> None:
    raise FULL


@pytest.mark.parametrize(
    ("place", "request_"),
    [
        ("hailo_clip.broker.labelfiles.replace_file", put("a", seed=1)),
        ("hailo_clip.broker.labelfiles.replace_file", put("b")),
        ("hailo_clip.broker.labelfiles.Path.unlink", DropLabels(1, "acme", "a")),
        ("hailo_clip.broker.labelfiles._sync", put("a", seed=1)),
        ("hailo_clip.broker.labelfiles._sync", put("b")),
        ("hailo_clip.broker.labelfiles._sync", DropLabels(1, "acme", "a")),
    ],
)
def test_whatever_step_fails_the_set_stays_as_it_was_until_the_disk_is_well(
    tmp_path: Path, place: str, request_: LabelChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path, "a")
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with broker(tmp_path) as made:
        before = made.finds("a")
        with monkeypatch.context() as broken:
            broken.setattr(place, fails)
            for _ in range(2):
                assert made.does(request_) == REFUSED + "No space left on device"
        assert (made.names(), made.finds("a"), made.failures()) == (["a"], before, 2)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
        made.store.check_invariants()
        assert made.does(request_) in (lm.CREATED, lm.REPLACED, lm.DROPPED)
        assert {p.name for p in tmp_path.iterdir()} == {file_name(("acme", n)) for n in made.names()}
        assert made.finds("a") != before or made.names() == ["a", "b"]


def test_a_file_that_cannot_be_restored_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    with broker(tmp_path / "sets") as made:
        made.does(put())
        shutil.rmtree(tmp_path / "sets")
        monkeypatch.setattr(labelfiles, "replace_file", fails)
        assert made.does(put(seed=1)) == REFUSED + "No space left on device"
        assert "label set file not restored" in logged.text
        assert made.names() == ["ppe"]


def test_a_stale_set_is_renewed_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path, "a")
    with broker(tmp_path, fingerprint=OTHER) as made:
        stale = made.finds("a")
        assert stale.outcome == lm.STALE
        monkeypatch.setattr(labelfiles, "replace_file", fails)
        renewed = put("a", fingerprint=OTHER, expects=stale.version, frames=(rows(3, seed=5),))
        assert made.does(renewed) == lm.REPLACED
        assert (made.finds("a").outcome, made.finds("a").prompts) == (lm.FOUND, stale.prompts)
        assert made.failures() == 1
    with broker(tmp_path, fingerprint=OTHER) as after:
        assert after.finds("a") == stale


def test_names_of_files_are_apart() -> None:
    keys = [("", "ab"), ("a", "b"), ("ab", ""), ("a\0b", ""), ("a", "B")]
    assert len({file_name(key) for key in keys}) == len(keys)
    assert all("/" not in file_name((key, "../../x")) for key, _ in keys)
