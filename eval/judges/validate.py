"""Judge the judge: a simulated annotator's verdicts beside the votes of many humans on the same pairs.

The first question is not "how often does the judge agree?" but "how often could it?": a single human agrees with the
majority of the others only so often, and that is the ceiling. All intervals are clustered by item. Kappa, alpha and
correlations count every pair in either order, so nothing depends on which of two outputs is called first. What rests
on fewer than FEW items is left out, with their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
from farm.base.arrays import Floats
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
    judge_seen, votes, human_unmatched = _in_both(judge, humans)
    # the judge's verdict of an item: the mean over its orders and repetitions
    verdict = judge_seen.groupby("item")["first"].mean()
    item, y = votes["item"].to_numpy(), votes["first"].to_numpy(np.float64)
    f = verdict.reindex(item).to_numpy(np.float64)
    decided, known_f = (y != 0.5) & ~np.isnan(f), ~np.isnan(f)
    rounded = np.where(np.isnan(f), np.nan, (np.sign(f - 0.5) + 1) / 2)
    both = decided & (rounded != 0.5)
    agreement = mean((rounded == y)[both].astype(float), item[both], confidence=confidence, bounds=SHARE)
    half = mean(1 - np.abs(y - rounded)[decided], item[decided], confidence=confidence, bounds=SHARE)
    majority, judged = majorities(votes, verdict)
    m, j = majority.to_numpy(np.float64), judged.to_numpy(np.float64)
    known_j, clear = ~np.isnan(j), (m != 0.5) & ~np.isnan(j)
    both_decisive = clear & (j != 0.5)
    longer, beyond_longer = longer_wins(judge_seen, votes, rounded, confidence)
    difference, ratio = against_others(item, y, rounded, confidence)
    human_alpha, alpha_n = agree.alpha_of_votes(item, y)
    with_judge, with_judge_n = agree.alpha_of_votes(
        np.concatenate([item, judged.index[known_j].to_numpy()]), np.concatenate([y, j[known_j]])
    )
    curve, worth, worth_n = _worth(item, y, rounded, decided)
    rho = _of(int(known_f.sum()), agree.correlation_of_votes(y[known_f], f[known_f]))
    rho_mean, items_of_means = _correlation_with_means(votes, verdict)
    ranks, halves, notes = model_ranks(votes, judge_seen, rounds, seed, confidence)
    human_first = votes["shown"].to_numpy(np.float64)
    human_first = human_first[human_first != 0.5]
    return Validation(
        judge=str(judge["annotator"].iloc[0]),
        items=int(votes["item"].nunique()),
        votes=len(votes),
        annotators=int(votes["annotator"].nunique()),
        judge_unmatched=int(judge["item"].nunique() - judge_seen["item"].nunique()),
        human_unmatched=human_unmatched,
        agreement=agreement,
        agreement_ties_half=half,
        agreement_with_majority=mean(1 - np.abs(m - j)[clear], confidence=confidence, bounds=SHARE),
        longer=longer,
        beyond_longer=beyond_longer,
        ceiling=agree.leave_one_out(item, y, confidence=confidence),
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
        worth_votes_n=worth_n,
        correlation=rho,
        correlation_n=int(known_f.sum()),
        correlation_with_mean=rho_mean,
        correlation_with_mean_n=items_of_means,
        ppi_gain=gain(rho),
        ppi_gain_mean=gain(rho_mean),
        ranks=ranks,
        human_split_half=halves,
        seed=seed,
        confidence=confidence,
        notes=tuple(notes),
    )


def _in_both(judge: pd.DataFrame, humans: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """The judge's rows of pairs that humans saw, the humans' votes on pairs that the judge saw (``first`` of the same
    output in both), and how many pairs of the humans' the judge did not see."""
    if judge["item"].dtype != humans["item"].dtype:
        raise OptionError(
            "the judge's pairs and the humans' have no key in common: one file has ids and the other texts; "
            "give both the same, or the texts of the ids with `pairs`"
        )
    judge_seen = judge[judge["item"].isin(set(humans["item"]))]
    humans_seen = humans[humans["item"].isin(set(judge["item"]))]
    if not len(humans_seen):
        raise UserError(
            "the judge's pairs and the humans' have no key in common; give both files the same ids or the same texts "
            f"(judge: {judge['item'].iloc[0]!r}, humans: {humans['item'].iloc[0]!r})"
        )
    judge_seen, humans_seen = of_the_same_output(judge_seen.reset_index(drop=True), humans_seen)
    votes = humans_seen[humans_seen["first"].notna()].reset_index(drop=True)
    return judge_seen, votes, int(humans["item"].nunique() - humans_seen["item"].nunique())


def _worth(item: NDArray[Any], y: Floats, rounded: Floats, decided: NDArray[np.bool_]) -> tuple[Floats, float, int]:
    """The agreement A_k of majorities of k humans, how many humans the judge is worth by it, and of how many items.

    Args:
        item, y, rounded: of each human vote its item, what it says, and the judge's verdict, [n].
        decided: where the vote is decisive and there is a verdict, [n].
    """
    largest = largest_majority(item, y)
    curve = agree.majority_curve(item, y, largest) if largest else np.empty(0)
    used = decided & votes_of_large_items(item, y, largest)
    agrees, items = 1 - np.abs(y - rounded)[used], int(pd.Series(item[used]).nunique())
    worth = agree.worth_votes(float(agrees.mean()), curve) if agrees.size and curve.size else np.nan
    return curve, _of(items, worth), items


def _correlation_with_means(votes: pd.DataFrame, verdict: pd.Series) -> tuple[float, int]:
    """The correlation of the verdicts with the mean votes of their items, and the number of items."""
    of_items = votes.groupby("item")["first"].mean()
    matched = verdict.reindex(of_items.index).to_numpy(np.float64)
    known = ~np.isnan(matched)
    means = of_items.to_numpy(np.float64)[known]
    return _of(len(means), agree.correlation_of_votes(means, matched[known])), len(means)


def _of(n: int, value: float) -> float:
    """The value, missing where it is of fewer than FEW."""
    return value if n >= FEW else float("nan")
