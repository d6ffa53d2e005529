"""`hailo-clip bench` as a user types it, against services that it starts."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from hailo_clip.ops.cli import main

pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    yield
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not [p.cmdline() for p in left if "hailo_clip" in " ".join(p.cmdline())]


def test_a_closed_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "bench.json"
    flags = ["--clients", "8", "--seconds", "2", "--mix", "image=3,classify=1", "--tenants", "2"]
    assert main(["bench", *flags, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    (result,) = found["results"]
    assert result["summary"]["codes"].keys() == {"200"}
    assert 20 < result["summary"]["throughput"] <= 1.1 * result["limit"]
    assert result["summary"]["latency"]["p50"] > 16  # no batch takes less
    assert {"serve", "broker", "worker-0", "worker-1", "api"} <= {p["name"] for p in result["parts"]}
    assert all(p["rss_mib"] > 10 for p in result["parts"])
    assert found["ready_s"] > 0.1
    assert "load generator" in capsys.readouterr().out


def test_overload_is_refused_quickly(tmp_path: Path):
    file = tmp_path / "bench.json"
    flags = ["--overload", "3", "--clients", "16", "--seconds", "2", "--set", "queue.max_depth=16"]
    assert main(["bench", *flags, "--json", str(file)]) == 0
    over = json.loads(file.read_text())["overload"]
    assert over["result"]["summary"]["codes"]["429"] > 50
    assert over["refused_ms"] < 100
    assert over["goodput"] > 0.5 * over["peak"]


def test_a_service_that_cannot_start_is_an_error(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--set", "server.processes=nonsense"]) == 1
    assert "server.processes" in capsys.readouterr().err
