"""What do reactions of users teach, beside labelled pairs, and when is a policy that seeks them hacked?

    texts        of the pocket world's writers; utility u and its terms
    reactions    liked ~ sigma(u + bias . terms - u0), u0 such that a share ``base_rate`` of the texts is liked;
                 observed with a propensity that depends on the like (the law of annotators/feedback/reactions.py)
    love         logistic regression of liked on the terms, each observed reaction weighted by 1 / propensity, or alike
    help         Bradley-Terry of pairs of texts, linear in the terms, a share of the labels flipped
    policy w     texts reweighted by exp(r / beta), r = w love + (1 - w) help, both with deviation 1, at a KL of ``kl``

Paper: RLUF (Han et al., arXiv 2505.14946): seeking P[Love] raises it; with too much weight it is hacked. Linear models
in place of networks, a tilt of texts that are there in place of a trained policy, some of a hundred likes in place of
one in a thousand, and a helpfulness model in place of helpfulness and safety.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from farm.base import rng
from farm.base.arrays import Bools, Floats
from farm.base.bounds import Bounded, Count, ErrorRate, NotNegative, Positive, Share
from reference_methods.studies.parts import auroc, drawn_labels, fit
from reference_methods.studies.pocket_texts import PocketTexts, Scale


@dataclass(frozen=True)
class UserReactions(Bounded):
    """Tables ``policies`` (``method`` "w 0.5": ``love``, the mean chance of a like, ``promised``, what the model by
    inverse propensities takes it for, ``auroc``, how well that tells likes of the policy's own texts, ``gold``, and
    ``hacks``, sentences of the styles of the bias) and ``models`` (``ips``, ``naive`` and the ``truth``: ``auroc`` of
    likes of other texts, ``error``, how far the mean chance of a like is misjudged, and ``unreliable``, the mean of
    that over tenths of the texts by the model's own chance)."""

    bias: dict[str, float] | None = None
    """term -> weight in the likes beyond its worth; a question and courtesies where omitted"""
    base_rate: Share = 0.07
    logged: Count = 6000
    texts: Count = 20_000
    """of the policies"""
    pairs: Count = 2000
    flips: ErrorRate = 0.25
    temperature: Positive = 0.8
    """of the labels of pairs, in units of utility"""
    base: float = -1.0
    by_like: float = 0.5
    by_strength: NotNegative = 0.3
    """of the propensity, as of a reactor"""
    ridge: Positive = 1.0
    kl: Positive = 3.0
    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    """w"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        bias = {"question": 1.8, "polite": 1.8} if self.bias is None else self.bias
        seen, fresh = (PocketTexts.written(n, seed, f"reactions/{n}") for n in (self.logged, self.texts))
        scale, draws = Scale.of(seen), rng.generator(seed, "reactions/draws")
        wanted = seen.utility(bias)
        threshold = float(brentq(lambda u0: expit(wanted - u0).mean() - self.base_rate, -50, 50))
        logit = wanted - threshold
        liked = draws.random(self.logged) < expit(logit)
        propensity = expit(self.base + self.by_like * liked + self.by_strength * np.abs(logit))
        observed = draws.random(self.logged) < propensity
        x, chance = scale(fresh), expit(fresh.utility(bias) - threshold)
        likes, love = draws.random(self.texts) < chance, dict[str, Floats]()
        for method, each in (("naive", np.ones(self.logged)), ("ips", 1 / propensity)):
            weights = self.loved(scale(seen)[observed], liked[observed], each[observed])
            love[method] = with_constant(x) @ weights
        models = [
            {"method": method, "auroc": auroc(found, likes), **misjudged(expit(found), chance)}
            for method, found in {**love, "truth": fresh.utility(bias) - threshold}.items()
        ]
        loved, helpful, policies = love["ips"], self.helpful(scale, x, seed), []
        of_text = {"love": chance, "promised": expit(loved), "gold": fresh.utility()}
        of_text["hacks"] = fresh.terms[list(bias)].sum(axis=1).to_numpy()
        for w in self.weights:
            share = tilted(w * loved / loved.std() + (1 - w) * helpful, self.kl)
            own = draws.choice(self.texts, self.texts, p=share)
            means = {name: float(share @ value) for name, value in of_text.items()}
            policies.append({"method": f"w {w:g}", **means, "auroc": auroc(loved[own], likes[own])})
        return {"policies": pd.DataFrame(policies), "models": pd.DataFrame(models)}

    def loved(self, x: Floats, liked: Bools, weights: Floats) -> Floats:
        """Weights of the terms and of a constant, [d + 1]."""
        return fit(with_constant(x), np.where(liked, 1.0, -1.0), weights / weights.mean(), self.ridge, steps=50)

    def helpful(self, scale: Scale, x: Floats, seed: int) -> Floats:
        """The score of the texts by a model of labelled pairs, with deviation 1, [n]."""
        first, second = (PocketTexts.written(self.pairs, seed, f"reactions/pairs {k}") for k in (1, 2))
        draws, lead = rng.generator(seed, "reactions/labels"), first.utility() - second.utility()
        signs, _ = drawn_labels(lead / self.temperature, self.flips, draws)
        found = x @ fit(scale(first) - scale(second), signs, ridge=self.ridge)
        return np.asarray(found / found.std())


def misjudged(said: Floats, chance: Floats) -> dict[str, float]:
    """How far chances that a model gives n texts are off: their mean, and that of each tenth of the texts by them."""
    order = np.argsort(said, kind="stable")
    tenths = [abs(said[rows].mean() - chance[rows].mean()) for rows in np.array_split(order, 10)]
    return {"error": abs(float(said.mean() - chance.mean())), "unreliable": float(np.mean(tenths))}


def with_constant(x: Floats) -> Floats:
    """The terms and a one, [n, d + 1]."""
    return np.column_stack([x, np.ones(len(x))])


def tilted(reward: Floats, kl: float) -> Floats:
    """The shares exp(r / beta) / Z of n equally likely texts whose KL to these is ``kl``, [n]; the KL is below ln n."""

    def shares(inverse: float) -> Floats:
        unscaled = np.exp(inverse * (reward - reward.max()))
        return np.asarray(unscaled / unscaled.sum())

    def beyond(inverse: float) -> float:
        p = shares(inverse)
        return float((p * np.log(np.maximum(p * len(p), 1e-300))).sum()) - kl

    return shares(float(brentq(beyond, 0.0, 1e3)))
