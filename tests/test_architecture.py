"""The rules of ARCHITECTURE.md that a machine can check: who may import what."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMPURE = {"zmq", "socket", "time", "threading", "asyncio", "os", "subprocess", "multiprocessing", "select"}

PURE = [
    *(
        f"broker/{name}.py"
        for name in (
            "admission",
            "costs",
            "dispatcher",
            "fairqueue",
            "labels",
            "ledger",
            "policy",
            "pool",
            "promptcache",
            "quarantine",
            "recovery",
            "scheduler",
            "snapshot",
            "states",
            "tenants",
            "work",
            "workforce",
        )
    ),
    "workers/session.py",
    "api/client_exchange.py",
    "api/client_read.py",
    "api/client_retry.py",
    "api/inflight.py",
    "api/waiting.py",
    "api/openai_errors.py",
    "api/openai_input.py",
    "api/readiness.py",
    "api/validation.py",
    "api/openapi.py",
    "ops/restarts.py",
    "ops/lifecycle.py",
    "shared/label_messages.py",
    "shared/messages.py",
    "shared/codec.py",
    "shared/metrics.py",
]

ONLY_IMPORTER = {
    "zmq": {
        "broker/shell.py",
        "workers/shell.py",
        "api/gateway.py",
        "ops",
        "shared/sockets.py",
        "shared/curve.py",
    },
    "falcon": {"api"},
    "gunicorn": {"api"},
    "httpx": {"api"},
    "onnxruntime": {"workers/onnx.py", "ops"},
    "hailo_platform": {"workers"},
}


def sources():
    for folder in ("shared", "broker", "workers", "api", "ops"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("file", PURE)
def test_decisions_do_no_io(file: str):
    assert not imported(ROOT / file) & IMPURE


@pytest.mark.parametrize("library", ONLY_IMPORTER)
def test_only_these_import(library: str):
    allowed = ONLY_IMPORTER[library]
    for path in sources():
        name = str(path.relative_to(ROOT))
        if library in imported(path):
            assert any(name == a or name.startswith(f"{a}/") for a in allowed), name


def test_the_layers_hold():
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".typing")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["hailo_clip.broker.shell", "hailo_clip.api.server"])
def test_frontends_and_broker_load_no_encoder_library(module: str):
    heavy = "onnxruntime", "onnx", "hailo_platform"
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_stay_small():
    long = {str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text().splitlines())) > 350}
    assert not long
