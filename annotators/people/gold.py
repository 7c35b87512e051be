"""Annotators that know the truth of a world. For evaluation and for proofs, not for a claim about noisy feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.people import channel
from annotators.people.logit import LogitAnnotator
from farm.base import rng
from farm.roles.protocols import World
from farm.tables.records import PairIds, annotation_table, unannotated


@dataclass(frozen=True)
class GoldAnnotator:
    """Deterministic by the gold utility of a world whose truth is known; equal utilities are a tie.

    ``p_first`` is σ of the difference in gold utility.

    Raises:
        ValueError: for a world whose truth is not known.
    """

    free: ClassVar[bool] = True
    world: World
    name: str = "gold"

    def __post_init__(self) -> None:
        if not self.world.truth_known:
            raise ValueError(
                f"the truth of the {type(self.world).__name__} is not known, so there is no gold annotator for it"
            )

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        judge = LogitAnnotator(self.world.features, name=self.name, greedy=True)
        return judge.annotate(pairs, seed=seed, replicate=replicate)


@runtime_checkable
class _PreferenceWorld(Protocol):
    def preference(self, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class PreferenceAnnotator:
    """Draws from the preference probabilities of a world that has them, whether or not a utility explains them.

    Raises:
        ValueError: for a world without a method ``preference(first, second)``.
    """

    free: ClassVar[bool] = True
    world: World
    name: str = "preference"
    greedy: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.world, _PreferenceWorld):
            raise ValueError(f"the {type(self.world).__name__} has no preference probabilities of its own")

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        pairs = unannotated(pairs)
        ids = PairIds(pairs)
        assert isinstance(self.world, _PreferenceWorld)
        first, second = (pairs[c].to_numpy(dtype=object) for c in ("output_1", "output_2"))
        p_first = np.asarray(
            self.world.preference(np.where(ids.swapped, second, first), np.where(ids.swapped, first, second))
        )
        chances = channel.Outcomes(p_first, 1.0 - p_first, np.zeros(len(pairs)))
        uniform = rng.uniform(seed, "label", rng.text_id(self.name), ids.pair, replicate)
        label = channel.decide(chances) if self.greedy else channel.draw(chances, uniform)
        label[ids.identical], p_first = 1.5, np.where(ids.identical, 0.5, p_first)
        return annotation_table(
            pairs,
            self.name,
            np.where(ids.swapped, 3.0 - label, label),
            np.where(ids.swapped, 1.0 - p_first, p_first),
            seed=seed,
            replicate=replicate,
        )
