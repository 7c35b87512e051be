"""Everything that annotations of one or several methods say: win rates, intervals, corrections, groups, differences.

Within a method intervals are clustered by instruction. Rates of groups (the ``dataset`` column, or any other) stand
beside their shrunken estimates (:mod:`eval.rates.categories`), with Benjamini-Hochberg across groups; differences of
methods are paired by instruction, with Holm and max-t. Nothing here calls a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from eval.published.orientation import baseline_first, check_judges, like
from eval.rates.categories import by_category
from eval.rates.correction import noise_corrected
from eval.rates.habits import biases as judge_minus_human
from eval.rates.length_control import length_controlled
from eval.rates.multiple import all_differences, holm, max_t
from eval.rates.prediction_powered import ppi
from eval.rates.winrate import WinRate, scores, win_rate
from farm.base.errors import UserError, nearest
from farm.statistics import terminal
from farm.statistics.result import Result
from farm.statistics.uncertainty import difference_limits, joint_means, p_values
from farm.tables.formats import require_labels
from farm.votes.analysis import prefer_lists, prefer_longer
from farm.votes.table import from_table as votes_from


@dataclass(frozen=True)
class Evaluation(Result):
    """Win rates of one or several methods against one baseline; rates in the tables are percent."""

    methods: pd.DataFrame
    """one row a method, under AlpacaEval's names and ours"""
    groups: pd.DataFrame
    """method, category, n, win_rate, low, high, shrunken, p, p_bh; empty without the column"""
    differences: pd.DataFrame
    """win-rate differences of methods, paired by instruction; empty for one method"""
    biases: pd.DataFrame
    """judge minus human on the same pairs; empty without human votes"""
    by: str
    baseline: str
    confidence: float
    seed: int
    flip_rate: float = 0.0

    def table(self) -> pd.DataFrame:
        return self.methods

    def settings(self) -> dict[str, Any]:
        return {
            **({"baseline": self.baseline} if self.baseline else {}),
            "ties": "half a win",
            "clusters": "instruction",
            "confidence": self.confidence,
            "seed": self.seed,
            **({"flip rate corrected for": self.flip_rate} if self.flip_rate else {}),
        }

    def __str__(self) -> str:
        parts = [self._wide(self.methods)]
        if len(self.groups):
            shown = ["method", "category", "n", "win_rate", "low", "high", "shrunken", "p_bh"]
            groups = terminal.shown(self.groups[shown], FEW)
            parts.append(f"by {self.by}, weakest first (shrunken towards the method's mean):\n{groups}")
        if len(self.differences):
            parts.append(self._compared())
        if len(self.biases):
            parts.append("biases, judge minus human:\n" + terminal.shown(self.biases, FEW))
        parts.append(self.said())
        return "\n\n".join(parts)

    def _compared(self) -> str:
        """The differences: all of a few methods, of many those of each and the next one in the ranking."""
        if len(self.differences) <= MANY:
            return "differences, paired by instruction:\n" + terminal.shown(self.differences, FEW)
        neighbours = self.differences.drop_duplicates("first")
        every = f"--json has all {len(self.differences):,}"
        head = f"differences of neighbours, paired by instruction ({every}):"
        return f"{head}\n{terminal.shown(neighbours, FEW)}"

    @staticmethod
    def _wide(table: pd.DataFrame) -> str:
        """A few methods read better as columns, many as rows."""
        return terminal.shown(table, FEW) if len(table) > 6 else terminal.turned(table, "method", FEW)


MANY = 28
"""differences that are shown at most: those of eight methods"""
FEW = "too few"
"""in the place of an interval of too few instructions"""


_IDENTITY = tuple(
    "generator_2 instruction instruction_id output_1 output_2 annotator seed replicate sample pair_id".split()
)
"""What tells one annotation from another; a row that repeats all of them is a mistake."""


def together(tables: Sequence[tuple[str, pd.DataFrame]], pooled: bool = False) -> pd.DataFrame:
    """The rows of tables of annotations (where each is from, and itself), one baseline, none twice.

    Args:
        pooled: votes whose annotators are not told apart may repeat.
    """
    for origin, table in tables:
        if not len(table):
            raise UserError(f"{origin}: holds no annotation")
        if "generator_2" not in table:
            raise UserError(f"{origin}: the field `generator_2` is missing; {nearest('generator_2', table.columns)}")
        require_labels(table, "generator_2", origin)
    numbered = [t.assign(_file=origin, _row=np.arange(1, len(t) + 1)) for origin, t in tables]
    rows = pd.concat(numbered, ignore_index=True)

    def where(k: int) -> str:
        return f"{rows['_file'].iloc[k]}: row {rows['_row'].iloc[k]}"

    rows = baseline_first(rows, where)
    known = [c for c in _IDENTITY if c in rows]
    told_apart = not pooled or ("annotator" in rows and rows["annotator"].nunique() > 1)
    repeated = np.flatnonzero(rows.duplicated(known).to_numpy())
    if repeated.size and told_apart:
        raise UserError(f"{where(int(repeated[0]))}: the same annotation stands there a second time; remove one")
    return rows.drop(columns=["_file", "_row"])


def evaluate_table(
    annotations: pd.DataFrame,
    *,
    by: str = "dataset",
    confidence: float = 0.95,
    flip_rate: float = 0.0,
    flip_rate_standard_error: float = 0.0,
    humans: pd.DataFrame | None = None,
    seed: int = 0,
) -> Evaluation:
    """The evaluation of each method (``generator_2``) of an annotation table, all against one baseline.

    Args:
        by: a column of groups (paths with "/" are rolled up); ignored where the table lacks it.
        flip_rate, flip_rate_standard_error: correct the win rates for this share of flipped labels.
        humans: human annotations of some of the same pairs, for PPI++ and for biases as judge minus human.
    """
    cluster = "instruction" if "instruction" in annotations else "instruction_id"
    annotations = baseline_first(annotations)
    _one_ranking(annotations)
    if annotations["preference"].isna().all():
        raise UserError("no row has a preference; their statuses say why")
    if humans is not None:
        if humans["preference"].isna().all():
            raise UserError("no row of the human annotations has a preference")
        humans = like(humans, annotations)
    rows: list[dict[str, Any]] = []
    groups: list[pd.DataFrame] = []
    baseline = ""
    for method, own in annotations.groupby("generator_2", sort=True, observed=True):
        w = win_rate(own, clusters=(cluster,), confidence=confidence, method=str(method))
        baseline = w.baseline
        row = _row(w) | _lengths(own, str(method), cluster, confidence)
        if flip_rate:
            corrected = noise_corrected(
                w.win_rate,
                w.standard_error,
                flip_rate,
                flip_rate_standard_error,
                interval=(w.low, w.high),
                confidence=confidence,
            )
            row |= _percent("corrected", corrected.win_rate, corrected.low, corrected.high)
        if humans is not None:
            row |= _with_humans(own, humans, str(method), cluster, confidence)
        rows.append(row)
        if by in own:
            seen = own["preference"].notna().to_numpy()
            table = by_category(
                scores(own["preference"])[seen],
                own.loc[seen, by].fillna("").astype(str),
                own[cluster].to_numpy()[seen],
                confidence=confidence,
            )
            if len(table):
                table.insert(0, "method", str(method))
                groups.append(table)
    if humans is not None and not any(row.get("n_human") for row in rows):
        raise UserError(f"no pair is in the human annotations too; they are matched by method and `{cluster}`")
    minus = pd.DataFrame()
    if humans is not None and {"instruction", "output_1", "output_2"} <= set(annotations.columns) & set(humans.columns):
        minus = judge_minus_human(votes_from(annotations, "judge"), votes_from(humans, "humans"), confidence=confidence)
    return Evaluation(
        methods=pd.DataFrame(rows).sort_values("win_rate", ascending=False, kind="stable", ignore_index=True),
        groups=pd.concat(groups, ignore_index=True) if groups else pd.DataFrame(),
        differences=_differences(annotations, cluster, confidence, seed),
        biases=minus,
        by=by,
        baseline=baseline,
        confidence=confidence,
        seed=seed,
        flip_rate=flip_rate,
    )


def _one_ranking(annotations: pd.DataFrame) -> None:
    """Refuse methods that different judges have judged."""
    if not {"annotator", "generator_2"} <= set(annotations.columns):
        return
    judge, judges = pd.factorize(annotations["annotator"].fillna("").astype(str))
    method, methods = pd.factorize(annotations["generator_2"].fillna("").astype(str))
    check_judges(list(methods), method, list(judges), judge, "keep the rows of one judge")


def _percent(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {f"{name}_win_rate": 100 * value, f"{name}_low": 100 * low, f"{name}_high": 100 * high}


def _row(w: WinRate) -> dict[str, Any]:
    missing = ", ".join(f"{n} {why}" for why, n in w.missing.items())
    bounds = {"win_rate_low": 100 * w.low, "win_rate_high": 100 * w.high}
    return {
        "method": w.method,
        **w.alpaca_eval(),
        **bounds,
        "n_missing": sum(w.missing.values()),
        "missing_why": missing,
    }


def _lengths(own: pd.DataFrame, method: str, cluster: str, confidence: float) -> dict[str, Any]:
    """Average length, the win rate at equal lengths (no difficulties), and what the judge prefers."""
    if {"output_1", "output_2"} <= set(own.columns):
        one, two = (own[c].astype(str).str.len().to_numpy(np.float64) for c in ("output_1", "output_2"))
    elif {"output_1_len", "output_2_len"} <= set(own.columns):
        one, two = (own[c].to_numpy(np.float64) for c in ("output_1_len", "output_2_len"))
    else:
        return {}
    out: dict[str, Any] = {"avg_length": float(two.mean()), "avg_length_baseline": float(one.mean())}
    if own["preference"].notna().any():
        items = pd.factorize(own[cluster])[0]
        score = scores(own["preference"])
        lc = length_controlled(score, one, two, None, items=items, method=method, confidence=confidence)
        names = ("equal_length_winrate", "equal_length_low", "equal_length_high")
        out |= dict(zip(names, (100 * lc.win_rate, 100 * lc.low, 100 * lc.high), strict=True))
    if "output_1" in own and "instruction" in own:
        votes = votes_from(own.drop(columns=["pair_id", "id"], errors="ignore"), method)
        out |= {"prefers_longer": prefer_longer(votes).value, "prefers_lists": prefer_lists(votes).value}
    return out


def _with_humans(
    own: pd.DataFrame, humans: pd.DataFrame, method: str, cluster: str, confidence: float
) -> dict[str, Any]:
    """PPI++ from the pairs that people labelled too; the unit is the instruction."""
    if cluster not in humans:
        raise UserError(f"the human annotations have no column `{cluster}` to be matched by")
    theirs = humans[humans["generator_2"] == method] if "generator_2" in humans else humans
    judge = pd.Series(scores(own["preference"]), index=own[cluster].to_numpy()).dropna().groupby(level=0).mean()
    people = pd.Series(scores(theirs["preference"]), index=theirs[cluster].to_numpy()).dropna().groupby(level=0).mean()
    both = judge.index.intersection(people.index)
    if len(both) < 2:
        return {"n_human": len(both)}
    rest = judge.drop(both)
    found = ppi(people.loc[both], judge.loc[both], rest, confidence=confidence)
    return {
        **_percent("ppi", found.value, found.low, found.high),
        "human_win_rate": 100 * found.human_only,
        "n_human": found.n,
        "ppi_effective_n": found.effective_n,
        "judge_human_correlation": found.correlation,
    }


def _differences(annotations: pd.DataFrame, cluster: str, confidence: float, seed: int) -> pd.DataFrame:
    score = scores(annotations["preference"])
    seen = ~np.isnan(score)
    joint = joint_means(
        score[seen], annotations["generator_2"].astype(str)[seen], annotations[cluster].to_numpy()[seen]
    )
    known = np.flatnonzero(joint.units > 1)
    if len(known) < 2:
        return pd.DataFrame()
    known = known[np.argsort(-joint.means[known], kind="stable")]
    contrasts = all_differences(len(known))
    means, covariance = joint.means[known], joint.covariance[np.ix_(known, known)]
    value = contrasts @ means
    error = np.sqrt(np.maximum(np.einsum("km,mn,kn->k", contrasts, covariance, contrasts), 0))
    degrees = int(joint.units[known].min()) - 1
    p = p_values(value, error, degrees)
    _, together = max_t(covariance, contrasts, estimates=means, degrees=degrees, confidence=confidence, seed=seed)
    low, high = difference_limits(value, error, degrees + 1, confidence)
    first, second = np.triu_indices(len(known), 1)
    return pd.DataFrame(
        {
            "first": [joint.methods[known[i]] for i in first],
            "second": [joint.methods[known[j]] for j in second],
            "difference": 100 * value,
            "low": 100 * low,
            "high": 100 * high,
            "p": p,
            "p_holm": holm(p),
            "p_max_t": together,
        }
    )
