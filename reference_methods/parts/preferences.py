"""Annotated pairs as a method needs them: two samples with their tokens, and how far the first is preferred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base import rng
from farm.base.errors import UserError, nearest
from farm.base.rng import Ids
from farm.policies.batches import onto
from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.records import PairIds
from farm.tables.turns import in_context, prompts_of
from reference_methods.parts.batches import Lengths, Rows, TrainingRows, total_lengths
from reference_methods.parts.conditioning import with_prompts


@dataclass(frozen=True)
class Preferences:
    """n annotated pairs."""

    first: Samples
    second: Samples
    p_first: NDArray[np.float32]
    """the label, 2 - preference: 1 or 0 for a verdict, 1/2 for a tie, in between for a soft one, [n]"""
    ids: Ids
    """by the texts of a pair, whatever its order or its place in the table, [n]"""
    weight: NDArray[np.float32] | None = None
    """what a pair counts in the loss of a reward model, [n] (column ``label_weight``); None where all count alike"""
    lead: NDArray[np.float32] | None = None
    """how far the first is expected to lead; its score must lead by so much more, [n] (column ``label_margin``)"""

    @classmethod
    def read(cls, learning: Learning, context: str | None = None) -> Preferences:
        """The pairs of ``learning.feedback``; texts without tokens are encoded by the policy.

        Args:
            context: a column of the pairs whose text is put before the prompt (:func:`farm.tables.turns.in_context`).

        Raises:
            UserError: there are no pairs, or one has no preference or context, or a weight or margin that is no number.
        """
        table = learning.feedback.get("pairs")
        if table is None or not len(table):
            raise UserError("preferences: no annotated pairs to train on; raise `sizes.pairs`")
        preference = pd.to_numeric(table["preference"]).to_numpy(dtype=np.float64)
        wrong = np.flatnonzero(~((preference >= 1) & (preference <= 2)))
        if len(wrong):
            raise UserError(
                f"preferences: row {wrong[0]} has preference {preference[wrong[0]]}, not a number from 1 to 2; "
                "keep only rows whose status is ok"
            )
        ids = PairIds(table)
        sides = [samples_of(table, learning.policy, side) for side in ("_1", "_2")]
        if context is not None:
            asked = list(map(in_context, _texts(table, context), prompts_of(table)))
            sides = [with_prompts(learning.policy, side, asked) for side in sides]
        return cls(
            first=sides[0],
            second=sides[1],
            p_first=(2 - preference).astype(np.float32),
            ids=ids.pair,
            weight=_optional(table, "label_weight", least=0.0),
            lead=_optional(table, "label_margin"),
        )

    def __len__(self) -> int:
        return len(self.p_first)

    def select(self, rows: Rows) -> Preferences:
        optional = (None if given is None else given[rows] for given in (self.weight, self.lead))
        return Preferences(
            self.first.select(rows), self.second.select(rows), self.p_first[rows], self.ids[rows], *optional
        )

    def both(self, rows: Rows) -> Samples:
        """The first responses of these pairs, then their second ones: 2 b samples for one forward pass."""
        return Samples.concatenate([self.first.select(rows), self.second.select(rows)])

    def lengths(self) -> Lengths:
        """The tokens a pair costs: both responses with their prompts, padded to the longer, [n]."""
        return 2 * np.maximum(total_lengths(self.first), total_lengths(self.second))

    def training_rows(self) -> TrainingRows:
        """What the pairs cost to learn from."""
        return TrainingRows(self.ids, self.lengths(), self.first.lengths() + self.second.lengths())

    def labels(self, rows: Rows, like: Tensor) -> Tensor:
        return onto(self.p_first[rows], like.device).to(like.dtype)

    def hold_out(self, share: float, seed: int, purpose: str) -> tuple[Preferences, Preferences]:
        """(the others, a keyed share of about ``share``); all annotations of a pair of texts fall on one side."""
        held = rng.uniform(seed, purpose, self.ids) < share
        return self.select(np.flatnonzero(~held)), self.select(np.flatnonzero(held))


def _optional(table: pd.DataFrame, column: str, least: float = -np.inf) -> NDArray[np.float32] | None:
    """A column of numbers that a table of pairs may have."""
    if column not in table.columns:
        return None
    found = pd.to_numeric(table[column]).to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= least)))
    if len(wrong):
        bound = " from 0 on" if least == 0 else ""
        raise UserError(f"preferences: row {wrong[0]} has {column} {found[wrong[0]]}, which is no number{bound}")
    return found.astype(np.float32)


def agreement(margin: Tensor, p_first: Tensor) -> Tensor:
    """1 where the sign of the margin agrees with the label, 1/2 where either is undecided, [B], without gradient."""
    sign = torch.sign(margin.detach()) * torch.sign(p_first - 0.5)
    return 0.5 + 0.5 * sign


def samples_of(table: pd.DataFrame, policy: Policy, suffix: str = "") -> Samples:
    """The responses of an output table, or of a side of a pair table; texts without tokens the policy encodes."""
    columns = {"prompt_tokens", *(c + suffix for c in ("response_tokens", "log_probabilities", "finish_reason"))}
    if columns <= set(table.columns):
        return Samples.from_frame(table, suffix)
    return policy.encode(prompts_of(table), table["output" + suffix].tolist())


def _texts(table: pd.DataFrame, column: str) -> list[str]:
    if column not in table.columns:
        raise UserError(f"preferences: the pairs have no column `{column}`; {nearest(column, table.columns)}")
    if table[column].isna().any():
        raise UserError(f"preferences: row {int(table[column].isna().to_numpy().argmax())} has no `{column}`")
    return [str(text) for text in table[column]]
