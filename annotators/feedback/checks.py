"""Checks: whether an output is right, by a known answer or by what can be computed of it.

With a column ``answer`` (the name is a setting) an output is right where it

    equals       is the answer
    contains     has the answer in it, as whole words
    number       ends with the same number

without regard to case and spaces. With ``feature`` it is right where that feature is at least ``at_least``. A checker
who errs calls what is wrong right with probability ``passes_wrong``, and what is right wrong with ``fails_right``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotators.feedback.answers import said_by
from annotators.feedback.utility import look
from farm.base import bounds, rng
from farm.base.bounds import Share
from farm.base.errors import UserError, nearest
from farm.feedback.units import of_singles
from farm.roles.protocols import Features

Way = Literal["equals", "contains", "number"]
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class AnswerChecker:
    """Compares with a known answer; a row without one has no check (status "unobserved")."""

    free: ClassVar[bool] = True
    features: Features
    name: str = "checker"
    answer: str = "answer"
    """the column of the known answers"""
    way: Way = "contains"
    feature: str | None = None
    """a feature that decides instead"""
    at_least: float = 0.5
    passes_wrong: Share = 0.0
    fails_right: Share = 0.0

    def __post_init__(self) -> None:
        bounds.check(self)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that a check depends on."""
        return (self.answer,)

    def check(self, outputs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        known, right = self._by_feature(outputs) if self.feature else self._by_answer(outputs)
        uniform = rng.uniform(seed, f"checks: {self.name}", of_singles(outputs), replicate)
        wrongly = uniform < np.where(right, self.fails_right, self.passes_wrong)
        said = (right ^ wrongly).astype(object)
        said[~known] = None
        return said_by(
            self.name, outputs, seed, replicate, right=said, flipped=wrongly & known,
            status=np.where(known, "ok", "unobserved"),
        )  # fmt: skip

    def _by_feature(self, outputs: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        value = look(self.features, outputs).utility({str(self.feature): 1.0})
        return np.ones(len(outputs), dtype=bool), value >= self.at_least

    def _by_answer(self, outputs: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if self.answer not in outputs.columns:
            known = nearest(self.answer, outputs.columns)
            raise UserError(f"{self.name}: the rows have no column `{self.answer}` to check by; {known}")
        answers = outputs[self.answer].tolist()
        there = np.array([a is not None and a == a and str(a).strip() != "" for a in answers], dtype=bool)
        both = zip(outputs["output"], answers, there, strict=True)
        return there, np.array([bool(t) and _agree(text, a, self.way) for text, a, t in both], dtype=bool)


def _agree(text: str, answer: Any, way: Way) -> bool:
    said, wanted = _plain(text), _plain(str(answer))
    if way == "equals":
        return said == wanted
    if way == "contains":
        return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", said) is not None
    given, right = _NUMBER.findall(said), _NUMBER.findall(wanted)
    return bool(given and right) and float(given[-1].replace(",", "")) == float(right[-1].replace(",", ""))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
