"""Two runs side by side: what was set differently, and what came out differently.

A method is compared where both runs have it. The difference of its win rates (second run minus first) is clustered by
instruction, and paired by it where the runs judged the same instructions; p-values of all methods of a role are
corrected together (Holm).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from eval.rates.multiple import holm
from eval.rates.winrate import scores
from eval.report import charts, wording
from eval.report.charts import Axis, Point
from eval.report.folder import RunFolder
from eval.report.tables import Cell, Column, Palette, Table, counted, sortable
from farm.base import files
from farm.base.errors import UserError
from farm.statistics import terminal
from farm.statistics.result import Result
from farm.statistics.uncertainty import difference_limits, joint_means, p_values

_ABSENT = "not set"


@dataclass(frozen=True)
class RunComparison(Result):
    """Two runs: their differing settings and the differences of their win rates (percent points)."""

    first: str
    second: str
    methods: pd.DataFrame
    """role, method, first, second, difference, low, high, p_holm, rank_first, rank_second, instructions, shared"""
    settings_changed: pd.DataFrame
    """setting, first, second"""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    confidence: float

    def table(self) -> pd.DataFrame:
        return self.methods

    def settings(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "second": self.second,
            "difference": "second minus first, percent points, against each run's baseline; clustered by instruction",
            "only in the first": ", ".join(self.only_first) or None,
            "only in the second": ", ".join(self.only_second) or None,
            "confidence": self.confidence,
        }

    def __str__(self) -> str:
        changed = self.settings_changed
        said = terminal.shown(changed) if len(changed) else "the same settings"
        return f"{said}\n\n{super().__str__()}"


def compare(first: Path, second: Path) -> tuple[RunComparison, RunFolder, RunFolder]:
    """The comparison of two run folders, and what was read of them.

    Raises:
        UserError: for a folder that is no run, or runs that have no judged method in common.
    """
    one, two = RunFolder.read(first), RunFolder.read(second)
    for run, path in ((one, first), (two, second)):
        if "judge" not in run.judged or not {"method", "instruction"} <= set(run.judged["judge"].columns):
            raise UserError(f"{path}: holds no verdicts of a judge (tables/judge_judge.parquet), so nothing to compare")
    shared = [m for m in one.methods if m in two.methods]
    if not shared:
        raise UserError(f"{first} and {second} have no method in common")
    roles = [r for r in one.judged if r in two.judged]
    rows = [row for role in roles for row in _of_role(one, two, role, shared)]
    if not rows:
        raise UserError(f"{first} and {second} have no method in common that was judged in both")
    found = RunComparison(
        first=str(first),
        second=str(second),
        methods=pd.DataFrame(rows),
        settings_changed=changes(one.config, two.config),
        only_first=tuple(m for m in one.methods if m not in two.methods),
        only_second=tuple(m for m in two.methods if m not in one.methods),
        confidence=one.confidence,
    )
    return found, one, two


def _of_role(one: RunFolder, two: RunFolder, role: str, methods: list[str]) -> list[dict[str, Any]]:
    rows = []
    for method in methods:
        sides = []
        for run in (one, two):
            table = run.judged[role]
            own = table[table["method"].astype(str) == method] if "method" in table else table.iloc[:0]
            score = scores(own["preference"])
            sides.append((score[~np.isnan(score)], own["instruction"].to_numpy()[~np.isnan(score)]))
        if not all(s.size for s, _ in sides):
            continue
        rows.append({"role": role, "method": method} | _difference(sides, one.confidence) | _ranks(one, two, method))
    adjusted: Any = holm([row["p"] for row in rows]) if rows else []
    return [{k: v for k, v in row.items() if k != "p"} | {"p_holm": p} for row, p in zip(rows, adjusted, strict=True)]


def _difference(sides: list[tuple[Any, Any]], confidence: float) -> dict[str, Any]:
    (a, where_a), (b, where_b) = sides
    joint = joint_means(
        np.concatenate([a, b]), np.repeat(["first", "second"], [a.size, b.size]), np.concatenate([where_a, where_b])
    )
    v = joint.covariance
    error = float(np.sqrt(max(v[0, 0] + v[1, 1] - 2 * v[0, 1], 0)))
    value = float(joint.means[1] - joint.means[0])
    degrees = max(int(joint.units.min()) - 1, 1)
    low, high = difference_limits(value, error, joint.units.min(), confidence)
    p = float(p_values(value, error, degrees))
    return {
        "first": 100 * float(joint.means[0]),
        "second": 100 * float(joint.means[1]),
        "difference": 100 * value,
        "low": 100 * float(low),
        "high": 100 * float(high),
        "p": p,
        "instructions": len(joint.sums),
        "shared": int((joint.counts > 0).all(axis=1).sum()),
    }


def _ranks(one: RunFolder, two: RunFolder, method: str) -> dict[str, Any]:
    ranks = [run.board.get(method, {}).get("rank") for run in (one, two)]
    return {
        f"rank_{k}": int(r) if r is not None and wording.known(r) else None
        for k, r in zip(("first", "second"), ranks, strict=True)
    }


def changes(first: dict[str, Any], second: dict[str, Any]) -> pd.DataFrame:
    """The settings that differ, under dotted names, in the order of the first."""
    one, two = _flat(first), _flat(second)
    names = [n for n in dict.fromkeys([*one, *two]) if one.get(n, _ABSENT) != two.get(n, _ABSENT)]
    return pd.DataFrame(
        [(n, str(one.get(n, _ABSENT)), str(two.get(n, _ABSENT))) for n in names], columns=["setting", "first", "second"]
    )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        items = [(str(k), v) for k, v in enumerate(value)]
    else:
        return {name: value}
    return {k: v for key, inner in items for k, v in _flat(inner, f"{name}.{key}" if name else key).items()}


def write(found: RunComparison, one: RunFolder, two: RunFolder, path: Path) -> Path:
    """The comparison as one self-contained page, whole or not at all."""
    from eval.report.html import page_environment, page_files

    palette = Palette(list(dict.fromkeys([*one.methods, *two.methods])), "sft")
    changed = Table(
        "Settings that differ",
        [Column(h, numeric=False) for h in ("Setting", "First run", "Second run")],
        sortable=False,
    )
    changed.rows.extend([[Cell(str(v)) for v in row] for row in found.settings_changed.itertuples(index=False)])
    page = (
        page_environment()
        .get_template("compare.html.j2")
        .render(
            title=f"{one.name} and {two.name}",
            runs=[
                (words, str(p), run)
                for words, p, run in (("First run", found.first, one), ("Second run", found.second, two))
            ],
            changed=changed,
            sections=[_section(found, role, palette) for role in found.methods["role"].unique()],
            only_first=wording.listing(found.only_first),
            only_second=wording.listing(found.only_second),
            percent=wording.number(100 * found.confidence, 0),
            **page_files(),
        )
    )
    files.write_text(path, page, errors="xmlcharrefreplace")
    return path


def _section(found: RunComparison, role: str, palette: Palette) -> dict[str, Any]:
    rows = found.methods[found.methods["role"] == role].to_dict(orient="records")
    columns = [Column("Method", numeric=False), Column("First run, %"), Column("Second run, %")]
    columns += [
        Column("Difference", "second minus first, percent points"),
        Column("p", "of all methods together (Holm)"),
    ]
    if role == "judge":
        columns.append(Column("Rank", "in the first run and in the second"))
    columns.append(Column("Instructions", "in either run; and how many in both"))
    table = Table(f"Win rates by the {wording.role(role)}", columns)
    points = []
    for row in rows:
        method = str(row["method"])
        cells = [Cell(method, sort=method, colour=palette.colour(method))]
        cells += [Cell(wording.number(row[k], 1), sort=row[k]) for k in ("first", "second")]
        bounds = wording.interval(row["low"], row["high"], 1, signed=True)
        cells.append(
            Cell(wording.number(row["difference"], 1, signed=True), (bounds,) if bounds else (), row["difference"])
        )
        cells.append(Cell(wording.number(row["p_holm"], 3), sort=sortable(row["p_holm"])))
        if role == "judge":
            cells.append(_rank_cell(row))
        both = counted(row["instructions"])
        cells.append(Cell(both.text, (f"{wording.count(row['shared'])} in both",), both.sort))
        table.rows.append(cells)
        note = f"{method}: {wording.number(row['first'], 1)} % and {wording.number(row['second'], 1)} %"
        points.append(
            Point(row["first"], row["second"], palette.colour(method), note, method, shape=palette.shape(method))
        )
    title = f"Win rates by the {wording.role(role)} in both runs"
    x, y = Axis("first run, %", (50,)), Axis("second run, %", (50,))
    drawn: Markup = charts.plot(title, "One point a method.", x, y, points=points, diagonal=True, height=400)
    return {"name": wording.role(role), "table": table, "chart": {"title": title, "drawing": drawn, "said": ""}}


def _rank_cell(row: dict[str, Any]) -> Cell:
    one, two = row["rank_first"], row["rank_second"]
    if not (wording.known(one) and wording.known(two)):
        return Cell(wording.DASH, sort="")
    moved = int(one - two)
    words = "same" if not moved else f"{'up' if moved > 0 else 'down'} {abs(moved)}"
    return Cell(f"{wording.count(one)} → {wording.count(two)}", (words,), sort=-moved)
