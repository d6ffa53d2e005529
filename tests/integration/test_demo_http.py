"""The main job with the real demo model: photo in, best sentence out, over HTTP."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.doubles.running_service import RunningService

pytestmark = pytest.mark.xdist_group("serve")

ROOT = Path(__file__).parent.parent.parent
OBJECTS = [
    "a cat",
    "a dog",
    "a cup of coffee",
    "a rocket",
    "a motorcycle",
    "a flower",
    "a temple",
    "a car",
    "a bicycle",
    "a pizza",
    "a laptop",
    "a banana",
]


@pytest.fixture(scope="module")
def service(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    settings = {"HAILO_CLIP__MODEL__DIR": str(demo_models), "HAILO_CLIP__QUEUE__MAX_DEPTH": "64"}
    running = RunningService(tmp_path_factory.mktemp("demo"), "demo", **settings)
    running.wait_ready()
    yield running
    running.end()


def photo(name: str) -> Image.Image:
    """A photo that ships inside scikit-image or scikit-learn; nothing is fetched."""
    import skimage
    import sklearn.datasets

    if name == "flower":
        return Image.fromarray(sklearn.datasets.load_sample_image("flower.jpg"))
    if name == "motorcycle":
        return Image.open(Path(skimage.__file__).parent / "data" / "motorcycle_left.png")
    return Image.fromarray(getattr(skimage.data, {"cat": "chelsea"}.get(name, name))())


def encoded(image: Image.Image) -> str:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def ask(service: RunningService, path: str, body: object) -> dict[str, Any]:
    status, answer = service.request("POST", path, body)
    assert status == 200, answer
    return answer


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "a cat"),
        ("coffee", "a cup of coffee"),
        ("rocket", "a rocket"),
        ("motorcycle", "a motorcycle"),
        ("flower", "a flower"),
    ],
)
def test_photos_are_classified_right_among_12_objects(service: RunningService, name: str, expected: str):
    answer = ask(service, "/v1/classify", {"image": encoded(photo(name)), "prompts": OBJECTS, "top_k": 12})
    found = answer["classifications"]
    assert found[0]["text"] == expected
    assert [c["rank"] for c in found] == list(range(1, 13))
    assert answer["model"] == "demo"


def test_embeddings_have_length_1_and_agree_with_the_scores(service: RunningService):
    image = encoded(photo("cat"))
    a = np.array(ask(service, "/v1/embed/image", {"image": image})["embedding"])
    b = np.array(ask(service, "/v1/embed/text", {"text": "a cat"})["embedding"])
    assert a.shape == b.shape == (384,)
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    answer = ask(service, "/v1/classify", {"image": image, "prompts": ["a cat"]})
    assert answer["classifications"][0]["score"] == pytest.approx(float(a @ b), abs=1e-4)


def test_the_same_text_alone_and_among_seven_others(service: RunningService):
    alone = ask(service, "/v1/embed/text", {"text": "a harbour at dusk"})["embedding"]
    image = encoded(photo("coffee"))
    prompts = [f"a harbour at dusk{' and a boat' * i}" for i in range(8)]
    ask(service, "/v1/classify", {"image": image, "prompts": prompts})
    again = ask(service, "/v1/embed/text", {"text": "a harbour at dusk"})["embedding"]
    assert np.abs(np.array(alone) - np.array(again)).max() <= 1e-5


def test_classify_on_the_command_line(service: RunningService, tmp_path: Path):
    file = tmp_path / "cat.jpg"
    photo("cat").save(file, "JPEG")
    command = [sys.executable, "-m", "hailo_clip.ops.cli", "classify", str(file), "a dog", "a cat"]
    done = subprocess.run([*command, "--url", service.url], capture_output=True, text=True, check=True)
    assert re.search(r"^\s*1\s.*a cat$", done.stdout.splitlines()[0])
