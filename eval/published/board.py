"""A leaderboard from published annotations: AlpacaEval's columns exactly, then intervals, ranks and what is missing.

Columns in percent under AlpacaEval's names: win_rate, standard_error, n_wins, n_wins_base, n_draws, n_total,
discrete_win_rate, avg_length, and with difficulties length_controlled_winrate, lc_standard_error (without them the
rate is equal_length_winrate, another quantity). Ours: rank (by the first metric asked for
last, see ``sort_by``), rank_low and rank_high, tier (of methods that cannot be told apart), win_rate_low and _high,
lc_low and lc_high, n_missing and missing_why.

Rank intervals resample instructions for all methods together, so that what two methods share (the instruction, the
baseline's answer) does not blur their order. For the length-controlled board the resampling acts on the influence of
each instruction, which is the bootstrap to first order and needs no refit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.published.sources import Rows
from eval.ranks import ranking
from eval.rates.length_column import LARGE, LengthControl, fit_all, length_columns, resample_influence
from eval.rates.multiple import apart
from eval.rates.winrate import discrete
from farm.base import rng
from farm.base.arrays import Floats
from farm.base.errors import OptionError, UserError, nearest
from farm.statistics.result import Result
from farm.statistics.uncertainty import JointMeans, joint_means

METRICS = ("win_rate", "length_controlled")


@dataclass(frozen=True)
class Board(Result):
    """A leaderboard with its settings."""

    rows: pd.DataFrame
    baseline: str
    annotators: tuple[str, ...]
    sort_by: str
    instructions: int
    confidence: float
    rounds: int
    seed: int
    ties: str = "half a win"
    length_control: str = "none"
    """how the length-controlled column was made, in words"""
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        return self.rows

    def printed(self) -> pd.DataFrame:
        """What the board is sorted by stands behind the method."""
        shorter = {"length_controlled_winrate": "lc", "equal_length_winrate": "equal_length"}
        bounds = [f"{shorter.get(self.sort_by, self.sort_by)}{end}" for end in ("_low", "_high")]
        first = ["rank", "rank_low", "rank_high", "method", self.sort_by, *bounds]
        first += ["win_rate", "win_rate_low", "win_rate_high", "tier", "standard_error", "n_total", "n_missing"]
        order = [c for c in dict.fromkeys([*first, *self.rows.columns]) if c in self.rows]
        return self.rows[order]

    def settings(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline,
            "annotator": ", ".join(self.annotators),
            "instructions": self.instructions,
            "ties": self.ties,
            "length control": self.length_control,
            "ranks": f"{self.rounds} rounds over instructions, seed {self.seed}",
            "confidence": self.confidence,
            **({"not judged": f"{len(self.skipped)} models"} if self.skipped else {}),
            **{f"note {k + 1}": note for k, note in enumerate(self.notes)},
        }


def board(
    rows: Rows,
    *,
    metrics: Sequence[str] = ("win_rate",),
    length_control: LengthControl | None = None,
    confidence: float = 0.95,
    rounds: int = 2000,
    seed: int = 0,
) -> Board:
    """The leaderboard of some annotation rows.

    Raises:
        UserError: naming the file and row, for instructions without a difficulty, methods without a common
            instruction, or lengths that are missing where they are needed.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise OptionError(f"`metrics` {metric}: unknown; {nearest(metric, METRICS)}")
    table = rows.table
    names = [str(n) for n in table["method"].cat.categories]
    group = table["method"].cat.codes.to_numpy().astype(np.int64)
    score = table["preference"].to_numpy() - 1
    seen = ~np.isnan(score)
    if not seen.any():
        raise UserError(f"{rows.files[0]}: no row has a preference")
    means = joint_means(score[seen], np.array(names, dtype=object)[group[seen]], table["key"].to_numpy()[seen], names)
    _overlapping(rows, means)
    baseline = str(table["baseline"].iloc[0])
    columns = _win_rate_columns(table, names, group, score, seen, means, baseline, confidence)
    notes: list[str] = []
    draws = _draws(means, rounds, seed)
    sort_by, ranked, resampled = "win_rate", means.means, draws
    control = length_control or LengthControl()
    if "length_controlled" in metrics:
        fits = fit_all(rows, names, group, score, baseline, control, confidence)
        columns |= length_columns(fits, control.column)
        if any(not np.isnan(f.win_rate) for f in fits if f.method != baseline):
            sort_by, ranked = control.column, np.array([f.win_rate for f in fits])
            resampled = resample_influence(rows, group, fits, ranked, rounds, seed)
        notes += sorted({f"{f.method}: {f.note}" for f in fits if f.note and f.note != "the baseline"})
    frame = pd.DataFrame({"method": names} | columns)
    frame.insert(0, "rank", ranking.positions(ranked).astype(int))
    if "length_controlled" not in metrics or control.weights is None:  # saved weights say nothing of their uncertainty
        low, high = ranking.rank_intervals(resampled, confidence)
        frame.insert(1, "rank_low", low.astype(int))
        frame.insert(2, "rank_high", high.astype(int))
        frame.insert(3, "tier", _tiers(ranked, resampled, confidence, seed))
    frame = frame.sort_values(["rank", "method"], kind="stable", ignore_index=True)
    return Board(
        rows=frame,
        baseline=baseline,
        annotators=tuple(str(a) for a in table["annotator"].cat.categories),
        sort_by=sort_by,
        instructions=len(means.sums),
        confidence=confidence,
        rounds=rounds,
        seed=seed,
        length_control=control.words() if "length_controlled" in metrics else "none",
        notes=tuple(notes),
        skipped=rows.skipped,
    )


def _tiers(ranked: Floats, resampled: Floats, confidence: float, seed: int) -> NDArray[np.int64]:
    """Tiers of methods that cannot be told apart, all differences together (max-t on the resampled boards)."""
    known = np.flatnonzero(~(np.isnan(ranked) | np.isnan(resampled).all(axis=0)))
    separated = np.zeros((len(ranked),) * 2, dtype=bool)
    if len(known) > 1:
        drawn = resampled[:, known]
        drawn = drawn[~np.isnan(drawn).any(axis=1)]
        if len(drawn) > 1:
            separated[np.ix_(known, known)] = apart(ranked[known], np.cov(drawn.T), confidence, seed)
    return ranking.tiers(ranked, separated)


def _overlapping(rows: Rows, means: JointMeans) -> None:
    """Refuse methods that share no instruction with any other: their files use other keys."""
    if len(means.methods) < 2:
        return
    present = (means.counts > 0).astype(np.float32)
    shared = present.T @ present
    np.fill_diagonal(shared, 0)
    has_rows = means.counts.sum(axis=0) > 0
    alone = np.flatnonzero((shared.max(axis=1) == 0) & has_rows)
    if alone.size and has_rows.sum() > 1:
        method = means.methods[int(alone[0])]
        at = int(np.flatnonzero((rows.table["method"] == method).to_numpy())[0])
        raise UserError(
            f"{rows.where(at)}: `{method}` shares no instruction with any other method; the files' keys do not match "
            "(texts in one and `instruction_id` in another, or different sets)"
        )


def _win_rate_columns(
    table: pd.DataFrame,
    names: list[str],
    group: NDArray[np.int64],
    score: Floats,
    seen: NDArray[np.bool_],
    means: JointMeans,
    baseline: str,
    confidence: float,
) -> dict[str, Any]:
    m = len(names)

    def count(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(group[mask], minlength=m)

    n = count(seen)
    error = np.sqrt(np.diag(means.covariance))
    low, high = means.limits(confidence)
    rounded = np.bincount(group[seen], weights=discrete(score[seen]), minlength=m)
    length = table["length_2"].to_numpy()
    known = ~np.isnan(length)
    with np.errstate(invalid="ignore", divide="ignore"):
        average = np.bincount(group[known], weights=length[known], minlength=m) / count(known)
        discrete_rate = 100 * rounded / n
    columns: dict[str, Any] = {
        "win_rate": 100 * means.means,
        "standard_error": 100 * error,
        "n_wins": count(seen & (score > 0.5)),
        "n_wins_base": count(seen & (score < 0.5)),
        "n_draws": count(seen & (score == 0.5)),
        "n_total": n,
        "discrete_win_rate": discrete_rate,
        # AlpacaEval cuts the mean to a whole number; so do we in this column.
        "avg_length": np.where(np.isnan(average), np.nan, np.floor(average)),
        "win_rate_low": 100 * low,
        "win_rate_high": 100 * high,
        "n_missing": count(~seen),
        "missing_why": _missing_why(table, names, group, seen),
    }
    own = np.array([name == baseline for name in names])
    for column in ("win_rate_low", "win_rate_high"):
        columns[column] = np.where(own, np.nan, columns[column])
    return columns


def _missing_why(table: pd.DataFrame, names: list[str], group: NDArray[np.int64], seen: NDArray[np.bool_]) -> list[str]:
    why = [""] * len(names)
    gone = np.flatnonzero(~seen)
    if gone.size:
        status = table["status"].astype(str).to_numpy()[gone]
        counts = pd.DataFrame({"g": group[gone], "s": status}).value_counts(sort=False)
        for (g, s), number in counts.items():
            why[g] += f"{', ' if why[g] else ''}{number} {s}"
    return why


def _draws(means: JointMeans, rounds: int, seed: int) -> Floats:
    clusters = len(means.sums)
    if clusters <= LARGE:
        return means.resampled(ranking.cluster_weights(clusters, rounds, seed))
    values, vectors = np.linalg.eigh(np.nan_to_num(means.covariance))
    z = rng.generator(seed, "normal ranks", clusters).standard_normal((rounds, len(values)))
    return np.asarray(means.means + (z * np.sqrt(np.maximum(values, 0))) @ vectors.T)
