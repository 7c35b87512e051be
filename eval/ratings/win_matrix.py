"""Battles counted into matrices: one pass over the rows, after which nothing depends on their number.

A finite Bradley-Terry maximum exists only when the graph of wins is strongly connected (Ford 1957); otherwise
:func:`refuse_unconnected` names who never lost or won.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from farm.base.arrays import Floats, Ints
from farm.base.errors import OptionError


@dataclass(frozen=True)
class Counts:
    """What the counting pass keeps of ordered pairs (i first, j second): all arrays have shape [M, M]."""

    games: Floats
    wins: Floats
    """summed score of the first"""
    squares: Floats
    """summed squared score of the first"""
    ties: Floats

    def win_matrix(self) -> Floats:
        """[M, M]: how much i won from j, in both orders."""
        return self.wins + (self.games - self.wins).T


def count(first: Ints, second: Ints, score: Floats, models: int) -> Counts:
    """The counting pass: one bincount over (pair, result) for results 0, 1/2, 1; three for soft ones."""
    cells = models * models
    table = _tally(first, second, score, models) if cells * 3 < 4 * max(len(score), 250_000) else None
    if table is not None:
        lost, tied, won = table[..., 0], table[..., 1], table[..., 2]
        return Counts(lost + tied + won, won + tied / 2, won + tied / 4, tied)
    pair = first * models + second

    def summed(weights: Floats) -> Floats:
        return np.asarray(np.bincount(pair, weights=weights, minlength=cells), np.float64).reshape(models, models)

    games = np.bincount(pair, minlength=cells).astype(np.float64).reshape(models, models)
    return Counts(games, summed(score), summed(score * score), summed((score == 0.5).astype(np.float64)))


_BLOCK = 1 << 15
"""rows counted at a time, so that what is made on the way stays in the processor's cache"""


def _tally(first: Ints, second: Ints, score: Floats, models: int) -> Floats | None:
    """Games by (first, second, twice the score), [M, M, 3]; None where some score is not 0, 1/2 or 1."""
    cells = 3 * models * models
    block = max(_BLOCK, 2 * cells)
    table = np.zeros(cells, np.int64)
    for start in range(0, len(score), block):
        rows = slice(start, start + block)
        doubled = score[rows] * 2
        outcome = doubled.astype(np.int64)
        if not np.array_equal(outcome, doubled):
            return None
        cell = first[rows] * models
        cell += second[rows]
        cell *= 3
        cell += outcome
        table += np.bincount(cell, minlength=cells)
    return table.reshape(models, models, 3).astype(np.float64)


def components(wins: Floats) -> tuple[int, Ints]:
    """Strongly connected components of the graph "i has won something from j": their number and a label a model."""
    number, labels = connected_components(csr_array(wins > 0), directed=True, connection="strong")
    return int(number), labels.astype(np.int64)


def _reaches_all(edges: NDArray[np.bool_]) -> bool:
    """Whether every model can be reached from the first: both ways, that is strong connection, and takes no library."""
    reached = edges[0].copy()
    reached[0] = True
    found = 1
    while (number := int(reached.sum())) > found:
        found = number
        reached |= edges[reached].any(axis=0)
    return found == len(edges)


def refuse_unconnected(wins: Floats, models: Sequence[str]) -> None:
    """Raise OptionError, naming who never lost or won, where a win matrix [M, M] has no finite maximum."""
    if _reaches_all(wins > 0) and _reaches_all(wins.T > 0):
        return
    number, labels = components(wins)
    if number == 1:
        return
    games = wins + wins.T
    islands, _ = connected_components(csr_array(games > 0), directed=False)
    never_won = [m for m, w in zip(models, wins.sum(1), strict=True) if w == 0]
    never_lost = [m for m, w in zip(models, wins.sum(0), strict=True) if w == 0]
    if islands > 1:
        why = f"the models fall into {islands} groups that never met"
    elif never_won:
        why = f"`{never_won[0]}` never won" + (f" (and {len(never_won) - 1} more)" if len(never_won) > 1 else "")
    elif never_lost:
        why = f"`{never_lost[0]}` never lost" + (f" (and {len(never_lost) - 1} more)" if len(never_lost) > 1 else "")
    else:
        smallest = np.flatnonzero(labels == np.bincount(labels).argmin())
        why = f"no win leads from or into the group of `{models[int(smallest[0])]}` ({smallest.size} models)"
    raise OptionError(
        f"no finite Bradley-Terry ratings: {why}; leave these models out, or ask for a prior (`prior` 1 is one virtual "
        "game of each model against an average opponent)"
    )
