"""Noise around any annotator, decided before it is asked: an answer that a coin replaces costs no call.

Turning a label round with probability ε is the same as replacing it by a fair coin with probability 2ε. AlpacaFarm
(arXiv 2305.14387) does the second, so that at its ε = .25 half of the training labels never reach a model. Here too:

    u ~ uniform(0, 1), keyed by (seed, annotator, unit, replicate)
    u < ε: first;   ε ≤ u < 2ε: second;   otherwise: whatever the annotator says

The unit is the pair, in a canonical order of its outputs, so that swapping the outputs mirrors the label. AlpacaFarm's
unit is the instruction, and its coin names a column: all pairs of one instruction are decided together and for the
same side (``key: instruction``). Identical outputs are left to the annotator: a tie is never flipped.

Rows where the coin decided have ``coin`` true, ``p_first`` .5, the annotator "coin" and no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from farm.asking.givers import name_of
from farm.base import rng
from farm.base.errors import UserError
from farm.roles.protocols import Annotator
from farm.tables.records import PairIds, annotation_table, merged, unannotated

Unit = Literal["pair", "instruction"]


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


@dataclass(frozen=True)
class Lapse:
    """Answers at random with probability ``rate``, without looking: the same as a flip of ``rate`` / 2."""

    annotator: Annotator
    rate: float = 0.1
    key: Unit = "pair"

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate = {self.rate} must lie between 0 and 1")

    @property
    def name(self) -> str:
        return f"lapse of {name_of(self.annotator)}"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        rate = np.full(len(pairs), self.rate / 2)
        return with_coins(self.annotator, pairs, rate, self.key, purpose=self.name, seed=seed, replicate=replicate)


@dataclass(frozen=True)
class Difficulty:
    """Turns the label round with a probability of the pair's own: σ(-|m|) with a margin m ~ N(0, ``spread``²).

    Easy pairs are hardly ever turned round and hard ones half of the time, as people's votes are, while a constant
    flip treats all alike. The margin belongs to the pair: every annotator and replicate meets the same difficulty.
    On five-vote splits of UKPConvArg a constant flip is rejected (χ² 348, 4 df) and this shape is not (7.2); the
    default spread gives AlpacaFarm's humans, one against the majority of three others, .6566.
    """

    annotator: Annotator
    spread: float = 1.31

    def __post_init__(self) -> None:
        if self.spread < 0:
            raise ValueError(f"spread = {self.spread} must not be negative")

    @property
    def name(self) -> str:
        return f"difficulty of {name_of(self.annotator)}"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        margin = self.spread * rng.normal(seed, "difficulty", PairIds(pairs).pair)
        rate = np.asarray(expit(-np.abs(margin)))
        return with_coins(self.annotator, pairs, rate, "pair", purpose=self.name, seed=seed, replicate=replicate)


def with_coins(
    annotator: Annotator,
    pairs: pd.DataFrame,
    rate: NDArray[np.float64],
    key: Unit,
    *,
    purpose: str,
    seed: int,
    replicate: int,
) -> pd.DataFrame:
    """Annotations where the label of row i is turned round with probability ``rate[i]``, by coins before the call.

    Above 1/2 the answers that are kept are turned round, and the coins get rarer again.
    """
    pairs = unannotated(pairs)
    ids = PairIds(pairs)
    chance = np.minimum(rate, 1.0 - rate)
    uniform = rng.uniform(seed, f"coin: {purpose}", ids.pair if key == "pair" else ids.instruction, replicate)
    coin = (uniform < 2 * chance) & ~ids.identical
    rows = np.flatnonzero(coin)
    second = (uniform >= chance)[rows] ^ (ids.swapped[rows] & (key == "pair"))
    half = np.full(len(rows), 0.5)
    decided = annotation_table(
        pairs.iloc[rows], "coin", np.where(second, 2.0, 1.0), half, seed=seed, replicate=replicate
    ).assign(coin=True)
    rest = np.flatnonzero(~coin)
    asked = annotator.annotate(pairs.iloc[rest], seed=seed, replicate=replicate)
    adverse = rate[rest] > 0.5
    if adverse.any():
        turned = {c: np.where(adverse, t - asked[c], asked[c]) for c, t in (("preference", 3.0), ("p_first", 1.0))}
        asked = asked.assign(**turned)
    if "coin" not in asked.columns:
        asked = asked.assign(coin=False)
    return merged(pairs, [(rest, asked), (rows, decided)])


@dataclass(frozen=True)
class TieBand:
    """Says "equal" where the annotator's own logit, ln(p_first / (1 - p_first)), is smaller than ``width``.

    A verdict without a probability keeps its label: nothing tells how small the difference was. So does a coin's.
    """

    annotator: Annotator
    width: float = 0.25

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"width = {self.width} must not be negative")

    @property
    def name(self) -> str:
        return f"ties of {name_of(self.annotator)}"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        table = self.annotator.annotate(unannotated(pairs), seed=seed, replicate=replicate)
        p_first = table["p_first"].to_numpy(dtype=np.float64)
        decisive = table["preference"].notna().to_numpy()
        if decisive.any() and np.isnan(p_first[decisive]).all():
            raise UserError(f"a tie band needs probabilities, and {name_of(self.annotator)} gives none")
        own = decisive & ~table["coin"].to_numpy(dtype=bool) if "coin" in table.columns else decisive
        with np.errstate(divide="ignore"):
            tied = own & (np.abs(logit(p_first)) < self.width)
        return table.assign(preference=np.where(tied, 1.5, table["preference"]))
