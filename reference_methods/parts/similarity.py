"""A measure of similarity that is learned from triplets, and the archive of the best that is kept in each of its bins.

    z = W f(y),    L = max(0, m + |z_a - z_near|^2 - |z_a - z_far|^2),   mean over triplets

Triplets tell W up to a rotation: distances, and so the loss, do not change when z is turned. A grid over z is therefore
a turned one, and what it keeps apart is not what a grid over the hidden descriptors would.

Paper: QDHF (Ding et al., arXiv 2310.12103) and its code: margin .05, two dimensions, Adam with 1e-3, batches of 32, a
quarter of the triplets held out. There the fit stops when their accuracy falls, here when their loss has not fallen for
ten passes: the accuracy of a few hundred triplets with wrong answers among them is too noisy to stop by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import UserError

LEAST = 8
"""triplets that a fit needs, so that some can be held out"""
PATIENCE = 10
"""passes without a smaller loss of the held-out triplets after which a fit stops"""


@dataclass(frozen=True)
class Triplets:
    """n answered triplets, by the features [n, d] of their texts."""

    anchor: Floats
    near: Floats
    far: Floats

    @classmethod
    def of(cls, anchor: Floats, first: Floats, second: Floats, nearer: Floats) -> Triplets:
        """``nearer`` is 1 or 2, [n]; ties (1.5) are left out."""
        decided = nearer != 1.5
        is_first = (nearer == 1.0)[:, None]
        near, far = np.where(is_first, first, second), np.where(is_first, second, first)
        return cls(anchor[decided], near[decided], far[decided])

    def __len__(self) -> int:
        return len(self.anchor)

    def loss(self, weights: Floats, margin: float) -> Floats:
        """max(0, m + |W (a - near)|^2 - |W (a - far)|^2) of each, [n]."""
        near, far = ((self.anchor - other) @ weights.T for other in (self.near, self.far))
        return np.maximum(0.0, margin + np.square(near).sum(1) - np.square(far).sum(1))

    def gradient(self, weights: Floats, margin: float) -> Floats:
        """Of the mean loss by W, as W."""
        near, far = self.anchor - self.near, self.anchor - self.far
        active = (self.loss(weights, margin) > 0)[:, None]
        slope = (near @ weights.T * active).T @ near - (far @ weights.T * active).T @ far
        return np.asarray(2 * slope / len(self))

    def accuracy(self, weights: Floats) -> float:
        """The share of triplets whose near one is nearer under W."""
        return float((self.loss(weights, 0.0) == 0).mean())

    def select(self, rows: NDArray[np.int64]) -> Triplets:
        return Triplets(self.anchor[rows], self.near[rows], self.far[rows])


def fit_projection(
    triplets: Triplets,
    *,
    seed: int,
    dimensions: int = 2,
    margin: float = 0.05,
    held_out: float = 0.25,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    passes: int = 200,
) -> tuple[Floats, float]:
    """W [dimensions, d] and its accuracy on the triplets that were held out.

    Raises:
        UserError: fewer triplets than that takes.
    """
    if len(triplets) < LEAST:
        raise UserError(f"triplets: {len(triplets)} are decided and {LEAST} are needed; raise `sizes.prompts` or `n`")
    draws = rng.generator(seed, "projection")
    held, kept = np.split(draws.permutation(len(triplets)), [max(1, round(held_out * len(triplets)))])
    judged, width = triplets.select(held), triplets.anchor.shape[1]
    weights = draws.normal(size=(dimensions, width)) / width**0.5
    moments, steps = np.zeros((2, *weights.shape)), 0
    least, found, since = math.inf, weights, 0
    for _ in range(passes):
        shuffled = draws.permutation(kept)
        for start in range(0, len(kept), batch_size):
            slope = triplets.select(shuffled[start : start + batch_size]).gradient(weights, margin)
            steps += 1
            moments = np.stack([0.9 * moments[0] + 0.1 * slope, 0.999 * moments[1] + 0.001 * slope**2])
            mean, square = moments[0] / (1 - 0.9**steps), moments[1] / (1 - 0.999**steps)
            weights = weights - learning_rate * mean / (np.sqrt(square) + 1e-8)
        left = float(judged.loss(weights, margin).mean())
        since = since + 1 if left >= least else 0
        if left < least:
            least, found = left, weights
        if since >= PATIENCE:
            break
    return found, judged.accuracy(found)


def plane_share(weights: Floats, plane: Floats) -> float:
    """The share of trace(W'W) in the plane of orthonormal rows [2, d]: 1 where W looks at nothing else."""
    return float(np.square(weights @ plane.T).sum() / np.square(weights).sum())


@dataclass(frozen=True)
class Grid:
    """Equal bins of a box, ``bins`` along each dimension; what is outside counts into the bins at the border."""

    low: Floats
    high: Floats
    bins: int

    @classmethod
    def around(cls, z: Floats, bins: int) -> Grid:
        """The box of the points [n, dimensions]."""
        return cls(z.min(0), z.max(0), bins)

    def cells(self, z: Floats) -> NDArray[np.int64]:
        """The number of each point's bin, [n]."""
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        place = np.clip(((z - self.low) / span * self.bins).astype(np.int64), 0, self.bins - 1)
        return np.asarray(place @ self.bins ** np.arange(z.shape[1]))


def best_of_cells(cells: NDArray[np.int64], fitness: Floats) -> NDArray[np.int64]:
    """The row with the highest fitness in each occupied bin, the first of equal ones; best first."""
    order = np.lexsort((np.arange(len(cells)), -fitness))
    _, first = np.unique(cells[order], return_index=True)
    return np.asarray(order[np.sort(first)])
