"""Means over seeds and instructions together: replicates of an experiment are crossed with the same test instructions.

A number of seed s and instruction i is z_si; both shared parts err together, so the variance of the mean adds up as in
a two-way layout (Cameron, Gelbach and Miller 2011; Owen's pigeonhole, 2007), with u_si the influence of a cell:

    V = V_instructions + V_seeds - V_cells,    V_x = C_x / (C_x - 1) * sum_x u_x u_x'

and never less than either of the first two. Intervals use Student's t with Satterthwaite's degrees of freedom of the
two parts, V_seeds on S - 1 and V_instructions - V_cells on I - 1: with three seeds that differ much it is near 2, and
the interval as wide as three numbers deserve. With one seed there is no V_seeds, and nothing is said about other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base.arrays import Floats
from farm.statistics.uncertainty import student


@dataclass(frozen=True)
class Crossed:
    """Sums and counts of K numbers (a method in a setting) in each cell of S seeds x I instructions: [S, I, K]."""

    sums: Floats
    counts: Floats

    @property
    def means(self) -> Floats:
        """[K]; NaN where a number has no row at all."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.sums.sum((0, 1)) / self.counts.sum((0, 1)))

    @property
    def units(self) -> NDArray[np.int64]:
        """Instructions that each number has a row of, [K]."""
        return np.asarray(self.counts.any(0).sum(0))

    @property
    def by_seed(self) -> Floats:
        """The mean of each seed, [S, K]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.sums.sum(1) / self.counts.sum(1))

    def contrasts(self, contrasts: Floats) -> tuple[Floats, Floats, Floats]:
        """Values, standard errors and degrees of freedom of linear contrasts [n, K] of the means; each [n].

        A contrast is paired wherever its numbers share seeds or instructions. One that involves a number without rows
        is missing.
        """
        total = self.counts.sum((0, 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            influence = (self.sums - self.means * self.counts) / total
        empty = (np.abs(contrasts) @ (total == 0)) > 0
        cells = np.nan_to_num(influence) @ contrasts.T  # [S, I, n]
        used = (np.abs(contrasts) @ (self.counts.transpose(2, 0, 1).reshape(len(total), -1) > 0)) > 0
        used = used.reshape(len(contrasts), *self.counts.shape[:2])
        seeds, instructions, both = used.any(2).sum(1), used.any(1).sum(1), used.sum((1, 2))
        v_instructions = _scaled(np.square(cells.sum(0)).sum(0), instructions)
        v_seeds = np.where(seeds > 1, _scaled(np.square(cells.sum(1)).sum(0), seeds), 0.0)
        v_cells = np.where(seeds > 1, _scaled(np.square(cells).sum((0, 1)), both), 0.0)
        rest = np.maximum(v_instructions - v_cells, 0.0)
        variance = np.maximum(rest + v_seeds, np.maximum(v_instructions, v_seeds))
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.where(seeds > 1, np.square(v_seeds) / np.maximum(seeds - 1, 1), 0.0)
            other = np.square(variance - v_seeds) / np.maximum(instructions - 1, 1)
            degrees = np.maximum(np.square(variance) / (part + other), 1.0)
            degrees = np.where(variance > 0, degrees, np.maximum(instructions - 1.0, 1.0))
        values = contrasts @ np.nan_to_num(self.means)
        nan = empty | (instructions < 2)
        return np.where(empty, np.nan, values), np.where(nan, np.nan, np.sqrt(variance)), np.where(nan, np.nan, degrees)

    def resampled(self, of_seeds: Floats, of_instructions: Floats) -> Floats:
        """Means [rounds, K] with seeds and instructions both drawn again (the pigeonhole bootstrap), each as often as
        its weights [rounds, S] and [rounds, I] say."""
        seeds = len(self.sums)
        out = []
        for values in (self.sums, self.counts):
            by_seed = np.stack([of_instructions @ values[s] for s in range(seeds)], axis=1)  # [rounds, S, K]
            out.append(np.einsum("rs,rsk->rk", of_seeds, by_seed))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(out[0] / out[1])


def error_covariance(first: Crossed, second: Crossed, i: NDArray[np.int64], j: NDArray[np.int64]) -> Floats:
    """[2M, 2M] of the errors of M numbers of one measure (columns ``i``) and M of another (``j``).

    Errors from the instructions are paired wherever both measures have the same ones. Errors from the seeds enter on
    the diagonal alone: two or three seeds cannot tell how the training noise of two methods goes together, and what all
    methods of a seed share moves no rank.
    """
    parts = [(c.sums[:, :, k], c.counts[:, :, k]) for c, k in ((first, i), (second, j))]
    influences = []
    for sums, counts in parts:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums.sum((0, 1)) / counts.sum((0, 1))
            influences.append((sums - means * counts) / counts.sum((0, 1)))
    m = len(i)
    out = np.zeros((2 * m, 2 * m))
    summed = [influence.sum(0) for influence in influences]
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        n, other = len(summed[a]), len(summed[b])
        if n == other:
            out[a * m : (a + 1) * m, b * m : (b + 1) * m] = summed[a].T @ summed[b] * (n / (n - 1) if n > 1 else np.nan)
    seeds = len(first.sums)
    if seeds > 1:
        own = []
        for influence in influences:
            cells = influence.shape[0] * influence.shape[1]
            between = np.square(influence.sum(1)).sum(0) * seeds / (seeds - 1)
            own.append(np.maximum(between - np.square(influence).sum((0, 1)) * cells / (cells - 1), 0.0))
        out[np.diag_indices(2 * m)] += np.concatenate(own)
    return out


def _scaled(sums: Floats, units: NDArray[np.int64]) -> Floats:
    return np.where(units > 1, sums * units / np.maximum(units - 1, 1), np.nan)


def interval(value: Floats, error: Floats, degrees: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Low and high of each value, of values without bounds."""
    half = student(degrees, confidence) * error
    return value - half, value + half


def crossed(tables: Sequence[tuple[int, pd.DataFrame]], seeds: Sequence[int], columns: Sequence[str]) -> Crossed:
    """Cells from tables with the columns ``column``, ``instruction`` and ``value``, each with its seed.

    Args:
        tables: (seed, table); rows without a value are left out.
        seeds: all of them, in order.
        columns: the K numbers, in order.
    """
    kept = [(seed, table[table["value"].notna()]) for seed, table in tables]
    instructions = pd.Index(sorted({text for _, table in kept for text in table["instruction"].unique()}))
    shape = (len(seeds), len(instructions), len(columns))
    sums, counts = np.zeros(shape), np.zeros(shape)
    names, order = pd.Index(columns), list(seeds)
    for seed, table in kept:
        row, column = instructions.get_indexer(table["instruction"]), names.get_indexer(table["column"])
        s = order.index(seed)
        np.add.at(sums[s], (row, column), table["value"].to_numpy(np.float64))
        np.add.at(counts[s], (row, column), 1.0)
    return Crossed(sums, counts)
