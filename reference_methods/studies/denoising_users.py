"""Which labels are wrong, by their loss: under one model for all, one with each user's own losses as weights, or one
model for each user.

    labels     user u prefers by w_u . x,  w_u = common + personal N(0, tau^2), Bradley-Terry; a share is flipped
    global     logistic regression of all pairs, ridge 1
    reweighted the same with weights softmax(-loss / T) within each user, refitted: low losses of a user count more
    personal   a regression for each user, drawn to the global one by a ridge of 3

A label is the more suspect the larger its loss; detection is the AUROC of the loss for the flipped labels.

Paper: PLD (Zhang et al., arXiv 2502.00348): normal and noisy feedback overlap in the pooled loss and are clearly apart
in a user's own, so that resampling a user's items by it denoises. Its code draws from a pool of the user's items with
softmax(-loss / T); here the weights are the expectation of such draws. Pairs of responses in place of items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, softmax
from scipy.stats import rankdata

from farm.base import rng
from farm.base.bounds import Bounded, Count, ErrorRate, Natural, NotNegative, Positive

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DenoisingUsers(Bounded):
    """Table ``detection``: ``method`` and ``auroc``, one row each a seed."""

    tau: NotNegative = 0.6
    """standard deviation of what is personal in a taste, in each feature"""
    flips: ErrorRate = 0.2
    users: Count = 40
    pairs: Count = 100
    """of each user"""
    dimensions: Count = 6
    common: NotNegative = 2.0
    """length of the common taste"""
    temperature: Positive = 1.0
    """T"""
    rounds: Natural = 5
    """of weights and refits"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        x, signs, flipped = self.drawn(rng.generator(seed, "denoising users"))
        shared = self.fitted(x, signs)
        weighted = shared
        for _ in range(self.rounds):
            weight = self.pairs * softmax(-losses(x, signs, weighted) / self.temperature, axis=1)
            weighted = self.fitted(x, signs, weight)
        own = np.stack([fit(x[u], signs[u], np.ones(self.pairs), 3.0, shared) for u in range(self.users)])
        found = {
            "global": losses(x, signs, shared),
            "reweighted": losses(x, signs, weighted),
            "personal": np.logaddexp(0, -signs * np.einsum("upd,ud->up", x, own)),
        }
        rows = [{"method": name, "auroc": auroc(loss.ravel(), flipped.ravel())} for name, loss in found.items()]
        return {"detection": pd.DataFrame(rows)}

    def drawn(self, draws: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Differences of features [U, P, d], labels +1 or -1 [U, P], and which were flipped [U, P]."""
        direction = draws.normal(size=self.dimensions)
        taste = self.common * direction / np.linalg.norm(direction)
        tastes = taste + self.tau * draws.normal(size=(self.users, self.dimensions))
        x = draws.normal(size=(self.users, self.pairs, self.dimensions))
        honest = draws.random((self.users, self.pairs)) < expit(np.einsum("upd,ud->up", x, tastes))
        flipped = draws.random((self.users, self.pairs)) < self.flips
        return x, np.where(honest != flipped, 1.0, -1.0), flipped

    def fitted(self, x: Floats, signs: Floats, weights: Floats | None = None) -> Floats:
        """The model of all pairs, [d]."""
        weights = np.ones(signs.shape) if weights is None else weights
        return fit(x.reshape(-1, self.dimensions), signs.ravel(), weights.ravel(), 1.0, np.zeros(self.dimensions))


def losses(x: Floats, signs: Floats, v: Floats) -> Floats:
    """-log P of each label, in the shape of the labels."""
    return np.logaddexp(0, -signs * (x @ v))


def fit(
    x: Floats,
    signs: Floats,
    weights: Floats,
    ridge: float,
    prior: Floats,
    steps: int = 25,
    lead: Floats | float = 0.0,
    start: Floats | None = None,
) -> Floats:
    """argmin of sum of weights x losses + ridge / 2 |v - prior|^2 by Newton's method, [d].

    Args:
        lead: taken off x . v of each pair, [n].
        start: near enough for Newton's steps to converge; the prior where omitted.
    """
    v = (prior if start is None else start).copy()
    for _ in range(steps):
        p = expit(signs * (x @ v - lead))
        slope = -(weights * signs * (1 - p)) @ x + ridge * (v - prior)
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(v))
        v = v - np.linalg.solve(curvature, slope)
    return v


def auroc(suspicion: Floats, flipped: NDArray[np.bool_]) -> float:
    """P(a flipped label is more suspect than another), ties one half."""
    ranks, n = rankdata(suspicion), int(flipped.sum())
    return float((ranks[flipped].sum() - n * (n + 1) / 2) / (n * (len(flipped) - n)))
