"""Flips: any label is turned round with the same probability; above one half an adversary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotators.noise.coins import Unit, with_coins
from farm.asking.givers import name_of
from farm.roles.protocols import Annotator


@dataclass(frozen=True)
class Flip:
    """Turns the label round with probability ``rate``, whatever the pair. Above 1/2 it is an adversary."""

    annotator: Annotator
    rate: float = 0.25
    key: Unit = "pair"

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate = {self.rate} must lie between 0 and 1")

    @property
    def name(self) -> str:
        return f"flip of {name_of(self.annotator)}"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        rate = np.full(len(pairs), self.rate)
        return with_coins(self.annotator, pairs, rate, self.key, purpose=self.name, seed=seed, replicate=replicate)
