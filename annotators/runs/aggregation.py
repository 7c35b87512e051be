"""Several votes on a pair made into one label.

    majority      the label with most votes, a tie where two are level
    weighted      each vote counts ln(a / (1 - a)), a the annotator's agreement with the majority of the others' votes,
                  shrunk towards the average (Nitzan and Paroush 1982: the best weights, were a known and votes free)
    dawid-skene   the posterior of the truth by confusion matrices fitted to the votes
    glad          the same by abilities and difficulties

Ties among the votes count one half each way for majority and weighted, and are left out by the other two.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest
from farm.tables.records import USAGE_COLUMNS, PairIds

Way = Literal["majority", "weighted", "dawid-skene", "glad"]
WAYS: tuple[Way, ...] = ("majority", "weighted", "dawid-skene", "glad")
_SHRINK = 10.0
"""votes of an average annotator that each is taken to have cast"""


def aggregated(votes: pd.DataFrame, way: str) -> pd.DataFrame:
    """One row a pair, in the order and with the outputs as in the pair's first row of ``votes``.

    ``p_first`` is the share or posterior of the first output, ``preference`` the likelier label (1.5 where level),
    ``votes`` how many verdicts there were, ``agreement`` the share of them that say the same as the label. Costs add
    up. A pair without a verdict keeps its first row's status; two outputs of one text are a tie, whatever was said.

    Raises:
        UserError: for an unknown way, or where no pair has two verdicts.
    """
    if way not in WAYS:
        raise UserError(f"there is no way to aggregate called `{way}`; {nearest(way, WAYS)}")
    ids = PairIds(votes)
    item, _ = pd.factorize(ids.pair)
    items = int(item.max(initial=-1)) + 1
    lead = np.unique(item, return_index=True)[1]
    said = votes["preference"].to_numpy(dtype=np.float64)
    given = ~np.isnan(said)
    # Share for the canonical first output: confusion matrices of other labels would depend on the orders of the rows.
    first = np.where(ids.swapped, said - 1.0, 2.0 - said)
    first[given & ids.identical] = 0.5
    number = np.bincount(item[given], minlength=items)
    if number.max(initial=0) < 2:
        raise UserError("no pair has two verdicts, so there is nothing to aggregate: ask for --replicates")
    annotator, names = pd.factorize(votes["annotator"])
    p = _first_shares(item[given], annotator[given], first[given], items, len(names), way)
    p[number == 0] = np.nan
    label = np.where(np.abs(p - 0.5) < 1e-9, 1.5, np.where(p > 0.5, 1.0, 2.0))
    label[np.isnan(p)] = np.nan
    same = 1 - np.abs(first - (2 - label)[item])
    turned = ids.swapped[lead]  # back to the order of the pair's first row
    p, label = np.where(turned, 1 - p, p), np.where(turned, 3 - label, label)
    agreement = np.bincount(item[given], same[given], items) / np.maximum(number, 1)
    table = votes.iloc[lead].reset_index(drop=True)
    status = np.where(number > 0, "ok", table["status"].to_numpy(dtype=object))
    for column in USAGE_COLUMNS:
        table[column] = np.bincount(item, votes[column].to_numpy(dtype=np.float64), items)
    table = table.drop(columns=["coin", "consistent", "shown_first", "cached", "replicate"], errors="ignore")
    return table.assign(
        annotator=way, preference=label, p_first=p, status=status, replicate=0, votes=number, agreement=agreement
    )


def _first_shares(item: NDArray[np.int64], annotator: NDArray[np.int64], first: Floats, items: int, annotators: int,
                  way: str) -> Floats:  # fmt: skip
    if way == "majority":
        return _level(np.bincount(item, 2 * first - 1, items), np.bincount(item, minlength=items))
    if way == "weighted":
        weight = _weights(item, annotator, first, items, annotators)[annotator]
        return np.asarray(1 / (1 + np.exp(-np.bincount(item, weight * (2 * first - 1), items))))
    from farm.votes.competence import Votes, dawid_skene, glad  # scipy's optimizers, for these two alone

    decisive = first != 0.5
    label = (first < 0.5).astype(np.int64)[decisive]
    if not decisive.any():
        return np.full(items, 0.5)
    given = Votes(item[decisive], annotator[decisive], label, items, annotators)
    posterior = dawid_skene(given, smoothing=0.5).posterior if way == "dawid-skene" else glad(given).posterior
    seen = np.bincount(item[decisive], minlength=items) > 0
    return np.where(seen, posterior[:, 0], 0.5)


def _level(balance: NDArray[Any], number: NDArray[Any]) -> Floats:
    """Share of the first, from votes for minus votes against."""
    return np.asarray(0.5 + 0.5 * balance / np.maximum(number, 1))


def _weights(item: NDArray[np.int64], annotator: NDArray[np.int64], first: Floats, items: int, annotators: int
             ) -> Floats:  # fmt: skip
    others = np.bincount(item, 2 * first - 1, items)[item] - (2 * first - 1)
    score = np.where(others == 0, 0.5, np.where(others > 0, first, 1 - first))
    usual = float(score.mean())
    count = np.bincount(annotator, minlength=annotators)
    accuracy = (np.bincount(annotator, score, annotators) + _SHRINK * usual) / (count + _SHRINK)
    accuracy = np.clip(accuracy, 0.01, 0.99)
    return np.asarray(np.log(accuracy / (1 - accuracy)))
