"""The length-controlled column of a leaderboard: how to control, one fit a method, and its resampled values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.published.show import working
from eval.published.sources import Rows
from eval.ranks import ranking
from eval.rates.difficulty import Difficulty
from eval.rates.length_control import (
    Alignment,
    LengthControlled,
    Recipe,
    Regulariser,
    identity,
    length_controlled,
    too_few,
)
from eval.rates.saved_weights import from_weights
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import OptionError, UserError

LARGE = 20_000
"""clusters above which ranks are drawn from the normal approximation (same covariance) instead of resampled"""


@dataclass(frozen=True)
class LengthControl:
    """How to control for length: files, recipe and alignment."""

    difficulty: Difficulty | None = None
    regulariser: Regulariser | None = None
    weights: pd.DataFrame | None = None
    """saved coefficients to predict from instead of a fit"""
    recipe: Recipe = "newton"
    alignment: Alignment = "instruction"
    over: Literal["judged", "all"] = "judged"
    """the instructions to average over: those with a row, or all that have a difficulty"""
    strengths: dict[str, float] | None = None
    """a given L1 strength by method (recipe "published")"""

    @property
    def column(self) -> str:
        """The name of what is estimated: without difficulties it is another quantity than the published one."""
        return "equal_length_winrate" if self.difficulty is None else "length_controlled_winrate"

    def words(self) -> str:
        if self.weights is not None:
            return "predicted from saved weights"
        if self.difficulty is None:
            return "length only, no difficulties" + (", published recipe" if self.recipe == "published" else "")
        fit = "L1 path with 5 folds" if self.recipe == "published" else "maximum likelihood, ridge 1e-4"
        extra = "with" if self.regulariser is not None else "without"
        over = f", averaged over all {len(self.difficulty.values)} difficulties" if self.over == "all" else ""
        return f"{fit}, difficulties by {self.alignment}, {extra} regulariser rows{over}"


def fit_all(
    rows: Rows,
    names: list[str],
    group: NDArray[np.int64],
    score: Floats,
    baseline: str,
    control: LengthControl,
    confidence: float,
) -> list[LengthControlled]:
    """The fit of each method, in the order of ``names``.

    Args:
        group: which of the names each row is of, [n].
        score: the share of the win that the method takes, NaN without a verdict, [n].

    Raises:
        UserError: naming file and row, for an instruction without a difficulty or a row without lengths.
    """
    table = rows.table
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(names) + 1))
    first, second = table["length_1"].to_numpy(), table["length_2"].to_numpy()
    gamma = None
    if control.difficulty is not None and control.alignment == "instruction":
        gamma = control.difficulty.of(table["key"].to_numpy(), table["instruction_id"].to_numpy())
        lacking = np.isnan(gamma)
        if lacking.any():
            at = int(np.flatnonzero(lacking)[0])
            raise UserError(
                f"{rows.where(at)}: {int(lacking.sum())} of {len(gamma)} instructions have no difficulty in "
                f"{control.difficulty.origin}; give the difficulties of this instruction set, or none"
            )
    fits = []
    with working("length-controlled fits", len(names), worth=20 if control.recipe == "published" else 1000) as task:
        for m, name in enumerate(names):
            where = order[bounds[m] : bounds[m + 1]]
            task.advance()
            if name == baseline:
                fits.append(identity(name, len(where), control.alignment, control.recipe))
                continue
            bad = np.isnan(first[where]) | np.isnan(second[where])
            if control.weights is not None:
                fits.append(_predicted(control, name, len(where)))
                continue
            if bad.any():
                at = int(where[np.flatnonzero(bad)[0]])
                raise UserError(f"{rows.where(at)}: a length-controlled win rate needs the lengths of both outputs")
            if control.difficulty is None:
                own = None
            elif gamma is not None:
                own = gamma[where]
            else:
                own = control.difficulty.by_position(len(where))
            strength = (control.strengths or {}).get(name)
            fits.append(
                length_controlled(
                    score[where],
                    first[where],
                    second[where],
                    own,
                    control.regulariser,
                    recipe=control.recipe,
                    alignment=control.alignment,
                    strength=strength,
                    over=control.difficulty.values if control.difficulty and control.over == "all" else None,
                    items=table["key"].to_numpy()[where],
                    method=name,
                    confidence=confidence,
                )
            )
    return fits


def _predicted(control: LengthControl, name: str, n: int) -> LengthControlled:
    """From saved weights: over all difficulties of the file, as the original's own predictions."""
    if control.difficulty is None:
        raise OptionError("saved weights need `difficulty` to predict from")
    assert control.weights is not None
    nan = float("nan")
    if name not in control.weights.index:
        return too_few(name, n, "no saved weights", "weights", "")
    value = from_weights(control.weights, control.difficulty.values, name)
    w = control.weights.loc[name]
    return LengthControlled(
        name, value, nan, nan, nan, nan, w["length"], w["difficulty"], w["intercept"], nan, n, "weights", "", 0, "",
        np.zeros(n),
    )  # fmt: skip


def length_columns(fits: list[LengthControlled], column: str) -> dict[str, Any]:
    """The rates under the name ``column``, and what belongs to them under its short name."""
    short = "lc" if column == "length_controlled_winrate" else "equal_length"
    return {
        column: [100 * f.win_rate for f in fits],
        f"{short}_standard_error": [100 * f.published_standard_error for f in fits],
        f"{short}_low": [100 * f.low if f.note != "the baseline" else np.nan for f in fits],
        f"{short}_high": [100 * f.high if f.note != "the baseline" else np.nan for f in fits],
        f"{short}_coefficient" if short == "equal_length" else "lc_length_coefficient": [f.length for f in fits],
    }


def resample_influence(
    rows: Rows, group: NDArray[np.int64], fits: list[LengthControlled], values: Floats, rounds: int, seed: int
) -> Floats:
    """Length-controlled win rates [B, M] resampled over instructions, to first order."""
    key = rows.table["key"].to_numpy()
    _, code = np.unique(key, return_inverse=True)
    clusters = int(code.max()) + 1
    order = np.argsort(group, kind="stable")
    influence = np.zeros((clusters, len(fits)))
    pieces = np.concatenate([f.influence for f in fits if f.influence is not None])
    np.add.at(influence, (code[order], group[order]), pieces)  # of an instruction several people may have voted on
    if clusters > LARGE:
        covariance = influence.T @ influence
        w, v = np.linalg.eigh(np.nan_to_num(covariance))
        z = rng.generator(seed, "normal ranks", clusters).standard_normal((rounds, len(w)))
        return np.asarray(values + (z * np.sqrt(np.maximum(w, 0))) @ v.T)
    return np.asarray(values + (ranking.cluster_weights(clusters, rounds, seed) - 1) @ influence)
