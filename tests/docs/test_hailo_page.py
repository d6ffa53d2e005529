"""docs/hailo.md: each command and option is there, and what it shows is what our programs say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hailo_clip.ops import doctor
from hailo_clip.ops.cli import build_parser
from hailo_clip.ops.doctor_finding import Finding
from hailo_clip.ops.models_pull_sources import load_sources
from hailo_clip.shared.config import load_config
from hailo_clip.shared.models import DEFAULT
from hailo_clip.workers.hailo_status import ADVICE, NAMES
from tests.doubles.fake_pi import FakePi
from tests.doubles.hailo_double import FIRST, environment, install
from tests.doubles.tiny_clip import build_package, make_tiny_clip

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/hailo.md").read_text()

BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.S)
INLINE = re.findall(r"`(hailo-clip [^`]+)`", PAGE)
TYPED = [line[2:] for block in BLOCKS for line in block.splitlines() if line.startswith("$ ")]
COMMANDS = [
    re.sub(r"^(sudo )?((\w+=('[^']*'|\S+)) )*(/\S+/(?=hailo-clip ))?", "", c)
    for c in TYPED
    if "hailo-clip " in c
] + INLINE


def shown(after: str) -> list[str]:
    """What the page shows below the command `after`."""
    (block,) = [b for b in BLOCKS if f"$ {after}\n" in b]
    return block.partition(f"$ {after}\n")[2].splitlines()


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_each_command_and_option_is_there(command: str) -> None:
    words = shlex.split(command)
    assert words[0] == "hailo-clip"
    try:
        build_parser().parse_args(words[1:])
    except SystemExit as e:  # --help and --version end with 0
        assert e.code == 0, f"{command} is no command"


def test_there_are_commands_to_check() -> None:
    assert len(set(COMMANDS)) >= 12


def pattern(line: str) -> str:
    """A line without its numbers, versions, places and padding."""
    line = re.sub(r"/[\w./-]+|\d[\d.]*", "#", line)
    return re.sub(r"\s+", " ", line)


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePi:
    for name, value in environment(tmp_path / "devices", [FIRST]).items():
        monkeypatch.setenv(name, value)
    install(tmp_path / "devices", monkeypatch)
    monkeypatch.setenv("HAILO_DOUBLE_DEVICES", FIRST)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    pi = FakePi(tmp_path / "pi").whole()
    (tmp_path / "pi/proc/meminfo").write_text("MemAvailable:    6900000 kB\n")
    return pi


def examined(pi: FakePi, tmp_path: Path) -> list[str]:
    """What the doctor says of a Raspberry Pi in good order, but for what this machine's Python differs in."""
    given = {"model.dir": tmp_path / "models", "broker.run_dir": tmp_path / "run", "server.port": 5999}
    config = load_config(None, {}, given, system_file=Path("/nonexistent"))

    def expected(finding: Finding) -> bool:
        return finding.topic not in ("numpy", "onnxruntime")

    told = [f for f in doctor.examine(config, (), pi.machine) if expected(f)]
    return doctor.as_text(told).splitlines()


def test_the_doctor_says_what_the_page_shows(pi: FakePi, tmp_path: Path) -> None:
    lines = [line for line in shown("hailo-clip doctor") if " onnxruntime " not in line]
    assert [pattern(x) for x in examined(pi, tmp_path)] == [pattern(x) for x in lines]


def test_with_the_model_it_says_what_the_page_shows(pi: FakePi, tmp_path: Path) -> None:
    build_package(tmp_path / "models", make_tiny_clip(), DEFAULT, backends=("hailo",))
    (block,) = [b for b in BLOCKS if b.startswith("ok       model")]
    told = [pattern(x) for x in examined(pi, tmp_path)]
    assert [pattern(x) for x in block.splitlines()] == [
        x for x in told if x.startswith(("ok model", "ok trial"))
    ]


def test_the_older_networks_are_named_by_what_the_page_does_to_the_list(tmp_path: Path) -> None:
    (command,) = [c for c in TYPED if c.startswith("sed ")]
    found = re.fullmatch(r"sed 's/(.+)/(.+)/' ops/data/sources.yaml > sources-5.1.yaml", command)
    assert found
    text = (ROOT / "ops/data/sources.yaml").read_text()
    (tmp_path / "sources.yaml").write_text(re.sub(found[1], found[2], text))
    image, words = load_sources(tmp_path / "sources.yaml")[DEFAULT].networks["hailo"]
    assert "/v5.1.0/hailo10h/clip_resnet_50x4_image" in image.url
    assert "/v5.1.0/hailo10h/clip_resnet_50x4_text" in words.url


def test_the_statuses_are_treated_as_the_page_says() -> None:
    table = PAGE.partition("| HailoRT's status |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    advice = {number: a for a in ADVICE for number in a.numbers}
    does = "the service"
    checked = 0
    for row in rows:
        does = does if row[2] == "the same" else row[2]
        for number in map(int, re.findall(r"^\d+|(?<=, )\d+", row[0])):
            patient = not advice[number].error.transient
            assert ("15 s" in does) is patient, f"{NAMES[number]}: {does}"
            checked += 1
    assert checked >= 16


def test_each_link_within_the_page_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PAGE, re.M)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= headings
