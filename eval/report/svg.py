"""Drawing with text: labels, scales with round ticks, and labels that keep out of each other's way.

Colours are never written into a drawing. Marks carry classes (``m0`` .. ``m6`` and ``base`` for methods), and the style
sheet gives them colours for light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from eval.report import wording
from farm.base.markup import element, visible

FONT = 12
"""size of labels, in units of the drawing"""
BOLD = 1.12


def text(x: float, y: float, words: str, class_: str = "", anchor: str = "start", **attributes: object) -> Markup:
    """A line of text; ``words`` is data and is escaped."""
    end = None if anchor == "start" else anchor
    place = {"x": float(x), "y": float(y), "class_": class_ or None, "text_anchor": end}
    return element("text", visible(words), **place, **attributes)


def titled(mark: Markup, note: str, class_: str = "") -> Markup:
    """A mark that shows ``note`` under the pointer."""
    return element("g", element("title", visible(note)) + mark, class_=class_ or None)


def drawing(width: float, height: float, title: str, description: str, body: Markup, class_: str = "chart") -> Markup:
    """A whole drawing that a screen reader announces by title and description."""
    named = element("title", visible(title)) + element("desc", visible(description))
    return element("svg", named + body, class_=class_, viewBox=f"0 0 {width:g} {height:g}", role="img")


def width_of(words: str, size: float = FONT) -> float:
    """About how wide a text is in a wide typeface; good enough to leave room for it."""
    wide = sum(1.0 if ord(c) > 0x2E80 else 0.3 if c in "iljtfI.,:;'|![]() " else 0.56 for c in words)
    return wide * size


@dataclass(frozen=True)
class Scale:
    """From values ``low .. high`` to places ``start .. end`` in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        return ticks(self.low, self.high, about)


def span(values: Sequence[float], include: Sequence[float] = (), room: float = 0.06) -> tuple[float, float]:
    """The range of the finite values, and some room around it; never empty."""
    finite = [float(v) for v in (*values, *include) if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - max(abs(low) * 0.05, 0.5), high + max(abs(high) * 0.05, 0.5)
    return low - room * (high - low), high + room * (high - low)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) between ``low`` and ``high``."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return []
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The ticks with as many decimals as their distance needs, the same for all."""
    if not values:
        return []
    step = min((b - a for a, b in pairwise(values)), default=abs(values[0]) or 1)
    digits = next((d for d in range(7) if abs(round(step, d) - step) < step * 1e-6), 6)
    return [wording.number(v, digits) for v in values]


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0


@dataclass(frozen=True)
class Label:
    """Where a label goes: its text's left end and base line, and whether it needs a line back to its point."""

    x: float
    y: float
    far: bool
    box: Box


_DIRECTIONS = [(1, 0), (1, -1), (-1, 0), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1)]


def place_labels(
    points: Sequence[tuple[float, float]],
    words: Sequence[str],
    lines: Sequence[Box],
    marks: Sequence[Box],
    inside: Box,
) -> list[Label]:
    """A place for the label of each point: near it, ``inside`` the plot, clear of marks, of lines and of other labels.

    Greedy: labels are placed in the given order, each where it costs least.
    """
    taken: list[Box] = []
    placed = []
    for (x, y), label in zip(points, words, strict=True):
        wide, best, least = width_of(label) * BOLD, None, math.inf
        for distance in (9, 17, 27, 40, 58, 80):
            for order, (dx, dy) in enumerate(_DIRECTIONS):
                near = distance * (0.75 if dx and dy else 1)
                left = x + dx * near - (0 if dx > 0 else wide if dx < 0 else wide / 2)
                base = y + dy * near + (4 if dy == 0 else 9 if dy > 0 else 0)
                box = Box(left - 1, base - 10, left + wide + 1, base + 3)
                outside = (wide + 2) * 13 - box.overlap(inside)
                covered = [area for b in taken if (area := box.overlap(b))]
                hidden = sum(box.overlap(b) for b in marks) + sum(covered) + 50 * len(covered)
                cost = 40 * outside + 20 * hidden + 4 * sum(box.overlap(b) for b in lines) + 3 * distance + order
                if cost < least:
                    best, least = Label(left, base, distance > 17, box), cost
        assert best is not None
        taken.append(best.box)
        placed.append(best)
    return placed
