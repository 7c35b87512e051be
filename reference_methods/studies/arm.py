"""Quality and diversity with a learned measure: an arm of many joints should reach everywhere, as evenly as it can.

    solution       angles theta in [-pi, pi]^J,   fitness 1 - Var(theta) / pi^2
    features       cos and sin of the cumulated angles, 2J numbers
    hidden         where the hand is, (sum cos, sum sin): a plane of the features
    MAP-Elites     an archive with the best solution of each bin of z = W f; children are elites plus normal noise

    hidden         z is where the hand is, on a grid along its axes: what could be reached if it were known
    turned         the same plane, turned at random: all that triplets could tell
    learned        W from triplets ("is the hand of b or of c nearer to that of a?") on the archive so far
    pca, random    the two main axes of the features of the archive so far; a W that is drawn

Archives differ in what they keep apart, so the final elites are put into the bins of the hidden grid, and there the
fitness of the best of each is added up (``quality``: over the number of bins; ``coverage``: bins with one).

Paper: QDHF (Ding et al., arXiv 2310.12103), its first benchmark, with the schedule of its code: at the start and after
10, 25 and 50 % of the iterations a quarter of the triplets is asked for, the measure is fitted from scratch to all so
far, and the archive is sorted anew. Ours: 10 joints, the first solutions (drawn evenly), and that a grid is spanned by
the archive at those times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, Positive, Several
from reference_methods.parts.similarity import Grid, Triplets, best_of_cells, fit_projection, plane_share

UPDATES = (0.0, 0.1, 0.25, 0.5)
"""shares of the iterations after which a measure is fitted anew"""
METHODS = ("hidden", "turned", "learned", "pca", "random")


@dataclass(frozen=True)
class Arm(Bounded):
    """Table ``archives``: ``method``, ``quality`` and ``coverage`` on the hidden grid, ``plane``, how far W sees it."""

    joints: Several = 10
    iterations: Count = 1000
    children: Count = 100
    sigma: Positive = 0.1
    """of the noise of a child, in radians"""
    bins: Several = 50
    """along each of two dimensions"""
    triplets: Several = 1000
    labels: Literal["true", "random"] = "true"
    """random: whoever compares hands says anything"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        rows = []
        for method in METHODS:
            elites, weights = self.archive(method, seed)
            kept = self.hidden_grid().cells(features(elites) @ self.plane().T)
            best = fitness(elites)[best_of_cells(kept, fitness(elites))]
            scores = {"quality": best.sum() / self.bins**2, "coverage": len(best) / self.bins**2}
            rows.append({"method": method, **scores, "plane": plane_share(weights, self.plane() / self.joints**0.5)})
        return {"archives": pd.DataFrame(rows)}

    def archive(self, method: str, seed: int) -> tuple[Floats, Floats]:
        """The elites [n, joints] of MAP-Elites with a method's measure, and its last W [2, 2 joints]."""
        draws, asked = rng.generator(seed, f"arm: {method}"), list[Triplets]()
        first = draws.uniform(-np.pi, np.pi, size=(self.children, self.joints))
        found = Archive(self.plane(), self.hidden_grid(), first)
        updates = {round(share * self.iterations) for share in UPDATES}
        for iteration in range(self.iterations):
            if iteration in updates and method != "hidden":
                elites, weights = found.elites(), found.weights
                if method in ("learned", "pca") or not iteration:
                    weights = self.measure(method, elites, asked, seed, draws)
                found = Archive(weights, Grid.around(features(elites) @ weights.T, self.bins), elites)
            parents = found.drawn(self.children, draws)
            children = parents + self.sigma * draws.normal(size=parents.shape)
            found.add(np.clip(children, -np.pi, np.pi))
        return found.elites(), found.weights

    def measure(
        self, method: str, elites: Floats, asked: list[Triplets], seed: int, draws: np.random.Generator
    ) -> Floats:
        """W of a method on the elites so far; ``asked`` are the triplets so far, to which new ones are added."""
        if method == "turned":
            angle = draws.uniform(0, 2 * np.pi)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            return np.asarray(turn @ self.plane())
        if method == "random":
            return draws.normal(size=(2, 2 * self.joints))
        look = features(elites)
        if method == "pca":
            return np.asarray(np.linalg.svd(look - look.mean(0), full_matrices=False)[2][:2])
        asked.append(self.answers(look, draws))
        every = Triplets(*(np.concatenate([getattr(t, name) for t in asked]) for name in ("anchor", "near", "far")))
        return fit_projection(every, seed=seed)[0]

    def answers(self, look: Floats, draws: np.random.Generator) -> Triplets:
        """A quarter of the triplets, of elites with these features."""
        chosen = draws.integers(len(look), size=(3, self.triplets // len(UPDATES)))
        anchor, first, second = (look[rows] for rows in chosen)
        away = [np.square((anchor - other) @ self.plane().T).sum(1) for other in (first, second)]
        nearer = np.where(away[0] <= away[1], 1.0, 2.0)
        if self.labels == "random":
            nearer = draws.integers(1, 3, size=len(nearer)).astype(np.float64)
        return Triplets.of(anchor, first, second, nearer)

    def plane(self) -> Floats:
        """What makes the place of the hand of the features, [2, 2 joints]."""
        return np.asarray(np.kron(np.eye(2), np.ones(self.joints)), dtype=np.float64)

    def hidden_grid(self) -> Grid:
        reach = np.full(2, float(self.joints))
        return Grid(-reach, reach, self.bins)


class Archive:
    """The best solution of each bin of z = W f."""

    def __init__(self, weights: Floats, grid: Grid, solutions: Floats) -> None:
        self.weights, self.grid = weights, grid
        self.fitness = np.full(grid.bins**2, -np.inf)
        self.solutions = np.zeros((grid.bins**2, solutions.shape[1]))
        self.add(solutions)

    def add(self, solutions: Floats) -> None:
        """Solutions that are better than what their bin has take its place."""
        cells, new = self.grid.cells(features(solutions) @ self.weights.T), fitness(solutions)
        order = np.argsort(new, kind="stable")  # of several for one bin the best is written last
        order = order[new[order] > self.fitness[cells[order]]]
        self.fitness[cells[order]], self.solutions[cells[order]] = new[order], solutions[order]

    def elites(self) -> Floats:
        return self.solutions[np.isfinite(self.fitness)]

    def drawn(self, n: int, draws: np.random.Generator) -> Floats:
        """n of the elites, evenly."""
        occupied = np.flatnonzero(np.isfinite(self.fitness))
        return self.solutions[occupied[draws.integers(len(occupied), size=n)]]


def fitness(angles: Floats) -> Floats:
    """1 - Var / pi^2, in [0, 1], [n]: even joints are good."""
    return np.asarray(1 - angles.var(axis=1) / np.pi**2)


def features(angles: Floats) -> Floats:
    """cos and sin of the cumulated angles, [n, 2 joints]."""
    total = angles.cumsum(axis=1)
    return np.concatenate([np.cos(total), np.sin(total)], axis=1)
