"""A constitution as a preference model: principles that are read off annotated pairs decide what is preferred.

    P(y > y' | x) = sigma(v_p(y, y') l_p),  p the first principle that applies,  l_p = log (for_p + 1) / (against_p + 1)
    with the rule ``sum``, P = sigma(sum over principles of v_p(y, y'))

v_p is 1 where principle p selects y, -1 where it selects y', and 0 where it does not apply; for_p and against_p are its
votes on the annotated pairs. Principles are predicates of the world's features ("has more figures"), proposed by the
pairs themselves, filtered and put in order as in Inverse Constitutional AI (:mod:`farm.votes.principles`).

Paper: Findeis et al. (arXiv 2406.06560): 5 principles, 2 proposals a pair. Deviations: features take the place of the
language model that proposes and votes (with one, `farm principles --judge`); the log-odds are ours, since the paper's
annotator gives labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from farm.base.bounds import Share
from farm.base.errors import UserError, brief
from farm.policies import DESCRIPTOR, read_descriptor, write_descriptor
from farm.roles import config
from farm.roles.classes import import_class
from farm.roles.protocols import Features, Learning, Samples
from farm.tables import turns
from farm.tables.records import PairIds
from farm.votes.predicates import Predicate, differences, mined, votes
from farm.votes.principles import Mining, Rule, deciding


@dataclass(frozen=True, kw_only=True)
class Constitution(Mining):
    """Reads principles off ``pairs``; ties say nothing and are left out."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    features: Features
    error: Share = 0.0
    """the probability that a pair proposes a principle that does not explain its label"""

    def train(self, learning: Learning) -> ByPrinciples:
        pairs = learning.preferences
        if pairs is None or not len(pairs):
            raise UserError("constitution: no annotated pairs to read principles off; raise `sizes.pairs`")
        pairs = pairs[(pairs["preference"] != 1.5) & (pairs["output_1"] != pairs["output_2"])].reset_index(drop=True)
        labels = np.sign(1.5 - pairs["preference"].to_numpy(np.float64))
        found = differences(self.features, pairs)
        principles, counts = mined(
            self.features, found, labels, PairIds(pairs).pair, self, seed=learning.seed, error=self.error
        )
        if not principles:
            raise UserError(f"constitution: no principle explains these {len(pairs)} pairs; lower `least`")
        odds = np.log((counts["votes_for"] + 1) / (counts["against"] + 1)).to_numpy(np.float64)
        return ByPrinciples(self.features, tuple(principles), tuple(float(v) for v in odds), self.rule)


class _Saved(BaseModel):
    """What is kept in a folder."""

    features: dict[str, Any]
    """``class``, and its settings"""
    principles: tuple[Predicate, ...] = Field(min_length=1)
    log_odds: tuple[float, ...]
    rule: Rule

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.log_odds) != len(self.principles):
            raise ValueError(f"`log_odds` are {len(self.log_odds)} for {len(self.principles)} principles")
        return self


@dataclass(frozen=True)
class ByPrinciples:
    """The constitution, a :class:`~farm.roles.protocols.PreferenceModel` without parameters."""

    features: Features
    principles: tuple[Predicate, ...]
    log_odds: tuple[float, ...]
    rule: Rule = "first"

    def logits(self, first: Samples, second: Samples) -> Tensor:
        """Log-odds of first over second, float32 [B]; 0 where no principle applies."""
        pairs = pd.DataFrame({**turns.columns(first.prompts), "output_1": first.outputs, "output_2": second.outputs})
        selected = votes(self.principles, differences(self.features, pairs))
        if self.rule == "sum":
            return torch.from_numpy(selected.sum(axis=1)).float()
        at = deciding(selected)
        odds = selected[np.arange(len(selected)), at] * np.array(self.log_odds)[at]
        return torch.from_numpy(odds).float()

    def save(self, folder: Path) -> None:
        """Raises UserError where the features hold more than what made them."""
        kind, known = type(self.features), dict(vars(self.features))
        if not set(known) <= set(signature(kind).parameters):
            raise UserError(f"a constitution cannot be kept: a {kind.__name__} holds what is not said to make one")
        settings: dict[str, Any] = {"log_odds": self.log_odds, "rule": self.rule}
        settings["principles"] = [principle.model_dump() for principle in self.principles]
        settings["features"] = {"class": f"{kind.__module__}.{kind.__qualname__}", **known}
        write_descriptor(folder, ByPrinciples, settings)

    @classmethod
    def load(cls, folder: Path) -> ByPrinciples:
        """Raises UserError for a file that names no features, or other settings than they have."""
        origin = str(folder / DESCRIPTOR)
        said = config.validate(_Saved, read_descriptor(folder), origin)
        arguments = {key: value for key, value in said.features.items() if key != "class"}
        kind = import_class(str(said.features.get("class")), Features, origin)
        try:
            features = kind(**arguments)
        except (TypeError, ValueError) as error:
            reason = brief(str(error).strip().split("\n")[0], 120)
            raise UserError(f"{origin}: `features` are no settings of {kind.__name__} ({reason})") from error
        return cls(features, said.principles, said.log_odds, said.rule)
