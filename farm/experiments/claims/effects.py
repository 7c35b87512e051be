"""An effect with its interval, and the verdict on it.

The numbers z_si of a cell are those of seeds s and, where there are any, instructions i. An effect is a contrast of the
means of a few cells: one cell, a difference, or a difference of differences (an interaction). It is paired wherever its
cells share a seed or an instruction, and its interval is over both (:mod:`farm.statistics.two_ways`); numbers that are
one a seed have Student's interval over the seeds. Seeds that not all cells have are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from farm.statistics import two_ways
from farm.statistics.uncertainty import mean

Sign = Literal["above", "below"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Effect:
    """What was seen; no interval (NaN) of fewer than two units."""

    effect: float
    low: float
    high: float
    n: int
    """numbers that it is made of: instructions of all seeds, or seeds"""
    seeds: int


def effect(cells: Sequence[pd.DataFrame], signs: Sequence[float]) -> Effect:
    """The sum of the cells' means, each times its sign.

    Args:
        cells: ``seed``, ``value`` and, where the numbers are of instructions, ``instruction``; rows without a value
            are left out.
    """
    cells = [cell[cell["value"].notna()] for cell in cells]
    seeds = sorted(set.intersection(*(set(cell["seed"]) for cell in cells)))
    cells = [cell[cell["seed"].isin(seeds)] for cell in cells]
    if not seeds:
        return Effect(np.nan, np.nan, np.nan, 0, 0)
    if all("instruction" in cell and cell["instruction"].nunique() > 1 for cell in cells):
        tables = [(seed, _of_seed(cells, seed)) for seed in seeds]
        crossed = two_ways.crossed(tables, seeds, [str(k) for k in range(len(cells))])
        value, error, degrees = crossed.contrasts(np.array([signs], dtype=np.float64))
        low, high = two_ways.interval(value, error, degrees, CONFIDENCE)
        n = int((crossed.counts > 0).any(2).sum())
        return Effect(float(value[0]), float(low[0]), float(high[0]), n, len(seeds))
    means = [cell.groupby("seed")["value"].mean().loc[seeds].to_numpy(np.float64) for cell in cells]
    found = mean(np.asarray(signs, dtype=np.float64) @ np.stack(means), confidence=CONFIDENCE)
    return Effect(found.value, found.low, found.high, found.n, len(seeds))


def _of_seed(cells: Sequence[pd.DataFrame], seed: int) -> pd.DataFrame:
    parts = [cell[cell["seed"] == seed].assign(column=str(k)) for k, cell in enumerate(cells)]
    return pd.concat(parts)[["column", "instruction", "value"]]


def verdict(seen: Effect, expect: Sign) -> str:
    """shown, not shown (the interval holds 0, or there is none) or contradicted."""
    low, high = (seen.low, seen.high) if expect == "above" else (-seen.high, -seen.low)
    return "shown" if low > 0 else "contradicted" if high < 0 else "not shown"


def inside(seen: Effect, within: float) -> bool:
    """Whether the whole interval lies within so much of 0, so that a wide one is no equality."""
    return -within <= seen.low and seen.high <= within
