"""The files of label sets: written before the answer, in rounds; damage is put aside; disks may fail."""

from __future__ import annotations

import logging
import resource
import select
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hailo_clip.broker import labelfiles
from hailo_clip.broker.labelfiles import ASIDE, SUFFIX, LabelFiles, file_name
from hailo_clip.broker.labels import LabelStore
from hailo_clip.broker.work import Send
from hailo_clip.shared import label_messages as lm
from hailo_clip.shared.label_messages import DropLabels, GetLabels, LabelRequest, Labels
from tests.doubles.broker_world import policy
from tests.unit.test_broker_labels import put


class Broker:
    """A store and its files, used as the shell does."""

    def __init__(self, directory: Path | None, **limits: int) -> None:
        self.store = LabelStore(policy(**limits))
        self.files = LabelFiles(self.store, directory)
        self.files.load()

    def ask(self, request: LabelRequest) -> bool:
        """Carry `request` out; True when its answer is held back."""
        return self.files.takes(Send("frontend", b"f", self.store.answer(request)))

    def rings(self, seconds: float = 10.0) -> bool:
        return bool(select.select([self.files.bell], [], [], seconds)[0])

    def written(self) -> list[str]:
        """Outcomes of the answers that may go out, once something was written."""
        assert self.rings()
        return outcomes(self.files.written())

    def names(self) -> list[str]:
        found = self.store.answer(lm.ListLabels(1, "acme"))
        assert isinstance(found, Labels)
        return [name for name, _, _ in found.listing]


def outcomes(answers: list[Send]) -> list[str]:
    return [answer.message.outcome for answer in answers if isinstance(answer.message, Labels)]


@contextmanager
def broker(directory: Path | None, **limits: int) -> Iterator[Broker]:
    made = Broker(directory, **limits)
    yield made
    made.files.finish()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hailo_clip.broker")
    return caplog


def test_the_answer_comes_after_the_file(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "label-sets"
    with broker(directory) as first:
        assert first.ask(put())
        assert first.written() == [lm.CREATED]
        assert [p.name for p in directory.iterdir()] == [file_name(("acme", "ppe"))]
        assert directory.stat().st_mode & 0o777 == 0o700
        with broker(directory) as killed:  # as if `first` had been killed here
            assert killed.names() == ["ppe"]
        assert "label sets loaded" in logged.text
        assert first.ask(DropLabels(1, "acme", "ppe"))
        assert first.written() == [lm.DROPPED]
        assert list(directory.iterdir()) == []
    with broker(directory) as after:
        assert after.names() == []


def test_only_changes_are_held_back(tmp_path: Path) -> None:
    with broker(tmp_path) as made:
        made.ask(put())
        made.written()
        assert not made.ask(GetLabels(1, "acme", "ppe", ""))
        assert not made.ask(DropLabels(1, "acme", "other"))
        assert not made.ask(put(expects="wrong"))
        assert not made.ask(put(fingerprint="wrong"))
        assert not made.rings(0)
        assert made.files.written() == []


def test_what_comes_during_a_round_is_written_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    rounds: list[list[str]] = []

    def slow(directory: Path, changes: dict[tuple[str, str], bytes | None]) -> set[tuple[str, str]]:
        rounds.append(sorted(name for _, name in changes))
        assert goes_on.wait(10)
        return write_all(directory, changes)

    write_all = labelfiles.write_all
    monkeypatch.setattr(labelfiles, "write_all", slow)
    with broker(tmp_path) as made:
        for request in (put("a"), put("b"), put("a", seed=1), DropLabels(1, "acme", "b"), put("c")):
            assert made.ask(request)
        assert not made.rings(0.05)
        goes_on.set()
        assert made.written() == [lm.CREATED]
        assert made.written() == [lm.CREATED, lm.REPLACED, lm.DROPPED, lm.CREATED]
        assert not made.rings(0.05)
    assert rounds == [["a"], ["a", "b", "c"]]
    with broker(tmp_path) as after:
        assert after.names() == ["a", "c"]
        assert after.store.dump(("acme", "a")) == made.store.dump(("acme", "a"))


def test_changes_of_one_moment_are_one_round(tmp_path: Path) -> None:
    with broker(tmp_path) as made:
        answers = [made.store.answer(put(name)) for name in ("a", "b")]
        for answer in answers:
            assert made.files.takes(Send("frontend", b"f", answer))
        assert made.written() == [lm.CREATED]
        assert len(list(tmp_path.iterdir())) == 2
        assert made.written() == [lm.CREATED]


def test_finish_writes_and_answers_what_is_left(tmp_path: Path) -> None:
    made = Broker(tmp_path)
    for name in ("a", "b", "c"):
        made.ask(put(name))
    assert outcomes(made.files.finish()) == [lm.CREATED] * 3
    with broker(tmp_path) as after:
        assert after.names() == ["a", "b", "c"]


def test_without_a_directory_nothing_is_held_back_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with broker(None) as made:
        assert not made.ask(put())
        assert made.store.unwritten == set()
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
        made.ask(put("b"))
        made.written()
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
        made.ask(DropLabels(1, "acme", "a"))
        made.written()
    with broker(tmp_path / "new") as made:
        assert made.names() == []


def test_what_has_no_place_stays_on_the_disk(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    kept(tmp_path, "a", "b", "c")
    with broker(tmp_path, max_label_sets=2) as made:
        assert len(made.names()) == 2
        assert "label set not loaded" in logged.text
    with broker(tmp_path) as made:
        assert made.names() == ["a", "b", "c"]


def test_a_directory_that_cannot_be_made_is_logged(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    (tmp_path / "label-sets").write_text("a file where the directory should be")
    with broker(tmp_path / "label-sets") as made:
        assert "label sets not loaded" in logged.text
        made.ask(put())
        assert made.written() == [lm.CREATED]
        assert "label set not written" in logged.text
        assert made.names() == ["ppe"]


def test_a_disk_that_takes_no_more_is_logged_and_tried_again(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    """The limit on file sizes stands in for the disk's end: the write stops in the middle."""
    kept(tmp_path, "a")
    old = (tmp_path / file_name(("acme", "a"))).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with broker(tmp_path) as made:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        try:
            made.ask(put("a", seed=1))
            assert made.written() == [lm.REPLACED]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "label set not written" in logged.text
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {file_name(("acme", "a")): old}
        made.ask(put("b"))
        made.written()
        expected = made.store.dump(("acme", "a"))
    assert (tmp_path / file_name(("acme", "a"))).read_bytes() == expected != old


def test_names_of_files_are_apart() -> None:
    keys = [("", "ab"), ("a", "b"), ("ab", ""), ("a\0b", ""), ("a", "B")]
    assert len({file_name(key) for key in keys}) == len(keys)
    assert all("/" not in file_name((key, "../../x")) for key, _ in keys)
