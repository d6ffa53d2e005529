"""Markdown tables that are readable as they are. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table with aligned columns; all but the first are flush right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(2, *(len(row[i]) for row in cells)) for i in range(len(head))]
    rule = ["-" * w if i < 1 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for number, row in enumerate(cells):
        padded = [
            c.ljust(w) if i < 1 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(padded) + " |")
        if number == 0:
            lines.append("|" + "|".join(f" {r} " for r in rule) + "|")
    return lines


def number(value: float | None, digits: int = 1) -> str:
    """A figure for a table."""
    if value is None or math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"{value:.{digits}f}"
