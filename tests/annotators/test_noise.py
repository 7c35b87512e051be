"""Noise around an annotator: rates, shapes, what it costs, and what it must leave alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from annotators.noise.both_orders import BothOrders
from annotators.noise.difficulty import Difficulty
from annotators.noise.flip import Flip
from annotators.noise.lapse import Lapse
from annotators.noise.tie_band import TieBand
from annotators.people.logit import LogitAnnotator
from farm.base.errors import UserError
from farm.roles.protocols import Annotator
from farm.tables.records import annotation_table

N = 40_000
SE = 4 * np.sqrt(0.25 / N)


@dataclass(frozen=True)
class Priced:
    """Says that the first is better, for a cent, and counts the rows it was asked."""

    label: float = 1.0
    asked: list[int] = field(default_factory=list)
    status: str = "ok"

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        self.asked.append(len(pairs))
        labels = np.full(len(pairs), self.label if self.status == "ok" else np.nan)
        nothing = np.full(len(pairs), np.nan)
        return annotation_table(
            pairs, "priced", labels, nothing, seed=seed, replicate=replicate, status=self.status, price=0.01
        ).assign(raw_completion="1")


def oracle(features_of) -> LogitAnnotator:
    return LogitAnnotator(features_of(u=[0.0, 1.0, 1.0]), greedy=True)


def test_flip_keeps_one_minus_rate_of_the_labels(features_of, pairs_of):
    table = Flip(oracle(features_of), 0.25).annotate(pairs_of(1, np.zeros(N, int)), seed=1)
    assert (table["preference"] == 1).mean() == pytest.approx(0.75, abs=SE)
    assert table["coin"].mean() == pytest.approx(0.5, abs=SE)
    coins = table[table["coin"]]
    assert (coins["preference"] == 1).mean() == pytest.approx(0.5, abs=2 * SE)
    assert set(coins["p_first"]) == {0.5} and set(table["annotator"]) == {"logit"}
    assert (table["flipped"] == (table["preference"] == 2)).all()  # not all that a coin decided
    assert (table.loc[~table["coin"], "preference"] == 1).all()


def test_a_coin_costs_no_call(pairs_of):
    judge = Priced()
    table = Flip(judge, 0.25).annotate(pairs_of(0, np.ones(1000, int)), seed=1)
    assert judge.asked == [(~table["coin"]).sum()]
    assert table["price"].sum() == pytest.approx(0.01 * judge.asked[0])
    assert table.loc[table["coin"], "raw_completion"].isna().all()
    assert table.loc[table["coin"], "flipped"].isna().all()  # nobody knows what the judge would have said
    assert not table.loc[~table["coin"], "flipped"].any() and "coin" not in set(table["annotator"])
    assert (table.loc[~table["coin"], "raw_completion"] == "1").all()


def test_ties_are_never_flipped(features_of, pairs_of):
    table = Flip(oracle(features_of), 0.5).annotate(pairs_of(0, np.zeros(500, int)), seed=1)
    assert set(table["preference"]) == {1.5} and not table["coin"].any()


def test_flips_are_independent_across_seeds_and_replicates(features_of, pairs_of):
    flip, pairs = Flip(oracle(features_of), 0.25), pairs_of(1, np.zeros(N, int))
    base = flip.annotate(pairs, seed=1)["coin"]
    for other in (flip.annotate(pairs, seed=2), flip.annotate(pairs, seed=1, replicate=1)):
        assert (base & other["coin"]).mean() == pytest.approx(0.25, abs=SE)
    pd.testing.assert_series_equal(base, flip.annotate(pairs, seed=1)["coin"])


def test_swapping_mirrors_a_flipped_label(features_of, pairs_of):
    judge = Flip(LogitAnnotator(features_of(u=np.linspace(0, 2, 9))), 0.25)
    generator = np.random.Generator(np.random.Philox(1))
    first, second = generator.integers(0, 9, (2, 2000))
    there, back = (judge.annotate(pairs_of(a, b), seed=1) for a, b in ((first, second), (second, first)))
    np.testing.assert_array_equal(there["preference"], 3 - back["preference"])


def test_by_instruction_decides_all_pairs_of_an_instruction_together(features_of):
    """As AlpacaFarm did: one coin an instruction, and it names a column."""
    pairs = pd.DataFrame(
        [(f"x {i}", str(a), str(b)) for i in range(4000) for a, b in ((0, 1), (1, 0), (2, 0))],
        columns=["instruction", "output_1", "output_2"],
    )
    table = Flip(oracle(features_of), 0.25, key="instruction").annotate(pairs, seed=1)
    groups = table.groupby("instruction")
    assert set(groups["coin"].mean()) == {0.0, 1.0}
    assert groups["coin"].first().mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 4000))
    coins = table[table["coin"]].groupby("instruction")["preference"]
    assert set(coins.std()) == {0.0}
    assert coins.first().mean() == pytest.approx(1.5, abs=4 * np.sqrt(0.25 / 2000))


def test_an_adversary_flips_more_than_half(features_of, pairs_of):
    table = Flip(oracle(features_of), 0.9).annotate(pairs_of(1, np.zeros(N, int)), seed=1)
    assert (table["preference"] == 2).mean() == pytest.approx(0.9, abs=SE)
    certain = Flip(Priced(), 1.0).annotate(pairs_of(1, np.zeros(50, int)), seed=1)
    assert set(certain["preference"]) == {2.0} and not certain["coin"].any() and certain["flipped"].all()


def test_flips_compose(features_of, pairs_of):
    """A flip of a flip is independent of it: a + b - 2ab."""
    twice = Flip(Flip(oracle(features_of), 0.2), 0.1)
    table = twice.annotate(pairs_of(1, np.zeros(N, int)), seed=1)
    assert (table["preference"] == 2).mean() == pytest.approx(0.2 + 0.1 - 2 * 0.2 * 0.1, abs=SE)
    assert table["coin"].mean() == pytest.approx(0.2 + 0.8 * 0.4, abs=SE)
    assert (table["flipped"] == (table["preference"] == 2)).all()  # turned round twice is not turned round


def test_lapse_is_a_flip_of_half_its_rate(features_of, pairs_of):
    table = Lapse(oracle(features_of), 0.4).annotate(pairs_of(1, np.zeros(N, int)), seed=1)
    assert (table["preference"] == 2).mean() == pytest.approx(0.2, abs=SE)
    assert table["coin"].mean() == pytest.approx(0.4, abs=SE)


def test_leave_one_out_agreement_of_three_quarters_is_two_thirds(features_of, pairs_of):
    """AlpacaFarm's reason for 25 %: one label against the majority of three others agrees .672, humans .657."""
    p, m = 0.75, 0.75**3 + 3 * 0.75**2 * 0.25
    assert p * m + (1 - p) * (1 - m) == pytest.approx(0.672, abs=5e-4)
    agreement = leave_one_out(votes(Flip(oracle(features_of), 0.25), pairs_of(1, np.zeros(N, int)), 4))
    assert agreement == pytest.approx(0.672, abs=0.006)


def test_bradley_terry_saturates(features_of, pairs_of):
    """The fitted log-odds of two outputs follow ln of the flipped logistic, and end at ln((1 - ε)/ε)."""
    rate, gaps = 0.25, np.array([0.0, 0.5, 1.0, 2.0, 4.0, 30.0])
    features = features_of(u=gaps)
    judge = Flip(LogitAnnotator(features), rate)
    for i, gap in enumerate(gaps[1:], start=1):
        wins = (judge.annotate(pairs_of(i, np.zeros(N, int)), seed=1)["preference"] == 1).mean()
        p = (1 - 2 * rate) * expit(gap) + rate
        assert logit(wins) == pytest.approx(logit(p), abs=4 / np.sqrt(N * p * (1 - p)))
    assert logit(wins) == pytest.approx(np.log((1 - rate) / rate), abs=0.05)


def test_effective_sample_size(features_of, pairs_of):
    """The corrected win rate of labels with 25 % flips varies as that of a quarter of the labels."""
    runs, size, rate = 2000, 100, 0.25
    judge = LogitAnnotator(features_of(u=[0.0, 0.0]))
    pairs = pairs_of(0, np.ones(runs * size, int))
    clean = (judge.annotate(pairs, seed=1)["preference"].to_numpy() == 1).reshape(runs, size).mean(1)
    noisy = (Flip(judge, rate).annotate(pairs, seed=2)["preference"].to_numpy() == 1).reshape(runs, size).mean(1)
    ratio = clean.var() / ((noisy - rate) / (1 - 2 * rate)).var()
    assert ratio == pytest.approx((1 - 2 * rate) ** 2, rel=0.15)


def test_difficulty_has_the_human_agreement_and_the_human_shape(features_of, pairs_of):
    """The default spread gives .6566, one against three; a spread of 2.98 the five-vote splits of UKPConvArg."""
    pairs = pairs_of(1, np.zeros(N, int))
    assert leave_one_out(votes(Difficulty(oracle(features_of)), pairs, 4)) == pytest.approx(0.6566, abs=0.006)
    five = votes(Difficulty(oracle(features_of), spread=2.98), pairs, 5)
    for_truth = np.bincount(five.sum(0), minlength=6) / N
    splits = (for_truth + for_truth[::-1]) / 2  # which argument is called the first is arbitrary
    np.testing.assert_allclose(splits, [0.264, 0.132, 0.104, 0.104, 0.132, 0.264], atol=0.006)


def test_difficulty_belongs_to_the_pair(features_of, pairs_of):
    """Two votes on one pair are turned round together more often than by chance; a constant flip is not."""
    pairs = pairs_of(1, np.zeros(N, int))
    for judge, dependent in ((Flip(oracle(features_of), 0.2), False), (Difficulty(oracle(features_of), 1.5), True)):
        wrong = ~votes(judge, pairs, 2)
        excess = (wrong[0] & wrong[1]).mean() - wrong[0].mean() * wrong[1].mean()
        assert (excess > 0.01) == dependent
        assert dependent or abs(excess) < SE


def test_tie_band(features_of, pairs_of):
    features = features_of(u=[0.0, 0.4, 0.6])
    pairs = pairs_of([0, 1, 2], [1, 2, 0])  # logits -.4, -.2, .6
    assert (TieBand(LogitAnnotator(features), 0.5).annotate(pairs, seed=1)["preference"] == 1.5).tolist() == [1, 1, 0]
    by_parameter = LogitAnnotator(features, tie_width=0.5).annotate(pairs, seed=1)
    assert (by_parameter["preference"] == 1.5).tolist() == [1, 1, 0]
    coins = TieBand(Flip(LogitAnnotator(features, temperature=1e-3), 0.5), 0.5).annotate(pairs_of(0, [1] * 50), seed=1)
    assert coins["coin"].all() and set(coins["preference"]) == {1.0, 2.0}
    with pytest.raises(UserError, match="probabilities"):
        TieBand(Priced()).annotate(pairs, seed=1)


def test_swap_consistency(features_of, pairs_of):
    """Equal outputs, position bias 1: both answers name the same output with probability 2 σ(b) (1 - σ(b)) = .393."""
    expected = 2 * expit(1.0) * (1 - expit(1.0))
    assert expected == pytest.approx(0.393, abs=5e-4)
    biased = LogitAnnotator(features_of(u=[0.0, 0.0]), position_bias=1.0)
    table = BothOrders(biased).annotate(pairs_of(0, np.ones(N, int)), seed=1)
    assert table["consistent"].mean() == pytest.approx(expected, abs=SE)
    np.testing.assert_array_equal(table["preference"] == 1.5, ~table["consistent"])
    np.testing.assert_allclose(table["p_first"], 0.5)


def test_both_orders_average_and_add_up(features_of, pairs_of):
    biased = LogitAnnotator(features_of(u=[0.0, 0.7]), position_bias=0.4)
    table = BothOrders(biased).annotate(pairs_of([1, 0], [0, 1]), seed=1)
    expected = (expit(1.1) + expit(0.3)) / 2
    np.testing.assert_allclose(table["p_first"], [expected, 1 - expected])
    judge = Priced()
    paid = BothOrders(judge).annotate(pairs_of(0, np.ones(10, int)), seed=1)
    assert judge.asked == [10, 10] and paid["price"].tolist() == [0.02] * 10
    assert set(paid["preference"]) == {1.5}  # it names the first in either order
    failed = BothOrders(Priced(status="unparseable")).annotate(pairs_of([0], [1]), seed=1)
    assert failed["preference"].isna().all() and failed["status"].tolist() == ["unparseable"]


def test_both_orders_of_a_swapped_pair_are_the_same_two_questions(features_of, pairs_of):
    judge = BothOrders(LogitAnnotator(features_of(u=np.linspace(0, 2, 9)), position_bias=0.7))
    generator = np.random.Generator(np.random.Philox(1))
    first, second = generator.integers(0, 9, (2, 2000))
    there, back = (judge.annotate(pairs_of(a, b), seed=1) for a, b in ((first, second), (second, first)))
    np.testing.assert_array_equal(there["preference"], 3 - back["preference"])
    assert there["output_1"].tolist() == pairs_of(first, second)["output_1"].tolist()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_wrappers_leave_the_pairs_as_they_are(features_of, pairs_of, data):
    """Whatever the nesting: the same rows in the same order, every label legal, and no trace of an older verdict."""
    judge: Annotator = LogitAnnotator(features_of(u=np.linspace(0, 3, 7)))
    for wrap in data.draw(st.lists(st.sampled_from([Flip, Lapse, Difficulty, TieBand, BothOrders]), max_size=4)):
        judge = wrap(judge)
    rows = data.draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
    pairs = pairs_of([a for a, _ in rows], [b for _, b in rows])
    pairs = pairs.assign(topic="t", coin=True, preference=7.0).set_index(pd.Index(range(5, 5 + len(rows))))
    table = judge.annotate(pairs, seed=1)
    given = ["instruction", "output_1", "output_2", "generator_1", "generator_2", "topic"]
    pd.testing.assert_frame_equal(table[given], pairs[given], check_dtype=False)
    assert table["preference"].isin([1.0, 1.5, 2.0]).all()
    same = pairs["output_1"] == pairs["output_2"]
    assert (table.loc[same, "preference"] == 1.5).all()


@pytest.mark.parametrize("wrap", [Flip, Lapse])
def test_rates_are_checked(wrap):
    with pytest.raises(ValueError, match="rate"):
        wrap(Priced(), 1.5)


def votes(judge: Annotator, pairs: pd.DataFrame, count: int) -> np.ndarray:
    """Whether each of several answers to each pair prefers the first, bool [count, n]."""
    return np.stack([judge.annotate(pairs, seed=1, replicate=r)["preference"].to_numpy() == 1 for r in range(count)])


def leave_one_out(four: np.ndarray) -> float:
    """How often one vote agrees with the majority of the other three."""
    return float(np.mean([(four.sum(0) - v >= 2) == v for v in four]))
