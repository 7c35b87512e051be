"""Judge the judge: a simulated annotator's verdicts beside the votes of many humans on the same pairs.

The first question is not "how often does the judge agree?" but "how often could it?": a single human agrees with the
majority of the others only so often, and that is the ceiling. All intervals are clustered by item.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval import ranking
from eval.prediction_powered import gain
from farm import rng
from farm.errors import UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import Estimate, codes, critical, mean
from farm.votes import agreement as agree
from farm.votes.analysis import AnnotatorAnalysis, analyze_annotator

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PositionAudit(Result):
    """What the order of the outputs does to a judge."""

    prefers_first: Estimate
    """P(the output shown first is preferred), decisive verdicts"""
    consistent: Estimate
    """P(the same verdict in both orders), over pairs asked in both; missing where none was"""
    kappa: float
    """between the orders"""
    both_orders: int


def position_audit(votes: pd.DataFrame, *, confidence: float = 0.95) -> PositionAudit:
    """Position preference and consistency of the votes of one annotator (:mod:`farm.votes.table`)."""
    shown = votes["shown"].to_numpy(np.float64)
    decisive = ~np.isnan(shown) & (shown != 0.5)
    item = votes["item"].to_numpy()
    prefers = mean((shown[decisive] > 0.5).astype(float), item[decisive], confidence=confidence)
    order = votes["reversed"].to_numpy(bool)
    plain = votes[~order].drop_duplicates("item").set_index("item")["first"]
    turned = votes[order].drop_duplicates("item").set_index("item")["first"]
    both = plain.index.intersection(turned.index)
    a, b = plain.loc[both].to_numpy(np.float64), turned.loc[both].to_numpy(np.float64)
    seen = ~(np.isnan(a) | np.isnan(b))
    a, b = a[seen], b[seen]
    # kappa on the orientation of the data, not on the canonical one: margins depend on it
    given = votes.drop_duplicates("item").set_index("item")["flipped"].loc[both].to_numpy(bool)[seen]
    kappa = agree.kappa(np.where(given, 1 - a, a), np.where(given, 1 - b, b)) if a.size else float("nan")
    return PositionAudit(prefers, mean((a == b).astype(float), confidence=confidence), kappa, int(a.size))


@dataclass(frozen=True)
class Validation(Result):
    """A judge against humans; agreements are fractions."""

    judge: str
    items: int
    votes: int
    annotators: int
    judge_unmatched: int
    """judged pairs that no human saw"""
    human_unmatched: int
    """human pairs that the judge did not judge"""
    agreement: Estimate
    """with a single decisive human vote, over decisive verdicts"""
    agreement_ties_half: Estimate
    """the same with the judge's ties as one half"""
    agreement_with_majority: Estimate
    ceiling: agree.LeaveOneOut
    ratio: float
    """agreement (ties half, same votes) over the human ceiling"""
    difference: Estimate
    """judge minus human: agreement with the majority of an item's other votes, on the same votes"""
    kappa: float
    kappa_half: float
    """with chance agreement one half"""
    human_alpha: float
    alpha_with_judge: float
    """alpha with the judge as one more annotator"""
    analysis: AnnotatorAnalysis
    human_analysis: AnnotatorAnalysis
    position: PositionAudit
    human_prefers_first: float
    biases: pd.DataFrame
    """bias, judge, human, difference, low, high"""
    curve: Floats
    """A_k: agreement of the majority of k humans with another, k = 1, 2, ..."""
    worth_votes: float
    """human votes whose majority agrees with another human as often as the judge does"""
    correlation: float
    """of the judge's verdict with one human vote"""
    correlation_with_mean: float
    ppi_gain: float
    """n_eff / n from PPI++ with unlimited judge labels, against one human vote an item"""
    ppi_gain_mean: float
    ranks: pd.DataFrame
    """rank correlation of the models under judge and humans, with intervals; empty without models"""
    human_split_half: ranking.SplitHalf | None
    seed: int
    confidence: float
    notes: tuple[str, ...] = field(default=())

    def table(self) -> pd.DataFrame:
        """Measure, value, low, high, n and what it means."""
        rows: list[tuple[str, float, float, float, float, str]] = []

        def add(name: str, value: float, means: str, e: Estimate | None = None, n: float = np.nan) -> None:
            low, high = (e.low, e.high) if e else (np.nan, np.nan)
            rows.append((name, value, low, high, e.n if e else n, means))

        def estimate(name: str, e: Estimate, means: str) -> None:
            add(name, e.value, means, e)

        estimate("agreement", self.agreement, "with one human vote, both decisive")
        estimate("agreement, ties half", self.agreement_ties_half, "the judge's ties count one half")
        estimate("agreement with majority", self.agreement_with_majority, "of all human votes of the item")
        estimate("human ceiling", self.ceiling.agreement, "one human vote against the majority of the others")
        estimate("judge minus human", self.difference, "against the same majorities")
        add("ratio to ceiling", self.ratio, "")
        add("kappa", self.kappa, "judge and human majority")
        add("kappa, chance 1/2", self.kappa_half, "right when the order is random")
        add("alpha of humans", self.human_alpha, "nominal")
        add("alpha with judge", self.alpha_with_judge, "the judge as one more annotator")
        add("worth votes", self.worth_votes, "humans whose majority agrees as often")
        add("rho, one vote", self.correlation, "")
        add("rho, mean vote", self.correlation_with_mean, "")
        add("PPI++ gain", self.ppi_gain, "n_eff / n at most, one vote an item")
        add("PPI++ gain, mean vote", self.ppi_gain_mean, "n_eff / n at most, mean vote of an item")
        add("AlpacaEval agreement", self.analysis.human_agreement, "one label against the humans' mode")
        add("AlpacaEval bias", self.analysis.bias, "mode against mode")
        add("AlpacaEval variance", self.analysis.variance, "one label against its own others")
        add("human variance", self.human_analysis.variance, "the same for humans")
        estimate("prefers first", self.position.prefers_first, f"humans {self.human_prefers_first:.3f}")
        estimate("consistent in both orders", self.position.consistent, "")
        rows += [
            (f"{b.bias}, judge - human", b.difference, b.low, b.high, b.n, f"{b.judge:.3f} - {b.human:.3f}")
            for b in self.biases.itertuples()
        ]
        said = "win rates of the models by judge and humans"
        rows += [(f"{r.statistic}, models", r.value, r.low, r.high, r.n, said) for r in self.ranks.itertuples()]
        if self.human_split_half is not None:
            s = self.human_split_half
            add("human split half", s.value, f"Spearman-Brown {s.spearman_brown:.3f}")
        return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n", "meaning"])

    def settings(self) -> dict[str, Any]:
        return {
            "judge": self.judge,
            "items": self.items,
            "human votes": self.votes,
            "annotators": self.annotators,
            "judged without humans": self.judge_unmatched,
            "humans without judge": self.human_unmatched,
            "clusters": "item",
            "confidence": self.confidence,
            "seed": self.seed,
            **{f"note {k + 1}": n for k, n in enumerate(self.notes)},
        }


def validate(
    judge: pd.DataFrame, humans: pd.DataFrame, *, rounds: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Validation:
    """Judge votes beside human votes (both of :mod:`farm.votes.table`).

    Raises:
        UserError: when no pair is in both.
    """
    known = set(judge["item"])
    judge_items, human_items = judge["item"].nunique(), humans["item"].nunique()
    humans_seen = humans[humans["item"].isin(known)]
    judge_seen = judge[judge["item"].isin(set(humans["item"]))]
    if not len(humans_seen):
        raise UserError(
            "the judge's pairs and the humans' have no key in common; give both files the same ids or the same texts "
            f"(judge: {judge['item'].iloc[0]!r}, humans: {humans['item'].iloc[0]!r})"
        )
    # Correlations, kappa and alpha depend on which output is called first: take the humans' file as it is.
    turned = humans_seen.drop_duplicates("item").set_index("item")["flipped"]
    votes = _oriented(humans_seen[humans_seen["first"].notna()].reset_index(drop=True), turned)
    if not (humans["sided"].all() and judge["sided"].all()):  # one file says only "first": the same first, then
        turned = judge_seen.drop_duplicates("item").set_index("item")["flipped"]
    judge_seen = _oriented(judge_seen.reset_index(drop=True), turned)
    # the judge's verdict of an item: the mean over its orders and repetitions
    verdict = judge_seen.groupby("item")["first"].mean()
    f = verdict.reindex(votes["item"]).to_numpy(np.float64)
    y = votes["first"].to_numpy(np.float64)
    item = votes["item"].to_numpy()
    decided = (y != 0.5) & ~np.isnan(f)
    rounded = np.where(np.isnan(f), np.nan, (np.sign(f - 0.5) + 1) / 2)
    both = decided & (rounded != 0.5)
    agreement = mean((rounded == y)[both].astype(float), item[both], confidence=confidence)
    half = mean(1 - np.abs(y - rounded)[decided], item[decided], confidence=confidence)
    majority, judged = _majorities(votes, verdict)
    m, j = majority.to_numpy(np.float64), judged.to_numpy(np.float64)
    clear = (m != 0.5) & ~np.isnan(j)
    with_majority = mean(1 - np.abs(m - j)[clear], confidence=confidence)
    ceiling = agree.leave_one_out(item, y, confidence=confidence)
    difference, ratio = _against_others(item, y, rounded, confidence)
    counts, values = agree.value_counts(item, y)
    joined_items = np.concatenate([item, judged.index[~np.isnan(j)].to_numpy()])
    with_judge, with_values = agree.value_counts(joined_items, np.concatenate([y, j[~np.isnan(j)]]))
    largest = _largest(item, y)
    curve = agree.majority_curve(item, y, largest) if largest else np.empty(0)
    enough = _votes_of_large_items(item, y, largest)
    on_curve = 1 - np.abs(y - rounded)[decided & enough]
    worth = agree.worth_votes(float(on_curve.mean()), curve) if on_curve.size and curve.size else float("nan")
    per_item = votes.groupby("item")["first"].mean()
    matched = verdict.reindex(per_item.index).to_numpy(np.float64)
    known_f = ~np.isnan(f)
    rho = _correlation(y[known_f], f[known_f])
    rho_mean = _correlation(per_item.to_numpy()[~np.isnan(matched)], matched[~np.isnan(matched)])
    ranks, halves, notes = _ranks(votes, judge_seen, rounds, seed, confidence)
    human_first = votes["shown"].to_numpy(np.float64)
    return Validation(
        judge=str(judge["annotator"].iloc[0]),
        items=int(votes["item"].nunique()),
        votes=len(votes),
        annotators=int(votes["annotator"].nunique()),
        judge_unmatched=judge_items - int(judge_seen["item"].nunique()),
        human_unmatched=human_items - int(humans_seen["item"].nunique()),
        agreement=agreement,
        agreement_ties_half=half,
        agreement_with_majority=with_majority,
        ceiling=ceiling,
        ratio=ratio,
        difference=difference,
        kappa=agree.kappa(m, j),
        kappa_half=agree.kappa(m, j, chance="half"),
        human_alpha=agree.alpha(counts, values),
        alpha_with_judge=agree.alpha(with_judge, with_values),
        analysis=analyze_annotator(judge_seen, votes),
        human_analysis=analyze_annotator(votes, is_human=True),
        position=position_audit(judge_seen, confidence=confidence),
        human_prefers_first=float(np.mean(human_first[human_first != 0.5] > 0.5)),
        biases=biases(judge_seen, votes, confidence=confidence),
        curve=curve,
        worth_votes=worth,
        correlation=rho,
        correlation_with_mean=rho_mean,
        ppi_gain=gain(rho),
        ppi_gain_mean=gain(rho_mean),
        ranks=ranks,
        human_split_half=halves,
        seed=seed,
        confidence=confidence,
        notes=tuple(notes),
    )


def _oriented(votes: pd.DataFrame, turned: pd.Series) -> pd.DataFrame:
    """Votes with the two sides exchanged for the items that ``turned`` marks."""
    flip = turned.reindex(votes["item"]).to_numpy(bool)
    out = votes.assign(
        first=np.where(flip, 1 - votes["first"], votes["first"]),
        flipped=votes["flipped"].to_numpy(bool) ^ flip,
    )
    for name in ("model", "length", "list"):
        if f"{name}_1" in votes:
            one, two = votes[f"{name}_1"].to_numpy(), votes[f"{name}_2"].to_numpy()
            out[f"{name}_1"], out[f"{name}_2"] = np.where(flip, two, one), np.where(flip, one, two)
    return out


def _majorities(votes: pd.DataFrame, verdict: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The majority of each item's votes (1, 0, or 1/2 when even) and the judge's rounded verdict, by item."""
    balance = (votes["first"] - 0.5).groupby(votes["item"]).sum()
    majority = (np.sign(balance.round(9)) + 1) / 2
    judged = verdict.reindex(majority.index)
    return majority, (np.sign(judged - 0.5) + 1) / 2


def _against_others(item: NDArray[Any], y: Floats, judged: Floats, confidence: float) -> tuple[Estimate, float]:
    """Judge minus human against the majority of the item's other votes, on the same left-out votes; and their ratio."""
    decided = (y != 0.5) & ~np.isnan(judged)
    row, _ = codes(item[decided])
    vote, judge = y[decided], judged[decided]
    total = np.bincount(row)
    ones = np.bincount(row, weights=vote)
    others = total[row] - 1
    balance = 2 * (ones[row] - vote) - others
    kept = others > 0
    majority = (np.sign(balance) + 1) / 2
    human = (1 - np.abs(majority - vote))[kept]
    machine = (1 - np.abs(majority - judge))[kept]
    estimate = mean(machine - human, row[kept], confidence=confidence)
    return estimate, float(machine.mean() / human.mean()) if human.size else float("nan")


def _largest(item: NDArray[Any], y: Floats) -> int:
    """The largest odd k for which at least a quarter of the items have k + 1 decisive votes."""
    row, items = codes(item[y != 0.5])
    total = np.bincount(row, minlength=items)
    k = 1
    while (total >= k + 3).mean() >= 0.25:
        k += 2
    return k if (total >= k + 1).any() else 0


def _votes_of_large_items(item: NDArray[Any], y: Floats, largest: int) -> NDArray[np.bool_]:
    row, items = codes(item)
    total = np.bincount(row[y != 0.5], minlength=items)
    return np.asarray(total[row] > largest)


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.size > 1 and a.std() > 0 and b.std() > 0 else float("nan")


def biases(judge: pd.DataFrame, humans: pd.DataFrame, *, beyond: int = 30, confidence: float = 0.95) -> pd.DataFrame:
    """P(longer), P(list) and P(first shown) of the judge minus the humans' own, paired by item.

    The rate of one side alone confounds bias with quality (longer answers may be better); the difference on the same
    pairs does not. Columns: bias, judge, human, difference, low, high, n (items).
    """
    measures = {}
    source = humans if "length_1" in humans else judge
    by_item = source.drop_duplicates("item").set_index("item")
    if "length_1" in source:
        d = by_item["length_1"].astype(float) - by_item["length_2"].astype(float)
        measures["longer"] = np.sign(d.where(d.abs() > beyond, 0.0))
    source = humans if "list_1" in humans else judge
    if "list_1" in source:
        by_list = source.drop_duplicates("item").set_index("item")
        measures["lists"] = by_list["list_1"].astype(float) - by_list["list_2"].astype(float)
    rows = []
    for name, side in measures.items():
        side = side[(side != 0) & side.notna()]
        one, two = (_preferring(v, side) for v in (judge, humans))
        rows.append(_bias_row(name, one, two, confidence))
    for name, column in (("first shown", "shown"),):
        pair = []
        for votes in (judge, humans):
            v = votes[["item", column]].dropna()
            v = v[v[column] != 0.5]
            pair.append(v.groupby("item")[column].mean())
        rows.append(_bias_row(name, pair[0], pair[1], confidence))
    return pd.DataFrame(rows, columns=["bias", "judge", "human", "difference", "low", "high", "n"])


def _preferring(votes: pd.DataFrame, side: pd.Series) -> pd.Series:
    """By item: the share of decisive votes for the output on the + side."""
    v = votes[votes["item"].isin(side.index) & votes["first"].notna() & (votes["first"] != 0.5)]
    for_plus = ((v["first"] > 0.5).to_numpy() == (side.reindex(v["item"]).to_numpy() > 0)).astype(float)
    return pd.Series(for_plus).groupby(v["item"].to_numpy()).mean()


def _bias_row(name: str, judge: pd.Series, human: pd.Series, confidence: float) -> dict[str, object]:
    both = judge.index.intersection(human.index)
    a, b = judge.loc[both].to_numpy(np.float64), human.loc[both].to_numpy(np.float64)
    e = mean(a - b, confidence=confidence)
    nan = float("nan")
    rates = {"judge": float(a.mean()), "human": float(b.mean())} if a.size else {"judge": nan, "human": nan}
    return {"bias": name, **rates, "difference": e.value, "low": e.low, "high": e.high, "n": e.n}


def _ranks(
    humans: pd.DataFrame, judge: pd.DataFrame, rounds: int, seed: int, confidence: float
) -> tuple[pd.DataFrame, ranking.SplitHalf | None, list[str]]:
    """Rank correlation of the models' win rates, resampling items for both sides, and the humans' split half."""
    columns = ["statistic", "value", "low", "high", "n"]
    if "model_1" not in humans:
        return pd.DataFrame(columns=columns), None, ["no model names: no ranking to compare"]
    names = sorted(set(humans["model_1"]) | set(humans["model_2"]))
    if len(names) < 3:
        return pd.DataFrame(columns=columns), None, [f"{len(names)} models: no ranking to compare"]
    sides = humans.drop_duplicates("item").set_index("item")[["model_1", "model_2"]]
    own = judge[["item", "first"]].dropna().join(sides, on="item")
    item, number = codes(np.concatenate([humans["item"].to_numpy().astype(str), own["item"].to_numpy().astype(str)]))
    parts = []
    for votes, where in ((humans, item[: len(humans)]), (own, item[len(humans) :])):
        s = votes["first"].to_numpy(np.float64)
        index = pd.Index(names)
        one, two = (index.get_indexer(pd.Index(votes[c])) for c in ("model_1", "model_2"))
        cell = np.concatenate([where * len(names) + one, where * len(names) + two])
        sums = np.bincount(cell, weights=np.concatenate([s, 1 - s]), minlength=number * len(names))
        counts = np.bincount(cell, minlength=number * len(names)).astype(np.float64)
        parts.append((sums.reshape(number, -1).astype(np.float64), counts.reshape(number, -1)))
    (hs, hc), (js, jc) = parts
    with np.errstate(invalid="ignore", divide="ignore"):
        human, machine = hs.sum(0) / hc.sum(0), js.sum(0) / jc.sum(0)
    kept = ~(np.isnan(human) | np.isnan(machine))
    weights = ranking.cluster_weights(number, rounds, seed, "items")
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn_h = (weights @ hs[:, kept]) / (weights @ hc[:, kept])
        drawn_j = (weights @ js[:, kept]) / (weights @ jc[:, kept])
    whole = ~(np.isnan(drawn_h) | np.isnan(drawn_j)).any(axis=1)
    rows = []
    for name, function in (("spearman", ranking.spearman), ("kendall", ranking.kendall)):
        low, high = ranking.percentile_interval(function(drawn_h[whole], drawn_j[whole]), confidence)
        value = float(function(human[kept], machine[kept]))
        rows.append({"statistic": name, "value": value, "low": low, "high": high, "n": int(kept.sum())})
    over = ranking.correlation(human[kept], machine[kept], rounds=rounds, seed=seed, confidence=confidence)
    rows.append(
        {"statistic": "spearman over models", "value": over.value, "low": over.low, "high": over.high, "n": over.n}
    )
    halves = _split_votes(humans, names, seed)
    return pd.DataFrame(rows, columns=columns), halves, []


def _split_votes(votes: pd.DataFrame, names: list[str], seed: int, rounds: int = 200) -> ranking.SplitHalf:
    """Two halves of the votes at random (on the same items, as judge and humans are), each ranking the models."""
    index = pd.Index(names)
    one, two = (index.get_indexer(pd.Index(votes[c])) for c in ("model_1", "model_2"))
    s = votes["first"].to_numpy(np.float64)
    m = len(names)
    generator = rng.generator(seed, "split votes", len(votes))

    def rates(kept: NDArray[np.bool_]) -> Floats:
        won = np.bincount(one[kept], s[kept], m) + np.bincount(two[kept], 1 - s[kept], m)
        with np.errstate(invalid="ignore"):
            return np.asarray(won / (np.bincount(one[kept], minlength=m) + np.bincount(two[kept], minlength=m)))

    drawn = []
    for _ in range(rounds):
        half = generator.random(len(votes)) < 0.5
        a, b = rates(half), rates(~half)
        both = ~(np.isnan(a) | np.isnan(b))
        drawn.append(float(ranking.spearman(a[both], b[both])))
    value = float(np.nanmean(drawn))
    low, high = ranking.percentile_interval(np.array(drawn))
    return ranking.SplitHalf("spearman", value, 2 * value / (1 + value), low, high, len(votes), rounds, seed)


def audit_runs(votes: pd.DataFrame, by: list[str], *, truth: str = "human_label") -> pd.DataFrame:
    """Many judge runs with a gold label beside each verdict (LLMBar): one row a run.

    accuracy (both orders) with its interval clustered by pair, consistent (the same verdict in both orders), kappa
    between the orders, prefers_first, n, missing; a pair without both verdicts does not count for consistency.
    """
    if truth not in votes:
        raise UserError(f"the runs have no column `{truth}` to be judged by")
    for column in by:
        if column not in votes:
            raise UserError(f"the runs have no column `{column}`; there are: {', '.join(map(str, votes.columns))}")
    label = np.asarray(pd.to_numeric(votes[truth]), np.float64)
    groups = votes.groupby(by, sort=True)
    run, number = groups.ngroup().to_numpy(), groups.ngroups
    given, shown = votes["given"].to_numpy(np.float64), votes["shown"].to_numpy(np.float64)
    seen = ~np.isnan(given)
    right = (given == (label == 1)).astype(np.float64)

    def total(values: Floats, kept: NDArray[np.bool_], at: NDArray[Any]) -> Floats:
        return np.asarray(np.bincount(at[kept], weights=values[kept], minlength=number), np.float64)

    n = total(np.ones(len(votes)), seen, run)
    accuracy = total(right, seen, run) / n
    item, items = codes(votes["item"].to_numpy().astype(str))
    pair = run * items + item
    at, place = np.unique(pair, return_inverse=True)
    of_run = at // items
    residual = np.bincount(place[seen], weights=(right - accuracy[run])[seen], minlength=len(at))
    clusters = np.bincount(of_run[np.bincount(place[seen], minlength=len(at)) > 0], minlength=number)
    squares = np.bincount(of_run, weights=residual**2, minlength=number)
    error = np.sqrt(squares * clusters / np.maximum(clusters - 1, 1)) / n
    decisive = seen & (shown != 0.5)
    order = votes["reversed"].to_numpy(bool)
    verdict = np.full((2, len(at)), np.nan)
    for k in (0, 1):
        rows = np.flatnonzero((order == bool(k)) & seen)[::-1]  # the first verdict of each order stays
        verdict[k, place[rows]] = given[rows]
    both = ~np.isnan(verdict).any(axis=0)
    a, b = verdict[0], verdict[1]
    pairs = total(np.ones(len(at)), both, of_run)
    with np.errstate(invalid="ignore", divide="ignore"):
        consistent = total((a == b).astype(np.float64), both, of_run) / pairs
        expected = np.zeros(number)
        for v in (0.0, 0.5, 1.0):
            expected += total((a == v) * 1.0, both, of_run) * total((b == v) * 1.0, both, of_run) / pairs**2
        kappa = (consistent - expected) / (1 - expected)
        first = total((shown > 0.5).astype(np.float64), decisive, run) / total(np.ones(len(votes)), decisive, run)
    half = np.array([critical(0.95, max(int(c) - 1, 1)) for c in clusters]) * error
    table = groups.size().reset_index()[by]
    return table.assign(
        n=n.astype(int),
        missing=(groups.size().to_numpy() - n).astype(int),
        accuracy=accuracy,
        low=np.maximum(accuracy - half, 0),
        high=np.minimum(accuracy + half, 1),
        consistent=consistent,
        kappa=kappa,
        prefers_first=first,
        both_orders=pairs.astype(int),
    )
