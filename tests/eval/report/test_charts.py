"""Drawing: round ticks, scales, labels that do not cover one another, and lines that keep their shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report import charts, svg, wording
from eval.report.charts import Axis, Curve, Point
from eval.report.learning import smoothed, thinned
from eval.report.svg import Box, Scale
from farm.base.markup import element, visible

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (47, 78, ["50", "60", "70"]),
        (-0.3, 0.31, ["−0.2", "0.0", "0.2"]),
        (0, 12_000, ["0", "2 500", "5 000", "7 500", "10 000"]),
        (1, 1.004, ["1.000", "1.001", "1.002", "1.003", "1.004"]),
    ],
)
def test_round_ticks(low: float, high: float, words: list[str]) -> None:
    assert svg.tick_labels(svg.ticks(low, high)) == [w.replace(" ", wording.THIN) for w in words]


@given(FINITE, st.floats(1e-3, 1e6))
def test_ticks_lie_inside_and_are_equally_far_apart(low: float, wide: float) -> None:
    found = svg.ticks(low, low + wide)
    assert 2 <= len(found) <= 12
    assert all(low - wide * 1e-6 <= t <= low + wide * (1 + 1e-6) for t in found)
    assert np.allclose(np.diff(found), found[1] - found[0], rtol=1e-3, atol=1e-9)


@given(st.lists(FINITE | st.just(math.nan), max_size=8))
def test_a_span_is_never_empty(values: list[float]) -> None:
    low, high = svg.span(values)
    assert math.isfinite(low) and high > low
    assert all(low <= v <= high for v in values if math.isfinite(v))
    scale = Scale(low, high, 10, 110)
    assert scale(low) == 10 and scale(high) == pytest.approx(110)


@given(st.lists(st.tuples(st.floats(60, 420), st.floats(40, 280)), min_size=1, max_size=6))
def test_labels_do_not_cover_one_another(points: list[tuple[float, float]]) -> None:
    inside = Box(40, 10, 450, 300)
    placed = svg.place_labels(points, [f"method {i}" for i in range(len(points))], [], [], inside)
    boxes = [label.box for label in placed]
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(b.left >= 39 and b.right <= 451 and b.top >= 9 and b.bottom <= 301 for b in boxes)


def test_a_plot_with_holes_in_its_data() -> None:
    nan = math.nan
    drawn = charts.plot(
        "t",
        "d",
        Axis("x", (50,)),
        Axis("y"),
        points=[
            Point(1, 2, "m0", "one", "one"),
            Point(nan, 2, "m1", "two", "two"),
            Point(3, 4, "m2", "3", x_low=2, x_high=nan),
        ],
        curves=[Curve([0, 1, 2, 3], [1, nan, 2, 3], "m0", label="c"), Curve([], [], "m1", label="none")],
    )
    assert "nan" not in drawn and drawn.count("<circle") == 2 and ">two<" not in drawn
    assert charts.plot("t", "d", Axis("x"), Axis("y"))  # nothing at all


def test_a_drawing_escapes_what_it_is_told() -> None:
    attack = '"><script>1</script>&'
    drawn = charts.plot(attack, attack, Axis(attack), Axis(attack), points=[Point(1, 1, "m0", attack, attack)])
    assert "<script" not in drawn and drawn.count("&lt;script&gt;") >= 5
    assert 'class="a&#34;b"' in element("g", class_='a"b')


def test_more_methods_than_hues_differ_by_shape() -> None:
    from eval.report.tables import Palette

    palette = Palette([f"m{i}" for i in range(20)] + ["sft"], "sft")
    looks = [(palette.colour(m), palette.shape(m)) for m in palette.methods]
    assert len(set(looks)) == 21


def test_smoothing_keeps_constants_and_lines() -> None:
    line = 3 + 2 * np.arange(100.0)
    assert smoothed(line) == pytest.approx(line)
    assert smoothed(np.arange(5.0)).tolist() == [0, 1, 2, 3, 4]
    noise = np.random.default_rng(0).normal(size=1000)
    assert smoothed(noise)[100:900].std() < 0.2
    x, y = thinned(np.arange(1000.0), line.repeat(10))
    assert len(x) == 240 and x[0] == 0 and x[-1] == 999 and y[-1] == line[-1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.84, "0.8 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (8040, "2 h 14 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert wording.duration(seconds) == said.replace(" s", f"{wording.THIN}s").replace(
        " min", f"{wording.THIN}min"
    ).replace(" h", f"{wording.THIN}h")


def test_numbers() -> None:
    assert wording.number(-0.004, 2) == "0.00" and wording.number(-1.5, 1) == "−1.5"
    assert wording.number(12345.6, 0) == f"12{wording.THIN}346" and wording.number(None) == "–"
    assert wording.estimate(0.5, math.nan, math.nan) == "0.50"
    assert wording.money(0.0004) == "$0.0004" and wording.money(1800.0) == f"$1{wording.THIN}800"
    assert wording.listing(["a", "b", "c"]) == "a, b and c" and wording.listing([]) == ""
    assert visible("a\u202eb\r\nc\td\ud800") == "a⟨U+202E⟩b\nc\td⟨U+D800⟩"
