"""Spammers: people who answer without reading, each in a style of their own.

random      a fair coin
first       whatever is shown first;    second    whatever is shown second
tie         always "equal"
longest     the longer text, at a glance
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from farm.base import rng
from farm.tables.records import PairIds, annotation_table, unannotated

Style = Literal["random", "first", "second", "tie", "longest"]


@dataclass(frozen=True)
class Spammer:
    """One spammer. In a :class:`~annotators.people.pool.Pool` with a small weight, the spam of a crowd."""

    free: ClassVar[bool] = True
    style: Style = "random"
    name: str = "spammer"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        ids = PairIds(pairs)
        if self.style == "random":
            coin = rng.uniform(seed, "label", rng.text_id(self.name), ids.pair, replicate) < 0.5
            label, p_first = np.where(coin ^ ids.swapped, 1.0, 2.0), 0.5
        elif self.style == "longest":
            difference = (pairs["output_1"].str.len() - pairs["output_2"].str.len()).to_numpy(dtype=np.float64)
            label = 1.5 - 0.5 * np.sign(difference)
            p_first = 2.0 - label
        else:
            value = {"first": 1.0, "second": 2.0, "tie": 1.5}[self.style]
            label, p_first = np.full(len(pairs), value), 2.0 - value
        label[ids.identical] = 1.5
        return annotation_table(
            pairs, self.name, label, np.broadcast_to(p_first, len(pairs)).copy(), seed=seed, replicate=replicate
        )
