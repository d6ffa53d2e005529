"""Bad input over HTTP, each with its exact code and words; none of it reaches the broker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hailo_clip.shared.label_messages import PutLabels
from hailo_clip.shared.models import open_model
from tests.doubles.frontend import MODEL, Frontend, configured
from tests.unit import bad_heads, bad_requests
from tests.unit.bad_requests import EMBEDDINGS, Bad

# Pillow warns of what it then refuses.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

CASES: tuple[Bad, ...] = (
    *bad_heads.paths(),
    *bad_heads.methods(),
    *bad_heads.media(),
    *bad_heads.headers(),
    *bad_heads.fingerprints(open_model(MODEL, Path("nowhere")).fingerprint("emulated")),
    *bad_requests.bodies(),
    *bad_requests.fields(),
    *bad_requests.embeddings(),
    *bad_requests.label_sets(),
    *bad_requests.forms(),
    *bad_requests.images(),
)


@pytest.fixture(scope="module")
def frontend() -> Iterator[Frontend]:
    with configured(max_body_mib=20) as config, Frontend(config) as running:
        yield running
        assert running.broker.submits == []
        assert not any(isinstance(request, PutLabels) for request in running.broker.asked)
        assert running.app.service.budget.held == 0


def test_the_table_is_long() -> None:
    assert len(CASES) >= 150
    assert len({(case.method, case.path) for case in CASES}) > 50


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{i} {c.method} {c.path[:24]} {c.name[:24]}" for i, c in enumerate(CASES)]
)
def test_it_is_refused_in_these_words(frontend: Frontend, case: Bad) -> None:
    answer = frontend.request(case.method, case.path, **case.given)
    said = answer.json["error"]
    if case.path == EMBEDDINGS:
        assert set(said) == {"message", "type", "param", "code"}
        said = said["message"]
    said = re.sub(r"(?<=not valid JSON: ).*(?= \(line)", "...", said)  # the JSON library's words
    assert (answer.status_code, said) == (case.code, case.message)
    assert list(answer.json) == ["error"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert ("allow" in answer.headers) == (case.code == 405)
