"""The aggregator of a sweep or of replicate seeds: what several experiments say together.

Experiments that differ in nothing but their seed are replicates of one *setting*. Tables (win rates are percent; the
swept keys are columns of every table):

``leaderboard``: one row for each setting and method, best first by the judge within its setting
    rank, method, win_rate, _low, _high, rank_low, rank_high, seeds, win_rate_sd (between the seeds' own win rates;
    missing with one seed), n_total; for the other roles win_rate_<role> with _low, _high; gold, proxy (with _low,
    _high), kl, avg_length where the outputs have them. Intervals are over seeds and instructions
    (farm.statistics.two_ways); with one seed over instructions alone, and then they say nothing about other seeds.
``pairwise``: each two methods of a setting, by the judge, paired by seed and instruction
    first, second, difference, standard_error, low, high (percent points), degrees, p, p_holm (over the pairs of the
    setting), p_fdr (Benjamini-Hochberg, the same family)
``changes``: each method in each setting against itself in the first setting, by the judge, paired alike
    method, difference, standard_error, low, high, degrees, p, p_holm, p_fdr (over the whole table)
``rankings``: the rank correlation over methods of each two measures within a setting, and of the judge's ranking with
    its own ranking in the first setting; by setting
    first, second, n_methods, spearman, kendall, r_squared, each with _low, _high: of the true scores, over seeds and
    instructions
``results``: one row for each experiment and method, as its own leaderboard says
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.ranks import ranking, true_ranks
from eval.rates.multiple import all_differences, benjamini_hochberg, holm
from eval.rates.winrate import scores
from farm.base.arrays import Floats
from farm.base.bounds import Bounded, Confidence, Count
from farm.experiments import run_folder, run_tables
from farm.roles.protocols import Comparison, Replication
from farm.statistics.two_ways import Crossed, crossed, error_covariance, interval
from farm.statistics.uncertainty import SHARE, difference_limits, limits, p_values

FIRST = "judge in the first setting"
_MEASURED = {"gold": "gold_utility", "proxy": "proxy"}


@dataclass(frozen=True)
class Replicates(Bounded):
    """The aggregator that an experiment with ``sweep`` or ``seeds`` uses by default.

    Args:
        confidence: of every interval.
        rounds: bootstrap rounds for ranks and correlations.
    """

    confidence: Confidence = 0.95
    rounds: Count = 1000

    def aggregate(self, replication: Replication) -> dict[str, pd.DataFrame]:
        """The five tables. Raises UserError for a folder without tables."""
        found = Replicated.read(replication)
        return {
            "leaderboard": self._leaderboard(found),
            "pairwise": self._pairwise(found),
            "changes": self._changes(found),
            "rankings": self._rankings(found),
            "results": results(replication),
        }

    def _leaderboard(self, found: Replicated) -> pd.DataFrame:
        identity = np.eye(len(found.columns))
        measured = {role: (*c.contrasts(identity), c) for role, c in found.measures.items()}
        judge = found.measures["judge"]
        seeds, instructions, _ = judge.sums.shape
        drawn = judge.resampled(
            ranking.cluster_weights(seeds, self.rounds, found.seed, "seeds"),
            ranking.cluster_weights(instructions, self.rounds, found.seed),
        )
        tables = []
        for setting, labels in enumerate(found.settings):
            own = found.columns_of(setting)
            place = ranking.positions(judge.means[own])
            low, high = ranking.rank_intervals(drawn[:, own], self.confidence)
            table = pd.DataFrame([labels] * len(own)) if labels else pd.DataFrame(index=range(len(own)))
            table["rank"] = place.astype(int)
            table["method"] = [found.columns[k][1] for k in own]
            for role, (value, error, degrees, cells) in measured.items():
                name, scale = _column(role)
                if scale == 100:
                    lower, upper = limits(value, error, cells.units, SHARE, self.confidence, degrees=degrees)
                else:
                    lower, upper = interval(value, error, degrees, self.confidence)
                table[name] = scale * value[own]
                table[f"{name}_low"], table[f"{name}_high"] = scale * lower[own], scale * upper[own]
                if role == "judge":
                    table["rank_low"], table["rank_high"] = low.astype(int), high.astype(int)
                    there = cells.by_seed[:, own]
                    table["seeds"] = (~np.isnan(there)).sum(0)
                    several = (~np.isnan(there)).sum(0) > 1
                    table["win_rate_sd"] = np.where(several, 100 * _sd(there), np.nan)
                    table["n_total"] = cells.counts.sum((0, 1))[own].astype(int)
            for name, values in found.means.items():
                table[name] = values[own]
            tables.append(table.sort_values(["rank", "method"], kind="stable"))
        return pd.concat(tables, ignore_index=True)

    def _pairwise(self, found: Replicated) -> pd.DataFrame:
        tables = []
        for setting, labels in enumerate(found.settings):
            own = found.columns_of(setting)
            own = own[np.argsort(-found.measures["judge"].means[own], kind="stable")]
            differences = all_differences(len(own))
            contrasts = np.zeros((len(differences), len(found.columns)))
            contrasts[:, own] = differences
            first, second = np.triu_indices(len(own), 1)
            names = [found.columns[k][1] for k in own]
            table = pd.DataFrame({**labels, "first": [names[i] for i in first], "second": [names[i] for i in second]})
            tables.append(self._tested(table, found.measures["judge"], contrasts))
        return pd.concat(tables, ignore_index=True)

    def _changes(self, found: Replicated) -> pd.DataFrame:
        place = {column: k for k, column in enumerate(found.columns)}
        rows, contrasts = [], []
        for k, (setting, method) in enumerate(found.columns):
            before = place.get((0, method))
            if setting > 0 and before is not None:
                rows.append({**found.settings[setting], "method": method})
                contrast = np.zeros(len(found.columns))
                contrast[k], contrast[before] = 1.0, -1.0
                contrasts.append(contrast)
        if not rows:
            return pd.DataFrame(columns=["method", "difference", "low", "high", "p"])
        return self._tested(pd.DataFrame(rows), found.measures["judge"], np.array(contrasts))

    def _tested(self, table: pd.DataFrame, cells: Crossed, contrasts: Floats) -> pd.DataFrame:
        value, error, degrees = cells.contrasts(contrasts)
        low, high = difference_limits(value, error, cells.counts.shape[1], self.confidence, degrees)
        p = p_values(value, error, degrees)
        return table.assign(
            difference=100 * value,
            standard_error=100 * error,
            low=100 * low,
            high=100 * high,
            degrees=degrees,
            p=p,
            p_holm=holm(p),
            p_fdr=benjamini_hochberg(p),
        )

    def _rankings(self, found: Replicated) -> pd.DataFrame:
        names = list(found.measures)
        rows = []
        for setting, labels in enumerate(found.settings):
            own = found.columns_of(setting)
            for i, first in enumerate(names):
                for second in names[i + 1 :]:
                    numbers = correlations(found, first, own, second, own, self.rounds, self.confidence)
                    rows.append({**labels, "first": first, "second": second, **numbers})
            if setting > 0:
                methods = [found.columns[k][1] for k in own]
                before = {found.columns[k][1]: k for k in found.columns_of(0)}
                pairs = [(k, before[m]) for k, m in zip(own, methods, strict=True) if m in before]
                if len(pairs) > 1:
                    now, then = (np.array(side) for side in zip(*pairs, strict=True))
                    numbers = correlations(found, "judge", now, "judge", then, self.rounds, self.confidence)
                    rows.append({**labels, "first": "judge", "second": FIRST, **numbers})
        return pd.DataFrame(rows)


def correlations(
    found: Replicated,
    first: str,
    i: NDArray[np.int64],
    second: str,
    j: NDArray[np.int64],
    rounds: int,
    confidence: float,
) -> dict[str, float]:
    """Spearman, Kendall and R^2 of two measures' numbers in columns ``i`` and ``j``, with intervals.

    The intervals are those of the true scores, with the errors of instructions and seeds taken out
    (eval.ranks.true_ranks).
    """
    one, other = found.measures[first], found.measures[second]
    a, b = one.means[i], other.means[j]
    kept = ~(np.isnan(a) | np.isnan(b))
    a, b = a[kept], b[kept]
    covariance = error_covariance(one, other, i[kept], j[kept])
    drawn = None
    if len(a) > 2 and not np.isnan(covariance).any():
        drawn = true_ranks.true_scores(a, b, covariance, rounds, found.seed)
    row: dict[str, float] = {"n_methods": len(a)}
    statistics = (("spearman", ranking.spearman), ("kendall", ranking.kendall), ("r_squared", _r_squared))
    for name, function in statistics:
        nothing = (float("nan"), float("nan"))
        bounds = (
            nothing if drawn is None else ranking.percentile_interval(function(drawn[:, 0], drawn[:, 1]), confidence)
        )
        value = float(function(a, b)) if len(a) > 1 else float("nan")
        row |= {name: value, f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
    return row


def _r_squared(x: Floats, y: Floats) -> Floats:
    return np.square(ranking.pearson(x, y))


@dataclass(frozen=True)
class Replicated:
    """The numbers of all experiments in cells of seed, instruction and (setting, method)."""

    settings: list[dict[str, object]]
    """swept keys -> label, the first experiment's setting first"""
    columns: list[tuple[int, str]]
    """(setting, method), methods in alphabetical order"""
    measures: dict[str, Crossed]
    """role, or "gold_utility" or "proxy" -> its cells"""
    means: dict[str, Floats]
    """"kl" and "avg_length": plain means, [K]"""
    seed: int

    def columns_of(self, setting: int) -> NDArray[np.int64]:
        return np.array([k for k, (s, _) in enumerate(self.columns) if s == setting], dtype=np.int64)

    @cached_property
    def methods(self) -> list[str]:
        return sorted({method for _, method in self.columns})

    @classmethod
    def read(cls, replication: Replication) -> Replicated:
        """From the run folders."""
        keys = [c for c in replication.variants.columns if c not in ("variant", "seed")]
        settings: list[dict[str, object]] = []
        long: dict[str, list[tuple[int, pd.DataFrame]]] = {}
        plain: list[pd.DataFrame] = []
        columns: set[tuple[int, str]] = set()
        for row, folder in zip(replication.variants.to_dict(orient="records"), replication.folders, strict=True):
            labels = {str(key): row[key] for key in keys}
            if labels not in settings:
                settings.append(labels)
            setting, seed = settings.index(labels), int(row["seed"])
            comparison = run_folder.read_comparison(folder)
            columns |= {(setting, str(m)) for m in comparison.outputs["method"].unique()}
            for measure, table in _values(comparison, setting).items():
                long.setdefault(measure, []).append((seed, table))
            plain.append(_plain_means(comparison.outputs, setting))
        order = sorted(columns)
        names = [f"{setting}/{method}" for setting, method in order]
        seeds = sorted(set(replication.variants["seed"].astype(int)))
        means = pd.concat(plain).groupby("column").mean().reindex(names)
        return cls(
            settings,
            order,
            {measure: crossed(tables, seeds, names) for measure, tables in long.items()},
            {name: means[name].to_numpy(np.float64) for name in means.columns},
            replication.seed,
        )


def _values(comparison: Comparison, setting: int) -> dict[str, pd.DataFrame]:
    """Measure -> column, instruction, value of every row."""
    out = {}
    roles = sorted(comparison.annotations, key=lambda role: role != "judge")
    for role in roles:
        table = comparison.annotations[role]
        method = table["method"] if "method" in table else table["generator_2"]
        column = f"{setting}/" + method.astype(str)
        value = scores(table["preference"])
        out[role] = pd.DataFrame({"column": column, "instruction": table["instruction"], "value": value})
    outputs = comparison.outputs
    for name, measure in _MEASURED.items():
        if name in outputs and outputs[name].notna().any():
            column = f"{setting}/" + outputs["method"].astype(str)
            out[measure] = pd.DataFrame(
                {"column": column, "instruction": outputs["instruction"], "value": outputs[name]}
            )
    return out


def _plain_means(outputs: pd.DataFrame, setting: int) -> pd.DataFrame:
    column = f"{setting}/" + outputs["method"].astype(str)
    table = pd.DataFrame({"column": column, "avg_length": outputs["output"].str.len()})
    if "kl" in outputs:
        table.insert(1, "kl", outputs["kl"])
    return table.groupby("column", as_index=False).mean()


def _column(measure: str) -> tuple[str, float]:
    """The name of a measure's column, and what it is multiplied with there."""
    if measure == "judge":
        return "win_rate", 100.0
    if measure in _MEASURED.values():
        return next(name for name, long in _MEASURED.items() if long == measure), 1.0
    return f"win_rate_{measure}", 100.0


def _sd(values: Floats) -> Floats:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a method that only one seed has
        return np.asarray(np.nanstd(values, axis=0, ddof=1))


def results(replication: Replication) -> pd.DataFrame:
    """Each experiment's own leaderboard, with what the experiment is."""
    tables = []
    for row, folder in zip(replication.variants.to_dict(orient="records"), replication.folders, strict=True):
        board = _board(folder)
        for position, (key, value) in enumerate(row.items()):
            board.insert(position, str(key), value)
        tables.append(board)
    return pd.concat(tables, ignore_index=True)


def _board(folder: Path) -> pd.DataFrame:
    board = run_tables.read(folder / "leaderboard.json")
    board["method"] = board["method"].astype(str)
    return board.drop(columns=[c for c in ("missing_why",) if c in board])


__all__: Sequence[str] = ["FIRST", "Replicated", "Replicates", "correlations", "results"]
