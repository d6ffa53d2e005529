"""The whole service on the device double, from HTTP to device and back, with the truth to hold it against."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.models import DEFAULT
from hailo_clip.shared.tokenizer import load_tokenizer
from tests.doubles.hailo_double import Double, environment
from tests.doubles.running_service import RunningService, eventually
from tests.doubles.tiny_clip import TinyClip, build_package, make_tiny_clip, random_images

ALIKE = 0.99999


@dataclass(frozen=True)
class Package:
    """A small CLIP in the shapes and under the name of the default model."""

    models: Path
    clip: TinyClip
    manifest: Manifest


def default_package(models: Path) -> Package:
    """Build it: 640 dimensions, images of 288 pixels, CLIP's own tokenizer."""
    clip = make_tiny_clip(dimension=640, width=640, size=288, vocabulary=49408)
    return Package(models, clip, build_package(models, clip, DEFAULT, backends=("hailo",)))


def device_ids(count: int) -> list[str]:
    """Ids as HailoRT gives them."""
    return [f"{i + 1:04x}:01:00.0" for i in range(count)]


class HailoService(RunningService):
    """`hailo-clip serve` of the default model on devices of the double.

    Args:
        directory: for everything that it writes.
        double: its devices, as this process sees them, too.
        package: the model.
        devices: how many there are.
        workers: how many in all.
        settings: further ones, as environment variables.
    """

    def __init__(
        self, directory: Path, double: Double, package: Package, devices: int, workers: int, **settings: str
    ) -> None:
        self.package = package
        self.devices = device_ids(devices)
        self.workers = workers
        self.double = double
        self._tokenizer = load_tokenizer(package.manifest)
        told = environment(double.root, self.devices)
        path = os.pathsep.join(filter(None, (told.pop("PYTHONPATH"), os.environ.get("PYTHONPATH"))))
        super().__init__(
            directory,
            DEFAULT,
            PYTHONPATH=path,
            HAILO_CLIP__MODEL__DIR=str(package.models),
            HAILO_CLIP__WORKERS__COUNT=str(workers),
            **told,
            **settings,
        )

    def __enter__(self) -> HailoService:
        return self

    def __exit__(self, *args: object) -> None:
        self.end()

    @property
    def answers(self) -> bool:
        """Whether anybody answers GET /health, whatever it says."""
        try:
            return bool(self.health())
        except OSError:
            return False

    def health(self) -> tuple[int, dict[str, Any]]:
        """GET /health, and a check that it does not contradict itself."""
        status, told = self.request("GET", "/health")
        assert (status == 200) == (told["status"] == "healthy") == told["model_loaded"]
        assert (status == 200) != bool(told.get("reason"))
        return status, told

    def unhealthy(self, *words: str) -> None:
        """Wait until /health says 503 for the reason that `words` tell."""
        told: dict[str, Any] = {}

        def true() -> bool:
            nonlocal told
            status, told = self.health()
            return status == 503 and all(word in told["reason"] for word in words)

        try:
            eventually(true)
        except AssertionError as e:
            raise AssertionError(f"/health says {told}") from e

    def wait_healthy(self, within_s: float = 40.0) -> float:
        """Wait until /health says 200; the seconds that took."""
        began = time.monotonic()
        eventually(self.healthy)
        took = time.monotonic() - began
        assert took < within_s
        return took

    def holders(self) -> list[int]:
        """How many processes have each device open."""
        return [len(self.double.clients(device)) for device in self.devices]

    def picture(self, seed: int) -> tuple[dict[str, str], npt.NDArray[np.float64]]:
        """The body of a request for an image's embedding, and what that is."""
        (pixels,) = random_images(1, self.package.clip.size, seed=seed)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
        return {"image": base64.b64encode(out.getvalue()).decode()}, self.package.clip.image_features(pixels)

    def prompt(self, text: str) -> tuple[dict[str, str], npt.NDArray[np.float64]]:
        """The body of a request for a prompt's embedding, and what that is."""
        return {"text": text}, self.package.clip.text_features(self._tokenizer.encode(text))

    def ask(self, seed: int, text: bool = False) -> int:
        """One request that no other seed makes; its status. An answer of 200 must be the right one."""
        body, truth = self.prompt(f"a photo of {seed} cats") if text else self.picture(seed)
        status, told = self.request("POST", "/v1/embed/text" if text else "/v1/embed/image", body)
        if status == 200:
            assert told["dimension"] == len(told["embedding"]) == 640
            assert np.dot(told["embedding"], truth) >= ALIKE, f"a wrong embedding for {body}"
        return status

    def ask_all(self, seeds: Iterable[int], clients: int = 8) -> Sequence[int]:
        """Requests for images and prompts from several clients at once; their statuses, in order."""
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda seed: self.ask(seed, text=seed % 3 == 0), seeds))
