"""A judge's bias as a causal effect: edit the text, and see what becomes of the verdict.

    effect of an edit e      mean of  J(e(y)) - J(y)                                     over texts y that e changes
    less what is merited     mean of [J(e(y)) - J(y)] - [G(e(y)) - G(y)]                 G one who is taken as unbiased
    by regression            slope of J(y) on how much of it y has                       texts as they come

Texts that have more of something differ in much else, so a regression of the verdict on it mixes the bias with whatever
goes along with it. An edit changes that one thing: it is an intervention, do(list), where the regression conditions on
what is there. An edit may change quality, too; where there is somebody who knows quality, that is subtracted.

J is the chance of a text to be preferred to its baseline's answer: the judge's own probability where it gives one, else
its verdict. Survey: Liu, Chaudhary and Wang, "Towards trustworthy and aligned machine learning" (arXiv 2307.16851). It
has no experiment: the estimator and the comparison are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from eval.judges.edits import EDITS, ORDER
from farm.base.arrays import Floats
from farm.base.errors import OptionError, nearest
from farm.statistics.result import Result
from farm.statistics.uncertainty import DIFFERENCE, Estimate, mean
from farm.tables.records import swapped

Judge = Callable[[pd.DataFrame, bool], pd.DataFrame]
"""pairs, and whether they are shown as they stand -> their verdicts, in their order"""


@dataclass(frozen=True)
class Bias(Result):
    """What edits do to a judge's verdicts, as differences of the chance to win (a share)."""

    judge: str
    against: str
    """whose own change is subtracted; "" for nobody's"""
    texts: int
    effects: pd.DataFrame
    """edit, effect, low, high, n (texts that it changes), before, after, unanswered, about"""
    confidence: float = 0.95

    def table(self) -> pd.DataFrame:
        """One row an edit."""
        return self.effects

    def settings(self) -> dict[str, Any]:
        less = f"what the edit changes for {self.against} is subtracted" if self.against else "nothing is subtracted"
        said = {"judge": self.judge, "texts": self.texts, "effect": f"chance to win after less before; {less}"}
        return {**said, "clusters": "instruction", "confidence": self.confidence}


def effect(before: ArrayLike, after: ArrayLike, *clusters: ArrayLike, **settings: Any) -> Estimate:
    """The mean change of n texts, clustered; settings are those of :func:`farm.statistics.uncertainty.mean`."""
    return mean(np.asarray(after, np.float64) - np.asarray(before, np.float64), *clusters, **settings)


def slope(score: Floats, amount: Floats) -> float:
    """The slope of the regression of n scores on an amount."""
    centred = amount - amount.mean()
    return float(centred @ score / (centred @ centred))


def chance(verdicts: pd.DataFrame) -> Floats:
    """The chance that the second output of each row is preferred, [n]; NaN where there is no verdict."""
    label = pd.to_numeric(verdicts["preference"]).to_numpy(np.float64, na_value=np.nan) - 1
    if "p_first" not in verdicts:
        return label
    known = 1 - pd.to_numeric(verdicts["p_first"]).to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isnan(known) | np.isnan(label), label, known)


def check(names: Sequence[str], of_two: bool) -> list[str]:
    """The edits that are asked for, all where none is; the order only ``of_two`` texts that differ.

    Raises:
        OptionError: for one that there is not.
    """
    known = [*EDITS, *([ORDER] if of_two else [])]
    for name in names:
        if name == ORDER and not of_two:
            raise OptionError("the edit `order` exchanges two outputs: give those of a `baseline`")
        if name not in known:
            raise OptionError(f"there is no edit `{name}`; {nearest(name, known)}")
    return list(dict.fromkeys(names)) or known


def biases(
    pairs: pd.DataFrame,
    names: Sequence[str],
    judge: tuple[str, Judge],
    reference: tuple[str, Judge] | None = None,
    *,
    confidence: float = 0.95,
) -> Bias:
    """The effects of edits of ``output_2`` on the chance that it is preferred to ``output_1``.

    Args:
        judge, reference: by name; the reference is one who is taken as unbiased.
    """
    changes = [_change(pairs, name) for name in names if name != ORDER]
    of_judge = _chances(pairs, changes, ORDER in names, judge[1])
    of_reference = _chances(pairs, changes, False, reference[1]) if reference else {}
    rows = []
    for name in names:
        before, after, prompts = of_judge[name]
        merited = np.zeros(len(after))
        if name in of_reference:  # not the order: neither is better
            merited = of_reference[name][1] - of_reference[name][0]
        known = ~np.isnan(before + after + merited)
        found = effect(
            before[known], (after - merited)[known], prompts[known], confidence=confidence,
            bounds=(-2.0, 2.0) if name in of_reference else DIFFERENCE,
        )  # fmt: skip
        shares = {"before": _mean(before[known]), "after": _mean(after[known]), "unanswered": int((~known).sum())}
        about = "shown second in place of first" if name == ORDER else EDITS[name].about
        numbers = {"effect": found.value, "low": found.low, "high": found.high, "n": found.n}
        rows.append({"edit": name, **numbers, **shares, "about": about})
    return Bias(judge[0], reference[0] if reference else "", len(pairs), pd.DataFrame(rows), confidence)


def _change(pairs: pd.DataFrame, name: str) -> tuple[str, NDArray[np.int64], pd.DataFrame]:
    """The edit, the rows that it changes, and these rows changed."""
    edited = pd.Series([EDITS[name].of(text) for text in pairs["output_2"]], index=pairs.index, dtype=object)
    rows = np.flatnonzero((edited != pairs["output_2"]).to_numpy(bool)).astype(np.int64)
    return name, rows, pairs.assign(output_2=edited).iloc[rows]


def _chances(
    pairs: pd.DataFrame, changes: Sequence[tuple[str, NDArray[np.int64], pd.DataFrame]], in_order: bool, ask: Judge
) -> dict[str, tuple[Floats, Floats, NDArray[np.object_]]]:
    """Edit -> the chances of the outputs that it changes, before and after, and their instructions; each asked once."""
    out: dict[str, tuple[Floats, Floats, NDArray[np.object_]]] = {}
    prompts, n = pairs["instruction"].to_numpy(object), len(pairs)
    if changes:
        found = chance(ask(pd.concat([pairs, *(table for _, _, table in changes)], ignore_index=True), False))
        start = n
        for name, rows, _ in changes:
            out[name] = found[rows], found[start : start + len(rows)], prompts[rows]
            start += len(rows)
    if in_order:
        first = swapped(pairs, np.ones(n, dtype=bool))  # the output stands first, the baseline's second
        found = chance(ask(pd.concat([first, pairs], ignore_index=True), True))
        out[ORDER] = 1 - found[:n], found[n:], prompts
    return out


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
