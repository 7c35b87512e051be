"""The charts of the report: data in, an SVG drawing out. Pure functions; nothing is read and nothing remembered.

:func:`plot` draws every chart with two axes (points with error bars, curves, a diagonal, reference lines);
:func:`interval_row` and :func:`interval_axis` draw the intervals inside the leaderboard's rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from eval.report import svg
from eval.report.svg import Box, Scale, text
from farm.base.markup import NOTHING, element, join

NAN = float("nan")
SHAPES = 4
BAR = 0.75
"""half the thickness of an error bar"""


@dataclass(frozen=True)
class Axis:
    """A side of a plot. ``marks`` are reference lines."""

    label: str
    marks: tuple[float, ...] = ()
    low: float | None = None
    """where the axis begins; from the data where None"""


@dataclass(frozen=True)
class Point:
    """A mark with error bars where its bounds are known."""

    x: float
    y: float
    colour: str
    note: str
    label: str = ""
    x_low: float = NAN
    x_high: float = NAN
    y_low: float = NAN
    y_high: float = NAN
    hollow: bool = False
    shape: int = 0


@dataclass(frozen=True)
class Curve:
    """A line. ``faint`` for raw values behind a smoothed line; ``label`` is written near the end."""

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    note: str = ""
    label: str = ""
    faint: bool = False
    dashed: bool = False


def plot(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    *,
    points: Sequence[Point] = (),
    curves: Sequence[Curve] = (),
    diagonal: bool = False,
    width: float = 460,
    height: float = 330,
) -> Markup:
    """Curves, then points with error bars, then labels, on axes with round ticks.

    Args:
        diagonal: draw y = x, on axes of the same range.
    """
    xs = [v for p in points for v in (p.x, p.x_low, p.x_high)] + [v for c in curves for v in c.x]
    ys = [v for p in points for v in (p.y, p.y_low, p.y_high)]
    ys += [v for c in curves if not c.faint for v in c.y] + _bulk([c for c in curves if c.faint])
    if diagonal:
        xs = ys = xs + ys
    x_range = _range(x, xs, 0.0 if curves and not points else 0.06)
    y_range = _range(y, ys, 0.06)
    y_ticks = svg.ticks(*y_range)
    y_words = svg.tick_labels(y_ticks)
    left = 26 + max((svg.width_of(w) for w in y_words), default=0)
    right, top, bottom = width - 10, 10.0, height - 42
    across, up = Scale(*x_range, left, right), Scale(*y_range, bottom, top)
    frame = _axes(x, y, across, up, y_ticks, y_words, left, right, top, bottom, height)
    if diagonal:
        low, high = x_range
        line = element("line", x1=across(low), y1=up(low), x2=across(high), y2=up(high), class_="diagonal")
        frame += svg.titled(line, "equal")
    inside = Box(left, top, right, bottom)
    lines = join(_curve(c, across, up, inside) for c in sorted(curves, key=lambda c: not c.faint))
    shown = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    marks = join(_mark(p, across, up) for p in shown)
    body = frame + lines + marks + _labels(shown, curves, across, up, inside)
    return svg.drawing(width, height, title, description, body)


def _range(axis: Axis, values: Sequence[float], room: float) -> tuple[float, float]:
    low, high = svg.span(values, axis.marks, room)
    return (axis.low if axis.low is not None else low), high


def _bulk(curves: Sequence[Curve]) -> list[float]:
    """The bulk of the raw values: a few wild steps may leave the plot, but do not set its range."""
    values = sorted(v for c in curves for v in c.y if math.isfinite(v))
    cut = len(values) // 50
    return values[cut : len(values) - cut]


def _axes(
    x: Axis,
    y: Axis,
    across: Scale,
    up: Scale,
    y_ticks: Sequence[float],
    y_words: Sequence[str],
    left: float,
    right: float,
    top: float,
    bottom: float,
    height: float,
) -> Markup:
    parts = []
    for value, words in zip(y_ticks, y_words, strict=True):
        parts.append(element("line", x1=left, x2=right, y1=up(value), y2=up(value), class_="grid"))
        parts.append(text(left - 7, up(value) + 4, words, "tick", "end"))
    x_ticks = across.ticks(max(int((right - left) / 62), 2))
    for value, words in zip(x_ticks, svg.tick_labels(x_ticks), strict=True):
        parts.append(element("line", x1=across(value), x2=across(value), y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(text(across(value), bottom + 17, words, "tick", "middle"))
    parts.append(element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
    parts += [
        element("line", x1=across(m), x2=across(m), y1=top, y2=bottom, class_="mark")
        for m in x.marks
        if across.low <= m <= across.high
    ]
    parts += [
        element("line", x1=left, x2=right, y1=up(m), y2=up(m), class_="mark") for m in y.marks if up.low <= m <= up.high
    ]
    parts.append(text((left + right) / 2, height - 6, x.label, "name", "middle"))
    middle = (top + bottom) / 2
    turned = f"rotate(-90 11 {middle:.1f})"
    parts.append(text(11, middle, y.label, "name", "middle", transform=turned))
    return join(parts)


def _curve(curve: Curve, across: Scale, up: Scale, inside: Box) -> Markup:
    runs: list[list[str]] = [[]]
    for a, b in zip(curve.x, curve.y, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            high = min(max(up(b), inside.top - 2), inside.bottom + 2)
            runs[-1].append(f"{across(a):.1f} {high:.1f}")
        elif runs[-1]:
            runs.append([])
    path = "".join("M" + "L".join(run) for run in runs if len(run) > 1)
    if not path:
        return NOTHING
    kind = "raw" if curve.faint else "curve dashed" if curve.dashed else "curve"
    line = element("path", d=path, class_=f"{kind} {curve.colour}")
    return svg.titled(line, curve.note) if curve.note else line


def _along(curve: Curve, across: Scale, up: Scale, inside: Box) -> list[Box]:
    """The curve as a few small boxes, for labels to keep away from."""
    places = [
        (across(a), up(b)) for a, b in zip(curve.x, curve.y, strict=True) if math.isfinite(a) and math.isfinite(b)
    ]
    boxes = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in places[:: max(len(places) // 40, 1)]]
    for (x, y), (v, w) in pairwise(places[:4] if len(places) < 8 else ()):  # a long straight line between few points
        boxes += [
            Box(x + t * (v - x) - 3, y + t * (w - y) - 3, x + t * (v - x) + 3, y + t * (w - y) + 3) for t in _PARTS
        ]
    return [box for box in boxes if box.overlap(inside)]


_PARTS = [i / 20 for i in range(21)]


def _labels(points: Sequence[Point], curves: Sequence[Curve], across: Scale, up: Scale, inside: Box) -> Markup:
    """The names of points and of the ends of curves, placed together so that none covers another."""
    named = [(across(p.x), up(p.y), p.label, p.colour) for p in points if p.label]
    for curve in curves:
        finite = [(a, b) for a, b in zip(curve.x, curve.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
        if curve.label and finite:
            named.append((across(finite[-1][0]), up(finite[-1][1]), curve.label, curve.colour))
    bars = [bar for p in points for bar in _bars(p, across, up)]
    lines = [box for c in curves if not c.faint for box in _along(c, across, up, inside)]
    marks = [Box(across(p.x) - 5, up(p.y) - 5, across(p.x) + 5, up(p.y) + 5) for p in points]
    places = svg.place_labels(
        [(x, y) for x, y, _, _ in named], [w for _, _, w, _ in named], [*bars, *lines, *lines], marks, inside
    )
    parts = []
    for (x, y, words, colour), place in zip(named, places, strict=True):
        if place.far:
            near = min(max(x, place.box.left), place.box.right)
            edge = place.box.bottom if place.box.bottom < y else max(place.box.top, min(y, place.box.bottom))
            parts.append(element("line", x1=x, y1=y, x2=near, y2=edge, class_=f"leader {colour}"))
        parts.append(text(place.x, place.y, words, f"label {colour}"))
    return join(parts)


def _bars(p: Point, across: Scale, up: Scale) -> list[Box]:
    """The error bars of a point, as far as their ends are known."""
    x, y, bars = across(p.x), up(p.y), []
    if math.isfinite(p.x_low) and math.isfinite(p.x_high):
        bars.append(Box(across(p.x_low), y - BAR, across(p.x_high), y + BAR))
    if math.isfinite(p.y_low) and math.isfinite(p.y_high):
        bars.append(Box(x - BAR, up(p.y_high), x + BAR, up(p.y_low)))
    return bars


def _mark(p: Point, across: Scale, up: Scale) -> Markup:
    bars = join(
        element("rect", x=b.left, y=b.top, width=b.right - b.left, height=b.bottom - b.top, class_=f"error {p.colour}")
        for b in _bars(p, across, up)
    )
    return svg.titled(bars + symbol(across(p.x), up(p.y), p.colour, p.shape, p.hollow), p.note, "point")


def symbol(x: float, y: float, colour: str, shape: int = 0, hollow: bool = False, size: float = 4.5) -> Markup:
    """A circle, square, diamond or triangle."""
    kind = f"{'hollow' if hollow else 'solid'} {colour}"
    if shape % SHAPES == 0:
        return element("circle", cx=float(x), cy=float(y), r=size, class_=kind)
    corners = {
        1: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        3: [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
    }[shape % SHAPES]
    path = "M" + "L".join(f"{x + a * size:.1f} {y + b * size:.1f}" for a, b in corners) + "Z"
    return element("path", d=path, class_=kind)


# --- intervals inside table rows --------------------------------------------------------------------------------------

ROW_WIDTH, ROW_HEIGHT = 230, 40


@dataclass(frozen=True)
class Interval:
    """An estimate in a row: ``shape`` and ``hollow`` tell the roles apart."""

    value: float
    low: float
    high: float
    note: str
    shape: int = 0
    hollow: bool = False


def row_scale(values: Sequence[float], include: Sequence[float] = ()) -> Scale:
    """The scale that all rows of a table share."""
    low, high = svg.span(values, include, 0.04)
    return Scale(low, high, 8, ROW_WIDTH - 8)


def interval_row(intervals: Sequence[Interval], scale: Scale, colour: str, mark: float, title: str) -> Markup:
    """The intervals of one method, one below the other, on grid lines that continue from row to row."""
    body = join(element("line", x1=scale(t), x2=scale(t), y1=0, y2=ROW_HEIGHT, class_="grid") for t in scale.ticks(5))
    body += element("line", x1=scale(mark), x2=scale(mark), y1=0, y2=ROW_HEIGHT, class_="mark")
    shown = [i for i in intervals if math.isfinite(i.value)]
    for place, one in enumerate(shown):
        y = ROW_HEIGHT * (place + 1) / (len(shown) + 1) if len(shown) > 1 else ROW_HEIGHT / 2
        drawn = NOTHING
        if math.isfinite(one.low) and math.isfinite(one.high):
            kind = "bar thin" if one.hollow else "bar"
            drawn = element("line", x1=scale(one.low), x2=scale(one.high), y1=y, y2=y, class_=f"{kind} {colour}")
        drawn += symbol(scale(one.value), y, colour, one.shape, one.hollow, 4 if not one.hollow else 3.4)
        body += svg.titled(drawn, one.note)
    return svg.drawing(ROW_WIDTH, ROW_HEIGHT, title, "; ".join(i.note for i in shown), body, "chart row")


def interval_axis(scale: Scale) -> Markup:
    """The tick labels above the rows; decoration for the eye, since every row says its numbers."""
    values = scale.ticks(5)
    words = zip(values, svg.tick_labels(values), strict=True)
    body = join(text(scale(v), 11, w, "tick", "middle") for v, w in words)
    return element("svg", body, class_="chart row", viewBox=f"0 0 {ROW_WIDTH} 14", aria_hidden="true")


def key(shape: int, hollow: bool, colour: str = "ink") -> Markup:
    """The symbol of a legend entry."""
    return element("svg", symbol(7, 7, colour, shape, hollow, 4), class_="key", viewBox="0 0 14 14", aria_hidden="true")


def line_key(dashed: bool, colour: str = "ink") -> Markup:
    line = element("path", d="M0 7L22 7", class_=f"curve {'dashed ' if dashed else ''}{colour}")
    return element("svg", line, class_="key wide", viewBox="0 0 22 14", aria_hidden="true")
