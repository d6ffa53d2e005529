"""Every example of the OpenAPI document is sent to the demo model, and answered as the document says."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema_rs import Draft202012Validator

from tests.doubles.running_service import RunningService

pytestmark = pytest.mark.xdist_group("serve")

ROOT = Path(__file__).parent.parent.parent
DIFFERS = ("inference_time_ms", "created")  # from run to run, and from machine to machine


@pytest.fixture(scope="module")
def service(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    settings = {"HAILO_CLIP__MODEL__DIR": str(demo_models)}
    running = RunningService(tmp_path_factory.mktemp("demo"), "demo", **settings)
    running.wait_ready()
    yield running
    running.end()


@pytest.fixture(scope="module")
def api(service: RunningService) -> dict[str, Any]:
    document: dict[str, Any] = requests.get(f"{service.url}/openapi.json", timeout=20).json()
    return document


class Sent:
    """One example, sent."""

    def __init__(self, service: RunningService, api: dict[str, Any], operation: dict[str, Any]) -> None:
        self._url, self._api, self._operation = service.url, api, operation

    def send(self, method: str, path: str, name: str | None, **given: Any) -> requests.Response:
        """The answer, checked against what the document says of it; `name`: of the example, if any."""
        query = {}
        for parameter in self._operation["parameters"]:
            one = parameter.get("examples", {})
            value = next((example["value"] for example in one.values()), None)
            if value is not None and parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", value)
            elif value is not None and name in one:
                query[parameter["name"]] = value
        answer = requests.request(method, self._url + path, params=query, timeout=30, **given)
        self.check(answer, name)
        return answer

    def check(self, answer: requests.Response, name: str | None) -> None:
        said = self._operation["responses"][str(answer.status_code)]
        assert answer.status_code < 300, answer.text
        for header in said["headers"]:
            if header in ("X-Request-Id", "X-Model-Fingerprint", "Server-Timing", "ETag"):
                assert header in answer.headers, header
        if "content" not in said:
            assert answer.content == b""
            return
        (kind,) = said["content"]
        assert answer.headers["Content-Type"] == kind
        content = said["content"][kind]
        if kind == "application/json":
            schema = {**content["schema"], "components": self._api["components"]}
            Draft202012Validator(schema).validate(answer.json())
        if name in content.get("examples", {}):
            same(answer.json(), content["examples"][name]["value"])


def same(found: Any, said: Any) -> None:
    """`found` is `said`, but for what can't be."""
    if isinstance(said, dict):
        assert found.keys() == said.keys()
        for key in said.keys() - set(DIFFERS):
            same(found[key], said[key])
        for key in said.keys() & set(DIFFERS):
            assert type(found[key]) is type(said[key])
    elif isinstance(said, list):
        assert len(found) == len(said)
        for one, other in zip(found, said, strict=True):
            same(one, other)
    elif isinstance(said, float):
        assert found == pytest.approx(said, rel=0.02)  # other processors, other last digits
    else:
        assert found == said


def test_every_request_example_is_answered_as_its_answer_says(
    service: RunningService, api: dict[str, Any]
) -> None:
    sent = set()
    for method in ("put", "post"):  # sets are stored first
        for path, methods in api["paths"].items():
            for name, kind, body in bodies(service, methods.get(method, {})):
                how = Sent(service, api, methods[method])
                how.send(method, path, name, data=body, headers={"Content-Type": kind})
                sent.add((path, kind.partition(";")[0], name))
    assert {path for path, *_ in sent} == {p for p, m in api["paths"].items() if "put" in m or "post" in m}
    assert ("/v1/classify", "image/*", "file") in sent
    assert len(sent) >= 14


def bodies(service: RunningService, operation: dict[str, Any]) -> Iterator[tuple[str, str, bytes]]:
    """Name, media type and bytes of every request example."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        for name, example in content.get("examples", {}).items():
            if "value" in example:
                yield name, kind, json.dumps(example["value"]).encode()
            else:
                yield name, kind, requests.get(service.url + example["externalValue"], timeout=20).content


def test_every_form_is_taken_as_it_is_described(service: RunningService, api: dict[str, Any]) -> None:
    photo = requests.get(f"{service.url}/docs/example.jpg", timeout=20).content
    for path in ("/v1/classify", "/v1/embed/image"):
        fields = (
            {"prompts": ["a cat", "a dog", "a cup of coffee"], "top_k": "2"} if "classify" in path else {}
        )
        answer = requests.post(service.url + path, data=fields, files={"image": photo}, timeout=30)
        name = "photo" if fields else None
        Sent(service, api, api["paths"][path]["post"]).check(answer, name)


def test_the_pages_ways_to_send_an_image_give_one_answer(service: RunningService) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)
    commands = block.replace("http://localhost:5000", service.url).replace("curl -s", "curl -s -w '\\n'")
    done = subprocess.run(["bash", "-ec", commands], cwd=ROOT, capture_output=True, text=True, check=True)
    answers = [json.loads(line)["classifications"] for line in done.stdout.splitlines()]
    assert len(answers) == 3
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0]["text"] == "a cat"


def test_every_get_is_answered_as_its_example_says(service: RunningService, api: dict[str, Any]) -> None:
    label_set = api["paths"]["/v1/label-sets/{name}"]
    (value,) = label_set["put"]["requestBody"]["content"]["application/json"]["examples"].values()
    requests.put(f"{service.url}/v1/label-sets/ppe", json=value["value"], timeout=30)
    for path, methods in api["paths"].items():
        if "get" in methods:
            examples = [
                name
                for content in methods["get"]["responses"]["200"].get("content", {}).values()
                for name in content.get("examples", {})
            ]
            for name in examples or [None]:
                Sent(service, api, methods["get"]).send("get", path, name)
    Sent(service, api, label_set["delete"]).send("delete", "/v1/label-sets/{name}", None)
