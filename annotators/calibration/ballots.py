"""Votes as arrays: who said what of which pair, and what is known of the pair's two outputs.

Everything refers to the canonical order of a pair's outputs (farm/votes/table.py). Where the file has the texts,
lengths (words), lists and utility are those of :class:`~farm.worlds.text_features.TextFeatures`, so that a bias found
here means the same when the crowd annotates other texts; where it has only lengths in characters, six make a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.arrays import Floats, Ints
from farm.base.errors import UserError

_CHARACTERS_A_WORD = 6.0
FIRST, TIE, SECOND = 0, 1, 2
TERMS = ("length", "list", "utility", "position")
"""the columns of ``terms``: what a vote may depend on besides the margin"""


@dataclass(frozen=True)
class Ballots:
    """V votes on I pairs by A annotators, sorted by pair."""

    item: Ints
    """[V]"""
    annotator: Ints
    """[V]"""
    answer: Ints
    """[V]: FIRST, TIE or SECOND, canonical"""
    terms: Floats
    """[V, 4] in the order of TERMS: tanh of the length difference, list difference, utility difference in units of
    ``utility_scale``, and +1 or -1 for the canonical first or second shown first; 0 where unknown"""
    sides: Floats
    """[I, 2, 3]: length, lists and utility of both outputs, NaN where unknown"""
    names: tuple[str, ...]
    """of the annotators"""
    length_scale: float
    utility_scale: float
    known: frozenset[str]
    """which of TERMS the file tells"""
    table: pd.DataFrame
    """the votes, a row each, as farm/votes/table.py has them; ``ballot`` is the number of the pair"""

    @property
    def items(self) -> int:
        return len(self.sides)

    def part(self, votes: int, seed: int = 0) -> Ballots:
        """The votes on as many pairs, drawn at random, as have about this many votes: on one at least."""
        if len(self.item) <= votes:
            return self
        order = rng.permutation(np.arange(self.items, dtype=np.uint64), seed, "pairs to calibrate on")
        number = np.bincount(self.item, minlength=self.items)
        taken = np.zeros(self.items, dtype=bool)
        taken[order[: max(int((np.cumsum(number[order]) <= votes).sum()), 1)]] = True
        rows = taken[self.item]
        item = np.unique(self.item[rows], return_inverse=True)[1].astype(np.int64)
        return Ballots(
            item, self.annotator[rows], self.answer[rows], self.terms[rows], self.sides[taken], self.names,
            self.length_scale, self.utility_scale, self.known, self.table[rows],
        )  # fmt: skip


def ballots(votes: pd.DataFrame, origin: str = "the votes") -> Ballots:
    """The decided votes of a table of :mod:`farm.votes.table`.

    Raises:
        UserError: where no pair has two votes: nothing tells noise from difference then.
    """
    table = votes[votes["first"].notna()].reset_index(drop=True)
    item, _ = pd.factorize(table["item"], sort=True)
    order = np.argsort(item, kind="stable")
    table, item = table.iloc[order].reset_index(drop=True), item[order].astype(np.int64)
    if not len(table) or np.bincount(item).max() < 2:
        raise UserError(f"{origin}: no pair has two votes, so noise cannot be estimated")
    annotator, names = pd.factorize(table["annotator"], sort=True)
    first = table["first"].to_numpy(np.float64)
    answer = np.where(first > 0.5, FIRST, np.where(first < 0.5, SECOND, TIE)).astype(np.int64)
    lead = np.unique(item, return_index=True)[1]
    sides = _sides(table.iloc[lead])
    difference = sides[:, 0] - sides[:, 1]  # [I, 3]
    length_scale = float(np.nanstd(difference[:, 0])) if np.isfinite(difference[:, 0]).any() else 15.0
    utility_scale = float(np.nanstd(difference[:, 2])) if np.isfinite(difference[:, 2]).any() else 1.0
    position = np.where(table["reversed"].to_numpy(bool), -1.0, 1.0) * (table["sides"] != "").to_numpy(bool)
    by_item = np.stack(
        [np.tanh(difference[:, 0] / (length_scale or 1.0)), difference[:, 1], difference[:, 2] / (utility_scale or 1)],
        axis=1,
    )
    terms = np.column_stack([np.nan_to_num(by_item)[item], position])
    known = frozenset(name for name, column in zip(TERMS, terms.T, strict=True) if np.abs(column).any())
    return Ballots(
        item, annotator.astype(np.int64), answer, terms, sides, tuple(map(str, names)),
        length_scale or 15.0, utility_scale or 1.0, known, table.assign(ballot=item),
    )  # fmt: skip


def _sides(pairs: pd.DataFrame) -> Floats:
    """Length, lists and utility of both outputs of each pair, canonical, [I, 2, 3]; NaN where the file is silent."""
    out = np.full((len(pairs), 2, 3), np.nan)
    flipped = pairs["flipped"].to_numpy(bool)
    if {"output_1", "output_2"} <= set(pairs.columns):
        from farm.worlds.text_features import TextFeatures

        features = TextFeatures()
        asked = [str(t) for t in pairs["instruction"]] if "instruction" in pairs else [""] * len(pairs)
        for side, column in enumerate(("output_1", "output_2")):
            seen = features(asked, [str(t) for t in pairs[column]])
            utility = sum(w * seen[k].to_numpy(np.float64) for k, w in features.gold_weights.items())
            place = np.where(flipped, 1 - side, side)
            out[np.arange(len(pairs)), place] = np.column_stack([seen["length"], seen["lists"], utility])
    elif "length_1" in pairs:  # canonical already
        for side, column in enumerate(("length_1", "length_2")):
            out[:, side, 0] = pairs[column].to_numpy(np.float64) / _CHARACTERS_A_WORD
    return out
