"""What the commands print fits 80 columns, and has the numbers of the tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.evaluators.evaluation import evaluate_table
from eval.face.api import power, validate
from eval.published.board import Board
from eval.report.compare import RunComparison
from farm.statistics import terminal

NAMES = [f"a-model-with-a-rather-long-name-{k}-instruct-v0.{k}" for k in range(9)]


def fits(text: object) -> bool:
    return max(map(len, str(text).split("\n"))) <= 80


def rates(n: int) -> dict[str, object]:
    value = np.linspace(20, 80, n)
    return {"win_rate": value, "win_rate_low": value - 3.123456, "win_rate_high": value + 3.123456}


def test_a_number_and_its_interval_are_one_cell():
    table = pd.DataFrame({"method": ["a", "b"], "lc": [40.0, 1.5], "lc_low": [35.2, np.nan], "lc_high": [44.8, np.nan]})
    lines = terminal.shown(table).split("\n")
    assert lines[0].split() == ["method", "lc"] and lines[1].split() == ["a", "40", "[35.2,", "44.8]"]
    assert lines[2].split() == ["b", "1.5"]
    assert "1.5 [too few]" in terminal.shown(table, "too few")


def test_a_board_shows_what_it_is_sorted_by():
    table = {"rank": np.arange(9) + 1, "rank_low": 1, "rank_high": 9, "method": NAMES, **rates(9)}
    table |= dict.fromkeys(("n_wins", "n_wins_base", "n_draws", "n_total", "n_missing", "missing_why"), 1)
    table |= {"length_controlled_winrate": 28.11, "lc_low": 25.0, "lc_high": 31.0, "avg_length": 2000.0}
    shown = str(Board(pd.DataFrame(table), "base", ("judge",), "length_controlled_winrate", 805, 0.95, 10, 0))
    assert fits(shown) and "28.11 [25, 31]" in shown and "not shown here:" in shown


@pytest.mark.parametrize("methods", [1, 2, 3, 9])
def test_evaluations_plans_validations_and_comparisons_fit(methods):
    g = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "instruction": np.tile([f"i{k}" for k in range(12)], methods),
            "generator_1": "baseline",
            "generator_2": np.repeat(NAMES[:methods], 12),
            "preference": 1 + g.integers(0, 3, 12 * methods) / 2,
            "output_1_len": 100,
            "output_2_len": g.integers(50, 200, 12 * methods),
            "dataset": np.tile(["a/rather/deep/path/of/categories", "another"], 6 * methods),
        }
    )
    shown = str(evaluate_table(rows, flip_rate=0.1))
    assert fits(shown) and "win_rate" in shown and ("too few" in shown or methods > 6)
    changed = pd.DataFrame({"setting": ["annotator.annotators.0.rate"], "first": ["x" * 90], "second": ["y z " * 40]})
    table = pd.DataFrame({"role": "judge", "method": NAMES[:methods], "first": 50.0, "second": 55.0, "difference": 5.0})
    table = table.assign(low=-1.23456, high=11.23456, p_holm=0.123456, rank_first=1, rank_second=2, instructions=805)
    assert fits(RunComparison("runs/a" * 20, "runs/b", table, changed, (), (), 0.95))
    assert fits(power(3)) and fits(power(annotations=805, paired=True))


def test_pairs_that_name_no_methods_are_shown() -> None:
    """As `farm annotate` leaves the pairs of its manual, whose evaluation ended as unexpected."""
    rows = [(f"q{k}", "a", "b c", "", "", "judge", 1.0 + k % 2) for k in range(4)]
    names = "instruction output_1 output_2 generator_1 generator_2 annotator preference"
    said = str(evaluate_table(pd.DataFrame(rows, columns=names.split())))
    assert "(unnamed)" in said and "50" in said
    two = terminal.turned(pd.DataFrame({"method": ["", "m"], "wins": [0.5, 1.0]}), "method")
    assert two.split() == ["(unnamed)", "m", "wins", "0.5", "1"]


def test_a_validation_fits():
    g = np.random.default_rng(1)
    people = pd.DataFrame({"id": np.repeat(np.arange(40), 3), "model_a": "a", "model_b": "b"})
    people = people.assign(worker=np.tile(["x", "y", "z"], 40), winner=g.choice(["model_a", "model_b", "tie"], 120))
    judge = people.drop_duplicates("id").drop(columns="worker").assign(winner=g.choice(["model_a", "model_b"], 40))
    shown = str(validate(judge, people))
    assert fits(shown) and "human ceiling" in shown and "meaning" in shown


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("abc_ -", min_size=1, max_size=30), min_size=1, max_size=14, unique=True),
    st.integers(0, 4),
    st.text("xyz ", max_size=200),
)
def test_any_table_fits(names, rows, text):
    columns = {name: [text] * rows if k % 3 == 0 else [1e-9 * k] * rows for k, name in enumerate(names)}
    assert fits(terminal.shown(pd.DataFrame(columns)))
