"""Every line of docs/overload.md names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_each_line_has_its_test():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/overload.md").read_text()))
    there = set(re.findall(r"^def (test_\w+)", (ROOT / "tests/unit/test_overload.py").read_text(), re.M))
    assert named == there
