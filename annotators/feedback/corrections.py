"""Corrections: an editor who strikes out what makes a text worse to them.

    y_0 = y;   y_{k+1} = the best of y_k without one of its sentences, as long as u(y_{k+1}) > u(y_k) + threshold

u is the utility by the editor's weights. In the pocket world it is the truth, so that a correction is an improvement by
construction, and by a known amount (``gain``); elsewhere it is that of the features. With probability ``lapse`` the
editor returns the text as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.feedback.answers import said_by
from annotators.feedback.sentences import sentences, without
from annotators.feedback.utility import look
from farm.base import rng
from farm.base.bounds import Bounded, Count, NotNegative, Share
from farm.roles.protocols import Features
from farm.tables import turns


@dataclass(frozen=True)
class PersonEditor(Bounded):
    """Strikes out at most ``edits`` sentences, the worst first, and never all of them.

    Adds ``correction``, how many sentences were struck out (``edits``), and what the text gained by it (``gain``).
    """

    free: ClassVar[bool] = True
    features: Features
    name: str = "editor"
    weights: dict[str, float] | None = None
    """default: the gold weights"""
    edits: Count = 2
    threshold: NotNegative = 0.0
    """utility that a correction must be worth"""
    lapse: Share = 0.0

    def correct(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        weights = self.features.gold_weights if self.weights is None else self.weights
        seen = look(self.features, outputs)
        asked = outputs[turns.kept(outputs)]
        texts = outputs["output"].to_numpy(dtype=object).copy()
        before = seen.utility(weights)
        worth, edits = before.copy(), np.zeros(len(outputs), dtype=np.int64)
        looks = rng.uniform(seed, f"looks: {self.name}", seen.ids, replicate) >= self.lapse
        open_ = np.flatnonzero(looks)
        for _ in range(self.edits):
            rows, shorter = _shorter(texts, open_)
            if not len(rows):
                break
            value = look(self.features, asked.iloc[rows].assign(output=shorter)).utility(weights)
            best = pd.Series(value).groupby(rows).idxmax()
            kept = best[value[best.to_numpy()] > worth[best.index.to_numpy()] + self.threshold]
            open_ = kept.index.to_numpy(dtype=np.int64)
            texts[open_], worth[open_] = shorter[kept.to_numpy()], value[kept.to_numpy()]
            edits[open_] += 1
        return said_by(self.name, outputs, seed, replicate, correction=texts, edits=edits, gain=worth - before)


def _shorter(texts: NDArray[np.object_], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """The texts of these rows without one of their sentences each, and the rows that they are of."""
    found = [
        (row, without(texts[row], start, end))
        for row in rows
        if len(places := sentences(texts[row])) > 1
        for start, end in places
    ]
    return np.array([row for row, _ in found], dtype=np.int64), np.array([text for _, text in found], dtype=object)
