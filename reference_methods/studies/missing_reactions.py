"""Likes that are missing not at random: what is seldom shown is seldom liked, and inverse propensities undo it.

    seen and liked    o ~ Bernoulli(e gamma):  an answer is seen with propensity e, and liked with gamma if it is seen
    estimate          R = o / max(e, M) in the mean over n chances;  E R = gamma min(1, e / M)
    clipped           M between 0 and 1: M = 0 is unbiased and noisy, M = 1 is naive, the share of all chances liked

With these targets the loss of a reaction model, R (-log sigma(s)) + (1 - R) (-log(1 - sigma(s))), has its optimum where
sigma(s) = E R, so the estimates are what it learns from a table. Propensities fall as 1 / k over the answers, likings
are .3 and .7 in turn; a pair of answers with different likings is right where their estimates are in that order.

Paper: Rel-MF (Saito et al., arXiv 1909.03601): clipped inverse propensities make learning from clicks nearly
unbiased, better above all for rarely shown items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, Several, Share
from reference_methods.studies.parts import agrees


@dataclass(frozen=True)
class MissingReactions(Bounded):
    """Tables ``order`` (``right``: share of pairs in order, of all and of those whose ``better`` answer is shown
    ``oftener`` or ``rarer`` than the other) and ``errors`` (``square`` of each answer)."""

    clip: Share = 0.1
    """M of the method ``ips``; ``naive`` has 1"""
    answers: Several = 20
    chances: Count = 500
    """n, of each answer to be seen"""
    propensities: Literal["known", "constant", "dealt"] = "known"
    """known as they are; the same for all answers; or those of other answers, to see that it is they that help"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "missing reactions")
        true = np.full(self.answers, 0.25) if self.propensities == "constant" else 1 / np.arange(1, self.answers + 1)
        likings = np.where(np.arange(self.answers) % 2 == 0, 0.3, 0.7)
        liked = draws.binomial(self.chances, true * likings) / self.chances
        taken = draws.permutation(true) if self.propensities == "dealt" else true
        order, errors = [], []
        for method, clip in (("ips", self.clip), ("naive", 1.0)):
            found = liked / np.maximum(taken, clip)
            errors.append(pd.DataFrame({"method": method, "square": np.square(found - likings)}))
            for better in ("any", "oftener", "rarer"):
                right = in_order(found, likings, None if better == "any" else true, better == "rarer")
                order.append({"method": method, "better": better, "right": right})
        return {"order": pd.DataFrame(order), "errors": pd.concat(errors, ignore_index=True)}


def in_order(found: Floats, likings: Floats, propensity: Floats | None = None, rarer: bool = False) -> float:
    """The share of pairs with different likings whose estimates are in their order, equal ones one half; with the
    propensities only of pairs whose better answer is the rarer (the oftener) of the two. NaN where there are none."""
    wanted, seen = (v[:, None] - v[None] for v in (likings, found))
    counted = wanted > 0
    if propensity is not None:
        more = propensity[:, None] - propensity[None]
        counted &= more < 0 if rarer else more > 0
    right = agrees(wanted, seen)[counted]
    return float(right.mean()) if right.size else float("nan")
