"""Pictures of a game as it is played: where the policy goes, and how far from the equilibrium it stays.

Two panels. Left: with three responses the triangle of all policies, a corner for each, with the path from the reference
to the last policy and the equilibrium; with more, the last policy beside the equilibrium as bars. Right: duality gap
of the last and of the average policy by iteration, both axes logarithmic. Written as SVG by this program; as PNG or PDF
by matplotlib, where it is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from farm.base import files
from farm.base.arrays import Floats
from farm.base.errors import OptionError, need
from farm.base.markup import NOTHING, element, join, visible

SUFFIXES = (".svg", ".png", ".pdf")
SIZE, MARGIN, POINTS = 260, 34, 160
COLOURS = {"last": "#1b6ca8", "average": "#e07b39", "equilibrium": "#2a9d4a", "reference": "#777777"}
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


@dataclass(frozen=True)
class Course:
    """T + 1 policies of one game and their distances; what a picture shows."""

    title: str
    responses: list[str]
    policies: Floats
    """[T + 1, K]"""
    equilibrium: Floats
    gaps: Floats
    """[T + 1]; of the last policy at each iteration"""
    average_gaps: Floats
    """[T + 1]; of the average of the policies so far"""


def draw(course: Course, path: Path) -> None:
    """Write the picture. Raises UserError for a suffix that is not drawn, or where matplotlib is needed and absent."""
    kind = path.suffix.lower()
    if kind == ".svg":
        files.write_text(path, svg(course), errors="xmlcharrefreplace")
    elif kind in (".png", ".pdf"):
        _with_matplotlib(course, path)
    else:
        raise OptionError(f"`plot` {path}: pictures are written as .svg, .png or .pdf")


def thinned(count: int) -> NDArray[np.int64]:
    """At most about POINTS places of 0 .. count - 1, dense at the start, the last among them."""
    if count <= POINTS:
        return np.arange(count)
    early = np.geomspace(1, count, POINTS).astype(np.int64) - 1
    return np.unique(np.r_[early, np.linspace(0, count - 1, POINTS // 2).astype(np.int64)])


def path_points(policies: Floats) -> Floats:
    """Policies of three responses as points of the triangle, [T, 2] in the unit square, y upwards."""
    return np.asarray(policies @ CORNERS)


# --- SVG --------------------------------------------------------------------------------------------------------------


LINES = Markup("\n")


def svg(course: Course) -> str:
    """The picture as an SVG document."""
    width, height = 2 * SIZE + 3 * MARGIN, SIZE + 2 * MARGIN + 18
    left = _triangle(course) if course.policies.shape[1] == 3 else _bars(course)
    title = element("text", _cut(course.title), x=MARGIN, y=20, font_size=14, font_weight="bold")
    key = [
        element("text", f"{_MARKS[name]} {name}", x=MARGIN + i * 118, y=height - 6, fill=colour)
        for i, (name, colour) in enumerate(COLOURS.items())
    ]
    panels = (_panel(left, MARGIN), _panel(_curves(course), 2 * MARGIN + SIZE))
    body = (element("rect", width=width, height=height, fill="#ffffff"), title, *panels, *key)
    how: dict[str, object] = {"viewBox": f"0 0 {width} {height}", "font_family": "sans-serif", "font_size": 11}
    return element("svg", _lines(body), xmlns="http://www.w3.org/2000/svg", **how) + "\n"


_MARKS = {"last": "—", "average": "—", "equilibrium": "+", "reference": "o"}


def _panel(drawn: list[Markup], left: int) -> Markup:
    return element("g", _lines(drawn), transform=f"translate({left},{MARGIN})")


def _lines(parts: Iterable[Markup]) -> Markup:
    return join((NOTHING, *parts, NOTHING), LINES)


def _triangle(course: Course) -> list[Markup]:
    def at(points: Floats) -> Floats:
        return np.asarray(points * SIZE * [1, -1] + [0, 0.93 * SIZE])

    corners = at(CORNERS)
    mean = np.cumsum(course.policies, 0) / np.arange(1, len(course.policies) + 1)[:, None]
    places = thinned(len(mean))
    star, start = at(path_points(course.equilibrium)), at(path_points(course.policies[0]))
    anchors = [("start", 0, 13), ("end", 0, 13), ("middle", 0, -6)]
    cross = f"M{star[0] - 6:.1f} {star[1]:.1f}h12M{star[0]:.1f} {star[1] - 6:.1f}v12"
    return [
        element("polygon", points=_points(corners), fill="#f6f6f6", stroke="#bbbbbb"),
        *(
            element("text", _cut(name), x=f"{x + dx:.0f}", y=f"{y + dy:.0f}", text_anchor=anchor)
            for (x, y), (anchor, dx, dy), name in zip(corners, anchors, course.responses, strict=True)
        ),
        _line(at(path_points(mean[places])), COLOURS["average"]),
        _line(at(path_points(course.policies[places])), COLOURS["last"]),
        element(
            "circle", cx=f"{start[0]:.1f}", cy=f"{start[1]:.1f}", r=4, fill="none", stroke=COLOURS["reference"]
        ),
        element("path", d=cross, stroke=COLOURS["equilibrium"], stroke_width=2.5),
    ]  # fmt: skip


def _bars(course: Course) -> list[Markup]:
    size = course.policies.shape[1]
    top = max(course.policies[-1].max(), course.equilibrium.max(), course.policies[0].max())
    width = SIZE / size
    out = []
    for column, (name, values) in enumerate(
        (("last", course.policies[-1]), ("equilibrium", course.equilibrium), ("reference", course.policies[0]))
    ):
        for k, value in enumerate(values):
            height = SIZE * value / top
            out.append(
                element(
                    "rect", x=f"{k * width + column * width * 0.3:.1f}", y=f"{SIZE - height:.1f}",
                    width=f"{width * 0.28:.1f}", height=f"{height:.1f}", fill=COLOURS[name],
                )
            )  # fmt: skip
    return [*out, _below("responses")]


def _curves(course: Course) -> list[Markup]:
    low = 1e-12
    iterations = np.arange(1, len(course.gaps) + 1)
    span = max(np.log10(len(iterations)), 1e-9)
    places = thinned(len(iterations))

    def at(values: Floats) -> Floats:
        x = np.log10(iterations[places]) / span * SIZE
        y = SIZE * np.log10(np.clip(values[places], low, 1.0)) / np.log10(low)
        return np.column_stack([x, y])

    ticks = [
        element("path", d=f"M0 {SIZE * d / 12:.0f}H{SIZE}", stroke="#eeeeee")
        + element("text", f"1e-{d}" if d else "1", x=-3, y=f"{SIZE * d / 12 + 4:.0f}", text_anchor="end", font_size=9)
        for d in range(0, 13, 3)
    ]
    return [
        element("rect", width=SIZE, height=SIZE, fill="none", stroke="#bbbbbb"),
        *ticks,
        _line(at(course.average_gaps), COLOURS["average"]),
        _line(at(course.gaps), COLOURS["last"]),
        _below(f"duality gap by iteration, 0 to {len(iterations) - 1}"),
    ]


def _below(words: str) -> Markup:
    return element("text", words, x=str(SIZE / 2), y=SIZE + 13, text_anchor="middle")


def _line(points: Floats, colour: str) -> Markup:
    return element("polyline", points=_points(points), fill="none", stroke=colour, stroke_width=1.5)


def _points(points: Floats) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _cut(text: str) -> str:
    return visible(text if len(text) <= 24 else text[:23] + "…")


# --- matplotlib -------------------------------------------------------------------------------------------------------


def _with_matplotlib(course: Course, path: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError(
            f"{need('plots', 'matplotlib', f'`plot` {path}')}; or name a file that ends in .svg"
        ) from error
    figure: Any = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    if course.policies.shape[1] == 3:
        mean = np.cumsum(course.policies, 0) / np.arange(1, len(course.policies) + 1)[:, None]
        left.fill(*CORNERS.T, facecolor="#f6f6f6", edgecolor="#bbbbbb")
        left.plot(*path_points(mean).T, color=COLOURS["average"])
        left.plot(*path_points(course.policies).T, color=COLOURS["last"])
        left.plot(*path_points(course.policies[:1]).T, "o", color=COLOURS["reference"])
        left.plot(*path_points(course.equilibrium[None]).T, "+", color=COLOURS["equilibrium"], markersize=12)
        for corner, name in zip(CORNERS, course.responses, strict=True):
            left.annotate(name, corner)
        left.set_aspect("equal")
        left.axis("off")
    else:
        where = np.arange(course.policies.shape[1])
        shown = (("last", course.policies[-1]), ("equilibrium", course.equilibrium), ("reference", course.policies[0]))
        for column, (name, values) in enumerate(shown):
            left.bar(where + 0.28 * (column - 1), values, 0.26, color=COLOURS[name], label=name)
        left.legend()
        left.set_xlabel("response")
    iterations = np.arange(1, len(course.gaps) + 1)
    right.loglog(iterations, np.clip(course.average_gaps, 1e-16, None), color=COLOURS["average"], label="average")
    right.loglog(iterations, np.clip(course.gaps, 1e-16, None), color=COLOURS["last"], label="last")
    right.set_xlabel("iteration")
    right.set_ylabel("duality gap")
    right.legend()
    figure.suptitle(course.title)
    with files.replacing(path) as new:
        figure.savefig(new)
