"""Which labels are wrong, by their loss: under one model for all, one with each user's own losses as weights, or one
model for each user.

    labels     user u prefers by w_u . x,  w_u = common + personal N(0, tau^2), Bradley-Terry; a share is flipped, of
               every second user's labels more (``unequal``)
    global     logistic regression of all pairs, ridge 1
    within     its losses beside the others of the same user: softmax(-loss / T) over the user's pairs
    reweighted the global one with these as weights, refitted: low losses of a user count more
    personal   a regression for each user, drawn to the global one by a ridge of 3

A label is the more suspect the larger its loss, or the smaller its softmax; detection is the AUROC of this suspicion
for the flipped labels.

Paper: PLD (Zhang et al., arXiv 2502.00348): normal and noisy feedback overlap in the pooled loss and are clearly apart
in a user's own, so that resampling a user's items by it denoises. Its code draws from a pool of the user's items with
softmax(-loss / T); here the weights are the expectation of such draws. Pairs of responses in place of items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import softmax

from farm.base import rng
from farm.base.arrays import Bools, Floats
from farm.base.bounds import Bounded, Count, ErrorRate, Natural, NotNegative, Positive, Share
from reference_methods.studies.parts import auroc, drawn_labels, drawn_taste, fit, losses


@dataclass(frozen=True)
class DenoisingUsers(Bounded):
    """Table ``detection``: ``method`` and ``auroc``, one row each a seed."""

    tau: NotNegative = 0.6
    """standard deviation of what is personal in a taste, in each feature"""
    flips: ErrorRate = 0.2
    unequal: Share = 0.0
    """every second user's labels are flipped at a rate of (1 + unequal) flips, the others' at (1 - unequal) flips"""
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
        everything = x.reshape(-1, self.dimensions), signs.ravel()
        shared = weighted = fit(*everything)
        for _ in range(self.rounds):
            weighted = fit(*everything, self.pairs * self.drawn_within(losses(signs, x @ weighted)).ravel())
        own = np.stack([fit(x[u], signs[u], ridge=3.0, prior=shared) for u in range(self.users)])
        found = {
            "global": losses(signs, x @ shared),
            "within": -self.drawn_within(losses(signs, x @ shared)),
            "reweighted": losses(signs, x @ weighted),
            "personal": losses(signs, np.einsum("upd,ud->up", x, own)),
        }
        rows = [{"method": name, "auroc": auroc(loss.ravel(), flipped.ravel())} for name, loss in found.items()]
        return {"detection": pd.DataFrame(rows)}

    def drawn_within(self, loss: Floats) -> Floats:
        """How likely PLD draws each pair of a user's own, [U, P]."""
        return np.asarray(softmax(-loss / self.temperature, axis=1))

    def drawn(self, draws: np.random.Generator) -> tuple[Floats, Floats, Bools]:
        """Differences of features [U, P, d], labels +1 or -1 [U, P], and which were flipped [U, P]."""
        taste = drawn_taste(self.common, self.dimensions, draws)
        tastes = taste + self.tau * draws.normal(size=(self.users, self.dimensions))
        x = draws.normal(size=(self.users, self.pairs, self.dimensions))
        careless = np.where(np.arange(self.users) % 2 == 0, 1 + self.unequal, 1 - self.unequal)
        return x, *drawn_labels(np.einsum("upd,ud->up", x, tastes), self.flips * careless[:, None], draws)
