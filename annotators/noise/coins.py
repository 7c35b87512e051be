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

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.base import rng
from farm.roles.protocols import Annotator
from farm.tables.records import PairIds, annotation_table, merged, unannotated

Unit = Literal["pair", "instruction"]


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
