"""What the README and the specification show is what happens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.running_service import RunningService

pytestmark = pytest.mark.xdist_group("serve")

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def service(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    settings = {"HAILO_CLIP__MODEL__DIR": str(demo_models)}
    running = RunningService(tmp_path_factory.mktemp("readme"), "demo", **settings)
    running.wait_ready()
    yield running
    running.end()


def run(command: list[str], cwd: Path = ROOT) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_the_curl_example(service: RunningService):
    block = re.search(r"```console\n(\$ IMAGE_B64=.*?)```", README, re.S)
    assert block
    commands, _, shown = block[1].rpartition('}"\n')
    script = re.sub(r"^\$ ", "", commands, flags=re.M) + '}"'
    printed = json.loads(run(["bash", "-c", script.replace("http://localhost:5000", service.url)]))
    expected = json.loads(shown)
    assert [c["text"] for c in printed["classifications"]] == ["a cat", "a dog"]
    for ours, theirs in zip(printed["classifications"], expected["classifications"], strict=True):
        assert ours == {**theirs, "score": pytest.approx(theirs["score"], abs=0.002)}
    assert printed["model"] == expected["model"] == "demo"
    assert printed.keys() == expected.keys()


def test_images_as_files_and_in_forms(service: RunningService):
    block = re.search(r"```console\n(\$ curl -s --data-binary.*?)```", README, re.S)
    assert block
    examples = re.findall(r"^\$ (curl .*?)\n(\{.*?\})$", block[1], re.S | re.M)
    assert len(examples) == 2
    for command, shown in examples:
        printed = json.loads(run(["bash", "-c", command.replace("http://localhost:5000", service.url)]))
        for ours, theirs in zip(
            printed["classifications"], json.loads(shown)["classifications"], strict=True
        ):
            assert ours == {**theirs, "score": pytest.approx(theirs["score"], abs=0.002)}


def test_the_python_example(service: RunningService):
    block = re.search(r"```python\n(.*?)```", README, re.S)
    assert block
    program, _, shown = block[1].partition("# Top match: ")
    printed = run([sys.executable, "-c", program.replace("http://localhost:5000", service.url)])
    match = re.fullmatch(r"Top match: \{'text': 'a cat', 'score': ([\d.]+), 'rank': 1\}\n", printed)
    assert match
    assert float(match[1]) == pytest.approx(float(re.findall(r"[\d.]+", shown)[0]), abs=0.002)


def test_the_command_line_example(service: RunningService):
    block = re.search(r"\.venv/bin/hailo-clip (classify .*)\n((?:  \d .*\n)+)", README)
    assert block
    command = f"{Path(sys.executable).parent}/hailo-clip {block[1]} --url {service.url}"
    printed = run(["bash", "-c", command]).splitlines()
    assert [line.split()[0] for line in printed[:3]] == ["1", "2", "3"]
    assert [line[30:].strip() for line in printed[:3]] == [
        line[30:].strip() for line in block[2].splitlines()
    ]


SPECIFICATION = """
import requests
import base64

# Read image and encode
with open("image.jpg", "rb") as f:
    image_b64 = base64.b64encode(f.read()).decode()

# Call API
response = requests.post(
    "http://localhost:5000/v1/classify",
    json={
        "image": f"data:image/jpeg;base64,{image_b64}",
        "prompts": [
            "person with smile",
            "person with frown",
            "person neutral expression"
        ],
        "top_k": 1,
        "threshold": 0.0
    }
)

result = response.json()
print(f"Top match: {result['classifications'][0]}")
print(f"Inference time: {result['inference_time_ms']:.1f}ms")
"""


def test_the_specifications_own_snippet(service: RunningService, tmp_path: Path):
    shutil.copy(ROOT / "examples/photos/cat.jpg", tmp_path / "image.jpg")
    program = SPECIFICATION.replace("http://localhost:5000", service.url)
    printed = run([sys.executable, "-c", program], cwd=tmp_path).splitlines()
    assert printed[0].startswith("Top match: {'text': 'person ")
    assert re.fullmatch(r"Inference time: \d+\.\dms", printed[1])


def test_make_help_lists_the_targets():
    printed = run(["make", "help"])
    assert {"serve", "test"} <= {line.split()[0] for line in printed.splitlines()}


def test_every_linked_file_is_there():
    top = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
    pages = [*(ROOT / name for name in top), *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
