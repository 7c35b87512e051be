"""Does the judge rank the models as people do? Correlation of the two leaderboards, and what halves of people reach."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.ranks import ranking
from eval.ranks.true_ranks import correlation_intervals, scaled_influence
from farm.base import rng
from farm.base.arrays import Floats
from farm.statistics.uncertainty import codes


def model_ranks(
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
    influence = np.concatenate(
        [scaled_influence(s, c, v)[:, kept] for s, c, v in ((hs, hc, human), (js, jc, machine))], axis=1
    )
    over_items = correlation_intervals(
        human[kept], machine[kept], influence.T @ influence, rounds=rounds, seed=seed, confidence=confidence
    )
    rows = []
    for name, function in (("spearman", ranking.spearman), ("kendall", ranking.kendall)):
        low, high = over_items[name]
        value = float(function(human[kept], machine[kept]))
        rows.append({"statistic": name, "value": value, "low": low, "high": high, "n": int(kept.sum())})
    over = ranking.correlation(human[kept], machine[kept], confidence=confidence)
    rows.append(
        {"statistic": "spearman over models", "value": over.value, "low": over.low, "high": over.high, "n": over.n}
    )
    halves = split_votes(humans, names, seed)
    return pd.DataFrame(rows, columns=columns), halves, []


def split_votes(votes: pd.DataFrame, names: list[str], seed: int, rounds: int = 200) -> ranking.SplitHalf:
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
    value = float(np.nanmean(drawn)) if np.isfinite(drawn).any() else float("nan")
    low, high = ranking.percentile_interval(np.array(drawn))
    return ranking.SplitHalf("spearman", value, ranking.spearman_brown(value), low, high, len(votes), rounds, seed)
