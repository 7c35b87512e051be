"""Regrets against returns: which labels of segments a policy can be learned from, directly or through a reward.

    labels      P(y > y') = sigma(f(y) - f(y')),   f the sum of advantages A* (regret) or of rewards r (return)
    cpl         argmin over policies of the contrastive loss of s(y) = alpha sum log pi(a|s)
    cautious    the same with bias 1/2
    reward      argmin over r(s, a) of the Bradley-Terry loss of sums of r, then the soft optimum for it

On a chain of six cells with 3 moves a segment, all 48 segments, every pair and exact probabilities, total variation to
the optimal policy, averaged over cells: from regrets .000 for CPL and the reward learner, from returns .340 and .000.
So a reward learner does not fail on regrets in the limit: it learns A* as a reward, whose soft optimum is that policy.

Paper: Hejna et al. (arXiv 2310.13639). Tables of advantages, rewards and log-probabilities have one weak prior, a
normal one with deviation 3; the exact fits have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base import rng
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Count, Discount
from farm.worlds.grid import GridWorld
from reference_methods.parts.losses import bradley_terry, contrastive
from reference_methods.studies.minimising import argmin

Label = Literal["regret", "return"]
LABELS: tuple[Label, ...] = ("regret", "return")
DEVIATION = 3.0
"""of the prior of each entry of a table"""


@dataclass(frozen=True)
class Segments(Bounded):
    """Table ``policies``: ``method`` (learner), ``seen`` (regret or return), ``worth`` of the policy and its
    ``distance`` from the optimal one."""

    labels: Count | None = 1000
    """how many are drawn; None is every pair with its exact probability"""
    length: Count = 3
    """moves of a segment"""
    gamma: Discount = 0.9
    same_start: bool = False
    """whether the two segments of a pair begin in the same cell"""

    def tables(self, seed: int) -> dict[str, pd.DataFrame]:
        chain = Chain.of(self.length, self.gamma)
        first, second = chain.pairs(self.same_start)
        if self.labels is not None:
            chosen = rng.generator(seed, "pairs of segments").integers(len(first), size=self.labels)
            first, second = first[chosen], second[chosen]
        chance = rng.generator(seed, "labels of segments").uniform(size=len(first))
        rows = []
        for label in LABELS:
            p_first = chain.preferences(label, first, second)
            given = p_first if self.labels is None else (chance < p_first).astype(np.float64)
            prior = 0.0 if self.labels is None else 1 / (2 * DEVIATION**2 * self.labels)
            for method, policy in chain.learners(first, second, given, prior).items():
                distance = np.abs(policy - chain.optimal).sum(1).mean() / 2
                row = {"method": method, "seen": label, "worth": chain.world.worth(policy), "distance": distance}
                rows.append(row)
        return {"policies": pd.DataFrame(rows)}


@dataclass(frozen=True)
class Chain:
    """The chain, and all segments on it."""

    world: GridWorld
    counts: Floats
    """how often each segment has each (cell, move), [segments, cells, moves]"""
    starts: NDArray[np.int64]
    """the cell that each begins in, [segments]"""

    @classmethod
    def of(cls, length: int, gamma: float) -> Chain:
        world = GridWorld({"6,1 right": 1.0, "1,1 left": 0.3}, length=length, gamma=gamma)
        segments = list(product(range(len(world.cells)), product(world.moves, repeat=length)))
        counts = np.zeros((len(segments), *world.reward.shape))
        for n, (start, moves) in enumerate(segments):
            for step in world.segments.steps(world.cells[start], " ".join(moves)):
                counts[n][step] += 1
        return cls(world, counts, np.array([start for start, _ in segments]))

    @property
    def optimal(self) -> Floats:
        """The soft optimum, [cells, moves]."""
        return np.asarray(np.exp(self.world.advantage / self.world.alpha))

    def pairs(self, same_start: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every unordered pair of segments, by their numbers."""
        first, second = np.triu_indices(len(self.counts), 1)
        kept = self.starts[first] == self.starts[second] if same_start else np.ones(len(first), dtype=bool)
        return first[kept], second[kept]

    def preferences(self, label: Label, first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
        """P(first > second), [n]."""
        table = self.world.advantage if label == "regret" else self.world.reward
        of = (self.counts * table).sum((1, 2))
        return np.asarray(1 / (1 + np.exp(of[second] - of[first])))

    def learners(
        self, first: NDArray[np.int64], second: NDArray[np.int64], p_first: Floats, prior: float
    ) -> dict[str, Floats]:
        """The policies of the three learners, [cells, moves] each."""
        reward = self.fit(first, second, p_first, prior)
        return {
            "cpl": self.policy(self.fit(first, second, p_first, prior, bias=1.0)),
            "cautious": self.policy(self.fit(first, second, p_first, prior, bias=0.5)),
            "reward": np.exp(self.world.soft_advantage(reward) / self.world.alpha),
        }

    def policy(self, table: Floats) -> Floats:
        """softmax(table / alpha) in each cell."""
        scaled = table / self.world.alpha
        return np.asarray(np.exp(scaled - np.logaddexp.reduce(scaled, axis=1)[:, None]))

    def fit(
        self,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        p_first: Floats,
        prior: float,
        bias: float | None = None,
    ) -> Floats:
        """The table t [cells, moves] of the least mean loss plus prior |t|^2; with a ``bias`` the score of a step is
        alpha log softmax(t / alpha), without one it is t, a reward."""
        sides = [torch.from_numpy(self.counts[side]).flatten(1) for side in (first, second)]
        label, alpha = torch.from_numpy(p_first), self.world.alpha

        def loss(table: Tensor) -> Tensor:
            steps = table if bias is None else alpha * torch.log_softmax(table / alpha, dim=1)
            one, other = (side @ steps.flatten() for side in sides)
            losses = bradley_terry(one - other, label) if bias is None else contrastive(one, other, label, bias)
            return losses.mean() + prior * table.square().sum()

        return argmin(loss, np.zeros(self.world.reward.shape))
