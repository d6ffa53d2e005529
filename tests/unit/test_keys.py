"""API keys: the file, what is refused in it, and `hailo-clip keys`."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hailo_clip.ops import keys as editing
from hailo_clip.ops.cli import main
from hailo_clip.shared.errors import SetupError
from hailo_clip.shared.keys import ApiKey, hashed, load_keys, new_key, read_keys, write_keys

HASH = "ab" * 32
ENTRY = {"name": "door", "sha256": HASH}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a keys file may be made; nothing is configured."""
    for variable in [v for v in os.environ if v.startswith("HAILO_CLIP")]:
        monkeypatch.delenv(variable)
    (tmp_path / "empty.yaml").touch()
    monkeypatch.setenv("HAILO_CLIP_CONFIG", str(tmp_path / "empty.yaml"))
    return tmp_path / "keys.yaml"


def text(*entries: object) -> str:
    lines = [f"- {entry}" for entry in entries]
    return "\n".join(["keys:", *lines]) + "\n"


# The file


def test_keys_are_random_and_long_and_only_their_hash_is_kept() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"hc_[A-Za-z0-9_-]{43}", key) for key in keys)
    assert hashed("hc_x") == hashlib.sha256(b"hc_x").digest()
    hashed("\udcff\u00ff")  # whatever a header held


def test_what_is_written_is_read_back() -> None:
    keys = (
        ApiKey("door", "cameras", b"\1" * 32, 2.5, False, "2026-01-31T12:00:00Z"),
        ApiKey("1e3", "true", b"\0" * 32, 1.0, True),  # names that YAML would take for something else
        ApiKey("null", "cameras", b"\x11" * 32, 2.5),
    )
    assert read_keys(write_keys(keys)) == keys
    assert read_keys(write_keys([])) == ()


@pytest.mark.parametrize("cut_short", ["", "\n", "# API keys\n", "keys:\n"])
def test_a_file_that_was_cut_short_is_not_one_without_keys(cut_short: str) -> None:
    with pytest.raises(ValueError, match=r"is empty|must be a list"):
        read_keys(cut_short)


def test_a_short_entry_has_defaults() -> None:
    assert read_keys(text(ENTRY)) == (ApiKey("door", "door", bytes.fromhex(HASH)),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "not valid YAML"),
        ("[]", "it must hold one list, 'keys:'"),
        ("{key: []}", "it must hold one list, 'keys:'"),
        ("keys: {}\nmore: 1", "it must hold one list, 'keys:'"),
        ("keys: door", "'keys' must be a list of at most 1000 entries"),
        (text(*["x"] * 1001), "'keys' must be a list of at most 1000 entries"),
        (text("door"), "entry 1 must hold name, tenant, weight, class, created, sha256"),
        (text(ENTRY | {"wieght": 2}), "entry 1: there is no 'wieght', only name, tenant,"),
        (text({"sha256": HASH}), "entry 1: name must be 1 to 64 of A-Z"),
        (text(ENTRY | {"name": "a b"}), "entry 1: name must be 1 to 64 of A-Z"),
        (text(ENTRY | {"tenant": "x" * 65}), "entry 1: tenant must be 1 to 64 of A-Z"),
        (text(ENTRY | {"weight": 0}), "entry 1: weight must be a number from 0.01 to 100, is 0"),
        (text(ENTRY | {"weight": True}), "entry 1: weight must be a number from 0.01 to 100, is True"),
        (text(ENTRY | {"class": "fast"}), "entry 1: class must be one of interactive, bulk, is 'fast'"),
        (text(ENTRY | {"created": "now\\n"}), "entry 1: created must be a time such as"),
        (text({"name": "door"}), "entry 1: sha256 must be 64 hex digits in lower case"),
        (text(ENTRY, ENTRY | {"sha256": "cd" * 32}), "the name door stands twice"),
        (text(ENTRY, ENTRY | {"name": "other"}), "other and door are the same key"),
        (
            text(ENTRY, {"name": "b", "sha256": "cd" * 32, "tenant": "door", "weight": 2}),
            "tenant door has keys of weight 1 and 2",
        ),
    ],
)
def test_what_is_wrong_in_a_file(content: str, message: str, file: Path) -> None:
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(SetupError) as caught:
        load_keys(file)
    assert caught.value.message.startswith(f"the keys file {file} is wrong: ")
    assert message in caught.value.message


def test_a_key_in_the_place_of_its_hash_is_not_repeated_in_the_message() -> None:
    key = new_key()
    with pytest.raises(ValueError, match="sha256 must be") as caught:
        read_keys(text({"name": "door", "sha256": key}))
    assert key not in str(caught.value)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(file: Path, mode: int) -> None:
    file.write_text(text(ENTRY))
    file.chmod(mode)
    with pytest.raises(SetupError, match=f"can be written by others; run: chmod 600 {file}"):
        load_keys(file)
    file.chmod(0o440)  # as secrets are mounted
    assert len(load_keys(file)) == 1


def test_a_file_that_is_not_there_or_no_text(file: Path) -> None:
    with pytest.raises(SetupError, match=f"make it with: hailo-clip keys create NAME --file {file}"):
        load_keys(file)
    file.write_bytes(b"\xff")
    file.chmod(0o600)
    with pytest.raises(SetupError, match="cannot be read"):
        load_keys(file)
    with pytest.raises(SetupError, match="cannot be read: Is a directory"):
        load_keys(file.parent)


# The command


def test_create_list_revoke(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--file", str(file)]
    assert main(["keys", "create", "door", *at]) == 0
    out, err = capsys.readouterr()
    door = out.strip()
    assert out == f"{door}\n"
    assert door not in err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert door not in file.read_text()
    assert (
        main(["keys", "create", "index", "--tenant", "search", "--weight", "2.5", "--class", "bulk", *at])
        == 0
    )
    index = capsys.readouterr().out.strip()
    first, second = load_keys(file)
    assert (first.name, first.tenant, first.weight, first.bulk) == ("door", "door", 1.0, False)
    assert (second.name, second.tenant, second.weight, second.bulk) == ("index", "search", 2.5, True)
    assert (first.sha256, second.sha256) == (hashed(door), hashed(index))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.created)
    assert main(["keys", "list", *at]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == ["name", "tenant", "weight", "class", "created"]
    assert [row[:4] for row in shown[1:]] == [
        ["door", "door", "1", "interactive"],
        ["index", "search", "2.5", "bulk"],
    ]
    assert main(["keys", "revoke", "door", *at]) == 0
    assert capsys.readouterr().out == "revoked door of tenant door\n"
    assert load_keys(file) == (second,)
    assert main(["keys", "revoke", "index", *at]) == 0
    capsys.readouterr()
    assert main(["keys", "list", *at]) == 0
    assert capsys.readouterr().out == "no keys\n"
    assert [p.name for p in file.parent.glob("*keys*")] == ["keys.yaml"]


def test_a_new_key_of_a_tenant_has_its_weight(file: Path) -> None:
    editing.create(file, "a", "t", 3.0, False)
    assert editing.create(file, "b", "t", None, True)[1].weight == 3.0


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["create", "a"], 1, "has a key a already; choose another name, or revoke it first"),
        (["create", "a b"], 2, "name must be 1 to 64 of A-Z"),
        (["create", "b", "--tenant", ""], 2, "tenant must be 1 to 64 of A-Z"),
        (["create", "b", "--weight", "nan"], 2, "weight must be a number from 0.01 to 100, is nan"),
        (["create", "b", "--tenant", "a", "--weight", "2"], 1, "the other keys of tenant a have weight 1"),
        (["revoke", "aa"], 1, "has no key aa; did you mean a?"),
        (["revoke", "zzz"], 1, "has no key zzz; `hailo-clip keys list` shows what there is"),
    ],
)
def test_what_is_refused(
    file: Path, given: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    editing.create(file, "a", None, None, False)
    before = file.read_bytes()
    assert main(["keys", *given, "--file", str(file)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert file.read_bytes() == before


def test_the_file_comes_from_the_configuration(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "a"]) == 2
    assert "auth.keys_file is not set; name one with --file" in capsys.readouterr().err
    monkeypatch.setenv("HAILO_CLIP__AUTH__KEYS_FILE", str(file))
    assert main(["keys", "create", "a"]) == 0
    assert [key.name for key in load_keys(file)] == ["a"]
    assert main(["keys", "create", "a", "--file", "/nonexistent/keys.yaml"]) == 1
    assert "the directory /nonexistent cannot be used" in capsys.readouterr().err


def test_a_broken_file_is_not_overwritten(file: Path) -> None:
    file.write_text("keys: door")
    file.chmod(0o600)
    with pytest.raises(SetupError, match="is wrong"):
        editing.create(file, "a", None, None, False)
    assert file.read_text() == "keys: door"


def test_mode_and_link_stay(file: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "k.yaml"
    editing.create(real, "a", None, None, False)
    real.chmod(0o640)
    file.symlink_to(real)
    editing.create(file, "b", None, None, False)
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert [key.name for key in load_keys(real)] == ["a", "b"]


def test_editors_at_the_same_time_lose_nothing(file: Path) -> None:
    command = [sys.executable, "-m", "hailo_clip.ops.cli", "keys", "create", "--file", str(file)]
    running = [
        subprocess.Popen([*command, f"key-{i}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for i in range(6)
    ]
    assert [process.wait(60) for process in running] == [0] * 6
    assert sorted(key.name for key in load_keys(file)) == [f"key-{i}" for i in range(6)]
