"""Ratings against rankings: does a policy win under the protocol whose feedback it learned from?

    responses      phi in R^2, N(0, 1): accuracy and style
    rankings       y > y'  iff  phi_1(y) > phi_1(y')                                  (accuracy alone counts)
    ratings        s = round(4 + w . phi + 0.5 N(0, 1)) in 1 .. 7,   w = (cos angle, sin angle)
    learners       of rankings -log sigma(v . (phi - phi')),  of ratings (sigma(v . phi + b) - (s - 1) / 6)^2
    policies       the best of n fresh responses by each
    judged         by rankings; by ratings: both responses are rated, the higher wins, equal ones tie

Paper: Bansal, Dang and Grover (arXiv 2308.15812): 6 thousand pairs of answers, rated from 1 to 7 and ranked. Labels
from the two protocols disagree on about 60 %; the best-of-64 policy that learned from rankings wins under rankings and
not under ratings. The loss of ratings and their evaluation are those of its code. Ours: people who rank look at
accuracy, people who rate at style too, as far as the angle says; at 0 degrees the protocols differ in nothing but
rounding and noise, so that whatever is left there is no matter of protocols.

Known answers: the labels disagree on .31, .365, .485 and .62 of the pairs at 0, 30, 60 and 90 degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from farm.base import rng
from farm.base.arrays import Bools, Floats
from farm.base.bounds import Bounded, Count, NotNegative
from reference_methods.studies.parts import best, drawn_names


@dataclass(frozen=True)
class Peering(Bounded):
    """Tables ``labels`` (one row a pair), ``wins`` (against a random response) and ``duels`` (of the two policies)."""

    angle: float = 60.0
    """degrees between what rankings and ratings value"""
    pairs: Count = 2000
    instructions: Count = 400
    """on which the policies are judged"""
    n: Count = 64
    """of best-of-n"""
    noise: NotNegative = 0.5
    """standard deviation of a rating before it is rounded"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        draws = rng.generator(seed, "peering")
        first, second = draws.normal(size=(2, self.pairs, 2))
        ranked = accuracy(first) > accuracy(second)
        rated = self.ratings(first, draws), self.ratings(second, draws)
        learned = {
            "rank_trained": fit_rankings(first - second, ranked),
            "rate_trained": fit_ratings(np.concatenate([first, second]), np.concatenate(rated)),
        }
        fresh = draws.normal(size=(self.instructions, self.n, 2))
        answers = {name: best(fresh, v) for name, v in learned.items()}
        baseline = draws.normal(size=(self.instructions, 2))
        wins, duels, names = list[pd.DataFrame](), list[pd.DataFrame](), drawn_names("request", len(fresh), seed)
        for judge in ("ranks", "rates"):
            for name, answer in answers.items():
                wins.append(self.judged(judge, name, answer, baseline, draws).assign(instruction=names))
            duel = self.judged(judge, "rank_trained", answers["rank_trained"], answers["rate_trained"], draws)
            duels.append(duel.assign(instruction=names))
        return {
            "labels": pd.DataFrame({"method": "ratings", "disagrees": disagreement(ranked, *rated)}),
            "wins": pd.concat(wins, ignore_index=True),
            "duels": pd.concat(duels, ignore_index=True),
        }

    def ratings(self, phi: Floats, draws: np.random.Generator) -> Floats:
        """1 .. 7, [n]."""
        radians = np.deg2rad(self.angle)
        value = phi @ np.array([np.cos(radians), np.sin(radians)])
        return np.clip(np.round(4 + value + self.noise * draws.normal(size=len(phi))), 1, 7)

    def judged(
        self, judge: str, method: str, answer: Floats, other: Floats, draws: np.random.Generator
    ) -> pd.DataFrame:
        """``lead``: the score of each answer against another one, less one half."""
        if judge == "ranks":
            ours, theirs = accuracy(answer), accuracy(other)
        else:
            ours, theirs = self.ratings(answer, draws), self.ratings(other, draws)
        return pd.DataFrame({"method": method, "judge": judge, "lead": np.sign(ours - theirs) / 2})


def accuracy(phi: Floats) -> Floats:
    """What rankings value, [n]."""
    return phi[:, 0]


def disagreement(ranked: Bools, first: Floats, second: Floats) -> Floats:
    """1 where the ratings of a pair do not put first what is ranked first, a tie included, [n]."""
    return (np.sign(first - second) != np.where(ranked, 1, -1)).astype(np.float64)


def fit_rankings(differences: Floats, ranked: Bools, ridge: float = 1e-3) -> Floats:
    """v of a Bradley-Terry model of features, [2]; a little ridge, for exact rankings can be fitted without end."""
    signs = np.where(ranked, 1.0, -1.0)

    def loss(v: Floats) -> float:
        return float(np.logaddexp(0, -signs * (differences @ v)).mean() + ridge * v @ v)

    return np.asarray(minimize(loss, np.zeros(2)).x)


def fit_ratings(phi: Floats, ratings: Floats) -> Floats:
    """v of the regression of sigma(v . phi + b) on (s - 1) / 6, [2]."""
    targets = (ratings - 1) / 6

    def loss(parameters: Floats) -> float:
        return float(np.square(expit(phi @ parameters[:2] + parameters[2]) - targets).mean())

    return np.asarray(minimize(loss, np.zeros(3)).x[:2])
