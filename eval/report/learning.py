"""Learning curves, and the picture of over-optimisation: gold and proxy against KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from eval.report import charts, wording
from eval.report.charts import Axis, Curve, Point
from eval.report.folder import BASELINE, RunFolder
from eval.report.tables import Palette
from farm.base.arrays import Floats

METRICS = {
    "reward": ("Proxy reward", "mean score of the reward model"),
    "gold": ("Gold utility", "mean gold utility"),
    "kl": ("KL to the SFT policy", "nats an answer"),
    "gap": ("Gap to the best answer", "at least, 0 at an equilibrium"),
}
SELDOM = {"gap"}
"""metrics of few methods, not missed where they are absent"""
DRAWN_POINTS = 240
"""at most, of one curve"""
PATH_SHARE = 1 / 4
"""of the steps that a place on the way to the final policy is averaged over: both its coordinates are noisy"""
UNEQUAL = 3.0
"""from this ratio of training lengths on, curves are drawn over the share of the training"""


def smoothed(values: Floats, share: float = 1 / 12) -> Floats:
    """A centred moving average over a share of the steps, at least three, narrower at both ends."""
    half = max(round(len(values) * share / 2), 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    reach = np.minimum(np.minimum(place, len(values) - 1 - place), half)
    return (total[place + reach + 1] - total[place - reach]) / (2 * reach + 1)


def thinned(*columns: Floats) -> list[list[float]]:
    """At most DRAWN_POINTS of the points, first and last among them."""
    n = len(columns[0])
    keep = np.unique(np.linspace(0, n - 1, min(n, DRAWN_POINTS)).round().astype(int))
    return [column[keep].tolist() for column in columns]


def _series(metrics: pd.DataFrame, *columns: str) -> dict[str, pd.DataFrame]:
    """Method -> its steps at which all the columns are finite numbers."""
    if not {*columns, "method", "step"} <= set(metrics.columns):
        return {}
    finite = metrics[np.isfinite(metrics[[*columns]]).all(axis=1)]
    return {str(m): part.sort_values("step", kind="stable") for m, part in finite.groupby("method", sort=False)}


def section(run: RunFolder, palette: Palette) -> dict[str, Any]:
    """Reward, gold, KL, and in games the gap to the best answer, by training step, one chart each."""
    found = {name: _series(run.metrics, name) for name in METRICS}
    logged = run.metrics.groupby("method")["step"].nunique()  # not every metric is measured in every step
    lengths = {m: float(logged[m]) for series in found.values() for m, part in series.items() if len(part) > 1}
    if not any(found.values()):
        return {"missing": "No method logged reward, gold utility or KL while it learned (metrics.jsonl)."}
    share = bool(lengths) and max(lengths.values()) > UNEQUAL * max(min(lengths.values()), 1)
    order = {m: i for i, m in enumerate(run.methods)}
    pictures = []
    for name, series in found.items():
        if not series:
            continue
        title, y_label = METRICS[name]
        curves, points, said = [], [], []
        for method in sorted(series, key=lambda m: order.get(m, len(order))):
            steps, values = (series[method][c].to_numpy(np.float64) for c in ("step", name))
            x = (
                100 * steps / max(float(run.metrics.loc[run.metrics["method"] == method, "step"].max()), 1)
                if share
                else steps
            )
            colour, last = palette.colour(method), f"{wording.number(values[-1])} at step {wording.count(steps[-1])}"
            said.append(f"{method} {last}")
            if len(values) == 1:
                points.append(Point(x[0], values[0], colour, f"{method}: {last}", method))
                continue
            raw_x, raw_y, line = thinned(x, values, smoothed(values))
            if len(values) > 2:
                curves.append(Curve(raw_x, raw_y, colour, faint=True))
            ending = f"{method}: {wording.number(values[0])} at first, {last}"
            curves.append(Curve(raw_x, line, colour, ending, method))
        x_axis = Axis("share of the training, %" if share else "training step", low=0)
        drawn = charts.plot(
            f"{title} by step",
            f"Last values: {'; '.join(said)}.",
            x_axis,
            Axis(y_label),
            points=points,
            curves=curves,
            width=350,
            height=270,
        )
        pictures.append({"title": title, "drawing": drawn, "said": ""})
    missed = [name for name, series in found.items() if not series and name not in SELDOM]
    absent = [METRICS[name][0].lower() if name != "kl" else "KL" for name in missed]
    steps = [f"{m} {wording.plural(int(n), 'step')}" for m, n in lengths.items()] if share else []
    return {"charts": pictures, "absent": wording.listing(absent), "steps": wording.listing(steps)}


# --- over-optimisation ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """Mean and standard deviation of the SFT answers: zero and one of the charts' common scale."""

    mean: float
    deviation: float

    def __call__(self, values: Floats | float) -> Any:
        return (values - self.mean) / self.deviation


def _unit(run: RunFolder, column: str) -> Unit | None:
    """None where the column is unknown or the same everywhere."""
    if not {column, "method"} <= set(run.outputs.columns):
        return None
    values = run.outputs.loc[run.outputs["method"] == BASELINE, column].to_numpy(np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2 or values.std(ddof=1) <= 0:
        return None
    return Unit(float(values.mean()), float(values.std(ddof=1)))


def overoptimisation(run: RunFolder, palette: Palette) -> dict[str, Any]:
    """Gold (solid) and proxy (dashed) against KL and its root, in standard deviations of the SFT answers."""
    units = {column: unit for column in ("gold", "proxy") if (unit := _unit(run, column)) is not None}
    kl = run.measured("kl")
    if "gold" not in units or not any(e.value > 0 for e in kl.values()):
        why = "no gold utility of the answers" if "gold" not in units else "no KL of the answers"
        return {"missing": f"The run folder has {why}, so over-optimisation cannot be shown (tables/outputs.parquet)."}
    pictures = [_against(run, palette, units, kl, root) for root in (False, True)]
    return {"charts": pictures, "proxy": "proxy" in units}


def _against(
    run: RunFolder, palette: Palette, units: dict[str, Unit], kl: dict[str, Any], root: bool
) -> dict[str, Any]:
    def place(value: Any) -> Any:
        return np.sqrt(np.maximum(value, 0)) if root else value

    curves: list[Curve] = []
    for column, logged in (("proxy", "reward"), ("gold", "gold")):
        if column in units:
            curves += _paths(run, palette, units[column], logged, place, dashed=column == "proxy")
    points = []
    for column in ("proxy", "gold"):
        means = run.measured(column) if column in units else {}
        for method in run.methods:
            if method not in means or method not in kl:
                continue
            d, v = kl[method], means[method]
            y, y_low, y_high = (float(units[column](b)) for b in (v.value, v.low, v.high))
            note = (
                f"{method}: {column} {wording.estimate(y, y_low, y_high, 2, signed=True)} SD, "
                f"KL {wording.estimate(d.value, d.low, d.high, 2)}, n = {wording.count(v.n)}"
            )
            gold = column == "gold"
            x, x_low, x_high = (float(place(b)) for b in (d.value, d.low, d.high))
            bars = (x_low, x_high, y_low, y_high) if gold else (float("nan"),) * 4
            points.append(
                Point(
                    x, y, palette.colour(method), note, method if gold else "", *bars, not gold, palette.shape(method)
                )
            )
    name = "square root of the KL to the SFT policy" if root else "KL to the SFT policy, nats"
    title = "Against the square root of KL" if root else "Against KL"
    drawn = charts.plot(
        f"Gold utility and proxy reward {title.lower()}",
        "Filled points are gold utility, hollow points proxy reward, of each method on held-out instructions.",
        Axis(name),
        Axis("standard deviations of SFT answers", (0,)),
        points=points,
        curves=curves,
        height=360,
    )
    return {"title": title, "drawing": drawn, "said": ""}


def _paths(run: RunFolder, palette: Palette, unit: Unit, logged: str, place: Any, dashed: bool) -> list[Curve]:
    """The way each method took while it learned."""
    out = []
    for method, part in _series(run.metrics, "kl", logged).items():
        if len(part) < 3:
            continue
        kl, value = (smoothed(part[c].to_numpy(np.float64), PATH_SHARE) for c in ("kl", logged))
        ends = round(len(kl) * PATH_SHARE / 4)  # averaged over too few steps
        x, y = thinned(place(kl[ends : len(kl) - ends]), unit(value[ends : len(kl) - ends]))
        what = "proxy reward" if dashed else "gold utility"
        out.append(Curve(x, y, palette.colour(method), f"{method}, {what} while learning", dashed=dashed))
    return out
