"""What a judge came to beside human votes: every number of it, its table and its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from eval.ranks import ranking
from eval.rates.habits import PositionAudit
from farm.base.arrays import Floats
from farm.statistics.result import Result
from farm.statistics.uncertainty import Estimate
from farm.votes import agreement as agree
from farm.votes.analysis import FEW, AnnotatorAnalysis


@dataclass(frozen=True)
class Validation(Result):
    """A judge against humans; agreements are fractions."""

    judge: str
    items: int
    votes: int
    annotators: int
    judge_unmatched: int
    """judged pairs that no human saw"""
    human_unmatched: int
    """human pairs that the judge did not judge"""
    agreement: Estimate
    """with a single decisive human vote, over decisive verdicts"""
    agreement_ties_half: Estimate
    """the same with the judge's ties as one half"""
    agreement_with_majority: Estimate
    longer: Estimate
    """the same as ``agreement`` of a null judge that prefers the longer output"""
    beyond_longer: Estimate
    """judge minus that null judge, on the same votes"""
    ceiling: agree.LeaveOneOut
    ratio: float
    """agreement (ties half, same votes) over the human ceiling"""
    difference: Estimate
    """judge minus human: agreement with the majority of an item's other votes, on the same votes"""
    kappa: float
    """of the judge and the human majority, a tie as a third verdict"""
    kappa_n: int
    kappa_half: float
    """of their decisive verdicts, with chance agreement one half"""
    kappa_half_n: int
    human_kappas: pd.DataFrame
    """first, second, kappa, n of every two humans, where they are few and share items"""
    human_alpha: float
    human_alpha_n: int
    """items with several votes"""
    alpha_with_judge: float
    """alpha with the judge as one more annotator"""
    alpha_with_judge_n: int
    analysis: AnnotatorAnalysis
    human_analysis: AnnotatorAnalysis
    position: PositionAudit
    human_prefers_first: float
    human_prefers_first_n: int
    biases: pd.DataFrame
    """bias, judge, human, difference, low, high"""
    curve: Floats
    """A_k: agreement of the majority of k humans with another, k = 1, 2, ..."""
    worth_votes: float
    """human votes whose majority agrees with another human as often as the judge does; infinite beyond the curve"""
    worth_votes_n: int
    """items that the curve is of"""
    correlation: float
    """of the judge's verdict with one human vote"""
    correlation_n: int
    """votes"""
    correlation_with_mean: float
    correlation_with_mean_n: int
    """items"""
    ppi_gain: float
    """n_eff / n from PPI++ with unlimited judge labels, against one human vote an item"""
    ppi_gain_mean: float
    ranks: pd.DataFrame
    """rank correlation of the models under judge and humans, with intervals; empty without models"""
    human_split_half: ranking.SplitHalf | None
    seed: int
    confidence: float
    notes: tuple[str, ...] = field(default=())

    @property
    def most_votes(self) -> int:
        """Humans in the largest majority that there is to compare with."""
        return 2 * len(self.curve[::2]) - 1

    def table(self) -> pd.DataFrame:
        """Measure, value, low, high, n and what it means."""
        rows: list[tuple[str, float, float, float, float, str]] = []

        def add(name: str, value: float, n: int, means: str, too_few: str = "") -> None:
            said = too_few if np.isnan(value) and n < FEW else ""
            rows.append((name, value, np.nan, np.nan, n, f"too few {said} ({n})" if said else means))

        def estimate(name: str, e: Estimate, means: str) -> None:
            rows.append((name, e.value, e.low, e.high, e.n, means))

        a, h = self.analysis, self.human_analysis
        estimate("agreement", self.agreement, "with one human vote, both decisive")
        estimate("agreement, ties half", self.agreement_ties_half, "the judge's ties count one half")
        estimate("agreement with majority", self.agreement_with_majority, "of all human votes of the item")
        unknown = "" if self.longer.n else "; the lengths are not known"
        estimate("longer wins", self.longer, f"a null judge that prefers the longer output{unknown}")
        estimate("judge minus longer wins", self.beyond_longer, "on the same votes")
        estimate("human ceiling", self.ceiling.agreement, "one human vote against the majority of the others")
        estimate("judge minus human", self.difference, "against the same majorities")
        add("ratio to ceiling", self.ratio, self.difference.n, "", "votes beside others")
        add("kappa", self.kappa, self.kappa_n, "judge and human majority, ties a third verdict", "items")
        add("kappa, chance 1/2", self.kappa_half, self.kappa_half_n, "both decisive", "items")
        for k in self.human_kappas.itertuples():
            add(f"kappa, {k.first} and {k.second}", k.kappa, int(k.n), "two humans", "items")
        add("alpha of humans", self.human_alpha, self.human_alpha_n, "nominal", "items with two votes")
        add("alpha with judge", self.alpha_with_judge, self.alpha_with_judge_n, "one more annotator", "items")
        if np.isinf(self.worth_votes):
            add(
                "worth votes",
                float(self.most_votes),
                self.worth_votes_n,
                "or more: no more to compare with",
            )
        else:
            said = "humans whose majority agrees as often"
            add("worth votes", self.worth_votes, self.worth_votes_n, said, "items with two decisive votes")
        add("rho, one vote", self.correlation, self.correlation_n, "", "votes")
        add("rho, mean vote", self.correlation_with_mean, self.correlation_with_mean_n, "", "items")
        add("PPI++ gain", self.ppi_gain, self.correlation_n, "n_eff / n at most, one vote an item", "votes")
        mean_vote = "n_eff / n at most, mean vote of an item"
        add("PPI++ gain, mean vote", self.ppi_gain_mean, self.correlation_with_mean_n, mean_vote, "items")
        add("AlpacaEval agreement", a.human_agreement, a.human_agreement_items, "one label, the humans' mode", "items")
        several = "items with several labels"
        add("AlpacaEval bias", a.bias, a.bias_items, "mode against mode", several)
        add("AlpacaEval variance", a.variance, a.variance_items, "one label against its own others", several)
        add("human variance", h.variance, h.variance_items, "the same for humans", several)
        humans_first = f"humans {self.human_prefers_first:.3f}, n {self.human_prefers_first_n}"
        estimate("prefers first", self.position.prefers_first, humans_first)
        estimate("consistent in both orders", self.position.consistent, "")
        rows += [
            (f"{b.bias}, judge - human", b.difference, b.low, b.high, b.n, f"{b.judge:.3f} - {b.human:.3f}")
            for b in self.biases.itertuples()
        ]
        said = "win rates of the models by judge and humans"
        rows += [(f"{r.statistic}, models", r.value, r.low, r.high, r.n, said) for r in self.ranks.itertuples()]
        if self.human_split_half is not None:
            s = self.human_split_half
            add("human split half", s.value, s.clusters, f"Spearman-Brown {s.spearman_brown:.3f}")
        return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n", "meaning"])

    def settings(self) -> dict[str, Any]:
        return {
            "judge": self.judge,
            "items": self.items,
            "human votes": self.votes,
            "annotators": self.annotators,
            "judged without humans": self.judge_unmatched,
            "humans without judge": self.human_unmatched,
            "clusters": "item",
            "confidence": self.confidence,
            "seed": self.seed,
            **{f"note {k + 1}": n for k, n in enumerate(self.notes)},
        }
