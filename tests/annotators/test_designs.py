"""Which pairs a design chooses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from farm.base.errors import UserError
from farm.feedback.designs import DESIGNS, chosen, head_to_head


def samples(instructions: int = 50, each: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "instruction": np.repeat([f"x{i}" for i in range(instructions)], each),
            "output": [f"y{i}" for i in range(instructions * each)],
            "generator": [f"m{i % each}" for i in range(instructions * each)],
            "score": [float((i * 7) % 11) + i * 1e-6 for i in range(instructions * each)],
        }
    )


def pair_set(pairs: pd.DataFrame) -> set[frozenset[str]]:
    return {frozenset(p) for p in zip(pairs["output_1"], pairs["output_2"], strict=True)}


@pytest.mark.parametrize("design", DESIGNS)
def test_a_design_does_not_depend_on_the_order_of_rows_and_favours_no_column(design: str) -> None:
    table = samples(400)
    pairs = chosen(table, design, seed=1)  # type: ignore[arg-type]
    shuffled = chosen(table.sample(frac=1, random_state=3), design, seed=1)  # type: ignore[arg-type]
    key = ["instruction", "output_1", "output_2"]
    assert pairs[key].sort_values(key).to_numpy().tolist() == shuffled[key].sort_values(key).to_numpy().tolist()
    assert abs((pairs["score_1"] > pairs["score_2"]).mean() - 0.5) < 0.1
    assert (pairs["generator_1"] != pairs["generator_2"]).all()
    assert chosen(table, design, seed=2)[key].to_numpy().tolist() != pairs[key].to_numpy().tolist()  # type: ignore[arg-type]


def test_all_and_random() -> None:
    assert len(chosen(samples(), "all")) == 50 * 15
    for count in (1, 3, 99):
        pairs = chosen(samples(), "random", per_instruction=count)
        assert len(pair_set(pairs)) == len(pairs) == 50 * min(count, 15)
        assert (pairs.groupby("instruction").size() == min(count, 15)).all()


def test_random_pairs_are_drawn_evenly() -> None:
    pairs = chosen(samples(3000, 3), "random")
    counts = pd.Series([tuple(sorted(p)) for p in zip(pairs["generator_1"], pairs["generator_2"], strict=True)])
    assert counts.value_counts(normalize=True).to_numpy() == pytest.approx(np.full(3, 1 / 3), abs=0.035)


def test_best_against_worst() -> None:
    table = samples()
    pairs = chosen(table, "best-worst")
    by = table.groupby("instruction")["score"]
    assert (pairs[["score_1", "score_2"]].max(axis=1).to_numpy() == by.max()[pairs["instruction"]].to_numpy()).all()
    assert (pairs[["score_1", "score_2"]].min(axis=1).to_numpy() == by.min()[pairs["instruction"]].to_numpy()).all()


def test_swiss_pairs_neighbours_in_the_standing() -> None:
    table = samples(20, 7)
    pairs = chosen(table, "swiss")
    assert (pairs.groupby("instruction").size() == 3).all()
    for name, part in pairs.groupby("instruction"):
        standing = table[table["instruction"] == name].sort_values("score", ascending=False)["output"].tolist()
        assert pair_set(part) == {frozenset(standing[k : k + 2]) for k in (0, 2, 4)}


def test_uncertainty_takes_the_closest() -> None:
    table = samples(20, 5)
    pairs = chosen(table, "uncertainty", per_instruction=2)
    every = chosen(table, "all")
    gaps = (every["score_1"] - every["score_2"]).abs().groupby(every["instruction"]).apply(lambda g: sorted(g)[:2])
    own = (pairs["score_1"] - pairs["score_2"]).abs().groupby(pairs["instruction"]).apply(sorted)
    assert all(own[name] == pytest.approx(gaps[name]) for name in gaps.index)


def test_equal_texts_are_one_output_and_single_outputs_make_no_pair() -> None:
    table = pd.DataFrame({"instruction": ["a", "a", "a", "b"], "output": ["1", "1", "2", "3"]})
    assert pair_set(chosen(table)) == {frozenset({"1", "2"})}
    with pytest.raises(UserError, match="nothing to compare"):
        chosen(table.iloc[[0, 1, 3]])


def test_scores_that_are_missing_are_said() -> None:
    with pytest.raises(UserError, match="no column `score`"):
        chosen(samples().drop(columns="score"), "swiss")
    with pytest.raises(UserError, match="row 3"):
        chosen(samples().assign(score=lambda t: t["score"].where(t.index != 2)), "uncertainty")


def test_head_to_head() -> None:
    one = pd.DataFrame({"instruction": ["a", "b", "c"], "output": ["1", "2", "3"], "generator": "base"})
    two = pd.DataFrame({"instruction": ["c", "a", "z"], "output": ["4", "5", "6"], "generator": "new"})
    pairs = head_to_head(two, one)
    assert pairs["output_1"].tolist() == ["1", "3"]
    assert pairs["output_2"].tolist() == ["5", "4"]
    assert set(pairs["generator_1"]) == {"base"}
    assert set(pairs["generator_2"]) == {"new"}
    with pytest.raises(UserError, match="no instruction in common"):
        head_to_head(two.iloc[2:], one)
    with pytest.raises(UserError, match="several outputs"):
        head_to_head(pd.concat([two, two]), one)


def test_head_to_head_keeps_conversations_apart() -> None:
    asked = pd.DataFrame({"instruction": ["a", "a"], "turns": [["x", "b"], ["y", "b"]]})
    pairs = head_to_head(asked.assign(output=["1", "2"])[::-1], asked.assign(output=["3", "4"]))
    assert pairs[["output_1", "output_2"]].to_numpy().tolist() == [["3", "1"], ["4", "2"]]
    assert pairs["turns"].tolist() == asked["turns"].tolist()
