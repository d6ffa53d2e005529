"""The wheel holds every folder and data file, and nothing generic lands in site-packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("shared", "broker", "workers", "api", "ops")


def test_the_package_list_equals_the_folders_on_disk():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {"hailo_clip"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if parts != ("ops", "package"):
                on_disk.add(".".join(("hailo_clip", *parts)))
    assert set(settings["packages"]) == on_disk
    assert set(settings["package-dir"]) == on_disk


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that no build/ folder is left behind."""
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, (f.decode() for f in files)):
        if (ROOT / name).is_file() and not name.startswith("tests"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_all_modules_and_data(wheel: zipfile.ZipFile):
    names = set(wheel.namelist())
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT)
            if inside.parts[:2] != ("ops", "package"):
                assert f"hailo_clip/{inside}" in names
    for data in (file for folder in FOLDERS for file in (ROOT / folder / "data").glob("*")):
        assert f"hailo_clip/{data.relative_to(ROOT)}" in names
    assert "hailo_clip/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"hailo_clip"}
