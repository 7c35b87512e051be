"""An effect with its interval, and the verdict on it.

The numbers z_si of a cell are those of seeds s and, where there are any, instructions i. An effect is a contrast of the
means of a few cells: one cell, a difference, or a difference of differences (an interaction). It is paired wherever its
cells share a seed or an instruction, and its interval is over both (:mod:`farm.statistics.two_ways`); numbers that are
one a seed have Student's interval over the seeds. Seeds that not all cells have are left out.

One seed says nothing about others, however many instructions it has, so that it shows nothing. Numbers that are
computed without draws are the same with every seed (``exact``), and one is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.errors import UserError
from farm.statistics import two_ways
from farm.statistics.uncertainty import ROUNDING, mean

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
    exact: bool = False

    @property
    def general(self) -> bool:
        """Whether it says anything about other seeds."""
        return self.exact or self.seeds > 1

    def less(self, known: float) -> Effect:
        """The same, with a number that is known taken off."""
        return replace(self, effect=self.effect - known, low=self.low - known, high=self.high - known)


def effect(cells: Sequence[pd.DataFrame], signs: Sequence[float], exact: bool = False) -> Effect:
    """The sum of the cells' means, each times its sign.

    Args:
        cells: ``seed``, ``value`` and, where the numbers are of instructions, ``instruction``; rows without a value
            are left out.
        exact: the numbers are computed without draws.

    Raises:
        UserError: for numbers that are said to be exact, and differ between seeds.
    """
    cells = [cell[cell["value"].notna()] for cell in cells]
    seeds = sorted(set.intersection(*(set(cell["seed"]) for cell in cells)))
    cells = [cell[cell["seed"].isin(seeds)] for cell in cells]
    if not seeds:
        return Effect(np.nan, np.nan, np.nan, 0, 0)
    if exact:
        return _exact(cells, signs, seeds)
    if all("instruction" in cell and cell["instruction"].nunique() > 1 for cell in cells):
        tables = [(seed, _of_seed(cells, seed)) for seed in seeds]
        crossed = two_ways.crossed(tables, seeds, [str(k) for k in range(len(cells))])
        value, error, degrees = crossed.contrasts(np.array([signs], dtype=np.float64))
        low, high = two_ways.interval(value, error, degrees, CONFIDENCE)
        n = int((crossed.counts > 0).any(2).sum())
        return Effect(float(value[0]), float(low[0]), float(high[0]), n, len(seeds))
    found = mean(_by_seed(cells, signs, seeds), confidence=CONFIDENCE)
    return Effect(found.value, found.low, found.high, found.n, len(seeds))


def _exact(cells: Sequence[pd.DataFrame], signs: Sequence[float], seeds: Sequence[int]) -> Effect:
    each = _by_seed(cells, signs, seeds)
    off = np.abs(each - each[0])
    if off.max() > ROUNDING * max(1.0, float(np.abs(each).max())):
        other = int(off.argmax())
        said = f"{each[0]:g} with seed {seeds[0]} and {each[other]:g} with seed {seeds[other]}"
        raise UserError(f"it is said to be `exact`, and is {said}: leave `exact` out, and take several seeds")
    value = float(each[0])
    return Effect(value, value, value, sum(len(cell) for cell in cells[:1]), len(seeds), exact=True)


def _by_seed(cells: Sequence[pd.DataFrame], signs: Sequence[float], seeds: Sequence[int]) -> NDArray[np.float64]:
    """The contrast of the means of each seed, [S]."""
    means = [cell.groupby("seed")["value"].mean().loc[seeds].to_numpy(np.float64) for cell in cells]
    return np.asarray(np.asarray(signs, dtype=np.float64) @ np.stack(means))


def _of_seed(cells: Sequence[pd.DataFrame], seed: int) -> pd.DataFrame:
    parts = [cell[cell["seed"] == seed].assign(column=str(k)) for k, cell in enumerate(cells)]
    return pd.concat(parts)[["column", "instruction", "value"]]


def verdict(seen: Effect, expect: Sign) -> str:
    """shown, not shown (the interval holds 0, or there is none, or it is of one seed) or contradicted."""
    if not seen.general:
        return "not shown"
    low, high = (seen.low, seen.high) if expect == "above" else (-seen.high, -seen.low)
    return "shown" if low > 0 else "contradicted" if high < 0 else "not shown"


def inside(seen: Effect, within: float) -> bool:
    """Whether the whole interval lies within so much of 0, so that a wide one, or one of one seed, is no equality."""
    return seen.general and -within <= seen.low and seen.high <= within
