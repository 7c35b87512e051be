"""The logit annotator: each named bias against the number it must give."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from annotators.people.logit import LogitAnnotator
from annotators.people.pool import Pool
from farm.base.errors import UserError

N = 40_000
SE = 4 * np.sqrt(0.25 / N)


def share_first(table: pd.DataFrame) -> float:
    return float((table["preference"] == 1).mean())


def mirrored(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs.rename(columns=lambda c: c[:-1] + {"1": "2", "2": "1"}.get(c[-1], c[-1])).reindex(
        columns=pairs.columns
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_choice_probability_is_the_logistic_of_the_gap(features_of, pairs_of, temperature):
    features = features_of(u=[0.0, 1.2])
    table = LogitAnnotator(features, temperature=temperature).annotate(pairs_of(1, np.zeros(N, int)), seed=1)
    assert share_first(table) == pytest.approx(expit(1.2 / temperature), abs=SE)
    np.testing.assert_allclose(table["p_first"], expit(1.2 / temperature))


def test_weights_replace_the_gold_weights(features_of, pairs_of):
    features = features_of({"u": 1.0, "v": 2.0}, u=[0.0, 1.0], v=[0.0, 1.0])
    pairs = pairs_of([1], [0])
    assert logit(LogitAnnotator(features).annotate(pairs, seed=1)["p_first"][0]) == pytest.approx(3.0)
    assert logit(LogitAnnotator(features, weights={"v": -1.0}).annotate(pairs, seed=1)["p_first"][0]) == pytest.approx(
        -1
    )


def test_position_bias(features_of, pairs_of):
    """P(first) = σ(b) at equal utilities; the mean of the logits of both orders is free of b exactly."""
    features = features_of(u=[0.3, 0.3, 1.1])
    biased = LogitAnnotator(features, position_bias=1.0)
    table = biased.annotate(pairs_of(0, np.ones(N, int)), seed=2)
    assert share_first(table) == pytest.approx(expit(1.0), abs=SE)
    there, back = (biased.annotate(pairs_of([a], [b]), seed=2)["p_first"][0] for a, b in ((2, 0), (0, 2)))
    assert (logit(there) - logit(back)) / 2 == pytest.approx(0.8)


def test_length_bias_and_its_correction(features_of, pairs_of):
    """P(longer) = σ(γ tanh(d/s)) at equal utilities; a fit with a length term finds γ and an even win rate."""
    lengths = np.arange(100.0)
    features = features_of(u=np.zeros(100), length=lengths)
    generator = np.random.Generator(np.random.Philox(2))
    first, second = generator.integers(0, 100, (2, N))
    annotator = LogitAnnotator(features, length_bias=0.8, length_scale=20.0)
    table = annotator.annotate(pairs_of(first, second), seed=3)
    term = np.tanh((lengths[first] - lengths[second]) / 20.0)
    np.testing.assert_allclose(table["p_first"], np.where(first == second, 0.5, expit(0.8 * term)))
    decided = table["preference"].to_numpy() != 1.5
    coefficients, errors = logistic_fit(
        np.column_stack([np.ones(decided.sum()), term[decided]]), table["preference"].to_numpy()[decided] == 1
    )
    assert abs(coefficients[0]) < 4 * errors[0]
    assert coefficients[1] == pytest.approx(0.8, abs=4 * errors[1])
    longer = LogitAnnotator(features, length_bias=0.8, length_shape="log").annotate(pairs_of([19], [4]), seed=1)
    assert logit(longer["p_first"][0]) == pytest.approx(0.8 * np.log(20 / 5))


def test_list_bias_is_recovered_by_a_fit(features_of, pairs_of):
    generator = np.random.Generator(np.random.Philox(4))
    u, lists = generator.normal(size=500), generator.integers(0, 2, 500).astype(float)
    features = features_of(u=u, lists=lists)
    first, second = generator.integers(0, 500, (2, N))
    table = LogitAnnotator(features, list_bias=0.6).annotate(pairs_of(first, second), seed=3)
    decided = table["preference"].to_numpy() != 1.5
    terms = np.column_stack([u[first] - u[second], lists[first] - lists[second]])[decided]
    coefficients, errors = logistic_fit(terms, table["preference"].to_numpy()[decided] == 1)
    np.testing.assert_allclose(coefficients, [1.0, 0.6], atol=4 * errors.max())


def test_self_enhancement(features_of, pairs_of):
    """Own against other at equal utilities is σ(e); against a fair judge the win rate rises by about e/4."""
    features = features_of(u=np.zeros(2))
    pairs = pairs_of(0, np.ones(N, int))
    fond = LogitAnnotator(features, self_enhancement=1.0, own_generator="two")
    assert share_first(fond.annotate(pairs, seed=1)) == pytest.approx(expit(-1.0), abs=SE)
    slightly = LogitAnnotator(features, name="one", self_enhancement=0.1).annotate(pairs, seed=1)
    fair = LogitAnnotator(features, name="one").annotate(pairs, seed=1)
    assert (slightly["p_first"] - fair["p_first"]).mean() == pytest.approx(0.1 / 4, rel=0.01)
    both_own = fond.annotate(pairs.assign(generator_1="two"), seed=1)
    np.testing.assert_array_equal(both_own["p_first"], 0.5)
    with pytest.raises(UserError, match="generator_1"):
        fond.annotate(pairs.drop(columns="generator_1"), seed=1)


def test_sycophancy_grows_with_its_strength(features_of, pairs_of):
    features = features_of(u=np.zeros(2), agreement=[0.0, 1.0])
    strengths = (0.0, 0.5, 1.0, 2.0)
    by_feature = [LogitAnnotator(features, sycophancy=s).annotate(pairs_of([1], [0]), seed=1) for s in strengths]
    np.testing.assert_allclose([t["p_first"][0] for t in by_feature], expit(np.array(strengths)))
    stated = pairs_of([1], [0]).assign(agreement_1=-1.0, agreement_2=1.0)
    assert logit(LogitAnnotator(features, sycophancy=0.5).annotate(stated, seed=1)["p_first"][0]) == pytest.approx(-1.0)
    with pytest.raises(UserError, match="agreement_1"):
        LogitAnnotator(features_of(u=np.zeros(2)), sycophancy=1.0).annotate(pairs_of([1], [0]), seed=1)


def test_an_endless_cycle_is_cyclic_everywhere(features_of):
    """Three texts a third of a turn apart beat each other in a circle, whatever their utilities."""
    turn = 2 * np.pi * np.arange(3) / 3
    features = features_of(u=[0.0, 3.0, -2.0], a=np.cos(turn), b=np.sin(turn))
    judge = LogitAnnotator(features, cycle=1e9, cycle_terms=("a", "b"))
    assert cyclic_share(judge, ["0", "1", "2"], instructions=50) == 1.0


def test_cycles_on_the_drawn_circle(features_of):
    """Three random places on a circle form a cycle unless half a turn covers them: one time in four."""
    features = features_of(u=np.zeros(3))
    share = cyclic_share(LogitAnnotator(features, cycle=1e9), ["0", "1", "2"], instructions=6000)
    assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 6000))


def test_coin_triples_are_cyclic_one_time_in_four(features_of):
    share = cyclic_share(LogitAnnotator(features_of(u=np.zeros(3))), ["0", "1", "2"], instructions=6000)
    assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 6000))


def test_a_mixture_of_orders_can_be_cyclic(features_of, pairs_of):
    """Condorcet: a third each ranks 0>1>2, 1>2>0, 2>0>1; each edge of the circle wins two thirds."""
    features = features_of(one=[2.0, 1.0, 0.0], two=[0.0, 2.0, 1.0], three=[1.0, 0.0, 2.0])
    members = [LogitAnnotator(features, name=w, weights={w: 1.0}, greedy=True) for w in ("one", "two", "three")]
    for first, second in ((0, 1), (1, 2), (2, 0)):
        table = Pool(members).annotate(pairs_of(first, np.full(N, second)), seed=1)
        assert share_first(table) == pytest.approx(2 / 3, abs=SE)


def test_swapping_mirrors_the_label_exactly(features_of, pairs_of):
    generator = np.random.Generator(np.random.Philox(7))
    features = features_of(
        u=generator.normal(size=60), length=generator.integers(1, 90, 60), lists=generator.integers(0, 2, 60)
    )
    pairs = pairs_of(*generator.integers(0, 60, (2, 3000)))
    judge = LogitAnnotator(
        features,
        length_bias=0.5,
        list_bias=0.2,
        cycle=0.7,
        self_enhancement=0.4,
        own_generator="one",
        ties="davidson",
        tie_width=0.3,
        flip=0.1,
        lapse=0.05,
    )
    there, back = judge.annotate(pairs, seed=3), judge.annotate(mirrored(pairs), seed=3)
    np.testing.assert_array_equal(there["preference"], 3 - back["preference"])
    np.testing.assert_allclose(there["p_first"], 1 - back["p_first"], atol=1e-15)
    assert set(there["preference"]) == {1.0, 1.5, 2.0}


def test_identical_outputs_tie_whatever_the_bias(features_of, pairs_of):
    judge = LogitAnnotator(features_of(u=[1.0, 2.0]), position_bias=5.0, flip=0.3)
    table = judge.annotate(pairs_of([0, 1], [0, 1]), seed=1)
    assert table["preference"].tolist() == [1.5, 1.5]
    assert table["p_first"].tolist() == [0.5, 0.5]


def test_each_distinct_text_is_looked_at_once(features_of):
    features = features_of(u=np.arange(4.0))
    pairs = pd.DataFrame({"instruction": "x", "output_1": ["0", "1", "2"] * 10, "output_2": ["1", "2", "3"] * 10})
    LogitAnnotator(features).annotate(pairs, seed=1)
    assert features.asked == [4]


def test_greedy_does_not_draw(features_of, pairs_of):
    table = LogitAnnotator(features_of(u=[0.0, 1e-3, 0.0]), greedy=True).annotate(
        pairs_of([0, 1, 0], [1, 0, 2]), seed=1
    )
    assert table["preference"].tolist() == [2.0, 1.0, 1.5]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"flip": 1.2}, "flip"),
        ({"greedy": True, "flip": 0.1}, "greedy"),
        ({"tie_width": -1.0}, "tie_width"),
        ({"length_scale": 0.0}, "length_scale"),
    ],
)
def test_wrong_parameters_are_refused(features_of, wrong, said):
    with pytest.raises(ValueError, match=said):
        LogitAnnotator(features_of(u=[0.0]), **wrong)


def test_unknown_and_missing_features_are_named(features_of, pairs_of):
    features = features_of(utility=[0.0, 1.0])
    with pytest.raises(UserError, match=r"`utilty`.*did you mean `utility`"):
        LogitAnnotator(features, weights={"utilty": 1.0}).annotate(pairs_of([0], [1]), seed=1)
    with pytest.raises(UserError, match="not a number"):
        LogitAnnotator(features_of(u=[0.0, np.nan])).annotate(pairs_of([0], [1]), seed=1)


def test_no_pairs(features_of, pairs_of):
    table = LogitAnnotator(features_of(u=[0.0]), cycle=1.0, length_bias=1.0).annotate(
        pairs_of(np.zeros(0, int), np.zeros(0, int)), seed=1
    )
    assert len(table) == 0 and "preference" in table.columns


def cyclic_share(judge: LogitAnnotator, texts: list[str], instructions: int) -> float:
    """The share of triples that are cyclic, one triple for each of many instructions."""
    duels = list(itertools.combinations(texts, 2))
    pairs = pd.DataFrame(
        [(f"x {i}", a, b) for i in range(instructions) for a, b in duels],
        columns=["instruction", "output_1", "output_2"],
    )
    first = (judge.annotate(pairs, seed=5)["preference"].to_numpy() == 1).reshape(instructions, 3)
    # 0>1, 1>2, 2>0 or all three the other way round; the duels are (0,1), (0,2), (1,2)
    return float(np.mean((first[:, 0] == first[:, 2]) & (first[:, 0] != first[:, 1])))


def logistic_fit(terms: np.ndarray, won: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood coefficients of a logistic regression and their standard errors (Newton)."""
    beta = np.zeros(terms.shape[1])
    for _ in range(25):
        p = expit(terms @ beta)
        information = (terms * (p * (1 - p))[:, None]).T @ terms
        beta = beta + np.linalg.solve(information, terms.T @ (won - p))
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))
