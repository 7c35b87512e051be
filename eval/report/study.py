"""The page of a sweep, of replicates or of a validation study, made from the tables of its folder alone.

What differs between the experiments is in the rows and along the axes: the leaderboard by setting, each method's win
rate along a swept number, how the ranking changes, and for a validation the scatter of the simulated against the human
numbers beside AlpacaFarm's published ones. Each experiment has a folder of its own, with which `farm report` makes the
full page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eval.evaluators.validation_study import PUBLISHED_R_SQUARED, PUBLISHED_SPEARMAN
from eval.report import charts, wording
from eval.report.charts import Axis, Curve, Point
from eval.report.folder import BASELINE
from eval.report.tables import Cell, Column, Palette, Table, sortable, valued
from farm.experiments import run_tables

MARK = "variants.json"
"""The file that only such a folder has"""
ROWS = 400
"""of a table on the page; the files have all"""


@dataclass(frozen=True)
class StudyFolder:
    """The tables of a study; one that is missing is empty."""

    config_text: str
    config: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    @classmethod
    def read(cls, run: Path) -> StudyFolder:
        text, config = run_tables.settings(run)
        names = [p.stem for p in run.glob("*.csv") if (run / f"{p.stem}.json").is_file()]
        return cls(text, config, {name: run_tables.read(run / f"{name}.json") for name in names})

    def table(self, name: str) -> pd.DataFrame:
        return self.tables.get(name, pd.DataFrame())

    @property
    def keys(self) -> list[str]:
        """What is swept."""
        return [c for c in self.table("variants").columns if c not in ("variant", "seed")]

    @property
    def methods(self) -> list[str]:
        """Best first by their mean win rate."""
        board = self.table("leaderboard")
        if not {"method", "win_rate"} <= set(board.columns):
            return []
        means = board.groupby(board["method"].astype(str))["win_rate"].mean()
        return [str(m) for m in means.sort_values(ascending=False).index]


def sections(run: StudyFolder) -> dict[str, Any]:
    """Everything that the page shows, by name."""
    palette = Palette(run.methods, BASELINE)
    variants = run.table("variants")
    seeds = sorted(set(variants["seed"])) if "seed" in variants else []
    return {
        "name": str(run.config.get("name") or "study"),
        "about": str(run.config.get("about") or ""),
        "lead": _lead(run, seeds),
        "validation": validation(run, palette),
        "leaderboard": _board(run),
        "curves": curves(run, palette),
        "rankings": _rankings(run),
        "changes": _tested(run, "changes", ["method"], "Each method against itself in the first setting"),
        "pairwise": _tested(run, "pairwise", ["first", "second"], "Each two methods of a setting"),
        "failures": failures(run.table("failures")),
        "variants": _plain("The experiments", variants),
        "config_text": run.config_text,
    }


def _lead(run: StudyFolder, seeds: Sequence[Any]) -> str:
    n = len(run.table("variants"))
    said = f"{wording.plural(n, 'experiment')} with {wording.plural(len(seeds), 'seed')} each setting"
    swept = f", over {wording.listing(run.keys)}" if run.keys else ""
    doubt = "seeds and instructions" if len(seeds) > 1 else "instructions alone; other seeds may differ by more"
    return f"{said}{swept}. Intervals are over {doubt}."


def failures(table: pd.DataFrame) -> Table | None:
    """Methods that failed, with the stage and the reason."""
    if not len(table):
        return None
    columns = [c for c in ("variant", "method", "stage", "reason") if c in table]
    rows = [[Cell(str(row[c] or "")) for c in columns] for row in table.to_dict(orient="records")]
    return Table("What failed, and is not in the tables", [Column(c, numeric=False) for c in columns], rows)


# --- the validation ---------------------------------------------------------------------------------------------------


def validation(run: StudyFolder, palette: Palette) -> dict[str, Any] | None:
    """The scatter, the published one beside it, the correlations, the rank mismatches and the costs."""
    table = run.table("validation")
    if not len(table):
        return None
    summary = run.table("validation_summary")
    main: dict[Any, Any] = next(
        (r for r in summary.to_dict(orient="records") if (r["first"], r["second"]) == ("simulated", "human")), {}
    )
    said = ""
    if main:
        numbers = (wording.estimate(main[c], main[f"{c}_low"], main[f"{c}_high"], 2) for c in ("spearman", "r_squared"))
        said = "Spearman {}, R² {}".format(*numbers) + f", {wording.plural(int(main['n_methods']), 'method')}"
    pictures = [_scatter("In this study", table, palette, "simulated", "human", said, ("_low", "_high"))]
    published = run.table("published")
    if len(published):
        said = f"Spearman {PUBLISHED_SPEARMAN}, R² {PUBLISHED_R_SQUARED}, {wording.plural(len(published), 'method')}"
        title = "As AlpacaFarm published it, against Davinci003"
        pictures.append(_scatter(title, published, palette, "simulated", "human", said, ("_low", "_high")))
    return {
        "charts": pictures,
        "table": _sides(table),
        "summary": _summary(summary),
        "mismatches": _mismatches(run.table("mismatches")),
        "costs": _plain("What the labels cost, in US dollars", run.table("validation_costs")),
        "limit": _limit(main),
    }


def _scatter(
    title: str, table: pd.DataFrame, palette: Palette, x: str, y: str, said: str, ends: tuple[str, str]
) -> dict[str, Any]:
    points = []
    for row in table.to_dict(orient="records"):
        method = str(row["method"])
        numbers = [float(row[name + end]) for name in (x, y) for end in ("", *ends)]
        a, a_low, a_high, b, b_low, b_high = numbers
        said_x, said_y = wording.estimate(a, a_low, a_high, 1), wording.estimate(b, b_low, b_high, 1)
        note = f"{method}: simulated {said_x} %, human {said_y} %"
        colour, shape = palette.colour(method), palette.shape(method)
        points.append(Point(a, b, colour, note, method, a_low, a_high, b_low, b_high, shape=shape))
    across = Axis("simulated: trained and judged by simulated feedback, %", (50,))
    up = Axis("human: trained and judged by human feedback, %", (50,))
    drawn = charts.plot(title, f"One point a method. {said}", across, up, points=points, diagonal=True, height=420)
    return {"title": title, "drawing": drawn, "said": said}


def _sides(table: pd.DataFrame) -> Table:
    columns = [Column("Method", numeric=False)]
    columns += [Column("Simulated", "win rate, %"), Column("Rank"), Column("Human", "win rate, %"), Column("Rank")]
    columns += [Column("Rank difference"), Column("AlpacaFarm, simulated"), Column("AlpacaFarm, human")]
    rows = []
    for r in table.to_dict(orient="records"):
        cells = [Cell(str(r["method"]))]
        for side in ("simulated", "human"):
            cells.append(valued(r[side], r[f"{side}_low"], r[f"{side}_high"], 1))
            cells.append(Cell(wording.count(r[f"rank_{side}"]), sort=sortable(r[f"rank_{side}"])))
        cells.append(
            Cell(f"{int(r['rank_difference']):+d}" if r["rank_difference"] else "0", sort=r["rank_difference"])
        )
        cells += [valued(r[f"published_{side}"], None, None, 1) for side in ("simulated", "human")]
        rows.append(cells)
    return Table("Win rates and ranks by both kinds of feedback", columns, rows)


def _summary(table: pd.DataFrame) -> Table:
    columns = [Column("Comparison", numeric=False), Column("Spearman"), Column("over methods"), Column("R²")]
    columns.append(Column("Expected", "Spearman that errors as large as ours leave of two identical rankings"))
    rows = [
        [
            Cell(f"{r['first']} and {r['second']}", (str(r["what"]),)),
            valued(r["spearman"], r["spearman_low"], r["spearman_high"]),
            Cell(wording.interval(r["spearman_methods_low"], r["spearman_methods_high"])),
            valued(r["r_squared"], r["r_squared_low"], r["r_squared_high"]),
            valued(r["expected_spearman"], None, None),
        ]
        for r in table.to_dict(orient="records")
    ]
    return Table("Do the rankings agree?", columns, rows)


def _mismatches(table: pd.DataFrame) -> dict[str, Any] | None:
    """Who changes places: how many pairs, how many beyond doubt, and all of them in a table."""
    if not len(table):
        return None
    table = table.sort_values("clear", ascending=False, kind="stable")
    clear = int(table["clear"].sum())
    said = (
        f"{wording.plural(len(table), 'pair')} of methods {'changes' if len(table) == 1 else 'change'} places, "
        f"{wording.spelt(clear) if clear else 'none'} of them beyond doubt (both differences at 5{wording.THIN}%, Holm "
        "over all pairs)."
    )
    columns = [Column("Better in simulation", numeric=False), Column("Better with people", numeric=False)]
    columns += [Column("Simulated difference", "percent points"), Column("Human difference", "percent points")]
    some_clear = 0 < clear < len(table)  # else a column of the same word
    if some_clear:
        columns.append(Column("Beyond doubt", "both differences at 5 %, Holm over all pairs", numeric=False))
    rows = [
        [
            Cell(str(r["first"])),
            Cell(str(r["second"])),
            Cell(
                wording.number(r["simulated_difference"], 1, signed=True), (f"p {wording.number(r['simulated_p'], 3)}",)
            ),
            Cell(wording.number(r["human_difference"], 1, signed=True), (f"p {wording.number(r['human_p'], 3)}",)),
            *([Cell("yes" if r["clear"] else "no")] if some_clear else []),
        ]
        for r in table.to_dict(orient="records")
    ]
    return {"table": Table("Pairs of methods that the two rankings order differently", columns, rows), "said": said}


def _limit(main: dict[str, Any]) -> str:
    if not main or not wording.known(main.get("expected_spearman")):
        return ""
    return (
        "Two looks at one and the same ranking, with errors as large as those here, would correlate at "
        f"{wording.number(main['expected_spearman'], 2)} on average: what is missing to 1 there is noise of the win "
        "rates, not disagreement of the rankings. More seeds, instructions or answers would raise it."
    )


# --- sweeps -----------------------------------------------------------------------------------------------------------


def curves(run: StudyFolder, palette: Palette) -> list[dict[str, Any]]:
    """Each method's win rate, and gold utility where it is known, along each swept key that is a number."""
    board, pictures = run.table("leaderboard"), []
    for key in run.keys:
        if key not in board or not pd.api.types.is_numeric_dtype(board[key]) or board[key].nunique() < 2:
            continue
        for column, label in (("win_rate", "win rate by the simulated judge, %"), ("gold", "mean gold utility")):
            if column not in board or not board[column].notna().any():
                continue
            lines = []
            for method in run.methods:
                along = board[board["method"].astype(str) == method].groupby(key)[column].mean()
                colour = palette.colour(method)
                lines.append(Curve(along.index.tolist(), along.tolist(), colour, method, method))
            others = [k for k in run.keys if k != key]
            said = f"averaged over {wording.listing(others)}" if others else ""
            drawn = charts.plot(f"{label} along {key}", "One line a method.", Axis(key), Axis(label), curves=lines)
            pictures.append({"title": f"{label[0].upper()}{label[1:]} along {key}", "drawing": drawn, "said": said})
    return pictures


def _board(run: StudyFolder) -> Table | None:
    board = run.table("leaderboard")
    if "win_rate" not in board:
        return None
    measured = [("win_rate", "Win rate, %", 1)]
    measured += [
        (c, f"By {wording.role(c.removeprefix('win_rate_'))}, %", 1)
        for c in board.columns
        if c.startswith("win_rate_") and f"{c}_low" in board and f"{c}_high" in board
    ]
    measured += [(c, n, 2) for c, n in (("gold", "Gold utility"), ("proxy", "Proxy reward")) if c in board]
    columns = [Column("Method", numeric=False), *(Column(k, numeric=False) for k in run.keys), Column("Rank")]
    columns += [Column(name) for _, name, _ in measured]
    columns += [Column("Seeds"), Column("sd", "of the win rate between seeds, percent points"), Column("KL")]
    rows = []
    for r in board.head(ROWS).to_dict(orient="records"):
        place = f"{wording.count(r['rank_low'])}-{wording.count(r['rank_high'])}"
        cells = [Cell(str(r["method"])), *(Cell(str(r[k]), sort=sortable(r[k])) for k in run.keys)]
        cells.append(Cell(wording.count(r["rank"]), (place,), sortable(r["rank"])))
        cells += [valued(r[c], r.get(f"{c}_low"), r.get(f"{c}_high"), d) for c, _, d in measured]
        cells.append(Cell(wording.count(r["seeds"]), sort=sortable(r["seeds"])))
        cells += [valued(r.get("win_rate_sd"), None, None, 1), valued(r.get("kl"), None, None, 2)]
        rows.append(cells)
    return Table("Methods by setting, best first by the simulated judge", columns, rows)


def _rankings(run: StudyFolder) -> Table | None:
    table = run.table("rankings")
    if not len(table):
        return None
    columns = [*(Column(k, numeric=False) for k in run.keys), Column("Between", numeric=False)]
    columns += [Column("Spearman"), Column("Kendall"), Column("R²"), Column("Methods")]
    rows = []
    for r in table.head(ROWS).to_dict(orient="records"):
        cells = [Cell(str(r[k]), sort=sortable(r[k])) for k in run.keys]
        cells.append(Cell(f"{wording.role(str(r['first']))} and {wording.role(str(r['second']))}"))
        cells += [valued(r[c], r[f"{c}_low"], r[f"{c}_high"]) for c in ("spearman", "kendall", "r_squared")]
        rows.append([*cells, Cell(wording.count(r["n_methods"]), sort=sortable(r["n_methods"]))])
    return Table("Rank correlations by setting", columns, rows)


def _tested(run: StudyFolder, name: str, names: list[str], caption: str) -> Table | None:
    table = run.table(name)
    if not len(table):
        return None
    columns = [Column(c, numeric=False) for c in [*names, *run.keys]]
    columns += [Column("Difference", "percent points"), Column("p"), Column("p, Holm"), Column("p, FDR")]
    rows = []
    for r in table.head(ROWS).to_dict(orient="records"):
        cells = [Cell(str(r[c]), sort=sortable(r[c])) for c in [*names, *run.keys]]
        cells.append(valued(r["difference"], r["low"], r["high"], 1))
        rows.append([*cells, *(valued(r[c], None, None, 3) for c in ("p", "p_holm", "p_fdr"))])
    more = f" (the first {ROWS} of {len(table):,})" if len(table) > ROWS else ""
    return Table(caption + more, columns, rows)


def _plain(caption: str, table: pd.DataFrame) -> Table | None:
    if not len(table):
        return None
    numeric = {c: pd.api.types.is_numeric_dtype(table[c]) for c in table.columns}
    columns = [Column(str(c).replace("_", " "), numeric=numeric[c]) for c in table.columns]
    if all(column.numeric for column in columns):  # one column names the rows
        columns[0] = Column(columns[0].head, numeric=False)
    rows = [
        [
            valued(r[c], None, None, 2)
            if numeric[c] and not float(r[c] or 0).is_integer()
            else Cell(_text(r[c]), sort=sortable(r[c]))
            for c in table.columns
        ]
        for r in table.head(ROWS).to_dict(orient="records")
    ]
    return Table(caption, columns, rows)


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if isinstance(value, float) else str(value)


def page(run: StudyFolder, environment: Any, files: dict[str, Any]) -> str:
    """The page as text; ``files`` are the style and the script that all pages carry."""
    text: str = environment.get_template("study.html.j2").render(**sections(run), **files)
    return text
