"""GET /v1/models: what is served, and what is not known yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hailo_clip.api.models_resource import created
from tests.doubles.frontend import DIMENSION, MODEL, Frontend, configured


@pytest.fixture(scope="module")
def frontend() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as made:
        yield made


def test_the_list_has_the_one_model(frontend: Frontend) -> None:
    listed = frontend.request("GET", "/v1/models")
    assert (listed.status_code, set(listed.json)) == (200, {"object", "data"})
    (model,) = listed.json["data"]
    one = frontend.request("GET", f"/v1/models/{MODEL}")
    assert one.json == model
    assert model["id"] == MODEL
    assert model["dimension"] == DIMENSION
    assert model["fingerprint"] == frontend.app.service.manifest.fingerprint("emulated")
    assert frontend.request("HEAD", f"/v1/models/{MODEL}").content == b""


@pytest.mark.parametrize("name", ["other", MODEL.upper(), "x" * 200])
def test_another_model_is_not_found(frontend: Frontend, name: str) -> None:
    result = frontend.request("GET", f"/v1/models/{name}")
    message = f"The model '{name[:64]}' is not served here; this service has '{MODEL}'"
    assert (result.status_code, result.json) == (404, {"error": message})


def test_without_an_encoder_there_is_no_fingerprint(frontend: Frontend) -> None:
    broker = frontend.broker
    broker.encoder = ""
    try:
        frontend.ail("starting", "no worker has connected yet")
        model = frontend.request("GET", f"/v1/models/{MODEL}")
    finally:
        broker.encoder = "emulated"
        frontend.mend()
    assert model.status_code == 200
    assert (model.json["fingerprint"], model.json["backend"], model.json["ready"]) == (None, None, False)


def test_created_is_when_the_package_was_written(frontend: Frontend, tmp_path: Path) -> None:
    manifest = frontend.app.service.manifest
    assert created(manifest) == 0  # an emulated model has no package
    (tmp_path / "model.yaml").touch()
    os.utime(tmp_path / "model.yaml", (1_700_000_000, 1_700_000_000))
    assert created(replace(manifest, directory=tmp_path)) == 1_700_000_000
