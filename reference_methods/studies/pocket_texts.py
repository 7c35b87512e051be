"""Texts of the pocket world's writers, as numbers, for studies whose models are linear in the terms of the utility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import UserError, nearest
from farm.worlds.pocket import grammar
from farm.worlds.pocket.gold import PocketFeatures, default_gold_weights
from farm.worlds.pocket.world import DEMONSTRATIONS


@dataclass(frozen=True)
class PocketTexts:
    """n responses to requests of the pocket world."""

    terms: pd.DataFrame
    """the terms of the utility, a row a text"""

    @classmethod
    def written(cls, n: int, seed: int, purpose: str) -> PocketTexts:
        """Of mediocre writers, to requests drawn for them."""
        everything = grammar.all_requests()
        rows = rng.generator(seed, f"{purpose}/requests").integers(0, len(everything), n)
        return cls.to(everything.take(rows), seed, purpose)

    @classmethod
    def to(cls, requests: grammar.Requests, seed: int, purpose: str) -> PocketTexts:
        """One to each of these requests."""
        texts = grammar.write(requests, DEMONSTRATIONS, seed, purpose).strings()
        table = PocketFeatures()(grammar.request_texts(requests).strings(), texts)
        return cls(table[list(default_gold_weights())])

    def utility(self, more: dict[str, float] | None = None) -> Floats:
        """The gold utility, and further weights of some terms besides, [n].

        Raises:
            UserError: with the nearest term, for one that there is not.
        """
        weights = default_gold_weights()
        for name, weight in (more or {}).items():
            if name not in weights:
                raise UserError(f"`{name}` is no term of the pocket world's utility; {nearest(name, weights)}")
            weights[name] += weight
        return np.asarray(self.terms.to_numpy(np.float64) @ np.array(list(weights.values())))


@dataclass(frozen=True)
class Scale:
    """Terms less their mean, in units of their standard deviation; a term that does not vary is left out."""

    names: list[str]
    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, texts: PocketTexts) -> Scale:
        """By these texts."""
        table = texts.terms.loc[:, texts.terms.std() > 0]
        return cls(list(table.columns), table.mean().to_numpy(np.float64), table.std().to_numpy(np.float64))

    def __call__(self, texts: PocketTexts) -> Floats:
        """[n, d]."""
        return np.asarray((texts.terms[self.names].to_numpy(np.float64) - self.mean) / self.deviation)
