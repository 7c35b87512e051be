"""A crowd as it was calibrated on people's votes (`farm calibrate`): groups that differ in skill, biases and noise.

All annotators of a group z see the same margin of a pair and answer with the same habits:

    ℓ = σ_z m + υ_z u / s + b_z + γ_z tanh(Δlength / L) + g_z Δlist     then ties (Rao and Kupper) and flips ε_z

m ~ N(0, 1) is the margin that latent qualities of the two texts give (annotators/people/logit.py): most of what people
see in an answer no feature tells, and with it easy and hard pairs come about, so that votes split as people's do. u is
the difference of utility by the features, s its usual size. Where the truth of the world is known (``truth``), the
margin is not latent: m and u / s are both the difference of gold utility over its usual size, so that the crowd's
votes can be learnt from, with the noise that was measured.

Each vote is a person's, drawn for the pair and the replicate with the shares of the groups; ``size`` people are divided
among the groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from annotators.noise.coins import Unit
from annotators.people.logit import LogitAnnotator
from annotators.people.pool import Pool
from farm.base import rng
from farm.base.bounds import Count, NotNegative, Positive, Share, check
from farm.roles.protocols import Features, World

_TYPICAL_TEXTS = 500
"""demonstrations of a world from which the usual size of its utility differences is measured"""


class Group(BaseModel):
    """People with the same habits; all but ``share`` and ``flip`` in logits."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    share: Positive = 1.0
    """of the votes; shares are scaled to add up to 1"""
    spread: NotNegative = 1.0
    """standard deviation of the margins: 0 is a coin, large is sure of itself"""
    utility: float = 0.0
    """weight of the utility by the features, for a difference of the usual size"""
    position_bias: float = 0.0
    length_bias: float = 0.0
    list_bias: float = 0.0
    tie_width: NotNegative = 0.0
    """η of Rao and Kupper"""
    flip: Share = 0.0
    """above 1/2 an adversary"""


@dataclass(frozen=True)
class Crowd:
    """A calibrated crowd.

    Raises:
        ValueError: without a group, or with a size or scale that is not positive.
    """

    features: Features
    groups: list[Group]
    name: str = "crowd"
    size: Count = 50
    seed: int = 0
    """keys who belongs to which group"""
    length_scale: Positive = 15.0
    """words"""
    utility_scale: Positive = 1.0
    """standard deviation of the utility differences of pairs, where the crowd was calibrated"""
    opinion_spread: NotNegative = 0.0
    """each person's own lasting opinion of a pair, in logits (test-retest agreement)"""
    tie_spread: NotNegative = 0.0
    """how much pairs differ in inviting a tie (annotators/people/logit.py)"""
    truth: bool | None = None
    """whether the utility is the margin; by default where the truth of the world is known"""
    world: World | None = None
    assign: Unit = "pair"

    def __post_init__(self) -> None:
        check(self)
        if not self.groups:
            raise ValueError("a crowd needs at least one group")
        if self.size < len(self.groups):
            raise ValueError(f"size = {self.size} is too small for {len(self.groups)} groups")
        _ = self.pool  # a wrong parameter shows here, not at the first pair

    def description(self) -> dict[str, Any]:
        """What the votes depend on, as plain data."""
        plain = {k: v for k, v in vars(self).items() if k not in ("features", "world", "groups", "pool", "people")}
        groups = [g.model_dump() for g in self.groups]
        from farm.asking.givers import description

        # All that the world decides is in the weights of the people.
        known = [self.people[0].weights, self.people[-1].weights]
        return {**plain, "groups": groups, "features": description(self.features), "known": description(known)}

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self.pool.annotate(pairs, seed=seed, replicate=replicate)

    def whose(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> NDArray[np.object_]:
        """Who would be asked about each pair, [n], without asking."""
        return self.pool.whose(pairs, seed=seed, replicate=replicate)

    @cached_property
    def pool(self) -> Pool:
        """The pool of the people."""
        members = self._members()
        number = np.bincount(members)
        weights = [self.groups[k].share / int(number[k]) for k in members]
        return Pool(list(self.people), weights, self.assign, self.name)

    @cached_property
    def people(self) -> tuple[LogitAnnotator, ...]:
        """The people, as logit annotators."""
        knows = self.truth if self.truth is not None else bool(self.world is not None and self.world.truth_known)
        scale = usual_difference(self.world) if knows and self.world is not None else self.utility_scale
        gold = self.features.gold_weights
        found = []
        for i, group in enumerate(self.groups[k] for k in self._members()):
            weight = float(np.hypot(group.spread, group.utility)) if knows else group.utility
            found.append(
                LogitAnnotator(
                    self.features,
                    name=f"{self.name}-{self.seed}-{i + 1:02d}",
                    weights={k: w * weight / scale for k, w in gold.items()} if weight else {},
                    latent_spread=0.0 if knows else group.spread,
                    opinion_spread=self.opinion_spread,
                    position_bias=group.position_bias,
                    length_bias=group.length_bias,
                    length_scale=self.length_scale,
                    list_bias=group.list_bias,
                    ties="rao-kupper",
                    tie_width=group.tie_width,
                    tie_spread=self.tie_spread,
                    flip=group.flip,
                )
            )
        return tuple(found)

    def _members(self) -> list[int]:
        """The group of each person: at least one in each, the others by share; who is who by a keyed draw."""
        share = np.array([g.share for g in self.groups])
        exact = (self.size - len(share)) * share / share.sum()
        count = np.floor(exact).astype(int) + 1
        count[np.argsort(np.floor(exact) - exact, kind="stable")[: self.size - count.sum()]] += 1
        order = rng.permutation(np.arange(self.size, dtype=np.uint64), self.seed, "groups of a crowd")
        return [int(k) for k in np.repeat(np.arange(len(share)), count)[order]]


def usual_difference(world: World) -> float:
    """The standard deviation of the gold utility differences of a world's demonstrations; 1 where it has none."""
    texts = world.demonstrations(_TYPICAL_TEXTS)
    if texts is None or len(texts) < 2:
        return 1.0
    table = world.features(texts["instruction"].tolist(), texts["output"].tolist())
    utility = sum(w * table[k].to_numpy(dtype=np.float64) for k, w in world.features.gold_weights.items())
    return float(np.std(utility) * np.sqrt(2)) or 1.0
