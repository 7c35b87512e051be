"""An agent that answers for a silent user: does it help a model of the user's taste?

    tastes     w_u = common + N(0, tau^2);  a reaction to an answer x ~ N(0, 1) is liked with sigma(w_u . x)
    observed   logistic regression of a user's own n reactions, ridge 1
    own        the same of these and of m answers that a shadow labels, which is ``observed`` itself
    population the same with a shadow that is drawn to the model of all users' reactions
    direct     that shadow straight as the model of the user, no answers labelled
    real       n + m reactions of the user

``right`` is the share of pairs of answers that a model puts in the user's order, 1 - angle(w_u, model) / pi.

Where a shadow's labels are right with probability a and its errors are independent, pooled naively they help iff
(n + m (2 a - 1)) / sqrt(n + m) > sqrt(n), that is a > 1/2 + 1/2 / (1 + sqrt(1 + m / n)).

After NExT-Search (Dai et al., arXiv 2505.14680), a vision without an experiment: a shadow user answers for those who
say nothing. The claims are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, NotNegative, Positive
from reference_methods.studies.parts import drawn_labels, drawn_names, drawn_taste, fit


@dataclass(frozen=True)
class ShadowUsers(Bounded):
    """Table ``accuracy``: ``method``, an ``instruction`` a user, and ``right``."""

    users: Count = 60
    dimensions: Count = 6
    common: NotNegative = 2.0
    """length of the common taste"""
    tau: NotNegative = 0.7
    """standard deviation of what is a user's own, in each feature"""
    reactions: Count = 20
    """n, of each user"""
    answered: Count = 80
    """m, for each user"""
    ridge: Positive = 1.0
    to_population: Positive = 3.0
    """the ridge that draws a shadow to the model of all users"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "shadow users")
        taste = drawn_taste(self.common, self.dimensions, draws)
        tastes = taste + self.tau * draws.normal(size=(self.users, self.dimensions))
        x = draws.normal(size=(self.users, self.reactions + self.answered, self.dimensions))
        signs, _ = drawn_labels(np.einsum("upd,ud->up", x, tastes), 0.0, draws)
        n = self.reactions
        everyone = fit(x[:, :n].reshape(-1, self.dimensions), signs[:, :n].ravel(), ridge=self.ridge)
        rows, names = [], drawn_names("user", self.users, seed)
        for user, wanted in enumerate(tastes):
            seen, said = x[user, :n], signs[user, :n]
            observed = fit(seen, said, ridge=self.ridge)
            direct = fit(seen, said, ridge=self.to_population, prior=everyone)
            models = {
                "observed": observed,
                "own": self.shadowed(x[user], said, observed),
                "population": self.shadowed(x[user], said, direct),
                "direct": direct,
                "real": fit(x[user], signs[user], ridge=self.ridge),
            }
            rows += [
                {"method": name, "instruction": names[user], "right": in_order(wanted, model)}
                for name, model in models.items()
            ]
        return {"accuracy": pd.DataFrame(rows)}

    def shadowed(self, x: Floats, said: Floats, shadow: Floats) -> Floats:
        """The model of a user's reactions and of what a shadow makes of the other answers, [d]."""
        answers = np.where(x[len(said) :] @ shadow > 0, 1.0, -1.0)
        return fit(x, np.concatenate([said, answers]), ridge=self.ridge)


def in_order(wanted: Floats, found: Floats) -> float:
    """The share of pairs of answers N(0, 1) that two tastes put in one order: 1 - their angle / pi."""
    lengths = float(np.linalg.norm(wanted) * np.linalg.norm(found))
    return 0.5 if lengths == 0 else 1 - math.acos(max(-1.0, min(1.0, float(wanted @ found) / lengths))) / math.pi
