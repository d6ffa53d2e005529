"""What all tests share: the demo model, built once, and a guard against a second copy of our modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The suite tries the same examples each time, so that a change is to blame when it fails; the soaks new ones.
settings.register_profile("suite", derandomize=True)
settings.load_profile(
    "default" if {"HAILO_CLIP_SOAK", "HAILO_CLIP_HISTORIES"} & os.environ.keys() else "suite"
)

ROOT = Path(__file__).parent.parent
GENERIC = ("shared", "broker", "workers", "api", "ops")


@pytest.fixture(scope="session")
def demo_models() -> Path:
    """A models directory with the demo model in it; fetched and built where it is missing."""
    from hailo_clip.ops.demo.build import build
    from hailo_clip.ops.fetch import SilentProgress

    models = ROOT / ".cache" / "models"
    models.mkdir(parents=True, exist_ok=True)
    if not (models / "demo" / "model.yaml").exists():
        build(models, SilentProgress())
    return models


@pytest.fixture(autouse=True)
def one_copy_of_each_module():
    """`import broker` from the root would make a second module beside hailo_clip.broker."""
    yield
    doubled = [name for name in GENERIC if name in sys.modules]
    assert not doubled, f"imported by their bare names: {doubled}"
