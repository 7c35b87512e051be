"""The gold annotator: prefers whatever the truth of the world values more. For evaluation only, never a teacher."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from annotators.logit import LogitAnnotator
from farm.protocols import World


@dataclass(frozen=True)
class GoldAnnotator:
    """Deterministic by the gold utility of a world whose truth is known; equal utilities are a tie.

    ``p_first`` is σ of the difference in gold utility.

    Raises:
        ValueError: for a world whose truth is not known.
    """

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
