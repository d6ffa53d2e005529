"""docs/api.md is what the source of the OpenAPI document gives, and has every status code."""

from __future__ import annotations

from hailo_clip.api.openapi_causes import causes
from tests.docs.api_page import FACTS, PAGE, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "renew it: python -m tests.docs.api_page"


def test_every_cause_stands_in_one_table():
    text = page()
    start = text.index("| code | cause |")
    rows = text[start : text.index("\n\n", start)].splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {cause.status}" for cause in causes(FACTS)]
