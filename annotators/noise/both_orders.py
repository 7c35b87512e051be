"""Asking in both orders of the two outputs: what a position bias does not survive, and where it shows.

The mean of the two logits would remove a position bias b exactly; the mean of the two probabilities, which is what a
judge gives, removes it to first order. At equal utilities the two answers name the same output with probability
2 σ(b) (1 - σ(b)): .5 without a bias, .393 at b = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.noise.coins import whose
from farm.asking.givers import name_of
from farm.roles.protocols import Annotator
from farm.tables.records import USAGE_COLUMNS, PairIds, annotation_table, swapped, unannotated


@dataclass(frozen=True)
class BothOrders:
    """Asks twice, once in each order, with a fresh draw each time.

    ``p_first`` is the mean of the two probabilities; the label is the majority of the two answers, a tie where they
    contradict each other. ``consistent`` says whether both named the same output (or both a tie). Costs add up. Where
    one of the two answers failed there is no verdict, and the status is that of the failure.
    """

    wraps: ClassVar[tuple[str, ...]] = ("pairs",)
    annotator: Annotator

    @property
    def name(self) -> str:
        return f"both orders of {name_of(self.annotator)}"

    def whose(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> NDArray[np.object_]:
        """Who would be asked about each pair, [n], without asking."""
        return whose(self.annotator, pairs, seed=seed, replicate=2 * replicate)

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        ids = PairIds(pairs)
        everywhere = np.ones(len(pairs), dtype=bool)
        canonical = swapped(pairs, ids.swapped)
        one = self.annotator.annotate(canonical, seed=seed, replicate=2 * replicate)
        back = self.annotator.annotate(swapped(canonical, everywhere), seed=seed, replicate=2 * replicate + 1)
        other = swapped(back, everywhere)
        labels = np.stack([t["preference"].to_numpy(dtype=np.float64) for t in (one, other)])
        mean = labels.mean(axis=0)
        label = np.where(np.isnan(mean), np.nan, 1.5 + 0.5 * np.sign(mean - 1.5))
        status = np.where(one["status"] == "ok", other["status"], one["status"]).astype(object)
        p_first = np.mean([t["p_first"].to_numpy(dtype=np.float64) for t in (one, other)], axis=0)
        usage = {c: one[c].to_numpy(dtype=np.float64) + other[c].to_numpy(dtype=np.float64) for c in USAGE_COLUMNS}
        names = one["annotator"].to_numpy(dtype=object)
        table = annotation_table(
            canonical, names, label, p_first, seed=seed, replicate=replicate, status=status, **usage
        ).assign(consistent=labels[0] == labels[1])
        if "coin" in one.columns:
            table["coin"] = (one["coin"] | other["coin"]).to_numpy(dtype=bool)
            both = zip(one["flipped"].tolist(), other["flipped"].tolist(), strict=True)
            table["flipped"] = [None if None in pair else all(pair) for pair in both]  # one alone makes a tie
        return swapped(table, ids.swapped)
