"""Who judged, how often, with which habits, and at what price.

A habit is the share of verdicts for the side that has something (shown first, longer, a list) among the pairs where
exactly one side has it; a tie counts half for each side. Habits may be merits: compare them with the gold annotator's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.rates.winrate import discrete, scores
from eval.report import wording
from eval.report.folder import RunFolder
from eval.report.tables import Cell, Column, Table, counted, share, sortable
from farm.base.arrays import Floats
from farm.statistics.uncertainty import SHARE, Estimate, mean
from farm.tables.records import PairIds

HABITS = {"first": "Prefers first shown, %", "longer": "Prefers longer, %", "lists": "Prefers lists, %"}
LIST = r"(?m)^[ \t]*(?:[-*•]|\d{1,3}[.)])[ \t]+\S"
"""a line that begins as an item of a list"""


def section(run: RunFolder) -> dict[str, Any]:
    """One row a role: the training annotator and each judge."""
    tables = {"annotator": run.preferences, **run.judged}
    tables = {role: t for role, t in tables.items() if {"instruction", "preference"} <= set(t.columns) and len(t)}
    if not tables:
        return {"missing": "There are no annotations in this run folder (tables/)."}
    priced = {str(a.get("role")): a for a in run.costs.get("annotations", []) if isinstance(a, dict)}
    habits = {role: _habits(t, run.confidence) for role, t in tables.items()}
    agreeing = {
        role: _agreement(t, run.judged.get("gold"), run.confidence) for role, t in tables.items() if role != "gold"
    }
    shown = [habit for habit in HABITS if any(habit in found for found in habits.values())]
    with_gold = any(found is not None for found in agreeing.values())
    columns = [Column("Role", numeric=False), Column("Verdicts"), Column("Without verdict"), Column("Ties, %")]
    columns += [Column(HABITS[habit]) for habit in shown]
    if with_gold:
        columns.append(Column("Agrees with gold, %", "same verdict on the same pair; where one is a tie, half"))
    if priced:
        columns += [Column("Cost"), Column("People would cost", "at the price AlpacaFarm paid its crowd workers")]
    table = Table("Annotators and judges", columns)
    for role, given in tables.items():
        score = scores(given["preference"])
        kept = ~np.isnan(score)
        cells = [
            Cell(wording.role(role), _who(given), role),
            _verdicts(given, kept),
            _without(given, kept),
        ]
        groups = given["instruction"].to_numpy()[kept]
        ties = mean(score[kept] == 0.5, groups, confidence=run.confidence, bounds=SHARE)
        cells.append(share(ties, with_n=False))
        cells += [share(habits[role].get(habit)) for habit in shown]
        if with_gold:
            cells.append(share(agreeing.get(role)))
        if priced:
            cost = priced.get(role, {})
            cells += [
                Cell(wording.money(cost.get(k)), sort=sortable(cost.get(k))) for k in ("price", "price_of_people")
            ]
        table.rows.append(cells)
    return {"table": table, "order_known": "first" in shown, "with_gold": with_gold}


def _who(annotations: pd.DataFrame) -> tuple[str, ...]:
    if "annotator" not in annotations:
        return ()
    names = sorted(annotations["annotator"].dropna().astype(str).unique())
    return (wording.listing(names) if len(names) <= 2 else f"{len(names)} annotators",)


def _verdicts(annotations: pd.DataFrame, kept: NDArray[np.bool_]) -> Cell:
    """How many, and on how many different pairs, where one that came again has the same verdict."""
    number, pairs = int(kept.sum()), annotations[kept]
    if not number or not {"output_1", "output_2"} <= set(pairs.columns):
        return counted(number)
    texts = pairs[["instruction", "output_1", "output_2"]].fillna("").astype(str)
    if "turns" in pairs.columns:
        texts["instruction"] += pairs["turns"].map(str)
    different = len(np.unique(PairIds(texts).pair))
    return Cell(wording.count(number), (f"on {wording.count(different)} pairs",) if different < number else (), number)


def _without(annotations: pd.DataFrame, kept: NDArray[np.bool_]) -> Cell:
    gone = int((~kept).sum())
    why: dict[Any, int] = {}
    if gone and "status" in annotations:
        why = annotations.loc[~kept, "status"].fillna("missing").value_counts().to_dict()
    return Cell(wording.count(gone), tuple(f"{wording.count(n)} {status}" for status, n in why.items()), gone)


def _habits(annotations: pd.DataFrame, confidence: float) -> dict[str, Estimate]:
    """Habit -> how often the side that has it is preferred, where exactly one side has it."""
    score = scores(annotations["preference"])
    second: dict[str, Floats] = {}  # +1 where the second output has it more, -1 where the first, 0 where both or none
    if "shown_first" in annotations:
        second["first"] = 2.0 * annotations["shown_first"].to_numpy(np.float64) - 3.0
    if {"output_1", "output_2"} <= set(annotations.columns):
        one, other = (annotations[c].fillna("").astype(str).str for c in ("output_1", "output_2"))
        second["longer"] = np.sign((other.len() - one.len()).to_numpy(np.float64))
        second["lists"] = other.contains(LIST).to_numpy(np.float64) - one.contains(LIST).to_numpy(np.float64)
    found = {}
    for habit, side in second.items():
        rows = (np.abs(side) == 1) & ~np.isnan(score)
        if rows.sum() > 1:
            preferred = np.where(side[rows] > 0, score[rows], 1 - score[rows])
            groups = annotations["instruction"].to_numpy()[rows]
            found[habit] = mean(preferred, groups, confidence=confidence, bounds=SHARE)
    return found


def _agreement(annotations: pd.DataFrame, gold: pd.DataFrame | None, confidence: float) -> Estimate | None:
    """How often the verdict is gold's: by the pair's own gold utilities where it has them, else by gold's verdict."""
    if {"gold_1", "gold_2"} <= set(annotations.columns):
        difference = annotations["gold_2"].to_numpy(np.float64) - annotations["gold_1"].to_numpy(np.float64)
        ours, truth, groups = (
            scores(annotations["preference"]),
            (np.sign(difference) + 1) / 2,
            annotations["instruction"],
        )
    else:
        keys = ["method", "sample", "instruction"]
        if gold is None or not {*keys} <= set(gold.columns) or not {*keys} <= set(annotations.columns):
            return None
        sides = [t[[*keys, "preference"]].drop_duplicates(keys) for t in (annotations, gold)]
        both = sides[0].merge(sides[1], on=keys, suffixes=("", "_gold"))
        ours, truth, groups = scores(both["preference"]), discrete(scores(both["preference_gold"])), both["instruction"]
    same = 1 - np.abs(discrete(ours) - truth)
    rows = ~np.isnan(same)
    if rows.sum() < 2:
        return None
    return mean(same[rows], groups.to_numpy()[rows], confidence=confidence, bounds=SHARE)
