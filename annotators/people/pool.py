"""Pools: each pair is given to one of several annotators, as AlpacaFarm gives it to one of thirteen.

``assign: pair`` draws the annotator anew for every pair (and replicate). AlpacaFarm's ``assign: instruction`` gives
all pairs of one instruction to the same annotator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.noise.coins import Unit, whose
from annotators.people.logit import LogitAnnotator, judge
from farm.asking.givers import name_of
from farm.base import rng
from farm.base.bounds import Count, NotNegative, Positive, Share, check
from farm.roles.protocols import Annotator, Features
from farm.tables.records import PairIds, merged, unannotated


@dataclass(frozen=True)
class Pool:
    """A pool of any annotators, drawn with probability proportional to ``weights`` (equal by default)."""

    wraps: ClassVar[tuple[str, ...]] = ("pairs",)
    annotators: list[Annotator]
    weights: list[float] | None = None
    assign: Unit = "pair"
    name: str = "pool"

    def __post_init__(self) -> None:
        if not self.annotators:
            raise ValueError("a pool needs at least one annotator")
        if self.weights is not None and len(self.weights) != len(self.annotators):
            raise ValueError(f"{len(self.weights)} weights for {len(self.annotators)} annotators")
        if self.weights is not None and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ValueError("weights must not be negative, and not all 0")
        names = [name_of(a) for a in self.annotators]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"two annotators are called `{twice[0]}` and would draw alike: give each its own `name`")

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self.asked(pairs, self.assigned(PairIds(pairs), seed, replicate), seed=seed, replicate=replicate)

    def asked(self, pairs: pd.DataFrame, which: NDArray[np.int64], *, seed: int, replicate: int) -> pd.DataFrame:
        """The annotations of the pairs, where ``which`` [n] says who gets each row."""
        pairs = unannotated(pairs)
        alike = _alike(self.annotators)
        if alike:
            return judge(alike, which, pairs, PairIds(pairs), seed=seed, replicate=replicate)
        groups = [(np.flatnonzero(which == i), annotator) for i, annotator in enumerate(self.annotators)]
        return merged(
            pairs,
            [
                (rows, a.annotate(pairs.iloc[rows], seed=seed, replicate=replicate))
                for rows, a in groups
                if rows.size or not len(pairs)
            ],
        )

    def whose(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> NDArray[np.object_]:
        """Who would be asked about each pair, [n], without asking."""
        which, found = self.assigned(PairIds(pairs), seed, replicate), np.full(len(pairs), None, dtype=object)
        for i, annotator in enumerate(self.annotators):
            rows = np.flatnonzero(which == i)
            found[rows] = whose(annotator, pairs.iloc[rows], seed=seed, replicate=replicate)
        return found

    def assigned(self, ids: PairIds, seed: int, replicate: int | rng.Ids = 0) -> NDArray[np.int64]:
        """Which annotator gets each row, int64 [n]. The draw belongs to this pool: a pool in a pool draws anew."""
        purpose = "\x1f".join(["assignment", self.name, *map(name_of, self.annotators)])
        weights = self.weights or [1.0] * len(self.annotators)
        return rng.choice(weights, seed, purpose, ids.pair if self.assign == "pair" else ids.instruction, replicate)


def _alike(annotators: Sequence[Annotator]) -> list[LogitAnnotator]:
    """The annotators, if all are logit annotators of the same features and can share one look at the texts."""
    found = [a for a in annotators if type(a) is LogitAnnotator]
    same = len(found) == len(annotators) and all(a.features is found[0].features for a in found)
    return found if same else []


@dataclass(frozen=True)
class PersonaPool:
    """A pool of made-up people around the gold weights, each with weights, a temperature and biases of its own.

    Person i has the weights w_k exp(``spread`` z_ik), the temperature ``temperature`` exp(``temperature_spread`` z_i)
    and biases with the given mean and standard deviation, all z standard normal and keyed by (``seed``, person,
    trait): a new trait or a larger pool leaves the others as they are. Another seed is another population.
    """

    features: Features
    size: Count = 13
    seed: int = 0
    name: str = "persona"
    """people are called after it, the seed and their number, as in persona-0-07"""
    weights: dict[str, float] | None = None
    """the centre of the population; default: the gold weights of the features"""
    spread: NotNegative = 0.35
    temperature: Positive = 0.8
    temperature_spread: NotNegative = 0.3
    position_bias: float = 0.0
    position_bias_spread: NotNegative = 0.0
    length_bias: float = 0.0
    length_bias_spread: NotNegative = 0.4
    length_scale: Positive = 15.0
    list_bias: float = 0.0
    list_bias_spread: NotNegative = 0.0
    cycle: float = 0.0
    self_enhancement: float = 0.0
    own_generator: str = ""
    sycophancy: float = 0.0
    lapse: Share = 0.0
    tie_width: NotNegative = 0.0
    assign: Unit = "pair"

    def __post_init__(self) -> None:
        check(self)
        _ = self.pool  # a wrong parameter shows here, not at the first pair

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self.pool.annotate(pairs, seed=seed, replicate=replicate)

    def whose(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> NDArray[np.object_]:
        """Who would be asked about each pair, [n], without asking."""
        return self.pool.whose(pairs, seed=seed, replicate=replicate)

    @cached_property
    def pool(self) -> Pool:
        """The pool of the people."""
        return Pool(list(self.people), assign=self.assign, name=self.name)

    @cached_property
    def people(self) -> tuple[LogitAnnotator, ...]:
        """The people, as logit annotators."""
        persons = np.arange(self.size, dtype=np.uint64)

        def trait(name: str) -> NDArray[np.float64]:
            return rng.normal(self.seed, f"persona: {name}", persons)

        centre = self.features.gold_weights if self.weights is None else self.weights
        weights = {name: weight * np.exp(self.spread * trait(f"weight of {name}")) for name, weight in centre.items()}
        temperature = self.temperature * np.exp(self.temperature_spread * trait("temperature"))
        position = self.position_bias + self.position_bias_spread * trait("position bias")
        length = self.length_bias + self.length_bias_spread * trait("length bias")
        lists = self.list_bias + self.list_bias_spread * trait("list bias")
        return tuple(
            LogitAnnotator(
                self.features,
                name=f"{self.name}-{self.seed}-{i + 1:02d}",
                weights={name: float(values[i]) for name, values in weights.items()},
                temperature=float(temperature[i]),
                position_bias=float(position[i]),
                length_bias=float(length[i]),
                length_scale=self.length_scale,
                list_bias=float(lists[i]),
                cycle=self.cycle,
                self_enhancement=self.self_enhancement,
                own_generator=self.own_generator,
                sycophancy=self.sycophancy,
                lapse=self.lapse,
                tie_width=self.tie_width,
            )
            for i in range(self.size)
        )
