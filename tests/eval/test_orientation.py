"""Which output of a pair stands first in a row, and on which side its verdict, changes no evaluation: property tests.

tests/votes/test_orientation.py has what farm/votes and the annotators compute.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.evaluators.evaluation import evaluate_table
from eval.evaluators.leaderboard import Leaderboard
from eval.face.api import evaluate, leaderboard
from eval.judges.validate import validate
from farm.base.errors import UserError
from farm.roles.protocols import Comparison
from farm.tables import formats
from farm.tables.records import annotation_table, swapped
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


@pytest.mark.filterwarnings("error::RuntimeWarning")  # others may be of what earlier tests left behind
def test_ten_pairs_on_which_two_people_never_agree_or_only_tie():
    """Nothing is divided by an agreement of 0, and a judge beyond all majorities is worth "or more"."""
    pairs = JUDGE[:10].assign(preference=np.repeat([1.0, 2.0], 5))
    people = pd.concat([pairs.assign(annotator=n, preference=p) for n, p in (("a", 1.0), ("b", 2.0))])
    found = validate(from_table(pairs, "j"), from_table(people, "p"), rounds=5)
    assert found.ceiling.agreement.value == 0 and np.isnan(found.ratio)
    same = pd.concat([pairs.assign(annotator=n) for n in ("a", "b", "c", "d")])
    same.iloc[:3, same.columns.get_loc("preference")] = 2.0
    beyond = validate(from_table(pairs, "j"), from_table(same, "p"), rounds=5)
    assert beyond.table().set_index("measure").loc["worth votes", "value"] == beyond.most_votes
    level = validate(from_table(pairs, "j"), from_table(people.assign(preference=1.5), "p"), rounds=5)
    assert level.agreement.n == 0 and np.isnan(level.kappa_half)
    assert level.table().set_index("measure").loc["kappa, chance 1/2", "meaning"] == "too few items (0)"


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


@settings(max_examples=3, deadline=None)
@given(seeds, seeds)
def test_evaluation_with_people(one, other):
    people = PEOPLE[PEOPLE["replicate"] == 0].iloc[::2]
    plain = evaluate_table(JUDGE, humans=people)
    mixed = evaluate_table(turned(JUDGE, one), humans=turned(people, other))
    assert plain.to_dict() == mixed.to_dict() and plain.methods["n_human"].tolist() == [30, 30, 30]
    bare = people.drop(columns=["generator_1", "generator_2"])
    by_text = [evaluate_table(JUDGE, humans=t).methods["ppi_win_rate"] for t in (bare, turned(bare, other))]
    pd.testing.assert_series_equal(*by_text)


def test_files_evaluated_and_ranked(tmp_path):
    """The commands' own readers: AlpacaEval's files, their lengths, a directory of results, and battles."""
    files = []
    for k, table in enumerate((JUDGE, turned(JUDGE, 7), swapped(JUDGE, np.arange(len(JUDGE)) > 0))):
        table = table.assign(output_1_len=table["output_1"].str.len(), output_2_len=table["output_2"].str.len())
        files.append(tmp_path / f"{k}.json")
        formats.write_table(table.drop(columns=["output_1", "output_2"]), files[-1])
    plain, *others = (evaluate(f).to_dict() for f in files)
    assert all(other == plain for other in others)
    plain, *others = (leaderboard([f]) for f in files)
    for other in others:
        pd.testing.assert_frame_equal(plain, other)
    assert set(plain["method"]) == set(MODELS[1:])
    plain, mixed = (leaderboard([f], metrics=["bradley_terry"], rounds=20) for f in files[:2])
    pd.testing.assert_frame_equal(plain, mixed)
    alone = JUDGE[JUDGE["generator_2"] == "alpha"]
    folder = tmp_path / "results" / "alpha" / "judge"
    folder.mkdir(parents=True)
    formats.write_table(turned(alone, 3), folder / "annotations.json")
    known = leaderboard([files[0]]).set_index("method").loc["alpha", "win_rate"]
    found = leaderboard([tmp_path / "results"], baseline="base").set_index("method")
    assert found.loc["alpha", "win_rate"] == pytest.approx(known)


def test_two_generators_in_both_orders_have_no_baseline():
    alone = JUDGE[JUDGE["generator_2"] == "alpha"].reset_index(drop=True)
    with pytest.raises(UserError, match="row 2: `alpha` and `base` stand in both orders"):
        evaluate_table(swapped(alone, np.arange(len(alone)) == 1))
    with pytest.raises(UserError, match="row 2: the baseline is `other` but the first row has `base`"):
        evaluate_table(alone.assign(generator_1=np.where(np.arange(len(alone)) == 1, "other", "base")))
    with pytest.raises(UserError, match="the baseline is `beta`"):  # or one method against three baselines
        evaluate_table(swapped(JUDGE, np.ones(len(JUDGE), bool)))


def test_the_evaluator_of_a_run():
    outputs = pd.DataFrame({
        "instruction": np.tile(JUDGE["instruction"].unique(), 4), "output": "x", "sample": 0,
        "method": np.repeat(MODELS, 60),
    })  # fmt: skip
    named = JUDGE.assign(method=JUDGE["generator_2"])
    boards = [
        Leaderboard(rounds=20).evaluate(Comparison(outputs, {"judge": t, "humans": t}, "base", 0))["leaderboard"]
        for t in (JUDGE, turned(JUDGE, 5), named, turned(named, 6))
    ]
    for board in boards[1:]:
        pd.testing.assert_frame_equal(boards[0], board)


def test_rows_of_different_judges_are_not_ranked_together(tmp_path):
    """One method by one judge and another by another; a pool whose members are drawn for each pair may pass."""
    generator = np.random.Generator(np.random.Philox(4))
    pool = JUDGE.assign(annotator=generator.choice(["a", "b", "c"], len(JUDGE)))
    assert len(evaluate_table(pool).methods) == 3
    apart = JUDGE.assign(annotator=np.where(JUDGE["generator_2"] == "alpha", "gpt", "claude"))
    in_part = JUDGE.assign(annotator=np.where(JUDGE["generator_2"] == "alpha", "a", pool["annotator"]))
    for table in (apart, in_part):
        with pytest.raises(UserError, match="judges do not make one ranking"):
            evaluate_table(table)
        formats.write_table(table, tmp_path / "rows.json")
        with pytest.raises(UserError, match="choose one with `annotator`"):
            leaderboard([tmp_path / "rows.json"])
