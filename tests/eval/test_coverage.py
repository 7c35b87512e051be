"""Every 95 % interval covers 94 to 96 % in a simulation of its own assumptions.

The interval of each round is computed by the code under test; only the data are drawn in bulk. The full version of a
test (slow) has so many rounds that the band of one point is two to three simulation errors; the small one, which always
runs, allows three errors of its fewer rounds. Where 95 % cannot be had (few models, whose rank correlations move in
steps) the test states what is attained.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from eval.judges.judge_runs import audit_runs
from eval.ranks import ranking
from eval.ranks.true_ranks import correlation_intervals, joint_covariance
from eval.rates.categories import shrink
from eval.rates.correction import noise_corrected
from eval.rates.length_control import length_controlled
from eval.rates.multiple import all_differences, max_t
from eval.rates.prediction_powered import ppi
from eval.rates.winrate import win_rate
from eval.ratings import bradley_terry as bt
from eval.ratings.battles import from_table
from eval.ratings.first_advantage import first_advantage
from farm.statistics.uncertainty import critical, joint_means, mean


def simulated(small: int, full: int = 4000):
    """Rounds of a test: few by default, many when slow tests run."""
    return pytest.mark.parametrize("rounds", [small, pytest.param(full, marks=pytest.mark.slow)])


def covers(share: float, rounds: int, least: float = 0.94, most: float = 0.96) -> bool:
    """Whether a coverage lies between the bounds, or no further outside than chance explains in so few rounds."""
    spare = max(3 * np.sqrt(0.95 * 0.05 / rounds) - 0.01, 0.0) if rounds < 1000 else 0.0
    return least - spare <= share <= most + spare


def share(covered: list[bool] | np.ndarray) -> float:
    return float(np.mean(covered))


@simulated(400)
def test_mean_of_independent_rows(rounds):
    g = np.random.default_rng(0)
    rows = g.choice([0.0, 0.5, 1.0], (rounds, 200), p=[0.3, 0.1, 0.6])
    assert covers(share([(e := mean(x)).low <= 0.65 <= e.high for x in rows]), rounds)


@simulated(400, 4000)
def test_mean_clustered_in_one_way(rounds):
    g = np.random.default_rng(1)
    cluster = np.repeat(np.arange(60), 5)
    covered, naive = [], []
    for _ in range(rounds):
        x = 0.6 + 0.2 * g.normal(size=60)[cluster] + 0.2 * g.normal(size=300)
        e, n = mean(x, cluster), mean(x)
        covered.append(e.low <= 0.6 <= e.high)
        naive.append(n.low <= 0.6 <= n.high)
    assert covers(share(covered), rounds)
    assert share(naive) < 0.85  # what ignoring the clusters would have claimed


@simulated(200, 2500)
def test_mean_clustered_in_two_ways(rounds):
    g = np.random.default_rng(2)
    a, b = (v.ravel() for v in np.meshgrid(np.arange(60), np.arange(60)))
    kept = g.random(a.size) < 0.3
    a, b = a[kept], b[kept]
    covered = []
    for _ in range(rounds):
        x = g.normal(size=60)[a] + g.normal(size=60)[b] + 0.3 * g.normal(size=a.size)
        e = mean(x, a, b)
        covered.append(e.low <= 0 <= e.high)
    assert covers(share(covered), rounds)


@simulated(150, 1500)
def test_paired_differences_and_their_simultaneous_intervals(rounds):
    g = np.random.default_rng(3)
    truth = np.array([0.3, 0.45, 0.5, 0.7])
    contrasts = all_differences(4)
    single, together = [], []
    names = np.repeat(list("abcd"), 150)
    for k in range(rounds):
        base = g.normal(size=150)
        x = np.concatenate([expit(np.log(t / (1 - t)) + 0.8 * base + 0.5 * g.normal(size=150)) for t in truth])
        if k == 0:  # the true mean of each method, from many draws
            z = g.normal(size=(2, 2_000_000))
            means = np.array([expit(np.log(t / (1 - t)) + 0.8 * z[0] + 0.5 * z[1]).mean() for t in truth])
        joint = joint_means(x, names, np.tile(np.arange(150), 4))
        error = np.sqrt(np.einsum("km,mn,kn->k", contrasts, joint.covariance, contrasts))
        off = np.abs(contrasts @ (joint.means - means)) / error
        single.append(off <= critical(0.95, 149))
        value, _ = max_t(joint.covariance, contrasts, degrees=149, draws=4000, seed=k)
        together.append((off <= value).all())
    assert covers(share(np.array(single)), rounds)
    assert covers(share(together), rounds)


@simulated(400, 4000)
def test_noise_corrected(rounds):
    """Truth .62, p .25 estimated from 400 checks."""
    g = np.random.default_rng(4)
    covered = []
    for w, p in zip(g.binomial(800, 0.5 * 0.62 + 0.25, rounds) / 800, g.binomial(400, 0.25, rounds) / 400, strict=True):
        error, flip_error = np.sqrt(w * (1 - w) / 800), np.sqrt(p * (1 - p) / 400)
        c = noise_corrected(w, error, p, flip_error)
        covered.append(c.low <= 0.62 <= c.high)
    assert covers(share(covered), rounds)


@simulated(400, 4000)
def test_prediction_powered(rounds):
    """With n = 100, N = 1000 PPI++ covers and is narrower; the judge alone does not cover."""
    g = np.random.default_rng(5)
    covered, judge, narrower = [], [], []
    for _ in range(rounds):
        y = (g.random(1100) < 0.55).astype(float)
        wrong = g.random(1100) < np.where(y == 1, 0.08, 0.22)
        f = np.where(wrong, 1 - y, y)
        e = ppi(y[:100], f[:100], f[100:])
        covered.append(e.low <= 0.55 <= e.high)
        alone = mean(f)
        judge.append(alone.low <= 0.55 <= alone.high)
        narrower.append(e.standard_error / e.human_only_standard_error)
    assert covers(share(covered), rounds)
    assert share(judge) < 0.75 and np.mean(narrower) < 0.8


def _battles(g: np.random.Generator, theta: np.ndarray, clusters: int, per: int, spread: float) -> pd.DataFrame:
    m, n = len(theta), clusters * per
    c = np.repeat(np.arange(clusters), per)
    a = g.integers(0, m, n)
    b = (a + g.integers(1, m, n)) % m
    own = spread * g.normal(size=(clusters, m))
    p = expit(theta[a] - theta[b] + own[c, a] - own[c, b])
    names = np.array([f"m{k}" for k in range(m)])
    winner = np.where(g.random(n) < p, "model_a", "model_b")
    return pd.DataFrame({"model_a": names[a], "model_b": names[b], "winner": winner, "prompt": c})


@simulated(100, 1500)
def test_bradley_terry_rows_and_davidson(rounds):
    g = np.random.default_rng(6)
    theta = np.array([-0.8, -0.2, 0.1, 0.4, 0.5])
    theta = theta - theta.mean()
    covered = []
    for _ in range(rounds):
        fitted = bt.bradley_terry(from_table(_battles(g, theta, 400, 1, 0.0), "t"))
        covered.append(np.abs(fitted.theta - theta) <= 1.96 * np.sqrt(np.diag(fitted.covariance)))
    assert covers(share(np.array(covered)), rounds)


@simulated(100, 1500)
def test_bradley_terry_clustered(rounds):
    """With 10 battles an instruction rows cover too little, clusters cover."""
    g = np.random.default_rng(7)
    theta = np.zeros(5)  # equal models: the target is zero whatever the spread within instructions
    clustered, rows = [], []
    for _ in range(rounds):
        battles = from_table(_battles(g, theta, 120, 10, 1.2), "t")
        wide, narrow = bt.bradley_terry(battles, clusters=["prompt"]), bt.bradley_terry(battles)
        clustered.append(np.abs(wide.theta) <= critical(0.95, 119) * np.sqrt(np.diag(wide.covariance)))
        rows.append(np.abs(narrow.theta) <= 1.96 * np.sqrt(np.diag(narrow.covariance)))
    assert covers(share(np.array(clustered)), rounds)
    assert share(np.array(rows)) < 0.93


@simulated(300, 2000)
def test_length_controlled(rounds):
    g = np.random.default_rng(8)
    n = 400
    z = g.normal(size=1_000_000)
    truth = float(expit(0.7 * z - 0.5).mean())
    covered = []
    for _ in range(rounds):
        gamma = g.normal(size=n)
        one, two = g.integers(200, 3000, n), g.integers(200, 3000, n)
        d = (one - two) / np.std(one - two, ddof=1)
        y = (g.random(n) < expit(-1.0 * np.tanh(d) + 0.7 * gamma - 0.5)).astype(float)
        e = length_controlled(y, one, two, gamma)
        covered.append(e.low <= truth <= e.high)
    assert covers(share(covered), rounds)


@simulated(400)
@pytest.mark.parametrize(
    ("statistic", "models", "rho", "least", "most"),
    [
        ("spearman", 6, 0.6, 0.94, 0.98),  # few values to end on: too often rather than too seldom
        ("spearman", 8, 0.9, 0.94, 0.96),
        ("spearman", 12, 0.8, 0.94, 0.97),
        ("spearman", 60, 0.6, 0.94, 0.965),
        ("kendall", 12, 0.6, 0.93, 0.96),
        ("kendall", 12, 0.9, 0.89, 0.93),  # the variance is that of a correlation well inside (-1, 1): too small here
        ("kendall", 60, 0.6, 0.94, 0.96),
    ],
)
def test_rank_correlation_over_models(statistic, models, rho, least, most, rounds):
    """Methods drawn from a bivariate normal population."""
    g = np.random.default_rng(9)
    truth = {"spearman": 6 / np.pi * np.arcsin(rho / 2), "kendall": 2 / np.pi * np.arcsin(rho)}[statistic]
    x = g.normal(size=(rounds, models))
    y = rho * x + np.sqrt(1 - rho**2) * g.normal(size=(rounds, models))
    found = [ranking.correlation(a, b, statistic=statistic) for a, b in zip(x, y, strict=True)]
    assert covers(share([c.low <= truth <= c.high for c in found]), rounds, least, most)


@simulated(50, 1200)
@pytest.mark.parametrize(
    ("models", "rho", "noise", "most"), [(6, 0.5, 0.5, 0.98), (8, 0.8, 0.3, 0.97), (12, 0.95, 0.3, 0.965)]
)
def test_rank_correlation_of_true_scores(models, rho, noise, most, rounds):
    """Few methods, scores measured on 200 instructions; the percentile bootstrap misses the truth far more often.

    Half of the error is shared by the two measures. With 6 methods there are 25 values that the correlation can have,
    and an interval that ends on them covers too often rather than too seldom.
    """
    g = np.random.default_rng(13)
    covered, bootstrapped = [], []
    for k in range(rounds):
        x = g.normal(size=models)
        y = rho * x + np.sqrt(1 - rho**2) * g.normal(size=models)
        error = g.normal(size=(2, 200, models))
        a = x + noise * np.sqrt(200) * error[0]
        b = y + noise * np.sqrt(200) * (error[0] / 2 + np.sqrt(0.75) * error[1])
        methods, where = np.tile(np.arange(models), 200), np.repeat(np.arange(200), models)
        one, two = (joint_means(v.ravel(), methods, where, [str(m) for m in range(models)]) for v in (a, b))
        truth = float(ranking.spearman(x, y))
        low, high = correlation_intervals(one.means, two.means, joint_covariance(one, two), rounds=1000, seed=k)[
            "spearman"
        ]
        covered.append(low <= truth <= high)
        weights = ranking.cluster_weights(200, 200, k)
        low, high = ranking.percentile_interval(ranking.spearman(one.resampled(weights), two.resampled(weights)))
        bootstrapped.append(low <= truth <= high)
    assert covers(share(covered), rounds, 0.93, most)
    if models == 12:
        assert share(bootstrapped) < 0.88


@simulated(150, 1500)
def test_difference_of_two_correlations(rounds):
    """Two metrics against one truth over 40 methods, one of them the better."""
    g = np.random.default_rng(14)
    z = g.normal(size=(3, 400_000))
    truth = float(ranking.spearman(0.9 * z[0] + 0.44 * z[1], z[0]) - ranking.spearman(0.6 * z[0] + 0.8 * z[2], z[0]))
    covered = []
    for k in range(rounds):
        t, e, f = g.normal(size=(3, 40))
        d = ranking.correlation_difference(0.9 * t + 0.44 * e, 0.6 * t + 0.8 * f, t, rounds=500, seed=k)
        covered.append(d.low <= truth <= d.high)
    assert covers(share(covered), rounds, 0.925, 0.96)  # a percentile bootstrap over 40 methods: slightly too narrow


@simulated(300)
def test_win_rate_of_an_annotation_table(rounds):
    g = np.random.default_rng(15)
    at, weight = np.polynomial.hermite_e.hermegauss(60)
    truth = float(weight @ expit(at + 0.5) / weight.sum())  # .6020
    covered = []
    for _ in range(rounds):
        won = g.random(120) < expit(g.normal(size=120) + 0.5)
        names = {"generator_1": "base", "generator_2": "a"}
        found = win_rate(pd.DataFrame({"instruction": np.arange(120), "preference": 1.0 + won, **names}))
        covered.append(found.low <= truth <= found.high)
    assert covers(share(covered), rounds)


@simulated(150, 2000)
def test_accuracy_of_a_judge_run(rounds):
    """Both orders of a pair err together: the interval is clustered by pair."""
    g = np.random.default_rng(16)
    covered = []
    for _ in range(rounds):
        n = 150
        right = g.random(n) < 0.8
        given = np.where(np.repeat(right, 2) ^ (g.random(2 * n) < 0.1), 1.0, 0.0)
        votes = pd.DataFrame(
            {
                "item": np.repeat(np.arange(n), 2),
                "run": "r",
                "human_label": 1,
                "given": given,
                "shown": np.where(np.tile([0, 1], n) == 1, 1 - given, given),
                "reversed": np.tile([False, True], n),
            }
        )
        row = audit_runs(votes, ["run"]).iloc[0]
        covered.append(row["low"] <= 0.8 * 0.9 + 0.2 * 0.1 <= row["high"])
    assert covers(share(covered), rounds)


@simulated(100, 1500)
def test_shrunken_groups_cover_on_average(rounds):
    g = np.random.default_rng(17)
    covered = []
    for _ in range(rounds):
        truth = 0.5 + 0.05 * g.normal(size=40)
        error = np.where(np.arange(40) < 20, 0.03, 0.1)
        found = shrink(truth + error * g.normal(size=40), error)
        covered.append(np.abs(found.shrunken - truth) <= 1.96 * found.standard_error)
    assert covers(share(np.array(covered)), rounds, 0.93, 0.96)


@simulated(60, 600)
def test_bradley_terry_bootstrap_davidson_and_first_advantage(rounds):
    g = np.random.default_rng(18)
    theta = np.array([-0.6, -0.1, 0.2, 0.5])
    scaled = 1000 + bt.SCALE * (theta - theta.mean())
    bootstrapped, davidson, advantage = [], [], []
    for k in range(rounds):
        table = _battles(g, theta, 500, 1, 0.0)
        names = table["model_a"].str[1:].astype(int), table["model_b"].str[1:].astype(int)
        d = theta[names[0]] - theta[names[1]]
        up = np.exp(d / 2)
        u = g.random(500) * (up + 1 / up + 0.6)
        ties = table.assign(winner=np.where(u < up, "model_a", np.where(u < up + 0.6, "tie", "model_b")))
        fitted = bt.bradley_terry(from_table(ties, "t"), ties="davidson")
        davidson.append(np.abs(fitted.theta - theta + theta.mean()) <= 1.96 * np.sqrt(np.diag(fitted.covariance)))
        found = bt.bradley_terry(from_table(table, "t"), bootstrap=300, seed=k).draws
        low, high = np.quantile(found, [0.025, 0.975], axis=0)
        bootstrapped.append((low <= scaled) & (scaled <= high))
        moved = table.assign(winner=np.where(g.random(500) < expit(d + 0.4), "model_a", "model_b"))
        e = first_advantage(from_table(moved, "t"))
        advantage.append(e.low <= 0.4 <= e.high)
    assert covers(share(np.array(davidson)), rounds)
    assert covers(share(np.array(bootstrapped)), rounds)
    assert covers(share(advantage), rounds, 0.93, 0.97)


@simulated(100, 800)
def test_rank_intervals_of_a_board(rounds):
    """Percentile ranks over resampled instructions, method by method: at least 95 % where methods differ."""
    g = np.random.default_rng(19)
    truth = np.linspace(0.35, 0.65, 6)
    true_rank = np.arange(6, 0, -1)
    covered = []
    for k in range(rounds):
        x = (g.random((150, 6)) < expit(np.log(truth / (1 - truth)) + 0.5 * g.normal(size=(150, 1)))).astype(float)
        joint = joint_means(x.ravel(), np.tile(np.arange(6), 150), np.repeat(np.arange(150), 6))
        low, high = ranking.rank_intervals(joint.resampled(ranking.cluster_weights(150, 400, k)))
        covered.append((low <= true_rank) & (true_rank <= high))
    assert covers(share(np.array(covered)), rounds, 0.95, 1.0)


@simulated(60, 400)
def test_rank_intervals_hold_together(rounds):
    """Ranks from max-t separation hold for all models at once, at least as often as said."""
    g = np.random.default_rng(10)
    theta = np.linspace(-0.6, 0.6, 6)
    holds = []
    for _ in range(rounds):
        fitted = bt.bradley_terry(from_table(_battles(g, theta, 500, 1, 0.0), "t"))
        low, high = ranking.ranks_from_separation(fitted.theta, fitted.separation())
        true_rank = np.arange(6, 0, -1)
        holds.append(bool(((low <= true_rank) & (true_rank <= high)).all()))
    assert covers(share(holds), rounds, most=1.0)
