"""Does the crowd vote as the people did? Simulated votes on the same pairs, and the same statistics of both.

The votes are cast by the annotator itself (:class:`~annotators.people.crowd.Crowd`), once for every vote that people
cast, the outputs shown in the order in which people saw them. The texts are stand-ins with the lengths, lists and
utilities of the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.calibration.ballots import Ballots
from annotators.people.crowd import Crowd, Group
from annotators.people.logit import judge
from farm.base.arrays import Floats
from farm.statistics.uncertainty import SHARE, Estimate, interval, mean
from farm.tables.records import PairIds
from farm.tables.turns import Prompt, last
from farm.votes.agreement import leave_one_out
from farm.votes.analysis import prefer_lists, prefer_longer, set_agreement, votes_matrix


@dataclass(frozen=True)
class KnownFeatures:
    """The features of stand-ins: the output "first" or "second" of the pair whose number ends the instruction."""

    sides: Floats
    """[pairs, 2, 3]: length, lists, utility"""

    @property
    def gold_weights(self) -> dict[str, float]:
        return {"utility": 1.0}

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:
        pair = np.array([int(last(text).rpartition(" ")[2]) for text in instructions], dtype=np.int64)
        side = (np.asarray(outputs, dtype=object) == "second").astype(np.int64)
        return pd.DataFrame(np.nan_to_num(self.sides[pair, side]), columns=["length", "lists", "utility"])


def crowd_of(given: Ballots, groups: list[Group], *, tie_spread: float = 0.0, opinion_spread: float = 0.0) -> Crowd:
    """The crowd on the stand-ins of these pairs."""
    return Crowd(
        KnownFeatures(given.sides), groups, size=4 * len(groups), length_scale=given.length_scale,
        utility_scale=given.utility_scale, truth=False,
        tie_spread=tie_spread, opinion_spread=opinion_spread,
    )  # fmt: skip


def simulated(given: Ballots, crowd: Crowd, seed: int) -> pd.DataFrame:
    """As many votes of the crowd on each pair as people cast, a replicate each; a table like ``given.table``."""
    table = given.table
    turned = table["reversed"].to_numpy(bool)
    pairs = pd.DataFrame({
        "instruction": [f"{seed} {k}" for k in given.item],
        "output_1": np.where(turned, "second", "first"),
        "output_2": np.where(turned, "first", "second"),
    })  # fmt: skip
    ids, replicate = PairIds(pairs), table.groupby("ballot").cumcount().to_numpy(np.uint64)
    who = crowd.pool.assigned(ids, seed, replicate)
    said = judge(crowd.people, who, pairs, ids, seed=seed, replicate=replicate)
    share = 2.0 - said["preference"].to_numpy(np.float64)
    first = np.where(turned, 1 - share, share)
    return table.assign(first=first, annotator=said["annotator"].to_numpy(), shown=np.where(turned, 1 - first, first))


def statistics(votes: pd.DataFrame, confidence: float = 0.95) -> dict[str, Estimate]:
    """What one may ask of a table of votes, each with an interval clustered by pair where it has several votes."""
    item, first = votes["ballot"].to_numpy(), votes["first"].to_numpy(np.float64)
    found = {"agreement of two votes": pair_agreement(item, first, confidence)}
    found["leave-one-out ceiling"] = leave_one_out(item, first, confidence=confidence).agreement
    found["variance (AlpacaEval)"] = _variance(item, first, confidence)
    found["pairs with one opinion"] = mean(_unanimous(item, first), confidence=confidence, bounds=SHARE)
    found["ties"] = mean((first == 0.5).astype(np.float64), item, confidence=confidence, bounds=SHARE)
    shown = votes["shown"].to_numpy(np.float64)
    decisive = shown != 0.5
    if (votes["sides"] != "").any():
        found["prefers the first shown"] = mean((shown > 0.5)[decisive].astype(float), item[decisive],
                                                confidence=confidence, bounds=SHARE)  # fmt: skip
    found["prefers the longer"] = prefer_longer(votes, confidence=confidence)
    found["prefers lists"] = prefer_lists(votes, confidence=confidence)
    return {name: estimate for name, estimate in found.items() if estimate.n}


def pair_agreement(item: NDArray[np.int64], first: Floats, confidence: float = 0.95) -> Estimate:
    """1 - |a - b| over all pairs of votes on the same item; a tie agrees by half with either side."""
    counts = np.stack([np.bincount(item, first == value, int(item.max()) + 1) for value in (1.0, 0.5, 0.0)], axis=1)
    a, tie, b = counts.T
    total = counts.sum(axis=1)
    pairs = total * (total - 1) / 2
    same = (counts * (counts - 1) / 2).sum(axis=1) + 0.5 * tie * (a + b)
    used = pairs > 0
    value = float(same[used].sum() / pairs[used].sum())
    residual = same[used] - value * pairs[used]
    units = int(used.sum())
    error = float(np.sqrt(units / max(units - 1, 1) * np.square(residual).sum()) / pairs[used].sum())
    return interval(value, error, int(pairs.sum()), units, confidence)


def _unanimous(item: NDArray[np.int64], first: Floats) -> Floats:
    """Whether all votes on a pair are the same, of pairs with at least two, [pairs]."""
    table = pd.DataFrame({"item": item, "first": first}).groupby("item")["first"].agg(["nunique", "size"])
    return (table["nunique"] == 1)[table["size"] > 1].to_numpy(np.float64)


def _variance(item: NDArray[np.int64], first: Floats, confidence: float) -> Estimate:
    """AlpacaEval's: the error of one vote against the mode of the other votes, of pairs with the usual number."""
    _, matrix = votes_matrix(item, 2 - first)
    number = (~np.isnan(matrix)).sum(axis=1)
    usual = int(np.bincount(number[number > 1]).argmax())
    full = matrix[number == usual, :usual]
    found = set_agreement(full, None, 1, usual - 1)
    return interval(found.error, found.standard_error, len(full) * usual, found.items, confidence)


def compared(given: Ballots, crowd: Crowd, *, rounds: int = 6, confidence: float = 0.95) -> pd.DataFrame:
    """People's statistics with their intervals beside the crowd's, averaged over simulations.

    Columns: statistic, people, low, high, crowd, inside.
    """
    people = statistics(given.table, confidence)
    runs = [statistics(simulated(given, crowd, seed), confidence) for seed in range(rounds)]
    rows = []
    for name, estimate in people.items():
        ours = float(np.mean([run[name].value for run in runs if name in run]))
        low, high = estimate.low, estimate.high
        rows.append((name, estimate.value, low, high, ours, bool(low - 1e-9 <= ours <= high + 1e-9)))
    return pd.DataFrame(rows, columns=["statistic", "people", "low", "high", "crowd", "inside"])


def check_lines(check: pd.DataFrame) -> list[str]:
    """The comparison, a line a statistic; "too few" where people's votes are on too few pairs for an interval."""
    lines = []
    for row in check.to_dict(orient="records"):
        known = bool(np.isfinite(row["low"]))
        ends = f"{row['low']:.3f}, {row['high']:.3f}" if known else "too few"
        line = f"{row['statistic']:<24} people {row['people']:.3f} [{ends}]  crowd {row['crowd']:.3f}"
        lines.append(line if row["inside"] or not known else f"{line}  outside")
    return lines
