"""Line plots as SVG, with nothing but strings. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 48, 56
_COLOURS = ("#1b6ca8", "#d1495b", "#3c8d5a", "#8d6a9f", "#c98a1b")
_INK, _GRID = "#333333", "#dddddd"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined in their order; `name` stands in the key. Points that are not finite are left out."""

    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class Mark:
    """A dashed line across the plot at a value of `axis` ("x" or "y"), with its text."""

    axis: str
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot; axes begin at zero. What is higher than `y_most` is drawn there, to leave the rest to see."""

    title: str
    x_title: str
    y_title: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    y_most: float = math.inf

    def svg(self) -> str:
        """The drawing."""
        return "\n".join(self._drawn()) + "\n"

    def _drawn(self) -> Iterator[str]:
        xs = [x for line in self.lines for x, _ in line.points] + [m.at for m in self.marks if m.axis == "x"]
        ys = [y for line in self.lines for _, y in line.points if math.isfinite(y)]
        ys += [m.at for m in self.marks if m.axis == "y"]
        self_x, self_y = ticks(max(xs)), ticks(min(max(ys), self.y_most))
        frame = _Frame(self_x[-1], self_y[-1])
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="13" fill="{_INK}">'
        )
        yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        yield _text(WIDTH / 2, 22, self.title, "middle", 'font-size="15" font-weight="bold"')
        yield from _axes(frame, self_x, self_y)
        yield _text(_LEFT + frame.width / 2, HEIGHT - 14, self.x_title, "middle")
        turn = f'transform="rotate(-90 18 {_TOP + frame.height / 2:.0f})"'
        yield _text(18, _TOP + frame.height / 2, self.y_title, "middle", turn)
        for mark in self.marks:
            yield from _mark(frame, mark)
        for i, line in enumerate(self.lines):
            yield from _line(frame, line, _COLOURS[i % len(_COLOURS)], i)
        yield "</svg>"


@dataclass(frozen=True, slots=True)
class _Frame:
    """The plot's area: from values to places."""

    x_most: float
    y_most: float
    width: float = WIDTH - _LEFT - _RIGHT
    height: float = HEIGHT - _TOP - _BOTTOM

    def x(self, value: float) -> float:
        return _LEFT + self.width * value / self.x_most

    def y(self, value: float) -> float:
        return _TOP + self.height * (1 - min(value, self.y_most) / self.y_most)


def ticks(most: float) -> list[float]:
    """Round values from 0 to the first that is at least `most`, four to eight of them."""
    if not (math.isfinite(most) and most > 0):
        return [0.0, 1.0]
    magnitude = 10 ** math.floor(math.log10(most))
    step = next(s * magnitude for s in (0.2, 0.25, 0.5, 1.0, 2.0) if most <= 6 * s * magnitude)
    return [i * step for i in range(math.ceil(most / step - 1e-9) + 1)]


def _axes(frame: _Frame, xs: Sequence[float], ys: Sequence[float]) -> Iterator[str]:
    for y in ys:
        yield _rule(_LEFT, frame.y(y), _LEFT + frame.width, frame.y(y), _GRID)
        yield _text(_LEFT - 8, frame.y(y) + 4, f"{y:g}", "end")
    for x in xs:
        yield _rule(frame.x(x), _TOP, frame.x(x), _TOP + frame.height, _GRID)
        yield _text(frame.x(x), _TOP + frame.height + 18, f"{x:g}", "middle")


def _mark(frame: _Frame, mark: Mark) -> Iterator[str]:
    dashes = 'stroke-dasharray="5 4"'
    if mark.axis == "x":
        x = frame.x(mark.at)
        yield _rule(x, _TOP, x, _TOP + frame.height, _INK, dashes)
        yield _text(x - 5, _TOP + frame.height - 8, mark.text, "end", 'font-size="12"')
    else:
        y = frame.y(mark.at)
        yield _rule(_LEFT, y, _LEFT + frame.width, y, _INK, dashes)
        yield _text(_LEFT + 6, y + 15, mark.text, "start", 'font-size="12"')


def _line(frame: _Frame, line: Line, colour: str, number: int) -> Iterator[str]:
    places = [(frame.x(x), frame.y(y)) for x, y in line.points if math.isfinite(y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    x, y = _LEFT + 14 + 150 * number, _TOP - 10
    yield _rule(x, y - 4, x + 20, y - 4, colour, 'stroke-width="3"')
    yield _text(x + 26, y, line.name, "start")


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
