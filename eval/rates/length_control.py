"""Length-controlled win rates (Dubois et al. 2024, arXiv 2404.04475): what the judge would say at equal lengths.

One logistic model for each method against the baseline:

    logit P(the method wins on x) = phi * tanh(d_x / sd(d)) + psi * gamma_x + theta,   d_x = len(baseline) - len(method)

with lengths in characters, sd over the method's rows (ddof 1), and gamma_x the difficulty of the instruction, fitted
elsewhere over many models. The length-controlled win rate sets the length term to zero:

    LC = mean_x sigmoid(theta + psi * gamma_x)

The published fit adds the rows of the baseline itself, prompted to be verbose and to be concise, with theta's feature 0
and weight 0.2 / 2 each (the *regulariser*), which ties phi to the length effect of the judge. Two recipes fit it:

``newton`` (default)
    Maximum likelihood of the same rows, with a ridge of 1e-4 so that a method that never wins has a finite answer.
    Instructions are matched to their difficulties by identity.
``published``
    L1-penalised, the strength chosen by five folds (:func:`eval.rates.logistic.cross_validated_lasso`). Differs from
    the original's own numbers only where the choice of the strength falls differently.

``alignment="position"`` pairs the k-th row of a method with the k-th difficulty, which is what the original does; it
shifts every row after a missing one and is offered only to reproduce its numbers.

Where a method lacks rows, the mean runs over the instructions that were judged, or, with ``over``, over all that have a
difficulty (``--lc-over all``): gpt35_turbo_instruct, one row short, is 17.73 by position as published; aligned, the
published recipe gives 14.96 over the judged and 15.03 over all 805, and maximum likelihood 14.90 and 14.97.

Deviations: the interval. The original's ``lc_standard_error`` is the spread of the fitted values over instructions and
ignores that phi, psi and theta are estimated; it is given under its name. ``low`` and ``high`` come from the influence
function of LC, which has both parts, with the regulariser rows held fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from eval.rates.logistic import cross_validated_lasso, lasso, newton
from farm.base.arrays import Floats
from farm.base.errors import UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import limits

Recipe = Literal["newton", "published"]
Alignment = Literal["instruction", "position"]

RIDGE = 1e-4
REGULARISER_WEIGHT = 0.2 / 2
FEWEST_ROWS = 20
"""without regulariser rows: fewer may be separated by length into wins and losses, and a fit then says anything"""
_TYPICAL = np.array([-1.5, 0.6, -0.8])


@dataclass(frozen=True)
class LengthControlled(Result):
    """The length-controlled win rate of one method; fractions in [0, 1]."""

    method: str
    win_rate: float
    standard_error: float
    """of the influence function: parameters and instructions"""
    low: float
    high: float
    published_standard_error: float
    """the original's ``lc_standard_error``: sd of the fitted values / sqrt(n)"""
    length: float
    difficulty: float
    intercept: float
    strength: float
    """the L1 strength C of the published recipe; infinite for maximum likelihood"""
    n: int
    recipe: str
    alignment: str
    regulariser_rows: int
    note: str = ""
    influence: Floats | None = None
    """[n] influence of each row on ``win_rate``: the sum of squares is the variance"""

    def table(self) -> pd.DataFrame:
        return super().table().drop(columns=["influence"], errors="ignore")


@dataclass(frozen=True)
class Regulariser:
    """The rows of the gamed baseline: features [2, R] (tanh of the scaled length, difficulty), labels [R]."""

    features: Floats
    labels: Floats

    @classmethod
    def from_frame(cls, table: pd.DataFrame, origin: str = "the regulariser") -> Regulariser:
        """From the official layout (``std_delta_len, instruction_difficulty, preference`` in [0, 1])."""
        if "preference" in table:
            table = table[table["preference"].notna()]  # a failed verdict: the original leaves it out, too
        values: dict[str, Floats] = {}
        for column in ("std_delta_len", "instruction_difficulty", "preference"):
            if column not in table:
                raise UserError(f"{origin}: the column `{column}` is missing")
            numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            bad = ~np.isfinite(numbers)
            if column == "preference":
                bad |= (numbers < 0) | (numbers > 1)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise UserError(f"{origin}: row {row + 1}: `{column}` = {table[column].iloc[row]} is not usable")
            values[column] = numbers
        features = np.stack([np.tanh(values["std_delta_len"]), values["instruction_difficulty"]])
        return cls(features, values["preference"])


def length_feature(baseline_lengths: ArrayLike, method_lengths: ArrayLike) -> Floats:
    """tanh of the scaled length difference, [n]; zeros where all differences are equal (then nothing can be learnt)."""
    d = np.asarray(baseline_lengths, dtype=np.float64) - np.asarray(method_lengths, dtype=np.float64)
    spread = d.std(ddof=1) if d.size > 1 else 0.0
    return np.tanh(d / spread) if spread > 0 else np.zeros_like(d)


def length_controlled(
    score: ArrayLike,
    baseline_lengths: ArrayLike,
    method_lengths: ArrayLike,
    difficulty: ArrayLike | None,
    regulariser: Regulariser | None = None,
    *,
    recipe: Recipe = "newton",
    alignment: str = "instruction",
    strength: float | None = None,
    over: ArrayLike | None = None,
    items: ArrayLike | None = None,
    method: str = "",
    confidence: float = 0.95,
) -> LengthControlled:
    """The length-controlled win rate of one method.

    Args:
        score: [n] in [0, 1], NaN where missing (such a row still counts as an instruction to predict for).
        baseline_lengths, method_lengths: [n] characters.
        difficulty: [n] gamma of each row's instruction; None fits without (then the regulariser is not used either).
        strength: a given L1 strength instead of the cross-validated one (recipe "published" only).
        over: difficulties of the instructions to average over; those of the rows by default. The interval does not
            count the spread of instructions that have no row.
        items: [n] the instruction of each row, of which several votes are one length; every row its own if None.

    Returns:
        Missing numbers, and a note, where there are fewer than FEWEST_ROWS instructions and no regulariser.
    """
    y = np.asarray(score, dtype=np.float64)
    n = y.size
    tanh = length_feature(baseline_lengths, method_lengths)
    note = "" if np.any(tanh) else "lengths differ by a constant: no length effect can be fitted"
    ones = np.ones(n)
    if difficulty is None:
        regulariser = None
        own = np.stack([tanh, ones])
    else:
        own = np.stack([tanh, np.asarray(difficulty, dtype=np.float64), ones])
    seen = ~np.isnan(y)
    if not seen.any():
        raise UserError(f"{method}: no row has a preference, so nothing can be fitted")
    n_items = int(seen.sum()) if items is None else len(np.unique(np.asarray(items)[seen]))
    if (difficulty is None or regulariser is None) and n_items < FEWEST_ROWS:
        few = f"too few instructions for length control ({n_items}; it takes {FEWEST_ROWS})"
        return too_few(method, n, few, recipe, alignment)
    columns, labels, weights = _beside(regulariser, own[:, seen], y[seen])
    w, chosen, hessian = _fit(columns, labels, weights, recipe, strength)
    free = w.copy()
    free[0] = 0
    predicted = expit(free @ own)
    value = float(predicted.mean())
    if over is not None and difficulty is not None:
        value = float(expit(free[1] * np.asarray(over, dtype=np.float64) + free[2]).mean())
    influence = _influence(w, own, y, predicted, columns, weights, hessian)
    error = float(np.sqrt(np.square(influence).sum() * n / max(n - 1, 1)))
    low, high = (float(v) for v in limits(value, error, n, confidence=confidence))
    return LengthControlled(
        method=method,
        win_rate=value,
        standard_error=error,
        low=low,
        high=high,
        published_standard_error=float(predicted.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"),
        length=float(w[0]),
        difficulty=float(w[1]) if difficulty is not None else float("nan"),
        intercept=float(w[-1]),
        strength=chosen,
        n=n,
        recipe=recipe,
        alignment=alignment,
        regulariser_rows=0 if regulariser is None else regulariser.labels.size,
        note=note,
        influence=influence,
    )


def _beside(regulariser: Regulariser | None, columns: Floats, labels: Floats) -> tuple[Floats, Floats, Floats | None]:
    """The features [K, R + n] and labels [R + n] that are fitted, the regulariser's R first, and their weights."""
    if regulariser is None:
        return columns, labels, None
    rows = regulariser.labels.size
    gamed = np.vstack([regulariser.features, np.zeros(rows)])  # theta is the method's own
    weights = np.concatenate([np.full(rows, REGULARISER_WEIGHT), np.ones(labels.size)])
    return np.concatenate([gamed, columns], axis=1), np.concatenate([regulariser.labels, labels]), weights


def _fit(
    columns: Floats, labels: Floats, weights: Floats | None, recipe: Recipe, strength: float | None
) -> tuple[Floats, float, Floats | None]:
    """The coefficients [K] of features [K, n], the L1 strength (infinite for Newton), and Newton's Hessian [K, K]."""
    if recipe == "newton":
        start = _TYPICAL if len(columns) == len(_TYPICAL) else _TYPICAL[[0, 2]]
        found = newton(columns, labels, weights, ridge=RIDGE, start=start)
        return found.coefficients, float("inf"), found.hessian
    if strength is not None:
        return lasso(columns, labels, strength, weights), strength, None
    chosen = cross_validated_lasso(columns, labels, weights)
    return chosen.coefficients, chosen.strength, None


def _influence(
    w: Floats,
    own: Floats,
    y: Floats,
    predicted: Floats,
    columns: Floats,
    weights: Floats | None,
    hessian: Floats | None,
) -> Floats:
    """Influence of each row on the mean prediction: its own prediction, and its pull on the coefficients."""
    n = y.size
    slope = predicted * (1 - predicted) / n
    gradient = own @ slope
    gradient[0] = 0
    if hessian is None:
        p = expit(w @ columns)
        s = p * (1 - p) if weights is None else weights * p * (1 - p)
        hessian = (columns * s) @ columns.T + RIDGE * np.eye(len(w))
    residual = np.where(np.isnan(y), 0.0, y - expit(w @ own))
    pull = np.linalg.solve(hessian, gradient) @ own
    return np.asarray((predicted - predicted.mean()) / n + pull * residual)


def too_few(method: str, n: int, note: str, recipe: str, alignment: str) -> LengthControlled:
    """A method of whose rate at equal lengths nothing can be said."""
    nan = float("nan")
    nothing = np.full(n, nan)
    return LengthControlled(
        method, nan, nan, nan, nan, nan, nan, nan, nan, nan, n, recipe, alignment, 0, note, nothing
    )  # fmt: skip


def identity(method: str, n: int, alignment: str, recipe: str) -> LengthControlled:
    """The baseline against itself: one half by definition, every coefficient 0."""
    return LengthControlled(
        method, 0.5, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, float("inf"), n, recipe, alignment, 0, "the baseline",
        np.zeros(n),
    )  # fmt: skip
