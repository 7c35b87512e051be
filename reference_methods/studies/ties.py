"""What to do with ties: give them their likelihood, count them as halves, or drop them.

Outcomes of a comparison of two responses d apart are drawn from Rao and Kupper's law, and d is fitted to them in three
ways with the losses that reward models use (reference_methods/parts/losses.py):

    likelihood   rao_kupper with the theta of the law        consistent
    halves       a tie is a label of 1/2 for Bradley-Terry   too small: a tie pulls to 0
    dropped      Bradley-Terry of the others                 too large: what is close ties

After VideoReward (Liu et al., arXiv 2501.13918), whose reward model has theta = 5; its own claims are about models of
videos and are not re-run. At theta 5 and d = 1 ties are .579 of the outcomes; the fits are 1, .583 and 1.637.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from annotated_types import Ge
from scipy.optimize import minimize_scalar
from torch import Tensor

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count
from reference_methods.parts.losses import bradley_terry, rao_kupper
from reference_methods.studies.parts import drawn_names

LABELS = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
"""first wins, tie, second wins"""


@dataclass(frozen=True)
class Ties(Bounded):
    """Table ``fits``: ``method``, one row an ``instruction`` (a comparison), with ``fitted`` and ``error`` of d."""

    theta: Annotated[float, Ge(1)] = 5.0
    distance: float = 1.0
    """d, by which the first response is better"""
    outcomes: Count = 2000
    """of each comparison"""
    comparisons: Count = 20

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "ties")
        shares = probabilities(self.distance, self.theta)
        rows = [
            {"method": method, "instruction": name, "fitted": fitted}
            for name in drawn_names("comparison", self.comparisons, seed)
            for method, fitted in fits(draws.multinomial(self.outcomes, shares) / self.outcomes, self.theta).items()
        ]
        table = pd.DataFrame(rows)
        return {"fits": table.assign(error=(table["fitted"] - self.distance).abs())}


def probabilities(distance: float, theta: float) -> Floats:
    """Of a win of the first, a tie and a win of the second, [3]."""
    margin = torch.full((3,), distance, dtype=torch.float64)
    if theta == 1:  # a tie cannot be
        first = torch.sigmoid(margin[0]).item()
        return np.array([first, 0.0, 1 - first])
    return np.asarray(torch.exp(-rao_kupper(margin, LABELS, theta)).numpy())


def fits(counts: Floats, theta: float) -> dict[str, float]:
    """d of each treatment from the shares of the three outcomes, [3]."""
    decided = counts * np.array([1, 0, 1])
    return {
        "likelihood": _fit(counts, lambda margin: rao_kupper(margin, LABELS, theta)),
        "halves": _fit(counts, lambda margin: bradley_terry(margin, LABELS)),
        "dropped": _fit(decided, lambda margin: bradley_terry(margin, LABELS)),
    }


def _fit(weights: Floats, loss: Callable[[Tensor], Tensor]) -> float:
    weight = torch.from_numpy(weights)

    def total(distance: float) -> float:
        return float((weight * loss(torch.full((3,), distance, dtype=torch.float64))).sum())

    return float(minimize_scalar(total, bounds=(-10, 10), method="bounded", options={"xatol": 1e-8}).x)
