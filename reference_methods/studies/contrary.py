"""One person whose preferences go in a circle: which models of preferences tell whom she prefers?

    texts           of the pocket grammar's mediocre writers, two to a request; phi: FEATURES of a text, and a 1
    labels          one draw of the person for each pair; models are held against her likelier answer on other pairs
    bradley_terry   s(y, y') = w . (phi(y) - phi(y'))
    one_plane, four_planes
                    s(y, y') = sum over planes of a(y) b(y') - b(y) a(y'),   a and b linear in phi

    each the argmin of the mean of -log sigma(s) of the labels and RIDGE |weights|^2

Conflict pairs are those in which one text has an example and is not polite, and the other the reverse. The person
``pocket_contrary`` likes politeness, dislikes examples, and prefers examples to politeness: there the circle shows, and
one plane cannot hold it and a utility.

Paper: general preference models (Zhang et al., arXiv 2410.02197). Features of texts in place of a language model's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from farm.base import rng
from farm.base.bounds import Bounded, Count
from farm.roles.protocols import Annotator
from farm.worlds.pocket import grammar
from farm.worlds.pocket.gold import PocketFeatures
from farm.worlds.pocket.world import DEMONSTRATIONS
from reference_methods.parts.losses import bradley_terry
from reference_methods.studies.minimising import argmin
from reference_methods.studies.parts import agrees, drawn_names

FEATURES = (
    "relevance strays opening closing constraint repetition too_long too_short unfinished broken_grammar polite "
    "polite_squared example"
).split()
"""all that the person weighs"""
RIDGE = 1e-4
PLANES = {"bradley_terry": 0, "one_plane": 1, "four_planes": 4}


@dataclass(frozen=True)
class Contrary(Bounded):
    """Table ``accuracy``: ``method``, ``instruction`` (a held-out pair), ``right`` and whether it is a ``conflict``."""

    annotator: Annotator
    """the person"""
    pairs: Count = 3072
    """of which models learn"""
    held_out: Count = 6000

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        said, sides = self.drawn(seed)
        conflict = np.zeros(len(said), dtype=bool)
        for one, other in (sides, sides[::-1]):
            lists, thanks = (one["example"] > 0) & (one["polite"] == 0), (other["polite"] > 0) & (other["example"] == 0)
            conflict |= (lists & thanks).to_numpy()
        scale = pd.concat(sides).std().clip(lower=1e-9)
        phi = torch.stack([torch.from_numpy((side / scale).assign(one=1.0).to_numpy(np.float64)) for side in sides])
        label = torch.from_numpy(2 - said["preference"].to_numpy(np.float64))
        likelier, names = said["p_first"].to_numpy(np.float64) - 0.5, drawn_names("pair", self.held_out, seed)
        known, others = slice(self.pairs), slice(self.pairs, None)
        parts = list[pd.DataFrame]()
        for method, planes in PLANES.items():
            weights = fitted(phi[:, known], label[known], planes, seed)
            right = agrees(scores(phi[:, others], weights).numpy(), likelier[others])
            row = {"method": method, "instruction": names, "right": right, "conflict": conflict[others]}
            parts.append(pd.DataFrame(row))
        return {"accuracy": pd.concat(parts, ignore_index=True)}

    def drawn(self, seed: int) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
        """The person's verdicts on all pairs, and FEATURES of both sides, a row a pair."""
        everything, n = grammar.all_requests(), self.pairs + self.held_out
        asked = everything.take(rng.generator(seed, "contrary/requests").integers(0, len(everything), n))
        prompts = grammar.request_texts(asked).strings()
        texts = [grammar.write(asked, DEMONSTRATIONS, seed, f"contrary/{k}").strings() for k in (1, 2)]
        pairs = pd.DataFrame({"instruction": prompts, "output_1": texts[0], "output_2": texts[1]})
        return self.annotator.annotate(pairs, seed=seed), [PocketFeatures()(prompts, side)[FEATURES] for side in texts]


def scores(phi: Tensor, weights: Tensor) -> Tensor:
    """s of n pairs, [n]; phi is [2, n, d], weights [planes, 2, d], or [d] of a difference of rewards."""
    if weights.dim() == 1:
        return (phi[0] - phi[1]) @ weights
    (a, b), (a_other, b_other) = (torch.einsum("nd,pkd->knp", side, weights) for side in phi)
    return (a * b_other - b * a_other).sum(1)


def fitted(phi: Tensor, label: Tensor, planes: int, seed: int) -> Tensor:
    """The weights that labels [n] of 1 or 0 make likely."""

    def loss(weights: Tensor) -> Tensor:
        return bradley_terry(scores(phi, weights), label).mean() + RIDGE * weights.square().sum()

    shape = (planes, 2, phi.shape[2]) if planes else (phi.shape[2],)
    start = 0.1 * rng.generator(seed, "contrary/start", planes).normal(size=shape)  # planes of zeros would stay
    return torch.from_numpy(argmin(loss, start, rounds=200))
