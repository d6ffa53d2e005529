"""Stored label sets through the whole app, in front of the fake broker."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from falcon import testing

from hailo_clip.api import labelsets
from hailo_clip.api.call import Call
from hailo_clip.api.classifier import Classifier, mean_vector
from hailo_clip.api.labelsets import LabelSet, LabelSets
from hailo_clip.api.validation import Labels as Definition
from hailo_clip.ops import keys as editing
from hailo_clip.shared.config import Auth
from hailo_clip.shared.errors import DeadlineExceeded, NotFound, QueueFull, Unavailable
from hailo_clip.shared.label_messages import PutLabels
from hailo_clip.shared.messages import Submit, ToFrontend
from hailo_clip.shared.tokenizer import ClipTokenizer
from tests.doubles.fake_broker import embedding_of
from tests.doubles.fake_labels import FakeLabels
from tests.doubles.frontend import DIMENSION, Frontend, configured, raw, until

SETS = "/v1/label-sets"
PPE = f"{SETS}/ppe"
DEFINITION = {
    "prompts": ["a helmet", "a vest"],
    "templates": ["a photo of {}", "{} on a building site"],
    "negative_prompts": ["nothing"],
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Frontend]:
    with configured() as config, Frontend(config) as frontend:
        yield frontend


@pytest.fixture
def frontend(shared: Frontend) -> Iterator[Frontend]:
    """The module's frontend; its broker is mended afterwards, and forgets all sets."""
    yield shared
    shared.broker.labels = FakeLabels()
    shared.broker.asked.clear()
    shared.mend()


def put(frontend: Frontend, path: str = PPE, **changes: Any) -> testing.Result:
    return frontend.request("PUT", path, json=DEFINITION | changes)


TOKENS = ClipTokenizer(77)


def vector(prompt: str) -> Any:
    """What a prompt in the templates above becomes."""
    ids = [TOKENS.encode(t.replace("{}", prompt)).tobytes() for t in DEFINITION["templates"]]
    return mean_vector(np.stack([embedding_of(i, DIMENSION) for i in ids]))


# The endpoints


def test_put_embeds_and_keeps_a_set_and_get_shows_it(frontend: Frontend) -> None:
    answer = put(frontend)
    fingerprint = frontend.broker.fingerprint
    assert answer.status_code == 201
    assert answer.json == {
        "name": "ppe",
        **DEFINITION,
        "dimension": DIMENSION,
        "model": "emulated-clip-resnet-50x4",
        "model_fingerprint": fingerprint,
    }
    assert answer.headers["x-model-fingerprint"] == fingerprint
    kept = frontend.broker.labels.sets["", "ppe"]
    matrix = np.frombuffer(kept.frames[0], np.float32).reshape(3, DIMENSION)
    expected = [vector(p) for p in ("a helmet", "a vest", "nothing")]
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert frontend.request("GET", PPE).json == answer.json


def test_put_again_replaces(frontend: Frontend) -> None:
    put(frontend)
    answer = put(frontend, prompts=["a glove"])
    assert answer.status_code == 200
    assert answer.json["prompts"] == ["a glove"]
    assert frontend.request("GET", PPE).json == answer.json


def test_prompts_alone_are_enough(frontend: Frontend) -> None:
    answer = frontend.request("PUT", PPE, json={"prompts": ["a helmet"]})
    assert answer.status_code == 201
    assert (answer.json["templates"], answer.json["negative_prompts"]) == ([], [])


def test_the_list_has_names_and_counts_in_order(frontend: Frontend) -> None:
    assert frontend.request("GET", SETS).json == {"label_sets": []}
    put(frontend)
    frontend.request("PUT", f"{SETS}/Animals-2.0", json={"prompts": ["a cat"]})
    assert frontend.request("GET", SETS).json == {
        "label_sets": [
            {"name": "Animals-2.0", "prompts": 1, "negative_prompts": 0},
            {"name": "ppe", "prompts": 2, "negative_prompts": 1},
        ]
    }


def test_delete_forgets(frontend: Frontend) -> None:
    put(frontend)
    answer = frontend.request("DELETE", PPE)
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "DELETE"):
        answer = frontend.request(method, PPE)
        assert (answer.status_code, answer.json) == (404, {"error": "There is no label set 'ppe'"})


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("name", [".hidden", "a b", "-x", "ä", "x" * 65, "a%0A"])
def test_names_are_checked(frontend: Frontend, method: str, name: str) -> None:
    answer = frontend.request(method, f"{SETS}/{name}", json=DEFINITION if method == "PUT" else None)
    assert answer.status_code == 400
    assert answer.json["error"].startswith("Invalid 'name': must be 1 to 64 letters, digits")
    assert frontend.broker.asked == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "Missing or invalid 'prompts' array"),
        ({"prompts": []}, "Missing or invalid 'prompts' array: must have 1 to 256 strings, has 0"),
        ({"prompts": ["a"], "templates": ["x"]}, "Missing or invalid 'templates' array: templates[0] must"),
        ({"prompts": ["a"], "negative_prompts": [7]}, "Missing or invalid 'negative_prompts' array: "),
        ({"prompts": ["a"] * 200, "templates": ["{}"] * 6}, "Invalid 'templates': 200 prompts in 6"),
    ],
)
def test_definitions_are_checked(frontend: Frontend, body: object, error: str) -> None:
    answer = frontend.request("PUT", PPE, json=body)
    assert answer.status_code == 400
    assert answer.json["error"].startswith(error)
    assert frontend.broker.asked == []


def test_other_bodies_and_methods_are_refused(frontend: Frontend) -> None:
    assert frontend.request("PUT", PPE, **raw(b"x", "image/jpeg")).status_code == 415
    assert frontend.request("POST", PPE, json=DEFINITION).status_code == 405
    assert frontend.request("DELETE", SETS).status_code == 405
    for method, path in (("GET", SETS), ("GET", PPE), ("DELETE", PPE)):
        answer = frontend.request(method, path, headers={"X-Deadline-Ms": "soon"})
        assert answer.status_code == 400
        assert answer.json["error"].startswith("Invalid X-Deadline-Ms")


def test_put_asks_for_the_model_that_the_client_wants(frontend: Frontend) -> None:
    answer = frontend.request("PUT", PPE, json=DEFINITION, headers={"X-Require-Model-Fingerprint": "f" * 32})
    assert answer.status_code == 409
    assert frontend.broker.asked == []


def test_a_full_store_is_a_400_with_its_words(frontend: Frontend) -> None:
    frontend.broker.labels.refusal = ("limit", "There are 3 label sets; delete one first", None)
    answer = put(frontend)
    assert (answer.status_code, answer.json) == (400, {"error": "There are 3 label sets; delete one first"})


def test_without_workers_sets_are_shown_and_deleted_and_not_made(frontend: Frontend) -> None:
    put(frontend)
    frontend.ail("starting", "workers loading the model: 2")
    assert put(frontend).status_code == 503
    assert frontend.request("GET", PPE).status_code == 200
    assert frontend.request("GET", SETS).json["label_sets"]
    assert frontend.request("DELETE", PPE).status_code == 204


def test_a_broker_that_keeps_silent_is_a_504_by_the_deadline(frontend: Frontend) -> None:
    frontend.broker.labels.mute = True
    for method, path in (("GET", SETS), ("GET", PPE), ("DELETE", PPE), ("PUT", PPE)):
        answer = frontend.request(
            method, path, json=DEFINITION if method == "PUT" else None, headers={"X-Deadline-Ms": "50"}
        )
        assert answer.status_code == 504, (method, path)


def test_what_was_asked_of_a_broker_that_died_is_asked_of_the_next(frontend: Frontend) -> None:
    broker = frontend.broker
    broker.labels.mute = True

    def revive() -> None:
        broker.wait(lambda: bool(broker.asked))
        broker.labels.mute = False
        broker.restart()

    async def both() -> testing.Result:
        loop = asyncio.get_running_loop()
        reviving = loop.run_in_executor(None, revive)
        answer = await frontend._conductor.simulate_request("GET", SETS)
        await reviving
        return answer

    assert frontend._run(both()).json == {"label_sets": []}
    assert len(broker.asked) == 2


def test_a_broker_that_is_gone_is_a_503() -> None:
    with configured() as config, Frontend(config) as frontend:
        put(frontend)
        frontend.broker.kill()
        until(lambda: not frontend.app.service.gateway.health.ready)
        for method, path in (("GET", SETS), ("GET", PPE), ("DELETE", PPE), ("PUT", PPE)):
            answer = frontend.request(method, path, json=DEFINITION if method == "PUT" else None)
            assert answer.status_code == 503, (method, path)
            assert "the broker does not answer" in answer.json["error"]
            assert answer.headers["retry-after"]


def test_with_keys_each_tenant_has_its_own_sets(tmp_path: Any) -> None:
    file = tmp_path / "keys.yaml"
    doors, search = (editing.create(file, f"{name}-1", name, None, False)[0] for name in ("doors", "search"))
    again, _ = editing.create(file, "doors-2", "doors", None, False)
    with configured() as config, Frontend(dataclasses.replace(config, auth=Auth(keys_file=file))) as frontend:

        def ask(method: str, key: str, json: object = None) -> int:
            answer = frontend.request(method, PPE, json=json, headers={"X-API-Key": key})
            return int(answer.status_code)

        assert ask("PUT", doors, DEFINITION) == 201
        assert (ask("GET", again), ask("GET", search)) == (200, 404)
        assert ask("PUT", search, DEFINITION) == 201
        assert (ask("DELETE", again), ask("GET", doors), ask("GET", search)) == (204, 404, 200)
        assert frontend.request("GET", PPE).status_code == 401
        assert set(frontend.broker.labels.sets) == {("search", "ppe")}


# What a classification uses


def call(deadline_s: float | None = None) -> Call:
    return Call("r-1", "10.0.0.1", "POST", "/v1/classify", deadline_s=deadline_s)


def using(frontend: Frontend, test: Callable[[LabelSets], Awaitable[None]]) -> None:
    """Run `test` in the frontend's event loop with label sets that hold nothing yet."""
    service = frontend.app.service
    sets = LabelSets(service, Classifier(service).vectors)
    frontend.broker.asked.clear()
    frontend.broker.submits.clear()
    frontend._run(test(sets))


def test_the_matrix_is_fetched_once_and_no_text_is_embedded(frontend: Frontend) -> None:
    put(frontend)

    async def test(sets: LabelSets) -> None:
        first = await sets.get(call(), "", "ppe")
        assert first.prompts == ("a helmet", "a vest") and first.negatives == ("nothing",)
        assert first.matrix.shape == (3, DIMENSION) and first.matrix.dtype == np.float32
        np.testing.assert_allclose(first.matrix[1], vector("a vest"), atol=1e-6)
        assert first.fingerprint == frontend.broker.fingerprint
        assert await sets.get(call(), "", "ppe") is first

    using(frontend, test)
    assert [request.version for request in frontend.broker.asked] == ["", "v1"]  # type: ignore[union-attr]
    assert frontend.broker.submits == []


def test_a_set_that_another_frontend_changed_is_seen_at_once(frontend: Frontend) -> None:
    put(frontend)

    async def test(sets: LabelSets) -> None:
        other = LabelSets(frontend.app.service, Classifier(frontend.app.service).vectors)
        assert len((await sets.get(call(), "", "ppe")).prompts) == 2
        await other.put(call(), "", "ppe", Definition(("a glove",)))
        assert (await sets.get(call(), "", "ppe")).prompts == ("a glove",)
        await other.drop(call(), "", "ppe")
        with pytest.raises(NotFound, match="There is no label set 'ppe'"):
            await sets.get(call(), "", "ppe")

    using(frontend, test)


def test_namespaces_are_apart(frontend: Frontend) -> None:
    put(frontend)

    async def test(sets: LabelSets) -> None:
        await sets.get(call(), "", "ppe")
        with pytest.raises(NotFound):
            await sets.get(call(), "other", "ppe")

    using(frontend, test)


def age(frontend: Frontend) -> None:
    """Make the set one of another model."""
    sets = frontend.broker.labels.sets
    sets["", "ppe"] = dataclasses.replace(sets["", "ppe"], fingerprint="0" * 32, dimension=2, frames=(b"",))


def test_a_stale_matrix_is_made_anew_once_and_put_back(frontend: Frontend) -> None:
    put(frontend)
    age(frontend)
    shown = frontend.request("GET", PPE)
    assert (shown.status_code, shown.json["model_fingerprint"], shown.json["dimension"]) == (200, "0" * 32, 2)

    async def test(sets: LabelSets) -> None:
        found = await asyncio.gather(*(sets.get(call(), "", "ppe") for _ in range(20)))
        assert {id(labels) for labels in found} == {id(found[0])}
        np.testing.assert_allclose(found[0].matrix[2], vector("nothing"), atol=1e-6)
        assert not sets._locks

    using(frontend, test)
    assert len(frontend.broker.submits) == 1
    assert sum(isinstance(request, PutLabels) for request in frontend.broker.asked) == 1
    assert frontend.request("GET", PPE).json["model_fingerprint"] == frontend.broker.fingerprint


def test_what_was_changed_while_a_stale_set_was_embedded_is_not_overwritten(frontend: Frontend) -> None:
    put(frontend)
    age(frontend)
    labels = frontend.broker.labels

    def meanwhile(renewed: PutLabels) -> None:
        labels.before_put = None
        labels.put(dataclasses.replace(renewed, prompts=("a glove",), negatives=(), frames=(b"\0" * 2560,)))

    labels.before_put = meanwhile

    async def test(sets: LabelSets) -> None:
        assert (await sets.get(call(), "", "ppe")).prompts == ("a glove",)

    using(frontend, test)
    assert labels.sets["", "ppe"].prompts == ("a glove",)


def test_a_stale_set_that_is_deleted_meanwhile_is_a_404(frontend: Frontend) -> None:
    put(frontend)
    age(frontend)
    labels = frontend.broker.labels
    labels.before_put = lambda _: labels.sets.clear()

    async def test(sets: LabelSets) -> None:
        with pytest.raises(NotFound):
            await sets.get(call(), "", "ppe")

    using(frontend, test)
    assert labels.sets == {}


def test_a_set_that_never_holds_still_is_a_503(frontend: Frontend) -> None:
    put(frontend)
    age(frontend)
    labels = frontend.broker.labels

    def meanwhile(renewed: PutLabels) -> None:
        labels.put(renewed)
        age(frontend)

    labels.before_put = meanwhile

    async def test(sets: LabelSets) -> None:
        with pytest.raises(Unavailable, match="'ppe' changes all the time"):
            await sets.get(call(), "", "ppe")

    using(frontend, test)


def test_if_the_first_that_embeds_a_stale_set_fails_the_next_one_does_it(frontend: Frontend) -> None:
    put(frontend)
    age(frontend)
    broker = frontend.broker

    def full_once(submit: Submit) -> list[ToFrontend]:
        refused = broker.refuse(("queue_full", "10 wait", 1.0))(submit)
        broker.answer = broker.embed
        return list(refused)

    broker.answer = full_once

    async def test(sets: LabelSets) -> None:
        wanted = [sets.get(call(), "", "ppe") for _ in range(5)]
        outcomes = await asyncio.gather(*wanted, return_exceptions=True)
        assert [type(o) for o in outcomes] == [QueueFull, *[LabelSet] * 4]

    using(frontend, test)


def test_who_waits_for_another_to_embed_a_stale_set_gives_up_at_its_deadline(frontend: Frontend) -> None:
    put(frontend)
    age(frontend)
    frontend.broker.answer = lambda submit: []

    async def test(sets: LabelSets) -> None:
        first = asyncio.ensure_future(sets.get(call(), "", "ppe"))
        while not frontend.broker.submits:
            await asyncio.sleep(0.005)
        with pytest.raises(DeadlineExceeded):
            await sets.get(call(deadline_s=0.2), "", "ppe")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        frontend.broker.answer = frontend.broker.embed
        assert (await sets.get(call(), "", "ppe")).prompts

    using(frontend, test)


def test_what_is_held_is_bounded(frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"set-{i}" for i in range(6)]
    for name in names:
        put(frontend, f"{SETS}/{name}")
    one = 3 * DIMENSION * 4 + len("a helmeta vestnothing")
    monkeypatch.setattr(labelsets, "MAX_HELD_BYTES", 3 * one)

    async def test(sets: LabelSets) -> None:
        for name in names:
            await sets.get(call(), "", name)
            await sets.get(call(), "", names[0])
        assert [name for _, name in sets._held] == ["set-4", "set-5", "set-0"]
        assert sets._bytes == 3 * one

    using(frontend, test)
