"""A judge's habits: the place it prefers, and whether it prefers longer answers and lists more than people do.

Habits may be merits (longer answers may be better), so each is shown beside the humans' own on the same pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from farm.statistics.result import Result
from farm.statistics.uncertainty import DIFFERENCE, SHARE, Estimate, mean
from farm.votes import agreement as agree
from farm.votes.analysis import AnnotatorAnalysis, analyze_annotator


@dataclass(frozen=True)
class PositionAudit(Result):
    """What the order of the outputs does to a judge."""

    prefers_first: Estimate
    """P(the output shown first is preferred), decisive verdicts"""
    consistent: Estimate
    """P(the same verdict in both orders), over pairs asked in both; missing where none was"""
    kappa: float
    """between the orders"""
    both_orders: int


def position_audit(votes: pd.DataFrame, *, confidence: float = 0.95) -> PositionAudit:
    """Position preference and consistency of the votes of one annotator (:mod:`farm.votes.table`)."""
    shown = votes["shown"].to_numpy(np.float64)
    decisive = ~np.isnan(shown) & (shown != 0.5)
    item = votes["item"].to_numpy()
    prefers = mean((shown[decisive] > 0.5).astype(float), item[decisive], confidence=confidence, bounds=SHARE)
    order = votes["reversed"].to_numpy(bool)
    plain = votes[~order].drop_duplicates("item").set_index("item")["first"]
    turned = votes[order].drop_duplicates("item").set_index("item")["first"]
    both = plain.index.intersection(turned.index)
    a, b = plain.loc[both].to_numpy(np.float64), turned.loc[both].to_numpy(np.float64)
    seen = ~(np.isnan(a) | np.isnan(b))
    a, b = a[seen], b[seen]
    consistent = mean((a == b).astype(float), confidence=confidence, bounds=SHARE)
    return PositionAudit(prefers, consistent, agree.kappa_of_votes(a, b), int(a.size))


@dataclass(frozen=True)
class JudgeAlone(Result):
    """What a judge's own labels say where no human has voted: its spread, its habits, its price."""

    judge: str
    analysis: AnnotatorAnalysis
    position: PositionAudit
    confidence: float = 0.95

    def table(self) -> pd.DataFrame:
        a, p = self.analysis, self.position
        nan = float("nan")
        rows = [
            ("AlpacaEval variance", a.variance, nan, nan, a.variance_items, "one label against its own others"),
            ("prefers longer", a.prefer_longer, nan, nan, a.prefer_longer_n, "of pairs 30 characters apart or more"),
            ("prefers lists", a.prefer_lists, nan, nan, a.prefer_lists_n, "of pairs with one list"),
            ("prefers first", p.prefers_first.value, p.prefers_first.low, p.prefers_first.high, p.prefers_first.n, ""),
            ("consistent in both orders", p.consistent.value, p.consistent.low, p.consistent.high, p.both_orders, ""),
            ("price per 1000", a.price_per_1000, nan, nan, a.labels, "dollars"),
            ("seconds per 1000", a.seconds_per_1000, nan, nan, a.labels, ""),
        ]
        table = pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n", "meaning"])
        return table[table["value"].notna()].reset_index(drop=True)

    def settings(self) -> dict[str, Any]:
        return {
            "judge": self.judge,
            "labels": self.analysis.labels,
            "items": self.analysis.items,
            "clusters": "item",
            "confidence": self.confidence,
            "note": "no human votes (--human): nothing to agree with",
        }


def judge_alone(votes: pd.DataFrame, *, confidence: float = 0.95) -> JudgeAlone:
    """AlpacaEval's variance, price and preferences of one annotator's votes, and what the order does to it."""
    found = analyze_annotator(votes)
    return JudgeAlone(str(votes["annotator"].iloc[0]), found, position_audit(votes, confidence=confidence), confidence)


def biases(judge: pd.DataFrame, humans: pd.DataFrame, *, beyond: int = 30, confidence: float = 0.95) -> pd.DataFrame:
    """P(longer), P(list) and P(first shown) of the judge minus the humans' own, paired by item.

    The rate of one side alone confounds bias with quality (longer answers may be better); the difference on the same
    pairs does not. Columns: bias, judge, human, difference, low, high, n (items).
    """
    measures = {}
    source = humans if "length_1" in humans else judge
    by_item = source.drop_duplicates("item").set_index("item")
    if "length_1" in source:
        d = by_item["length_1"].astype(float) - by_item["length_2"].astype(float)
        measures["longer"] = np.sign(d.where(d.abs() > beyond, 0.0))
    source = humans if "list_1" in humans else judge
    if "list_1" in source:
        by_list = source.drop_duplicates("item").set_index("item")
        measures["lists"] = by_list["list_1"].astype(float) - by_list["list_2"].astype(float)
    rows = []
    for name, side in measures.items():
        side = side[(side != 0) & side.notna()]
        one, two = (_preferring(v, side) for v in (judge, humans))
        rows.append(_bias_row(name, one, two, confidence))
    decisive = (v[v["shown"].notna() & (v["shown"] != 0.5)] for v in (judge, humans))
    one, two = (v.groupby("item")["shown"].mean() for v in decisive)
    rows.append(_bias_row("first shown", one, two, confidence))
    return pd.DataFrame(rows, columns=["bias", "judge", "human", "difference", "low", "high", "n"])


def _preferring(votes: pd.DataFrame, side: pd.Series) -> pd.Series:
    """By item: the share of decisive votes for the output on the + side."""
    v = votes[votes["item"].isin(side.index) & votes["first"].notna() & (votes["first"] != 0.5)]
    for_plus = ((v["first"] > 0.5).to_numpy() == (side.reindex(v["item"]).to_numpy() > 0)).astype(float)
    return pd.Series(for_plus).groupby(v["item"].to_numpy()).mean()


def _bias_row(name: str, judge: pd.Series, human: pd.Series, confidence: float) -> dict[str, object]:
    both = judge.index.intersection(human.index)
    a, b = judge.loc[both].to_numpy(np.float64), human.loc[both].to_numpy(np.float64)
    e = mean(a - b, confidence=confidence, bounds=DIFFERENCE)
    nan = float("nan")
    rates = {"judge": float(a.mean()), "human": float(b.mean())} if a.size else {"judge": nan, "human": nan}
    return {"bias": name, **rates, "difference": e.value, "low": e.low, "high": e.high, "n": e.n}
