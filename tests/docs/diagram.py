"""The state diagrams of docs/broker.md, drawn from the tables.

Renew them with ``python -m tests.docs.diagram``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hailo_clip.broker.states import JOB, REQUEST, WORKER

PAGE = Path(__file__).parent.parent.parent / "docs" / "broker.md"
BEGIN, END = "<!-- drawn from broker/states.py -->\n", "<!-- end -->"


def mermaid(table: Any) -> str:
    """One table as a Mermaid state diagram; events that lead to the same state share an arrow."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(table)).value}"]
    for state, moves in table.items():
        arrows: dict[Any, list[str]] = {}
        for event, target in moves.items():
            arrows.setdefault(target, []).append(event.value)
        lines += [f"    {state.value} --> {t.value}: {' / '.join(events)}" for t, events in arrows.items()]
        if not moves:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join([*lines, "```"])


def drawn() -> str:
    """All three diagrams as the page shows them."""
    named = (("A request", REQUEST), ("An item (job)", JOB), ("A worker", WORKER))
    return BEGIN + "\n".join(f"\n{title}:\n\n{mermaid(table)}\n" for title, table in named) + "\n" + END


def renewed(page: str) -> str:
    """`page` with its diagrams drawn anew."""
    before, _, rest = page.partition(BEGIN)
    return before + drawn() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
