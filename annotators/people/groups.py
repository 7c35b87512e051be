"""Groups of users with other tastes (heterogeneous annotators, MaxMin-RLHF, arXiv 2402.08925).

    w_user = w_group exp(spread z),    w_group = the gold weights of the features with what is the group's own

Each user is a person of :class:`~annotators.people.pool.PersonaPool` around the weights of a group; a pair goes to one
of the users of a group, and to the groups by their shares. ``annotator`` names the user, ``user_group`` the group. With
``only`` the users of one group are asked, as its judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.noise.coins import Unit
from annotators.people.pool import PersonaPool, Pool
from farm.base.bounds import Count, NotNegative, Positive, check
from farm.base.errors import nearest
from farm.roles.protocols import Features


@dataclass(frozen=True)
class Groups:
    """A population of groups of users.

    Raises:
        ValueError: without a group, for a share of no group, or shares that are all 0.
    """

    features: Features
    groups: dict[str, dict[str, float]]
    """group -> its weights, those that differ from the gold weights of the features"""
    shares: dict[str, NotNegative] | None = None
    """group -> its share of the pairs; scaled to add up to 1, equal by default"""
    users: Count = 25
    """of each group"""
    spread: NotNegative = 0.1
    """how much users differ from their group"""
    temperature: Positive = 0.5
    only: str | None = None
    """the group that is asked; all by default"""
    assign: Unit = "pair"
    seed: int = 0
    """of who the users are"""
    name: str = "groups"

    def __post_init__(self) -> None:
        check(self)
        if not self.groups:
            raise ValueError("`groups` names no group")
        for group in (*(self.shares or {}), *([self.only] if self.only is not None else [])):
            if group not in self.groups:
                raise ValueError(f"there is no group `{group}`; {nearest(group, self.groups)}")
        _ = self.pool  # a wrong parameter shows here, not at the first pair

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        table = self.pool.annotate(pairs, seed=seed, replicate=replicate)
        return table.assign(user_group=table["annotator"].map(self._group_of).to_numpy(dtype=object))

    def whose(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> NDArray[np.object_]:
        """Who would be asked about each pair, [n], without asking."""
        return self.pool.whose(pairs, seed=seed, replicate=replicate)

    @cached_property
    def pool(self) -> Pool:
        """The pool of all users who are asked."""
        asked = [self.only] if self.only is not None else [g for g in self.groups if self._share(g) > 0]
        if not asked:
            raise ValueError("`shares` are all 0")
        people = [(self._people(group).people, self._share(group)) for group in asked]
        weights = [1.0 if self.only else share / len(users) for users, share in people for _ in users]
        return Pool([user for users, _ in people for user in users], weights, self.assign, self.name)

    @cached_property
    def _group_of(self) -> dict[str, str]:
        return {user.name: group for group in self.groups for user in self._people(group).people}

    def _share(self, group: str) -> float:
        return 1.0 if self.shares is None else self.shares.get(group, 0.0)

    def _people(self, group: str) -> PersonaPool:
        return PersonaPool(
            self.features,
            size=self.users,
            seed=self.seed,
            name=f"{self.name}-{group}",
            weights={**self.features.gold_weights, **self.groups[group]},
            spread=self.spread,
            temperature=self.temperature,
            temperature_spread=0.0,
            length_bias_spread=0.0,
        )
