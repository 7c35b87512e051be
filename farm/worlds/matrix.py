"""The smallest world: one preference matrix, or one utility, over K responses, the same for every prompt.

What is learned here has a known answer, so methods, noise models and statistics are proven in this world before they
meet text. With a utility u, preferences are Bradley-Terry, P(i > j) = sigma(u_i - u_j); a general matrix
(P + P^T = 1) need not come from any utility, and then has no gold utility either: ask :meth:`MatrixWorld.preference`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from farm.base.arrays import Floats
from farm.base.bounds import Count, Share, bounded
from farm.base.errors import UserError, brief, nearest
from farm.hardware.device import Device
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Features, Policy
from farm.tables.turns import Prompt


class TableFeatures:
    """One utility term, and others beside it, looked up by response."""

    def __init__(
        self, responses: Sequence[str], utilities: Floats | None, terms: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        self._utility = dict(
            zip(responses, (utilities if utilities is not None else np.zeros(len(responses))), strict=True)
        )
        self._known = utilities is not None
        self._terms = {name: dict(zip(responses, values, strict=True)) for name, values in (terms or {}).items()}

    @property
    def gold_weights(self) -> dict[str, float]:
        return {"utility": 1.0} if self._known else {}

    def __call__(self, instructions: Sequence[Prompt], outputs: Sequence[str]) -> pd.DataFrame:  # noqa: ARG002
        table = {
            "utility": _of_known(self._utility, outputs),
            "length": [len(output.split()) for output in outputs],
        }
        table |= {name: _of_known(values, outputs) for name, values in self._terms.items()}
        return pd.DataFrame(table).assign(lists=0)


class MatrixWorld:
    """K responses to each of S prompts.

    Args:
        utilities: the gold utility of each response, in logits, or
        preferences: the K x K matrix of P(row is preferred to column), rows adding to 1 with their mirror images.
        reference: the base policy's probabilities; uniform if omitted.
        responses: their texts; "response 1" ... if omitted.
        prompts: how many prompts there are, all alike. Few have few pairs, and a pair has one label in a run however
            often it is drawn.
        terms: further features of the responses by name, K numbers each, which are no part of the utility: what groups
            of people value, say.
        shared: whether all prompts are one row of the policy. A verdict on two texts is one verdict however often they
            are drawn, so labels that differ need many prompts, and what is learned of all of them one row.

    Raises:
        ValueError: naming the cell of the matrix that is not a preference.
    """

    device: ClassVar[Device] = "cpu"
    """where a table is faster than on any accelerator, and so are the scorers and policies that are learned from it"""
    features: Features
    truth_known: bool

    @bounded
    def __init__(
        self,
        utilities: list[float] | None = None,
        preferences: list[list[float]] | None = None,
        reference: list[Share] | None = None,
        responses: list[str] | None = None,
        prompts: Count = 1,
        terms: dict[str, list[float]] | None = None,
        shared: bool = False,
    ) -> None:
        if (utilities is None) == (preferences is None):
            raise ValueError("give either `utilities` or `preferences`")
        if utilities is not None:
            gold = np.asarray(utilities, dtype=np.float64)
            self.matrix = 1 / (1 + np.exp(gold[None, :] - gold[:, None]))
        else:
            gold, self.matrix = None, checked(np.asarray(preferences, dtype=np.float64))
        size = len(self.matrix)
        self.responses = responses or [f"response {i + 1}" for i in range(size)]
        self.reference = np.full(size, 1 / size) if reference is None else np.asarray(reference, dtype=np.float64)
        given: dict[str, Any] = {"responses": self.responses, "reference": self.reference, **(terms or {})}
        if taken := {"utility", "length", "lists"} & set(terms or {}):
            raise ValueError(f"`terms`: the name `{min(taken)}` is taken")
        for name, values in given.items():
            if len(values) != size:
                raise ValueError(f"`{name}` has {len(values)} entries for {size} responses")
        self.shared = shared
        self.prompts = [f"any: prompt {i + 1}" if shared else f"prompt {i + 1}" for i in range(prompts)]
        self.truth_known = gold is not None
        self.features = TableFeatures(self.responses, gold, terms)
        self._place = {response: i for i, response in enumerate(self.responses)}

    def instructions(self, split: str, limit: int | None = None) -> pd.DataFrame:
        """All prompts, in every split: there is nothing to generalise to in a table."""
        return pd.DataFrame({"instruction": self.prompts, "split": split, "dataset": "matrix"})[:limit]

    def demonstrations(self, limit: int | None = None) -> pd.DataFrame | None:  # noqa: ARG002
        """None: the reference is given."""
        return None

    def base_policy(self) -> Policy:
        if self.shared:
            return TabularPolicy(["any"], self.responses, np.log(self.reference)[None], state="topic")
        return TabularPolicy.from_probabilities(self.prompts, self.responses, self.reference)

    def preference(self, first: Sequence[str], second: Sequence[str]) -> Floats:
        """P(first is preferred to second), [n]. Raises UserError for a text that is no response of this world."""
        return self.matrix[_of_known(self._place, first), _of_known(self._place, second)]


def _of_known(found: Mapping[str, Any], responses: Sequence[str]) -> list[Any]:
    """What is known of each response. Raises UserError for a text that is none."""
    if (wrong := next((text for text in responses if text not in found), None)) is not None:
        raise UserError(f"matrix: {brief(wrong, 60)!r} is no response of this world; {nearest(wrong, found)}")
    return [found[text] for text in responses]


def checked(matrix: Floats) -> Floats:
    """A preference matrix, or a ValueError naming the first cell (counted from 1) that is wrong."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"`preferences` must be a square matrix, not of shape {matrix.shape}")
    with np.errstate(invalid="ignore"):
        outside = ~((matrix >= 0) & (matrix <= 1))
        unpaired = np.abs(matrix + matrix.T - 1) > 1e-9
    for wrong, complaint in ((outside, "is not a probability"), (unpaired, "and its mirror image do not add to 1")):
        if wrong.any():
            i, j = (int(k) for k in np.argwhere(wrong)[0])
            raise ValueError(f"`preferences` row {i + 1}, column {j + 1}: {matrix[i, j]} {complaint}")
    return matrix
