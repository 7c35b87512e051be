"""Style beside strengths, tiers of what cannot be told apart, and the judge that prefers the longer output."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from eval.judges.validate import validate
from eval.ranks.ranking import tiers
from eval.rates.multiple import all_differences, apart, max_t
from eval.ratings import bradley_terry as bt
from eval.ratings import style
from eval.ratings.battles import from_table
from farm.base.errors import UserError
from farm.votes.table import from_table as votes_of


def battles(n: int = 6000, beta: float = 0.8, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Battles of six models, of which the later ones write more, and a judge who likes that."""
    generator = np.random.default_rng(seed)
    theta = np.array([0.8, 0.4, 0.1, -0.1, -0.4, -0.8])
    a = generator.integers(0, 6, n)
    b = (a + generator.integers(1, 6, n)) % 6
    words = [generator.poisson(20 + 12 * k) + 1 for k in (a, b)]
    x = (words[0] - words[1]) / (words[0] + words[1])
    won = generator.random(n) < expit(theta[a] - theta[b] + beta * x / x.std())
    names = np.array(list("abcdef"))
    texts = {f"response_{s}": ["x" * int(w) for w in side] for s, side in zip("ab", words, strict=True)}
    table = pd.DataFrame({"model_a": names[a], "model_b": names[b], **texts, "prompt": np.arange(n) // 3})
    return table.assign(winner=np.where(won, "model_a", "model_b")), theta


def test_strengths_at_equal_style_are_recovered_and_others_are_not():
    table, theta = battles()
    found = bt.bradley_terry(from_table(table, "t"), style=("length",), clusters=("prompt",))
    error = np.sqrt(np.diag(found.covariance))
    assert (np.abs(found.theta - theta) < 4 * error).all() and (error < 0.15).all()
    worth = found.style.iloc[0]
    assert worth["low"] < 0.8 < worth["high"] and worth["high"] - worth["low"] < 0.4
    plain = bt.bradley_terry(from_table(table, "t"))
    assert np.abs(plain.theta - theta).max() > 0.4  # the last write most, and seem better than they are
    assert "worth" in str(found) and "style" in found.settings() and found.draws is None


def test_without_a_style_the_fit_and_its_errors_are_bradley_terrys():
    table, _ = battles(600)
    fought = from_table(table, "t")
    plain = bt.bradley_terry(fought, clusters=("prompt",))
    nothing = np.zeros((len(fought), 0))
    theta, _, inverse, p = style.fit(fought.first, fought.second, fought.score, nothing, 6)
    np.testing.assert_allclose(theta, plain.theta, atol=1e-8)
    code = pd.factorize(fought.table["prompt"])[0].astype(np.int64)
    covariance, units = style.sandwich(
        inverse, fought.first, fought.second, fought.score - p, nothing, [(code, int(code.max()) + 1)]
    )
    np.testing.assert_allclose(covariance, plain.covariance, atol=1e-10)
    assert units == plain.clusters


def test_against_statsmodels():
    models = pytest.importorskip("statsmodels.api")
    table, _ = battles(900)
    fought = from_table(table, "t")
    x = style.differences(fought.table, ["length"])
    design = np.zeros((len(fought), 6))
    design[np.arange(len(fought)), fought.first] += 1
    design[np.arange(len(fought)), fought.second] -= 1
    fit = models.GLM(fought.score, np.hstack([design[:, 1:], x]), family=models.families.Binomial()).fit(cov_type="HC0")
    theta, beta, inverse, p = style.fit(fought.first, fought.second, fought.score, x, 6)
    np.testing.assert_allclose(theta[1:] - theta[0], fit.params[:5], atol=1e-7)
    np.testing.assert_allclose(beta, fit.params[5:], atol=1e-7)
    covariance, n = style.sandwich(inverse, fought.first, fought.second, fought.score - p, x, [])
    np.testing.assert_allclose(covariance[6, 6] * (n - 1) / n, fit.cov_params()[5, 5], rtol=1e-6)
    np.testing.assert_allclose(
        covariance[1, 1] + covariance[0, 0] - 2 * covariance[0, 1], fit.cov_params()[0, 0] * n / (n - 1), rtol=1e-6
    )


def test_which_answer_stands_first_changes_nothing():
    table, _ = battles(500)
    names = {"model_a": "model_b", "model_b": "model_a", "response_a": "response_b", "response_b": "response_a"}
    turned = table.rename(columns=names).assign(winner=table["winner"].map(names))
    longer = (table["response_a"].str.len() > table["response_b"].str.len()).to_numpy()
    mixed = np.random.default_rng(1).random(len(table)) < 0.5
    one = bt.bradley_terry(from_table(table, "t"), style=("length",))
    for rows in (np.full(len(table), True), longer, mixed):  # all, so that no first answer is longer, or any
        some = pd.concat([table[~rows], turned[rows]]).sort_index()
        two = bt.bradley_terry(from_table(some, "t"), style=("length",))
        np.testing.assert_allclose(one.theta, two.theta, atol=1e-9)
        np.testing.assert_allclose(one.covariance, two.covariance, atol=1e-9)
        pd.testing.assert_frame_equal(one.style, two.style)


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (("--style", "lenght"), "did you mean `length`"),
        (("--style", "length,length"), "names length more than once; name each style once"),
        (("--style", "headers"), "no two answers differ in it; leave it out"),
        (("--style", "length", "--metrics", "elo"), "ask for them with --metrics bradley_terry"),
        (("--cluster", "prompt", "--metrics", "elo"), "--cluster is part of Bradley-Terry ratings"),
        (("--prior", "1", "--metrics", "elo"), "--prior is part of Bradley-Terry ratings"),
        (("--style", "length", "--ties", "davidson"), "not with Davidson's model; change --ties"),
    ],
)
def test_mistakes_are_one_sentence(farm, tmp_path, further, said):
    table, _ = battles(200)
    path = tmp_path / "battles.csv"
    table.to_csv(path, index=False)
    status, _, err = farm("leaderboard", path, *further)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1, err
    table.drop(columns=["response_a"]).to_csv(path, index=False)
    status, _, err = farm("leaderboard", path, "--style", "length")
    assert status == 2 and "no texts of both answers" in err and "nor their lengths" in err


@pytest.mark.parametrize("marked", [["model_a"] * 4, ["model_a", "model_b"] * 2])
def test_a_style_that_one_model_alone_has_is_refused(marked):
    """The model `a` writes headers and the other never does: always on the first side, or on both."""
    sides = [("a", "b") if side == "model_a" else ("b", "a") for side in marked]
    texts = {"a": "# A\nb", "b": "b"}
    table = pd.DataFrame(sides, columns=["model_a", "model_b"]).assign(
        winner=["model_a", "model_a", "model_b", "model_b"]
    )
    table = table.assign(output_1=table["model_a"].map(texts), output_2=table["model_b"].map(texts))
    with pytest.raises(UserError, match="cannot be told apart from who wrote or who won"):
        bt.bradley_terry(from_table(table, "t"), style=("headers",))


def test_the_command_prints_what_style_is_worth(farm, tmp_path):
    table, _ = battles(400)
    table.to_csv(tmp_path / "battles.csv", index=False)
    status, said, err = farm("leaderboard", tmp_path / "battles.csv", "--style", "length", "--json")
    data = json.loads(said)
    assert status == 0 and data["style"][0]["style"] == "length" and data["leaderboard"][0]["tier"] == 1, err


def test_tiers_go_down_from_their_best():
    scores = np.array([1.0, 3.0, 2.9, np.nan, 2.0])
    separated = np.zeros((5, 5), bool)
    for a, b in ((1, 0), (1, 4), (2, 0)):
        separated[a, b] = separated[b, a] = True
    assert tiers(scores, separated).tolist() == [2, 1, 1, 2, 2]  # 2.0 is told from 3.0, and 1.0 not from 2.0
    assert tiers(scores, np.zeros((5, 5), bool)).tolist() == [1] * 5


def test_what_is_apart_is_what_max_t_finds():
    generator = np.random.default_rng(1)
    root = generator.normal(size=(7, 7))
    covariance, value = root @ root.T / 50, np.array([0.0, 0.2, 0.9, 1.0, 2.2, 2.4, 4.0])
    _, p = max_t(covariance, all_differences(7), estimates=value)
    expected = p[np.abs(p - 0.05) > 0.02] < 0.05
    found = apart(value, covariance, 0.95)[np.triu_indices(7, 1)]
    assert (found[np.abs(p - 0.05) > 0.02] == expected).all() and 0 < found.sum() < len(found)
    assert not apart(np.array([1.0, 1.0]), np.zeros((2, 2)), 0.95).any()


def test_the_null_judge_that_prefers_the_longer_output():
    """Ten items; people prefer the longer one in eight of them, the judge says what people say in nine."""
    rows = [
        {"instruction": f"i{k}", "output_1": "short", "output_2": "longer one", "preference": 2 if k < 8 else 1}
        for k in range(10)
    ]
    people = pd.DataFrame(rows).assign(annotator="p")
    judge = people.assign(annotator="j", preference=people["preference"].where(people.index != 0, 1))
    found = validate(votes_of(judge, "judge"), votes_of(people, "people"), rounds=10)
    assert found.longer.value == pytest.approx(0.8) and found.longer.n == 10
    assert found.beyond_longer.value == pytest.approx(0.1)
    table = found.table().set_index("measure")
    assert table.loc["longer wins", "value"] == pytest.approx(0.8)
    names = {"output_1": "left", "output_2": "right", "instruction": "id"}  # words for the outputs, and no texts
    unknown = [votes_of(t.rename(columns=names), "x") for t in (judge, people)]
    table = validate(*unknown, rounds=10).table().set_index("measure")
    assert np.isnan(table.loc["longer wins", "value"]) and "not known" in table.loc["longer wins", "meaning"]


def test_a_style_is_counted_in_texts_alone():
    table = pd.DataFrame({"output_1_len": [1, 2], "output_2_len": [2, 1]})
    assert style.differences(table, ["length"]).shape == (2, 1)
    with pytest.raises(UserError, match="`style` bold: the battles have no texts"):
        style.differences(table, ["bold"])
    table = pd.DataFrame({"output_1": ["a", None], "output_2": ["", "b"]})  # None was a text of four characters
    with pytest.raises(UserError, match="`style` length: row 2: a text or its length is missing"):
        style.differences(table, ["length"])
