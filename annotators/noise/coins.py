"""Noise that turns answers round, whatever the kind of feedback that has two sides.

Of pairs it is decided before the annotator is asked: an answer that a coin replaces costs no call. Turning a label
round with probability ε is the same as replacing it by a fair coin with probability 2ε. AlpacaFarm (arXiv 2305.14387)
does the second, so that at its ε = .25 half of the training labels never reach a model. Here too:

    u ~ uniform(0, 1), keyed by (seed, annotator, unit, replicate)
    u < ε: first;   ε ≤ u < 2ε: second;   otherwise: whatever the annotator says

The unit is the pair, in a canonical order of its outputs, so that swapping the outputs mirrors the label. AlpacaFarm's
unit is the instruction, and its coin names a column: all pairs of one instruction are decided together and for the
same side (``key: instruction``). Identical outputs are left to the annotator: a tie is never flipped.

Rows where the coin decided have ``coin`` true, ``p_first`` .5 and no cost; ``annotator`` is whose answer the coin took
the place of. ``flipped`` marks the labels that really were turned round, half of those that a coin decided; it is
missing where only a question that costs something would tell.

Reactions, checks and triplets are asked for, and turned round where u < ε.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from farm.asking.givers import is_free, name_of, require_wraps
from farm.base import rng
from farm.base.bounds import check
from farm.feedback.kind import FeedbackKind
from farm.feedback.kind import kind as kind_of
from farm.roles.protocols import Annotator
from farm.tables.records import PairIds, annotation_table, merged, unannotated
from farm.tables.turns import row_ids

Unit = Literal["pair", "instruction"]


@dataclass(frozen=True)
class Question:
    """What a noise model is asked about: n rows of a kind."""

    kind: FeedbackKind
    rows: pd.DataFrame
    seed: int
    replicate: int

    @property
    def unit(self) -> rng.Ids:
        """Ids [n] of what is asked about, whatever the order of the outputs."""
        return self.kind.unit(self.rows)


@dataclass(frozen=True)
class TurnsRound:
    """A noise model that turns answers round: it says with which probability, and this has the verbs."""

    wraps: ClassVar[tuple[str, ...]] = ("pairs", "reactions", "checks", "triplets")
    annotator: Any

    def __post_init__(self) -> None:
        check(self)
        require_wraps(self, self.annotator)

    @property
    def _key(self) -> Unit:
        """What is decided together: Flip and Lapse may say `instruction` by their setting ``key``."""
        return getattr(self, "key", "pair")

    def chances(self, asked: Question) -> NDArray[np.float64]:
        """The probability that the answer to each row is turned round, [n]."""
        raise NotImplementedError

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        rate = self.chances(Question(kind_of("pairs"), pairs, seed, replicate))
        return with_coins(self.annotator, pairs, rate, self._key, purpose=name_of(self), seed=seed, replicate=replicate)

    def react(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self._turned(kind_of("reactions"), outputs, seed, replicate)

    def check(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self._turned(kind_of("checks"), outputs, seed, replicate)

    def match(self, triplets: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self._turned(kind_of("triplets"), triplets, seed, replicate)

    def _turned(self, kind: FeedbackKind, rows: pd.DataFrame, seed: int, replicate: int) -> pd.DataFrame:
        found = getattr(self.annotator, kind.verb)(rows, seed=seed, replicate=replicate)
        ids = kind.unit(rows) if self._key == "pair" else row_ids(rows)
        rate = self.chances(Question(kind, rows, seed, replicate))
        said = found[kind.answer]
        turn = (rng.uniform(seed, f"coin: {name_of(self)}", ids, replicate) < rate) & said.notna().to_numpy()
        other = 3.0 - said if kind.name == "triplets" else said.map(lambda v: v if v is None or v != v else not v)
        if "p_first" in found.columns:
            found = found.assign(p_first=found["p_first"].where(~turn, 1.0 - found["p_first"]))
        before = found["flipped"].to_numpy(bool) if "flipped" in found.columns else False
        return found.assign(**{kind.answer: said.where(~turn, other), "flipped": turn ^ before})


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

    Above 1/2 the answers that are kept are turned round, and the coins get rarer again. An annotator who is free is
    asked about every row, to know which labels a coin turned round.
    """
    pairs = unannotated(pairs)
    ids = PairIds(pairs)
    chance = np.minimum(rate, 1.0 - rate)
    uniform = rng.uniform(seed, f"coin: {purpose}", ids.pair if key == "pair" else ids.instruction, replicate)
    coin = (uniform < 2 * chance) & ~ids.identical
    rows, rest = np.flatnonzero(coin), np.flatnonzero(~coin)
    second = (uniform >= chance)[rows] ^ (ids.swapped[rows] & (key == "pair"))
    label = np.where(second, 2.0, 1.0)
    said = annotator.annotate(pairs, seed=seed, replicate=replicate) if is_free(annotator) else None
    if said is None:
        names = whose(annotator, pairs, seed=seed, replicate=replicate)[rows]
        flipped: Any = np.full(len(rows), None, dtype=object)
        asked = annotator.annotate(pairs.iloc[rest], seed=seed, replicate=replicate)
    else:
        names = said["annotator"].to_numpy(dtype=object)[rows]
        flipped = turned_round(said.iloc[rows], label)
        asked = said.iloc[rest]
    decided = annotation_table(
        pairs.iloc[rows], names, label, np.full(len(rows), 0.5), seed=seed, replicate=replicate
    ).assign(coin=True, flipped=flipped)
    adverse = rate[rest] > 0.5
    if adverse.any() or "flipped" not in asked.columns:
        turned = np.where(adverse, 3.0 - asked["preference"], asked["preference"])
        p_first = np.where(adverse, 1.0 - asked["p_first"], asked["p_first"])
        asked = asked.assign(flipped=turned_round(asked, turned), preference=turned, p_first=p_first)
    if "coin" not in asked.columns:
        asked = asked.assign(coin=False)
    return merged(pairs, [(rest, asked), (rows, decided)])


def turned_round(table: pd.DataFrame, label: NDArray[np.float64]) -> NDArray[np.bool_] | NDArray[np.object_]:
    """Whether labels in the place of those in a table name the other output than was meant, [n]; no tie does."""
    opposite = (table["preference"].to_numpy(dtype=np.float64) - 1.5) * (label - 1.5) < 0
    if "flipped" not in table.columns:
        return np.asarray(opposite)
    before = table["flipped"].to_numpy()
    if before.dtype == bool:
        return np.asarray(before ^ opposite)
    return np.array([None if b is None else bool(b) ^ bool(o) for b, o in zip(before, opposite, strict=True)], object)


def whose(annotator: Any, pairs: pd.DataFrame, *, seed: int, replicate: int) -> NDArray[np.object_]:
    """Who would be asked about each pair, [n], without asking: a pool says it, a wrapper's are those inside it."""
    if hasattr(annotator, "whose"):
        return np.asarray(annotator.whose(pairs, seed=seed, replicate=replicate), dtype=object)
    if hasattr(inner := getattr(annotator, "annotator", None), "annotate"):
        return whose(inner, pairs, seed=seed, replicate=replicate)
    return np.full(len(pairs), name_of(annotator), dtype=object)
