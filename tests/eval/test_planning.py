"""Power, noise, corrections, PPI++, categories, cycles, many comparisons: known answers."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from eval.ranks import ranking
from eval.rates import categories, multiple, power
from eval.rates.correction import noise_corrected
from eval.rates.prediction_powered import gain, ppi
from eval.ratings import cycles
from farm.base.errors import UserError


@pytest.mark.parametrize(("flip", "n"), [(0.0, 778), (0.1, 1219), (0.25, 3132), (0.35, 8714)])
def test_power_table(flip, n):
    """Five points at 80 % power."""
    plan = power.needed(0.05, flip_rate=flip)
    assert plan.annotations == n
    generator = np.random.default_rng(0)
    observed = (1 - 2 * flip) * 0.55 + flip
    w = generator.binomial(n, observed, 20_000) / n
    significant = np.abs(w - 0.5) / np.sqrt(w * (1 - w) / n) > 1.959964
    assert significant.mean() == pytest.approx(0.80, abs=0.012)
    assert power.detectable(n, flip_rate=flip).difference == pytest.approx(0.05, abs=2e-4)


def test_detectable_at_805():
    assert power.detectable(805).difference == pytest.approx(0.049, abs=5e-4)
    assert power.detectable(805, flip_rate=0.25).difference == pytest.approx(0.099, abs=1e-3)


def test_power_paired_and_clustered():
    plain = power.needed(0.05, paired=True, variance=0.2)
    assert plain.annotations == pytest.approx(7.849 * 0.2 / 0.05**2, rel=2e-3)
    assert power.needed(0.05, design_effect=power.design_effect(5, 0.1)).annotations == pytest.approx(778 * 1.4, abs=2)
    for wrong in ({"flip_rate": 0.5}, {"design_effect": 0.5}, {"power": 1.0}):
        with pytest.raises(UserError):
            power.needed(0.05, **wrong)
    with pytest.raises(UserError):
        power.needed(0.0)
    with pytest.raises(UserError):
        power.detectable(10, flip_rate=0.4)


def test_noise_correction():
    """Truth .62 at p .25 looks like .56; ties hold; p >= .45 is refused."""
    assert noise_corrected(0.56, 0.01, 0.25).win_rate == pytest.approx(0.62)
    generator = np.random.default_rng(1)
    truth = generator.choice([0.0, 0.5, 1.0], 200_000, p=[0.25, 0.2, 0.55])
    seen = np.where(generator.random(truth.size) < 0.25, 1 - truth, truth)
    assert noise_corrected(seen.mean(), 0.001, 0.25).win_rate == pytest.approx(truth.mean(), abs=0.005)
    with pytest.raises(UserError, match=r"0\.45"):
        noise_corrected(0.5, 0.01, 0.45)


def test_ppi():
    """A perfect judge gives its own mean's precision, a useless one the humans'; the formula by hand between."""
    generator = np.random.default_rng(3)
    y = generator.random(200)
    perfect = ppi(y[:50], y[:50], y[50:])
    assert perfect.value == pytest.approx(y.mean(), abs=0.01) and perfect.effective_n > 150
    useless = ppi(y[:50], generator.random(50), generator.random(2000))
    assert useless.standard_error == pytest.approx(useless.human_only_standard_error, rel=0.05)
    f, g = y[:50] + generator.normal(scale=0.3, size=50), generator.random(300)
    found = ppi(y[:50], f, g)
    spread = np.var(np.r_[f, g], ddof=1)
    weight = np.cov(y[:50], f)[0, 1] / ((1 + 50 / 300) * spread)
    assert found.weight == pytest.approx(weight)
    assert found.value == pytest.approx(y[:50].mean() + weight * (g.mean() - f.mean()))
    assert gain(0.26) == pytest.approx(1.0725, abs=1e-3)


def test_holm_and_benjamini_hochberg_equal_statsmodels():
    library = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(4).beta(0.5, 3, 40)
    np.testing.assert_allclose(multiple.holm(p), library.multipletests(p, method="holm")[1], atol=1e-14)
    np.testing.assert_allclose(multiple.benjamini_hochberg(p), library.multipletests(p, method="fdr_bh")[1], atol=1e-14)
    with_gap = multiple.holm(np.r_[p, np.nan])
    assert np.isnan(with_gap[-1]) and np.allclose(with_gap[:-1], multiple.holm(p))


def test_max_t_is_sharper_than_holm_and_right_when_independent():
    value, _ = multiple.max_t(np.eye(5), np.eye(5), draws=200_000)
    from scipy.stats import norm

    assert value == pytest.approx(norm.ppf((1 + 0.95 ** (1 / 5)) / 2), abs=0.01)
    same, _ = multiple.max_t(np.ones((5, 5)), np.eye(5), draws=100_000)
    assert same == pytest.approx(1.96, abs=0.02)


def test_cyclic_triads():
    """A regular tournament of nine has 30; random tournaments a quarter of all triples, and as many as
    Kendall and Babington Smith's formula says."""
    i = np.arange(9)
    regular = ((i[None, :] - i[:, None]) % 9 < 5) & (i[None, :] != i[:, None])
    assert cycles.cycles(regular.astype(float)).cyclic == 30
    generator = np.random.default_rng(5)
    shares = []
    for _ in range(300):
        upper = np.triu(generator.integers(0, 2, (9, 9)), 1)
        wins = (upper + np.tril(1 - upper.T, -1)).astype(float)
        found = cycles.cycles(wins)
        assert found.cyclic == 9 * 8 * 17 / 12 - np.square(wins.sum(axis=1)).sum() / 2
        shares.append(found.share)
    assert np.mean(shares) == pytest.approx(0.25, abs=0.01)


def test_arena_cycles(shared_data):
    """Arena's 25 models, pairs with 100 battles or more: 1.1 % of about 700 triples."""
    base = shared_data("human/arena")
    fractions = pd.read_csv(base / "arena_20240329_win_fraction_heatmap.csv", index_col=0)
    games = pd.read_csv(base / "arena_20240329_battle_count_heatmap.csv", index_col=0)
    wins = np.nan_to_num(fractions.to_numpy()) * games.loc[fractions.index, fractions.columns].to_numpy()
    found = cycles.cycles(wins, minimum_games=100)
    assert found.triples == pytest.approx(700, abs=30) and found.share == pytest.approx(0.011, abs=1e-3)


def test_rank_correlations_against_scipy():
    from scipy import stats

    generator = np.random.default_rng(6)
    x, y = generator.integers(0, 6, (20, 12)).astype(float), generator.integers(0, 6, (20, 12)).astype(float)
    for k in range(20):
        assert ranking.spearman(x, y)[k] == pytest.approx(stats.spearmanr(x[k], y[k]).statistic)
        assert ranking.kendall(x, y)[k] == pytest.approx(stats.kendalltau(x[k], y[k]).statistic)


def test_length_controlled_against_the_arena(shared_data):
    """Length control ranks more like the Arena."""
    base = shared_data("human/arena")
    names = json.loads((base / "alpaca_to_arena.json").read_text())
    arena = pd.read_csv(base / "arena_20240329_leaderboard.csv", index_col=0)["rating"]
    board = shared_data("alpaca_eval") / "leaderboards/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
    published = pd.read_csv(board, index_col=0)
    ours = [k for k, v in names.items() if k in published.index and v in arena.index]
    truth = arena[[names[k] for k in ours]].to_numpy()
    lc, raw = (published.loc[ours, c].to_numpy() for c in ("length_controlled_winrate", "win_rate"))
    found = ranking.correlation(lc, truth)
    assert len(ours) == 19 and found.value == pytest.approx(0.884, abs=1e-3)
    assert found.high - found.low > 0.2  # with so few models the interval is wide, and it is shown
    difference = ranking.correlation_difference(lc, raw, truth)
    assert difference.difference == pytest.approx(0.167, abs=1e-3) and difference.low < difference.difference


def test_shrinkage_does_not_let_small_groups_top_the_list():
    generator = np.random.default_rng(7)
    sizes = np.r_[np.full(30, 5), np.full(10, 200)]
    truth = np.clip(0.5 + 0.08 * generator.normal(size=40), 0, 1)
    group = np.repeat(np.arange(40), sizes)
    score = (generator.random(group.size) < truth[group]).astype(float)
    raw = np.bincount(group, weights=score) / sizes
    found = categories.shrink(raw, np.sqrt(0.25 / sizes))
    assert np.square(found.shrunken - truth).mean() < 0.4 * np.square(raw - truth).mean()
    table = categories.by_category(score, pd.Series([f"g/{g}" for g in group]))
    assert table["category"].iloc[0] == "g" and table["n"].iloc[0] == len(score)
    leaf = table[table["depth"] == 2]
    assert (leaf["shrunken"].diff().dropna() >= 0).all()
    assert (
        (leaf["shrunken"] - leaf["win_rate"].mean()).abs() <= (leaf["win_rate"] - leaf["win_rate"].mean()).abs() + 6
    ).all()


def test_no_true_differences_shrink_to_one_value():
    found = categories.shrink([0.5, 0.5, 0.5], [0.1, 0.1, 0.1])
    assert found.spread < 0.15 and np.allclose(found.shrunken, 0.5)
