"""Judge the judge: a simulated annotator's verdicts beside the votes of many humans on the same pairs.

The first question is not "how often does the judge agree?" but "how often could it?": a single human agrees with the
majority of the others only so often, and that is the ceiling. All intervals are clustered by item. Kappa, alpha and
correlations count every pair in either order, so nothing depends on which of two outputs is called first. What rests
on fewer than FEW items is left out, with their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from eval.judges.beside_humans import (
    against_others,
    largest_majority,
    longer_wins,
    majorities,
    of_the_same_output,
    pairwise_kappas,
    votes_of_large_items,
)
from eval.ranks import ranking
from eval.ranks.model_ranks import model_ranks
from eval.rates.habits import PositionAudit, biases, position_audit
from eval.rates.prediction_powered import gain
from farm.base.arrays import Floats
from farm.base.errors import OptionError, UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import SHARE, Estimate, mean
from farm.votes import agreement as agree
from farm.votes.analysis import FEW, AnnotatorAnalysis, analyze_annotator


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


def validate(
    judge: pd.DataFrame, humans: pd.DataFrame, *, rounds: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Validation:
    """Judge votes beside human votes (both of :mod:`farm.votes.table`).

    Raises:
        UserError: when no pair is in both.
    """
    if judge["item"].dtype != humans["item"].dtype:
        raise OptionError(
            "the judge's pairs and the humans' have no key in common: one file has ids and the other texts; "
            "give both the same, or the texts of the ids with `pairs`"
        )
    known = set(judge["item"])
    judge_items, human_items = judge["item"].nunique(), humans["item"].nunique()
    humans_seen = humans[humans["item"].isin(known)]
    judge_seen = judge[judge["item"].isin(set(humans["item"]))]
    if not len(humans_seen):
        raise UserError(
            "the judge's pairs and the humans' have no key in common; give both files the same ids or the same texts "
            f"(judge: {judge['item'].iloc[0]!r}, humans: {humans['item'].iloc[0]!r})"
        )
    judge_seen, humans_seen = of_the_same_output(judge_seen.reset_index(drop=True), humans_seen)
    votes = humans_seen[humans_seen["first"].notna()].reset_index(drop=True)
    # the judge's verdict of an item: the mean over its orders and repetitions
    verdict = judge_seen.groupby("item")["first"].mean()
    f = verdict.reindex(votes["item"]).to_numpy(np.float64)
    y = votes["first"].to_numpy(np.float64)
    item = votes["item"].to_numpy()
    decided = (y != 0.5) & ~np.isnan(f)
    rounded = np.where(np.isnan(f), np.nan, (np.sign(f - 0.5) + 1) / 2)
    both = decided & (rounded != 0.5)
    agreement = mean((rounded == y)[both].astype(float), item[both], confidence=confidence, bounds=SHARE)
    half = mean(1 - np.abs(y - rounded)[decided], item[decided], confidence=confidence, bounds=SHARE)
    majority, judged = majorities(votes, verdict)
    m, j = majority.to_numpy(np.float64), judged.to_numpy(np.float64)
    clear = (m != 0.5) & ~np.isnan(j)
    with_majority = mean(1 - np.abs(m - j)[clear], confidence=confidence, bounds=SHARE)
    longer, beyond_longer = longer_wins(judge_seen, votes, rounded, confidence)
    ceiling = agree.leave_one_out(item, y, confidence=confidence)
    difference, ratio = against_others(item, y, rounded, confidence)
    human_alpha, alpha_n = agree.alpha_of_votes(item, y)
    known_j = ~np.isnan(j)
    with_judge, with_judge_n = agree.alpha_of_votes(
        np.concatenate([item, judged.index[known_j].to_numpy()]), np.concatenate([y, j[known_j]])
    )
    largest = largest_majority(item, y)
    curve = agree.majority_curve(item, y, largest) if largest else np.empty(0)
    enough = votes_of_large_items(item, y, largest)
    on_curve = 1 - np.abs(y - rounded)[decided & enough]
    large = int(pd.Series(item[decided & enough]).nunique())
    worth = _of(large, agree.worth_votes(float(on_curve.mean()), curve) if on_curve.size and curve.size else np.nan)
    per_item = votes.groupby("item")["first"].mean()
    matched = verdict.reindex(per_item.index).to_numpy(np.float64)
    known_f, known_mean = ~np.isnan(f), ~np.isnan(matched)
    rho = _of(int(known_f.sum()), agree.correlation_of_votes(y[known_f], f[known_f]))
    means = per_item.to_numpy(np.float64)[known_mean]
    rho_mean = _of(len(means), agree.correlation_of_votes(means, matched[known_mean]))
    ranks, halves, notes = model_ranks(votes, judge_seen, rounds, seed, confidence)
    human_first = votes["shown"].to_numpy(np.float64)
    human_first = human_first[human_first != 0.5]
    both_decisive = clear & (j != 0.5)
    return Validation(
        judge=str(judge["annotator"].iloc[0]),
        items=int(votes["item"].nunique()),
        votes=len(votes),
        annotators=int(votes["annotator"].nunique()),
        judge_unmatched=judge_items - int(judge_seen["item"].nunique()),
        human_unmatched=human_items - int(humans_seen["item"].nunique()),
        agreement=agreement,
        agreement_ties_half=half,
        agreement_with_majority=with_majority,
        longer=longer,
        beyond_longer=beyond_longer,
        ceiling=ceiling,
        ratio=_of(difference.n, ratio),
        difference=difference,
        kappa=_of(int(known_j.sum()), agree.kappa_of_votes(m, j)),
        kappa_n=int(known_j.sum()),
        kappa_half=_of(int(both_decisive.sum()), agree.kappa(m, j, chance="half")),
        kappa_half_n=int(both_decisive.sum()),
        human_kappas=pairwise_kappas(votes),
        human_alpha=_of(alpha_n, human_alpha),
        human_alpha_n=alpha_n,
        alpha_with_judge=_of(with_judge_n, with_judge),
        alpha_with_judge_n=with_judge_n,
        analysis=analyze_annotator(judge_seen, votes),
        human_analysis=analyze_annotator(votes, is_human=True),
        position=position_audit(judge_seen, confidence=confidence),
        human_prefers_first=float(np.mean(human_first > 0.5)) if human_first.size else float("nan"),
        human_prefers_first_n=human_first.size,
        biases=biases(judge_seen, votes, confidence=confidence),
        curve=curve,
        worth_votes=worth,
        worth_votes_n=large,
        correlation=rho,
        correlation_n=int(known_f.sum()),
        correlation_with_mean=rho_mean,
        correlation_with_mean_n=len(means),
        ppi_gain=gain(rho),
        ppi_gain_mean=gain(rho_mean),
        ranks=ranks,
        human_split_half=halves,
        seed=seed,
        confidence=confidence,
        notes=tuple(notes),
    )


def _of(n: int, value: float) -> float:
    """The value, missing where it is of fewer than FEW."""
    return value if n >= FEW else float("nan")
