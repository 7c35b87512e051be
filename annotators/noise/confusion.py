"""Confusions of labels (Dawid and Skene, 1979): who is given the truth j says k with probability π_jk.

The truth is what the inner annotator says. A symmetric matrix is a flip; an unsymmetric one is someone who says "the
first" too easily; with three rows and columns (first, tie, second) ties are confused too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from annotators.noise.coins import turned_round
from farm.asking.givers import name_of
from farm.base import rng
from farm.roles.protocols import Annotator
from farm.tables.records import PairIds, unannotated

_LABELS = {2: np.array([1.0, 2.0]), 3: np.array([1.0, 1.5, 2.0])}


@dataclass(frozen=True)
class Confusion:
    """Says label k with probability ``matrix[j][k]`` where ``annotator`` says j; rows without a verdict stay so.

    Two rows and columns are for first and second (ties are left alone), three for first, tie and second. One uniform
    number a pair and replicate, so that the draw is kept when other rows change.
    """

    wraps: ClassVar[tuple[str, ...]] = ("pairs",)
    annotator: Annotator
    matrix: list[list[float]]

    def __post_init__(self) -> None:
        table = np.asarray(self.matrix, dtype=np.float64)
        if table.shape not in ((2, 2), (3, 3)):
            raise ValueError("matrix must have two rows and columns (first, second), or three (first, tie, second)")
        if (table < 0).any() or not np.allclose(table.sum(axis=1), 1, atol=1e-6):
            raise ValueError("each row of matrix must be probabilities that add up to 1")

    @property
    def name(self) -> str:
        return f"confusion of {name_of(self.annotator)}"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        table = self.annotator.annotate(unannotated(pairs), seed=seed, replicate=replicate)
        matrix = np.asarray(self.matrix, dtype=np.float64)
        labels = _LABELS[len(matrix)]
        truth = table["preference"].to_numpy(dtype=np.float64)
        known = np.isin(truth, labels) & ~PairIds(table).identical
        row = np.searchsorted(labels, np.where(known, truth, labels[0]))
        uniform = rng.uniform(seed, f"confusion: {self.name}", PairIds(table).pair, replicate)
        said = (uniform[:, None] >= np.cumsum(matrix, axis=1)[row][:, :-1]).sum(axis=1)
        # The chance of the first, were the inner annotator's own chance exact: a mixture of the rows.
        score = np.array([1.0, 0.5, 0.0])[[0, 2]] if len(labels) == 2 else np.array([1.0, 0.5, 0.0])
        p = table["p_first"].to_numpy(dtype=np.float64)
        mixed = p * float(matrix[0] @ score) + (1 - p) * float(matrix[-1] @ score)
        label = np.where(known, labels[said], truth)
        return table.assign(flipped=turned_round(table, label), preference=label, p_first=np.where(known, mixed, p))
