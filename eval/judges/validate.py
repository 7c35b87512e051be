"""Judge the judge: a simulated annotator's verdicts beside the votes of many humans on the same pairs.

The first question is not "how often does the judge agree?" but "how often could it?": a single human agrees with the
majority of the others only so often, and that is the ceiling. All intervals are clustered by item. Kappa, alpha and
correlations count every pair in either order, so nothing depends on which of two outputs is called first. What rests
on fewer than FEW items is left out, with their number.
"""

from __future__ import annotations

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
from eval.judges.validation import Validation
from eval.ranks.model_ranks import model_ranks
from eval.rates.habits import biases, position_audit
from eval.rates.prediction_powered import gain
from farm.base.errors import OptionError, UserError
from farm.statistics.uncertainty import SHARE, mean
from farm.votes import agreement as agree
from farm.votes.analysis import FEW, analyze_annotator


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
