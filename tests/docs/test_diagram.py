"""The diagrams in docs/broker.md are those of the tables."""

from __future__ import annotations

from tests.docs.diagram import PAGE, drawn


def test_the_page_shows_the_tables():
    assert drawn() in PAGE.read_text()
