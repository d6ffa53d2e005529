"""The examples and docs/client.md do what they show, against a service with the demo model."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hailo_clip.api.client import Client
from tests.doubles.running_service import RunningService

pytestmark = pytest.mark.xdist_group("serve")

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
SHOWN = (EXAMPLES / "README.md").read_text()
NUMBER = re.compile(r"-?\d+\.\d+")
TOLERANCE = 0.002  # encoders differ a little from one processor to another


@pytest.fixture(scope="module")
def service(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    settings = {"HAILO_CLIP__MODEL__DIR": str(demo_models)}
    running = RunningService(tmp_path_factory.mktemp("examples"), "demo", **settings)
    running.wait_ready()
    yield running
    running.end()


def run(service: RunningService, command: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What a command of examples/README.md does, with this Python."""
    quoted = shlex.quote(sys.executable)
    command = re.sub(r"^python examples/", f"{quoted} {EXAMPLES}/", command)
    env = {**os.environ, "HAILO_CLIP_URL": service.url}
    return subprocess.run(["bash", "-c", command], cwd=directory, env=env, capture_output=True, text=True)


def printed(service: RunningService, command: str, directory: Path = ROOT) -> str:
    done = run(service, command, directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shown(script: str) -> list[tuple[str, str]]:
    """Commands of a section of examples/README.md, and their outputs."""
    section = SHOWN.partition(f"\n## {script}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.S)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.M)
    ]


def assert_alike(found: str, expected: str) -> None:
    """The same words, and nearly the same numbers."""
    assert NUMBER.sub("#", found) == NUMBER.sub("#", expected)
    for ours, theirs in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=TOLERANCE)


def test_curl(service: RunningService):
    ((command, _),) = shown("curl.sh")
    out = printed(service, command)
    for expected in ('{"status":"ready"}', '"text":"a cat"', '"text":"a rocket"', '"text":"cup of coffee"'):
        assert expected in out
    assert '"text":"a flower"' in out
    assert '{"label_sets":[{"name":"things","prompts":2,"negative_prompts":1}]}' in out
    assert len(re.findall(r'^\{"embedding":\[', out, re.M)) == 2
    assert "x-request-id: example-1" in out
    assert "server-timing: " in out


def test_curl_stops_at_the_first_error(service: RunningService):
    done = subprocess.run(
        ["bash", EXAMPLES / "curl.sh"],
        env={**os.environ, "HAILO_CLIP_URL": f"{service.url}/nowhere"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 22
    assert done.stdout.count("\n") == 1


def test_classify(service: RunningService):
    ((command, output),) = shown("classify.py")
    assert_alike(printed(service, command), output)


def test_webcam(service: RunningService):
    ((command, output),) = shown("webcam.py")
    out = printed(service, f"{command} --every 0")
    took = re.compile(r"[\d]+ ms")
    assert_alike(took.sub("", out), took.sub("", output))
    with Client(service.url) as client:
        assert not [s for s in client.list_label_sets() if s.name.startswith("webcam")]


def test_webcam_without_opencv_or_camera(service: RunningService):
    done = run(service, "python examples/webcam.py --source nowhere.mp4 'a cat'")
    assert done.returncode == 1
    assert re.search("needs OpenCV|there is no camera or film nowhere.mp4", done.stderr)


def test_search(service: RunningService, tmp_path: Path):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    for command, output in shown("search_photos.py"):
        assert_alike(printed(service, command, tmp_path), output)


def test_search_looks_only_at_what_is_new_and_leaves_out_what_is_no_photo(
    service: RunningService, tmp_path: Path
):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes((EXAMPLES / "photos/cat.jpg").read_bytes())
    index = "python examples/search_photos.py index photos i.npz"
    assert printed(service, index, tmp_path) == "1 photos in i.npz, 1 looked at\n"
    (photos / "b.JPEG").write_bytes((EXAMPLES / "photos/rocket.jpg").read_bytes())
    (photos / "c.png").write_bytes(b"no image")
    out = printed(service, index, tmp_path)
    assert out.startswith("left out: photos/c.png: Missing or invalid 'images[1]': ")
    assert out.endswith("2 photos in i.npz, 2 looked at\n")
    (photos / "a.jpg").unlink()
    (photos / "c.png").unlink()
    assert printed(service, index, tmp_path) == "1 photos in i.npz, 0 looked at\n"
    assert "b.JPEG" in printed(service, "python examples/search_photos.py find i.npz rocket", tmp_path)


def test_search_refuses_vectors_of_another_model(service: RunningService, tmp_path: Path):
    index = "python examples/search_photos.py index examples i.npz"
    (tmp_path / "examples").symlink_to(EXAMPLES)
    printed(service, index, tmp_path)
    change = (
        "import numpy as np; d = dict(np.load('i.npz')); d['fingerprint'] = np.array('0' * 32); "
        "np.savez('i.npz', **d)"
    )
    subprocess.run([sys.executable, "-c", change], cwd=tmp_path, check=True)
    done = run(service, "python examples/search_photos.py find i.npz rocket", tmp_path)
    assert done.returncode == 1
    assert "another model" in done.stderr
    again = printed(service, index, tmp_path)
    assert again.startswith("the service runs another model")
    assert again.endswith("5 photos in i.npz, 5 looked at\n")


def words(text: str) -> str:
    """`text` without its numbers and line ends, and without the blanks that align numbers in an array."""
    return re.sub(r" ?([][]) ?", r"\1", " ".join(NUMBER.sub("#", text).split()))


class Checker(doctest.OutputChecker):
    """Takes numbers that differ a little; "..." stands for anything."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if "..." in want:
            pattern = ".*?".join(map(re.escape, words(want).split("...")))
            return re.fullmatch(pattern, words(got)) is not None
        ours, theirs = NUMBER.findall(got), NUMBER.findall(want)
        return words(got) == words(want) and [float(x) for x in ours] == pytest.approx(
            [float(x) for x in theirs], abs=TOLERANCE
        )


def test_the_page_on_the_client(service: RunningService, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/client.md").read_text().replace("http://localhost:5000", service.url)
    test = doctest.DocTestParser().get_doctest(page, {}, "client.md", "docs/client.md", 0)
    assert len(test.examples) > 25
    report: list[str] = []
    result = doctest.DocTestRunner(Checker()).run(test, out=report.append, clear_globs=False)
    for name in ("client", "pinned", "other"):
        test.globs[name].close()
    assert result.failed == 0, "".join(report)
