"""Which output of a pair stands first in a row, and on which side its verdict, changes no evaluation: property tests.

tests/votes/test_orientation.py has what farm/votes and the annotators compute.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.validate import validate
from farm.errors import UserError
from farm.records import annotation_table, swapped
from farm.votes.table import from_table

MODELS = ("base", "alpha", "beta", "gamma")
seeds = st.integers(0, 2**32)


def judged(annotator: str, seed: int, noise: float, repeats: int = 1, n: int = 60) -> pd.DataFrame:
    """Verdicts on pairs of one baseline's and three methods' answers to 60 instructions, shown in orders drawn."""
    generator = np.random.Generator(np.random.Philox(seed))
    rows = np.repeat(np.arange(3 * n), repeats)
    ask, method = rows // 3, rows % 3
    quality = np.random.Generator(np.random.Philox(1)).normal(0, 1, (n, 3))[ask, method] - 0.3 * method + 0.5
    pairs = pd.DataFrame({
        "instruction": [f"ask {a}" for a in ask],
        "output_1": [f"base says {a}" for a in ask],
        "output_2": [f"{MODELS[1 + m]} says {a}" + " and more" * (7 * m) for a, m in zip(ask, method, strict=True)],
        "generator_1": "base", "generator_2": [MODELS[1 + m] for m in method],
        "dataset": np.where(ask % 2, "odd", "even"),
    })  # fmt: skip
    said = np.where(quality + noise * generator.normal(size=len(rows)) > 0, 2.0, 1.0)
    said[generator.random(len(rows)) < 0.1] = 1.5
    table = annotation_table(pairs, annotator, said, np.full(len(rows), np.nan), seed=seed)
    shown = generator.integers(1, 3, len(rows))
    return table.assign(replicate=np.arange(len(rows)) % repeats, shown_first=shown)


def turned(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    return swapped(table, np.random.Generator(np.random.Philox(seed)).random(len(table)) < 0.5)


JUDGE, PEOPLE = judged("judge", 11, 1.0), judged("person", 12, 1.5, repeats=3)


@settings(max_examples=4, deadline=None)
@given(seeds, seeds)
def test_validation(one, other):
    plain = validate(from_table(JUDGE, "j"), from_table(PEOPLE, "p"), rounds=20)
    mixed = validate(from_table(turned(JUDGE, one), "j"), from_table(turned(PEOPLE, other), "p"), rounds=20)
    assert plain.to_dict() == mixed.to_dict()


def test_measures_without_an_order_are_those_of_pairs_in_both_orders():
    """Every row a second time the other way round: kappa, alpha, rho and the rest of the margins stay."""
    votes, judge = PEOPLE[PEOPLE["replicate"] == 0], JUDGE
    plain = validate(from_table(judge, "j"), from_table(votes, "p"), rounds=20)
    human = (votes["preference"] - 1).to_numpy(np.float64)
    machine = (judge["preference"] - 1).to_numpy(np.float64)
    assert plain.correlation == pytest.approx(np.corrcoef(np.r_[human, 1 - human], np.r_[machine, 1 - machine])[0, 1])
    both = (human != 0.5) & (machine != 0.5)
    assert plain.kappa_half == pytest.approx(2 * (human == machine)[both].mean() - 1)
    assert plain.kappa_half == pytest.approx(2 * plain.agreement.value - 1)  # ties are no third class of this kappa
    assert plain.kappa_half_n == both.sum() == plain.agreement.n


def test_answers_looked_up_again_are_not_votes():
    """Three methods that say the same: one draw, keyed by the texts, in three rows. No two people voted on any pair."""
    rows = [judged("person", 3, 1.0)[lambda t: t["generator_2"] == "alpha"].assign(generator_2=m) for m in MODELS[1:]]
    same = pd.concat(rows, ignore_index=True)
    people = from_table(same, "p")
    assert len(people) == people["item"].nunique() == 60
    found = validate(from_table(judged("judge", 4, 1.0), "j"), people, rounds=5)
    assert found.votes == 60 and found.ceiling.agreement.n == 0 and np.isnan(found.human_analysis.variance)
    asked_anew = from_table(same.assign(replicate=np.arange(len(same)) // 60), "p")  # three answers, not one
    assert len(asked_anew) == 180


def test_a_few_items_with_more_votes_do_not_stand_for_all():
    """2 of 180 items have two votes: no variance, no alpha, no ceiling of kappa from those, and n said beside."""
    extra = judged("another", 13, 1.5).iloc[:2]
    votes = pd.concat([PEOPLE[PEOPLE["replicate"] == 0], extra], ignore_index=True)
    found = validate(from_table(JUDGE, "j"), from_table(votes, "p"), rounds=5)
    assert np.isnan(found.human_analysis.variance) and found.human_analysis.variance_items == 2
    assert np.isnan(found.human_alpha) and found.human_alpha_n == 2
    assert found.analysis.human_agreement_items == 178 and 0.5 < found.analysis.human_agreement < 0.9
    table = found.table().set_index("measure")
    assert table.loc["human variance", "meaning"] == "too few items with several labels (2)"
    assert table["n"].notna().all()


def test_files_that_name_the_outputs_by_other_columns():
    """Texts in one file, models alone in the other, joined by an id: the models tell which output is which."""
    keyed = JUDGE.assign(pair_id=np.arange(len(JUDGE)))
    people = PEOPLE[PEOPLE["replicate"] == 0].assign(pair_id=np.arange(len(JUDGE)))
    names = turned(keyed, 5)[["pair_id", "generator_1", "generator_2", "preference", "annotator"]]
    plain = validate(from_table(keyed, "j"), from_table(people, "p"), rounds=5)
    assert validate(from_table(names, "j"), from_table(people, "p"), rounds=5).agreement == plain.agreement
    bare = keyed[["pair_id", "preference", "annotator"]]  # in the order of the other file
    assert validate(from_table(bare, "j"), from_table(people, "p"), rounds=5).agreement == plain.agreement
    both_orders = pd.concat([people, swapped(people, np.ones(len(people), bool))]).assign(replicate=0)
    both_orders = both_orders.drop(columns="seed")
    with pytest.raises(UserError, match="stands in both orders in one file"):
        validate(from_table(bare, "j"), from_table(both_orders, "p"), rounds=5)
