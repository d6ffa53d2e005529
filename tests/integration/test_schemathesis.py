"""Schemathesis holds the OpenAPI document against running frontends, with all its checks, and finds nothing.

``HAILO_CLIP_SOAK=1`` makes it look for a long time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hailo_clip.ops import keys
from hailo_clip.shared.config import Auth
from tests.doubles.api_server import serving as keyed
from tests.doubles.served import serving

ROOT = Path(__file__).parent.parent.parent
SOAK = bool(os.environ.get("HAILO_CLIP_SOAK"))
EXAMPLES = 100 if SOAK else 5

SETTINGS = """
hooks = "tests.doubles.schemathesis_hooks"
suppress-health-check = ["all"]  # the hooks leave out more than is usual
[cache]
enabled = false
[generation]
allow-extra-parameters = false  # HTTP lets anybody add headers
database = "none"
[checks.negative_data_rejection]  # its own list, and the other refusals of what is too large or too slow
expected-statuses = [400, 401, 403, 404, 405, 406, 408, 409, 413, 414, 415, 422, 428, 429, 431, "5xx"]
[checks.positive_data_acceptance]  # its own list, and lists that are too long for a query
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 414, 429, "5xx"]
"""


def run(port: int, directory: Path, *more: str, access: str = "") -> dict[str, Any]:
    """Run it; its report."""
    settings, report = directory / "schemathesis.toml", directory / "report.json"
    settings.write_text(SETTINGS + access)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            *("--config-file", str(settings), "--no-color", "run", f"http://127.0.0.1:{port}/openapi.json"),
            *("--checks", "all", "--continue-on-failure", "--seed", "7", "--max-examples", str(EXAMPLES)),
            *("--report", "json", "--report-json-path", str(report), *more),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    written: dict[str, Any] = json.loads(report.read_text())
    return written


def test_it_finds_nothing(tmp_path: Path) -> None:
    with serving(max_body_mib=20) as served:
        report = run(served.port, tmp_path)
        assert all(line["level"] != "error" for line in served.logged())
    assert report["operations"]["tested"] == report["operations"]["total"] >= 15
    assert report["test_cases"]["generated"] > 800
    assert report["warnings"] == {name: [] for name in report["warnings"]}
    for operation, phases in report["valid_rates"].items():
        assert sum(phase["accepted"] for phase in phases.values()) > 0, operation


def test_it_finds_nothing_where_keys_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    key, _ = keys.create(file, "tester", None, None, False)
    auth = Auth(keys_file=file, metrics="key")
    with keyed(change=lambda config: replace(config, auth=auth)) as served:
        chosen = ("/v1/embed/text", "/metrics", "/livez")
        paths = [word for path in chosen for word in ("--include-path", path)]
        access = f'[auth.openapi.bearer]\nbearer = "{key}"\n'
        report = run(served.port, tmp_path, "--phases", "examples,coverage", *paths, access=access)
    assert report["operations"]["tested"] == 3
