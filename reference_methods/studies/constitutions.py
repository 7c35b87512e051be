"""Inverse Constitutional AI where the principles are known: does a constitution explain labels that a judge does not?

    texts      of the pocket grammar, two to a request
    labels     gold: the higher gold utility, adversary: the lower, orthogonal: the higher 2 quotes - 1.5 figures,
               coin: neither; a share ``flips`` of those that principles are read off is turned round
    default    the gold utility, as a judge that knows what is good and not whose labels these are
    constitution      read off N labelled pairs (:mod:`farm.votes.principles`), with predicates of the texts' features
    turned     the same read off the opposite labels

Each is held against the true labels of other pairs. Paper: Findeis et al. (arXiv 2406.06560): 5 principles; agreement
goes from 0 to 84 % on synthetic labels against the judge, from 38 to 87 % on orthogonal ones, from 100 to 92 % on
aligned ones. Its judge, proposer and voter are a language model; here they are the world's features, and the judge is
the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, ErrorRate, Share
from farm.votes.predicates import Predicate, mined, votes
from farm.votes.principles import Mining, Rule, decided
from farm.worlds.pocket import grammar
from farm.worlds.pocket.gold import PocketFeatures, default_gold_weights
from farm.worlds.pocket.world import DEMONSTRATIONS
from reference_methods.studies.parts import agrees, by_method, drawn_names

Labels = Literal["gold", "adversary", "orthogonal", "coin"]

ORTHOGONAL = {"quote": 2.0, "figure": -1.5}
_DRAWN = 2400
"""pairs that are drawn: some are ties"""


@dataclass(frozen=True)
class Constitutions(Bounded):
    """Table ``reconstruction``: a row for each held-out pair and each of ``default``, ``constitution``, ``turned``."""

    labels: Labels = "orthogonal"
    pairs: Count = 200
    """N, that principles are read off"""
    flips: ErrorRate = 0.0
    held_out: Count = 400
    rule: Rule = "first"
    error: Share = 0.0
    """the probability that a proposal does not explain its label"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        found, gold, ids = texts(_DRAWN, seed)
        truth = self.labelled(found, gold, ids, seed)
        usable = np.flatnonzero((truth != 0) & (gold != 0))[: self.pairs + self.held_out]
        if len(usable) < self.pairs + self.held_out:
            raise ValueError(f"`pairs` and `held_out` are {self.pairs + self.held_out}, and {len(usable)} are no ties")
        learnt, tested = usable[: self.pairs], usable[self.pairs :]
        flipped = rng.uniform(seed, "flipped label", ids[learnt]) < self.flips
        given = np.where(flipped, -truth[learnt], truth[learnt])
        by = {
            "constitution": self.read_off(found.iloc[learnt], given, ids[learnt], seed),
            "turned": self.read_off(found.iloc[learnt], -given, ids[learnt], seed),
        }
        says = {name: decided(votes(principles, found.iloc[tested]), self.rule) for name, principles in by.items()}
        says["default"] = np.sign(gold[tested])
        found = {name: agrees(said, truth[tested]) for name, said in says.items()}
        said = [(name, place, p.says) for name, principles in by.items() for place, p in enumerate(principles)]
        return {
            "reconstruction": by_method(found, "agrees", drawn_names("pair", len(tested), seed)),
            "principles": pd.DataFrame(said, columns=["method", "place", "principle"]),
        }

    def labelled(self, found: pd.DataFrame, gold: Floats, ids: rng.Ids, seed: int) -> Floats:
        """1 where the first text is preferred, -1 the second, 0 neither, [n]."""
        if self.labels == "coin":
            return np.where(rng.uniform(seed, "coin", ids) < 0.5, 1.0, -1.0)
        if self.labels == "orthogonal":
            return np.sign(sum(weight * found[name].to_numpy(np.float64) for name, weight in ORTHOGONAL.items()))
        return np.sign(gold) * (1.0 if self.labels == "gold" else -1.0)

    def read_off(self, found: pd.DataFrame, labels: Floats, ids: rng.Ids, seed: int) -> list[Predicate]:
        """The constitution of labelled pairs."""
        mining = Mining(rule=self.rule)
        return mined(PocketFeatures(), found, labels, ids, mining, seed=seed, error=self.error)[0]


@lru_cache(maxsize=16)
def texts(n: int, seed: int) -> tuple[pd.DataFrame, Floats, rng.Ids]:
    """The features of n pairs of texts as differences, their difference in gold utility [n], and their ids [n]."""
    every = grammar.all_requests()
    asked = every.take(rng.integers(len(every), seed, "requests", np.arange(n, dtype=np.uint64)))
    prompts, features = grammar.request_texts(asked).strings(), PocketFeatures()
    first, second = (
        features(prompts, grammar.write(asked, DEMONSTRATIONS, seed, f"constitutions {side}").strings())
        for side in ("first", "second")
    )
    found, weights = first - second, default_gold_weights()
    gold = found[list(weights)].to_numpy(np.float64) @ np.array(list(weights.values()))
    return found, gold, np.arange(n, dtype=np.uint64)
