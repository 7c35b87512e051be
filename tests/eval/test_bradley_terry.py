"""Bradley-Terry, Davidson, Elo: other libraries as oracles, LLMFAO, the Arena, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from eval.ratings import bradley_terry as bt
from eval.ratings.battles import from_table, read_battles
from eval.ratings.elo import elo
from eval.ratings.first_advantage import first_advantage
from eval.ratings.strengths import fit_half
from eval.ratings.win_matrix import count
from farm.base.errors import UserError


def simulated(n: int = 4000, models: int = 12, seed: int = 0, nu: float = 0.4, per_cluster: int = 0):
    generator = np.random.default_rng(seed)
    theta = generator.normal(size=models)
    a = generator.integers(0, models, n)
    b = (a + generator.integers(1, models, n)) % models
    d = theta[a] - theta[b]
    if per_cluster:
        shared = generator.normal(scale=1.5, size=(n // per_cluster + 1, models))
        c = np.arange(n) // per_cluster
        d = d + shared[c, a] - shared[c, b]
    up = np.exp(d / 2)
    total = up + 1 / up + nu
    u = generator.random(n)
    winner = np.where(u < up / total, "model_a", np.where(u < (up + nu) / total, "tie", "model_b"))
    names = np.array([f"m{k:02d}" for k in range(models)])
    table = pd.DataFrame({"model_a": names[a], "model_b": names[b], "winner": winner})
    if per_cluster:
        table["prompt"] = np.arange(n) // per_cluster
    return table, theta - theta.mean()


def test_newton_against_the_obvious_loop():
    table, _ = simulated(500, 5)
    battles = from_table(table, "t")
    fitted = bt.bradley_terry(battles)
    p = np.exp(fitted.theta)
    wins = np.zeros((5, 5))
    for i, j, s in zip(battles.first, battles.second, battles.score):
        wins[i, j] += s
        wins[j, i] += 1 - s
    for _ in range(5000):  # Zermelo's iteration
        p = wins.sum(1) / ((wins + wins.T) / (p[:, None] + p[None, :])).sum(1)
        p /= np.exp(np.log(p).mean())
    np.testing.assert_allclose(fitted.theta, np.log(p), atol=1e-9)


def test_against_evalica_choix_and_statsmodels():
    table, _ = simulated()
    battles = from_table(table, "t")
    half = bt.bradley_terry(battles)
    choix = pytest.importorskip("choix")
    wins = count(battles.first, battles.second, battles.score, 12).win_matrix()
    np.testing.assert_allclose(half.theta, choix.ilsr_pairwise_dense(wins), atol=1e-7)
    evalica = pytest.importorskip("evalica")
    names = {"model_a": evalica.Winner.X, "model_b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    given = (table["model_a"].tolist(), table["model_b"].tolist(), [names[w] for w in table["winner"]])
    for result, ours in (
        (evalica.bradley_terry(*given, tolerance=1e-13, limit=100_000), half),
        (evalica.newman(*given, tolerance=1e-13, limit=100_000), bt.bradley_terry(battles, ties="davidson")),
    ):
        theirs = np.log(result.scores).loc[list(ours.models)].to_numpy()
        np.testing.assert_allclose(ours.theta, theirs - theirs.mean(), atol=1e-8)
    sm = pytest.importorskip("statsmodels.api")
    i, j = np.triu_indices(12, 1)
    design = np.zeros((i.size, 12))
    design[np.arange(i.size), i], design[np.arange(i.size), j] = 1, -1
    glm = sm.GLM(np.c_[wins[i, j], wins[j, i]], design[:, 1:], family=sm.families.Binomial()).fit(tol=1e-13)
    np.testing.assert_allclose(half.theta[1:] - half.theta[0], glm.params, atol=1e-8)


def test_davidson_gradient_is_zero_and_recovers_nu():
    table, theta = simulated(40_000, 8)
    battles = from_table(table, "t")
    fitted = bt.bradley_terry(battles, ties="davidson")
    assert fitted.nu == pytest.approx(0.4, abs=0.02)
    np.testing.assert_allclose(fitted.theta, theta, atol=0.1)


def test_sandwich_of_rows_from_counts_is_the_sum_over_rows():
    table, _ = simulated(800, 6)
    battles = from_table(table.assign(row=np.arange(800)), "t")
    for ties in ("half", "davidson"):
        rows = bt.bradley_terry(battles, ties=ties)
        each = bt.bradley_terry(battles, ties=ties, clusters=["row"])
        np.testing.assert_allclose(rows.covariance, each.covariance, atol=1e-12)


def test_votes_on_one_prompt_are_said_to_err_together():
    """Failed: three votes a prompt were so many independent rows, with errors half as large, and nothing said so."""
    rows = [("a", "b", w, p) for p in range(4) for w in ("a", "a", "b" if p % 2 else "tie")]
    table = pd.DataFrame(rows, columns=["model_a", "model_b", "winner", "prompt"])
    said = bt.bradley_terry(from_table(table, "t")).settings()
    assert said["caution"] == "12 battles about 4 prompts, taken as independent: cluster by prompt"
    assert "only 4 clusters" in bt.bradley_terry(from_table(table, "t"), clusters=["prompt"]).settings()["caution"]
    unknown = [table.assign(prompt=missing) for missing in ("", None, np.nan)]  # failed: "12 battles about 0 prompts"
    for alone in (table.drop_duplicates("prompt"), table.drop(columns="prompt"), *unknown):
        assert "caution" not in bt.bradley_terry(from_table(alone, "t"), prior=1).settings()


def test_bootstrap_agrees_with_the_sandwich():
    table, _ = simulated(4000, 8, per_cluster=10)
    battles = from_table(table, "t")
    for clusters in ([], ["prompt"]):
        fitted = bt.bradley_terry(battles, clusters=clusters, bootstrap=400)
        spread = np.std(fitted.draws, axis=0, ddof=1) / bt.SCALE
        np.testing.assert_allclose(spread, np.sqrt(np.diag(fitted.covariance)), rtol=0.2)
        assert fitted.degenerate == 0
    narrow, wide = bt.bradley_terry(battles), bt.bradley_terry(battles, clusters=["prompt"])
    assert np.diag(wide.covariance).mean() > 1.3 * np.diag(narrow.covariance).mean()


def test_a_disconnected_graph_is_refused_and_a_prior_mends_it():
    table = pd.DataFrame({"model_a": ["a", "a", "b"], "model_b": ["b", "c", "c"], "winner": ["model_a"] * 3})
    with pytest.raises(UserError, match="`c` never won"):
        bt.bradley_terry(from_table(table, "t"))
    fitted = bt.bradley_terry(from_table(table, "t"), prior=1.0)
    assert list(np.argsort(-fitted.theta)) == [0, 1, 2] and np.isfinite(fitted.covariance).all()
    islands = pd.DataFrame(
        {"model_a": ["a", "b", "c", "d"], "model_b": ["b", "a", "d", "c"], "winner": ["model_a"] * 4}
    )
    with pytest.raises(UserError, match="2 groups that never met"):
        bt.bradley_terry(from_table(islands, "t"))


def test_an_anchor_keeps_its_rating_and_differences_do_not_move():
    table, _ = simulated()
    battles = from_table(table, "t")
    free, held = bt.bradley_terry(battles), bt.bradley_terry(battles, anchor="m03")
    row = held.table().set_index("model").loc["m03"]
    assert row["rating"] == 1000 and row["standard_error"] == pytest.approx(0, abs=1e-6)
    assert free.difference("m01", "m02").value == pytest.approx(held.difference("m01", "m02").value)


def test_shuffling_rows_and_swapping_sides_changes_nothing():
    table, _ = simulated(1000, 6)
    swapped = table.sample(frac=1, random_state=1).rename(columns={"model_a": "model_b", "model_b": "model_a"})
    swapped["winner"] = swapped["winner"].map({"model_a": "model_b", "model_b": "model_a", "tie": "tie"})
    one, two = bt.bradley_terry(from_table(table, "t")), bt.bradley_terry(from_table(swapped, "t"))
    np.testing.assert_allclose(one.theta, two.theta, atol=1e-12)
    np.testing.assert_allclose(one.covariance, two.covariance, atol=1e-12)


def test_the_first_advantage_is_recovered():
    generator = np.random.default_rng(5)
    theta, n = generator.normal(size=6), 20_000
    a = generator.integers(0, 6, n)
    b = (a + generator.integers(1, 6, n)) % 6
    won = generator.random(n) < expit(0.3 + theta[a] - theta[b])
    names = np.array(list("abcdef"))
    table = pd.DataFrame({"model_a": names[a], "model_b": names[b], "winner": np.where(won, "model_a", "model_b")})
    found = first_advantage(from_table(table, "t"))
    assert abs(found.log_odds - 0.3) < 4 * found.standard_error and found.standard_error < 0.03
    sm = pytest.importorskip("statsmodels.api")
    design = np.zeros((n, 6))
    design[np.arange(n), a], design[np.arange(n), b] = 1, -1
    glm = sm.GLM(won.astype(float), np.c_[design[:, 1:], np.ones(n)], family=sm.families.Binomial())
    fit = glm.fit(tol=1e-12, cov_type="HC0")
    assert found.log_odds == pytest.approx(fit.params[-1], abs=1e-8)
    assert found.standard_error == pytest.approx(fit.bse[-1], rel=1e-6)


def test_elo_by_hand():
    table = pd.DataFrame({"model_a": ["a", "b"], "model_b": ["b", "a"], "winner": ["model_a", "tie"]})
    ratings = elo(from_table(table, "t"), k=4)
    expected = 1002 + 4 * (0.5 - 1 / (1 + 10 ** ((998 - 1002) / 400)))
    assert ratings["a"] == pytest.approx(expected) and ratings.sum() == pytest.approx(2000)


def test_llmfao(shared_data):
    """Mean standard errors in logits, row, item, worker, prompt; closed form and bootstrap."""
    battles = read_battles([shared_data("human/llmfao") / "crowd-comparisons.csv"])
    assert (
        len(battles) == 8931
        and len(battles.models) == 59
        and (battles.score == 0.5).mean() == pytest.approx(0.39, abs=0.005)
    )

    def error(clusters):
        return np.sqrt(np.diag(bt.bradley_terry(battles, clusters=clusters).covariance)).mean()

    row = error([])
    for column, closed, low, high in (
        ("id", 0.130, 1.21, 1.26),
        ("worker", 0.122, 1.13, 1.16),
        ("prompt", 0.183, 1.69, 1.81),
    ):
        assert error([column]) == pytest.approx(closed, abs=0.001)
        assert low < error([column]) / row < high
    fitted = bt.bradley_terry(battles, clusters=["id"], bootstrap=300)
    assert np.std(fitted.draws, axis=0).mean() / bt.SCALE == pytest.approx(0.133, abs=0.006)


def test_arena_aggregates(shared_data):
    """The refit correlates .994 with the published, stretched 1.54 (its fractions drop ties)."""
    base = shared_data("human/arena")
    fractions = pd.read_csv(base / "arena_20240329_win_fraction_heatmap.csv", index_col=0)
    games = pd.read_csv(base / "arena_20240329_battle_count_heatmap.csv", index_col=0).loc[
        fractions.index, fractions.columns
    ]
    wins = np.nan_to_num(fractions.to_numpy()) * games.to_numpy()
    ratings = 1000 + bt.SCALE * fit_half(wins)
    published = pd.read_csv(base / "arena_20240329_elo_final.csv").set_index("model_a")["elo"].loc[fractions.index]
    assert np.corrcoef(ratings, published)[0, 1] == pytest.approx(0.994, abs=0.002)
    assert np.polyfit(published, ratings, 1)[0] == pytest.approx(1.54, abs=0.03)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"model_a": ["a"], "model_b": ["b"], "winner": ["c"]}, "row 1: `winner` = 'c'"),
        ({"model_a": ["a"], "model_b": ["a"], "winner": ["tie"]}, "row 1: `a` meets itself"),
        ({"model_a": ["a"], "winner": ["tie"]}, "`model_a` is missing|column"),
    ],
)
def test_wrong_battles_name_the_row(rows, said):
    with pytest.raises(UserError, match=said):
        from_table(pd.DataFrame(rows), "t.csv")
