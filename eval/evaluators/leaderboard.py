"""The evaluator of an experiment: who wins, how sure we are, and whether the judge ranks as the truth does.

Tables (win rates and their bounds are percent, as on AlpacaEval's boards; everything else is in its own unit):

``leaderboard``: one row a method, best first by the judge
    rank, method, win_rate, standard_error, win_rate_low, win_rate_high, rank_low, rank_high, n_wins, n_wins_base,
    n_draws, n_total, discrete_win_rate, missing, missing_why; for the roles "humans" and "gold", where they judged:
    win_rate_<role>, win_rate_<role>_low, win_rate_<role>_high; where the outputs have them: gold, gold_low, gold_high
    (mean utility), proxy (mean reward), kl (to the SFT policy, nats), avg_length (characters), instructions, samples.
    Where the baseline is itself a method, it wins 50 % by definition and has an interval in its rank only.
``agreement``: one row for each two measures (judge, humans, gold, gold_utility, proxy)
    first, second, n_methods, and spearman and kendall each with _low, _high (all instructions of the kind) and
    _methods_low, _methods_high (other methods), n_instructions. The first interval is of the true scores of these
    methods, free of sampling error (:mod:`eval.ranks.true_ranks`).
``pairwise``: one row for each two methods, by the judge
    first, second, difference, standard_error, low, high (percent points), p, p_holm, p_max_t, n_instructions.

``success``: where there were dialogues, success by turn (:mod:`eval.measures.success`); ``headlines`` says the last.
``groups``: with ``by``, one row for each method and group of the judge's verdicts, whose groups may intersect
    method, by, group, n, win_rate, low, high, shrunken with its bounds, p (against the method's mean), p_bh.

Intervals are clustered by instruction throughout, and differences are paired by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from eval.measures.success import by_turn
from eval.published.orientation import turned_to
from eval.ranks import ranking
from eval.ranks.true_ranks import correlation_intervals, joint_covariance
from eval.rates.categories import by_groups
from eval.rates.multiple import all_differences, holm, max_t
from eval.rates.winrate import discrete, missing_by_status, scores
from farm.base.bounds import Bounded, Confidence, Count
from farm.base.errors import UserError
from farm.roles.protocols import Comparison
from farm.statistics.uncertainty import SHARE, JointMeans, difference_limits, joint_means, p_values


@dataclass(frozen=True)
class Leaderboard(Bounded):
    """The evaluator that an experiment uses by default.

    Args:
        confidence: of every interval.
        rounds: bootstrap rounds for ranks and correlations.
        by: columns that sort the judge's verdicts into groups: further columns of the instructions (a scope), or what
            the judge says (``user_group``).
    """

    confidence: Confidence = 0.95
    rounds: Count = 2000
    by: tuple[str, ...] = ()

    def evaluate(self, comparison: Comparison) -> dict[str, pd.DataFrame]:
        """The tables. Raises UserError when the judge's annotations are absent or name an unknown method."""
        if "judge" not in comparison.annotations:
            raise UserError("the leaderboard needs annotations of the role `judge`")
        turned = {role: turned_to(t, comparison.baseline) for role, t in comparison.annotations.items()}
        comparison = replace(comparison, annotations=turned)
        methods = sorted(comparison.outputs["method"].astype(str).unique())
        measures: dict[str, JointMeans] = {}
        for role, table in comparison.annotations.items():
            measures[role] = _role_means(role, table, comparison.baseline, methods)
        for column, name in (("gold", "gold_utility"), ("proxy", "proxy")):
            if column in comparison.outputs and comparison.outputs[column].notna().any():
                measures[name] = _output_means(comparison.outputs, column, methods)
        talked = comparison.dialogues
        return {
            "leaderboard": self._leaderboard(comparison, methods, measures),
            "agreement": self._agreement(measures, comparison.seed),
            "pairwise": self._pairwise(comparison.baseline, measures["judge"], comparison.seed),
            **({} if talked is None else _success(by_turn(talked, self.confidence))),
            **({"groups": self._groups(comparison.annotations["judge"], methods)} if self.by else {}),
        }

    def _groups(self, judged: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
        table, parts = _with_method(judged), []
        for method in methods:
            rows = table[table["method"].astype(str) == method]
            if len(rows):  # the baseline may not have been asked about
                found = by_groups(rows, scores(rows["preference"]), self.by, confidence=self.confidence)
                parts.append(found.assign(method=method))
        found = pd.concat(parts, ignore_index=True)
        return found[["method", "by", "group", *(c for c in found.columns if c not in ("method", "by", "group"))]]

    def _leaderboard(self, comparison: Comparison, methods: list[str], measures: dict[str, JointMeans]) -> pd.DataFrame:
        judge = measures["judge"]
        weights = ranking.cluster_weights(len(judge.sums), self.rounds, comparison.seed)
        low, high = ranking.rank_intervals(judge.resampled(weights), self.confidence)
        place = ranking.positions(judge.means)
        groups = dict(list(_with_method(comparison.annotations["judge"]).groupby("method", observed=True)))
        outputs = dict(list(comparison.outputs.groupby("method", observed=True)))
        rows = []
        for m, method in enumerate(methods):
            row: dict[str, object] = {"rank": int(place[m]), "method": method}
            row |= _win_rate_columns("win_rate", judge, m, method == comparison.baseline, self.confidence)
            row |= {"rank_low": int(low[m]), "rank_high": int(high[m])}
            row |= _counts(groups.get(method))
            for role in comparison.annotations:
                if role != "judge":
                    name = f"win_rate_{role}"
                    columns = _win_rate_columns(name, measures[role], m, method == comparison.baseline, self.confidence)
                    row |= {k: v for k, v in columns.items() if k != "standard_error"}
            for name, column in (("gold_utility", "gold"), ("proxy", "proxy")):
                if name in measures:
                    estimate = measures[name].estimate(m, self.confidence)
                    row |= {column: estimate.value, f"{column}_low": estimate.low, f"{column}_high": estimate.high}
            own = outputs[method]
            if "kl" in own and own["kl"].notna().any():
                row["kl"] = float(own["kl"].mean())
            row["avg_length"] = float(own["output"].str.len().mean())
            row["instructions"] = int(own["instruction"].nunique())
            row["samples"] = len(own)
            rows.append(row)
        return pd.DataFrame(rows).sort_values(["rank", "method"], kind="stable", ignore_index=True)

    def _agreement(self, measures: dict[str, JointMeans], seed: int) -> pd.DataFrame:
        names = list(measures)
        pairs = [(first, second) for i, first in enumerate(names) for second in names[i + 1 :]]
        return pd.DataFrame([self._correlations(a, b, measures[a], measures[b], seed) for a, b in pairs])

    def _correlations(self, first: str, second: str, a: JointMeans, b: JointMeans, seed: int) -> dict[str, object]:
        kept = ~(np.isnan(a.means) | np.isnan(b.means))
        row: dict[str, object] = {"first": first, "second": second, "n_methods": int(kept.sum())}
        pick = np.flatnonzero(kept)
        both = np.concatenate([pick, len(kept) + pick])
        over_instructions = correlation_intervals(
            a.means[kept],
            b.means[kept],
            joint_covariance(a, b)[np.ix_(both, both)],
            rounds=self.rounds,
            seed=seed,
            confidence=self.confidence,
        )
        for statistic, (low, high) in over_instructions.items():
            over_methods = ranking.correlation(
                a.means[kept], b.means[kept], statistic=statistic, confidence=self.confidence
            )
            row |= {
                statistic: over_methods.value,
                f"{statistic}_low": low,
                f"{statistic}_high": high,
                f"{statistic}_methods_low": over_methods.low,
                f"{statistic}_methods_high": over_methods.high,
            }
        row["n_instructions"] = min(len(a.sums), len(b.sums))
        return row

    def _pairwise(self, baseline: str, judge: JointMeans, seed: int) -> pd.DataFrame:
        known = np.flatnonzero(~np.isnan(judge.means) & ~np.isnan(np.diag(judge.covariance)))
        known = known[np.argsort(-judge.means[known], kind="stable")]
        names = [judge.methods[k] for k in known]
        means, covariance = judge.means[known], judge.covariance[np.ix_(known, known)]
        contrasts = all_differences(len(known))
        difference = contrasts @ means
        error = np.sqrt(np.maximum(np.einsum("km,mn,kn->k", contrasts, covariance, contrasts), 0))
        first, second = np.triu_indices(len(known), 1)
        present = judge.counts[:, known] > 0
        shared = (present[:, first] & present[:, second]).sum(axis=0)
        for side in (first, second):  # the baseline has every instruction by definition
            is_baseline = np.array([names[s] == baseline for s in side], dtype=bool)
            shared = np.where(is_baseline, present.any(axis=1).sum(), shared)
        degrees = np.maximum(judge.units[known].min(initial=len(judge.sums)) - 1, 1)
        p = p_values(difference, error, degrees)
        _, p_max_t = max_t(
            covariance, contrasts, estimates=means, degrees=degrees, confidence=self.confidence, seed=seed
        )
        low, high = difference_limits(difference, error, degrees + 1, self.confidence)
        return pd.DataFrame(
            {
                "first": [names[i] for i in first],
                "second": [names[i] for i in second],
                "difference": 100 * difference,
                "standard_error": 100 * error,
                "low": 100 * low,
                "high": 100 * high,
                "p": p,
                "p_holm": holm(p),
                "p_max_t": p_max_t,
                "n_instructions": shared,
            }
        )


def _success(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Success by turn, and a sentence with that of all turns, the best first."""
    turns = int(table["turn"].max())
    last = table[table["turn"] == turns].sort_values("success", ascending=False, kind="stable")
    rows = zip(last["method"], last["success"], last["success_low"], last["success_high"], strict=True)
    said = ", ".join(f"{method} {100 * s:.1f} ({100 * low:.1f} to {100 * high:.1f})" for method, s, low, high in rows)
    within = f"within {turns} turn{'s' * (turns > 1)}, %"
    return {"success": table, "headlines": pd.DataFrame({"headline": [f"Success in dialogues {within}: {said}."]})}


def _with_method(table: pd.DataFrame) -> pd.DataFrame:
    return table if "method" in table else table.assign(method=table["generator_2"])


def _role_means(role: str, table: pd.DataFrame, baseline: str, methods: list[str]) -> JointMeans:
    """Win rates by method, with the baseline's half against itself where it was not asked."""
    table = _with_method(table)
    named = table["method"].astype(str).to_numpy()
    unknown = sorted(set(named) - set(methods))
    if unknown:
        raise UserError(f"annotations of the role `{role}` name the method `{unknown[0]}`, which has no outputs")
    score = scores(table["preference"])
    kept = ~np.isnan(score)
    if not kept.any():
        raise UserError(f"annotations of the role `{role}` have no preference at all; their statuses say why")
    found = joint_means(score[kept], named[kept], table["instruction"].to_numpy()[kept], methods)
    b = methods.index(baseline) if baseline in methods else -1
    if b < 0 or found.counts[:, b].any():
        return found
    sums, counts = found.sums.copy(), found.counts.copy()
    means, covariance, units = found.means.copy(), found.covariance.copy(), found.units.copy()
    sums[:, b], counts[:, b], means[b], units[b] = 0.5, 1.0, 0.5, len(sums)
    covariance[b, :] = covariance[:, b] = 0.0
    return JointMeans(found.methods, means, covariance, sums, counts, units)


def _output_means(outputs: pd.DataFrame, column: str, methods: list[str]) -> JointMeans:
    known = outputs[outputs[column].notna()]
    return joint_means(known[column], known["method"], known["instruction"], methods)


def _win_rate_columns(name: str, means: JointMeans, m: int, is_baseline: bool, confidence: float) -> dict[str, object]:
    nan = float("nan")
    if is_baseline:
        return {name: 50.0, "standard_error": 0.0, f"{name}_low": nan, f"{name}_high": nan}
    e = means.estimate(m, confidence, bounds=SHARE)
    bounds = {f"{name}_low": 100 * e.low, f"{name}_high": 100 * e.high}
    return {name: 100 * e.value, "standard_error": 100 * e.standard_error, **bounds}


def _counts(table: pd.DataFrame | None) -> dict[str, object]:
    if table is None:
        nothing: dict[str, object] = {"n_wins": 0, "n_wins_base": 0, "n_draws": 0, "n_total": 0}
        return nothing | {"discrete_win_rate": 50.0, "missing": 0, "missing_why": ""}
    score = scores(table["preference"])
    present = score[~np.isnan(score)]
    why = missing_by_status(table, score)
    return {
        "n_wins": int((present > 0.5).sum()),
        "n_wins_base": int((present < 0.5).sum()),
        "n_draws": int((present == 0.5).sum()),
        "n_total": present.size,
        "discrete_win_rate": 100 * float(discrete(present).mean()) if present.size else float("nan"),
        "missing": len(table) - present.size,
        "missing_why": ", ".join(f"{n} {status}" for status, n in why.items()),
    }
