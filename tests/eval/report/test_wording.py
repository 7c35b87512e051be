"""Sentences and headings of the pages say what the tables say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from eval.report import agreement, learning, study, summary, tables
from eval.report.folder import RunFolder
from eval.report.html import Html, page_environment
from eval.report.tables import Palette
from farm.statistics.uncertainty import SHARE, mean


def test_steps_are_those_that_were_run_not_the_last_with_the_metric(make_run):
    """Games measure the gap in every fifth step: 15 and 4 steps are not "10 steps and 3"."""
    run = make_run()
    lines = [{"method": "ppo", "step": k, **({"gap": 0.5 - k / 100} if k % 5 == 0 else {})} for k in range(15)]
    lines += [{"method": "dpo", "step": k, "gap": 0.3} for k in range(4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = RunFolder.read(run)
    assert learning.section(found, Palette(found.methods, "sft"))["steps"] == "ppo 15 steps and dpo 4 steps"


def test_a_diagonal_is_spoken_of_only_where_one_is_drawn(make_run):
    run = make_run()
    assert "on the dashed diagonal" in Html().render(RunFolder.read(run))
    board = pd.DataFrame(json.loads((run / "leaderboard.json").read_text()))
    others = [c for c in board.columns if c.startswith(("win_rate_gold", "win_rate_humans"))]
    (run / "leaderboard.json").write_text(board.drop(columns=others).to_json(orient="records"))
    found = RunFolder.read(run)
    section = agreement.section(found, Palette(found.methods, "sft"))
    assert section["charts"] and not section["diagonal"]
    assert "on the dashed diagonal" not in Html().render(found)


@pytest.mark.parametrize(
    ("bounds", "p", "said"),
    [
        ((1.8, 28.2), 0.001, "points behind, more than chance would explain."),
        ((1.8, 28.2), 0.071, "not among all 3 differences together (p = 0.071)."),
        ((-1.8, 31.8), 0.3, "points behind, which chance could explain."),
    ],
)
def test_an_interval_off_zero_is_not_called_chance(make_run, bounds, p, said):
    run = make_run()
    first, second = pd.DataFrame(json.loads((run / "leaderboard.json").read_text()))["method"][:2]
    row = {"first": first, "second": second, "difference": 15.0, "low": bounds[0], "high": bounds[1], "p_max_t": p}
    (run / "pairwise.json").write_text(json.dumps([row, {**row, "second": "x"}, {**row, "second": "y"}]))
    assert said in summary.sentences(RunFolder.read(run))[1]


def test_a_validation_has_a_heading_a_table_and_no_column_of_noes():
    table = pd.DataFrame(
        {
            "first": ["a", "b", "c"],
            "second": ["b", "c", "d"],
            "simulated_difference": 1.0,
            "human_difference": -1.0,
            "simulated_p": 0.3,
            "human_p": 0.4,
            "clear": [False, False, False],
        }
    )
    none = study._mismatches(table)
    assert "Beyond doubt" not in [c.head for c in none["table"].columns]
    assert none["said"].startswith("3 pairs of methods change places, none of them beyond doubt")
    some = study._mismatches(table.assign(clear=[False, True, False]))
    assert [row[-1].text for row in some["table"].rows] == ["yes", "no", "no"]
    source = page_environment().get_template("study.html.j2").render
    parts = dict.fromkeys(("failures", "leaderboard", "rankings", "changes", "pairwise", "variants"))
    costs = tables.Table("Costs", [tables.Column("What", numeric=False)])
    held = {"charts": [], "limit": "", "summary": costs, "table": costs, "mismatches": none, "costs": costs}
    page = source(
        **parts, validation=held, curves=[], name="", about="", lead="", config_text="", style="", script="",
        script_digest="",
    )  # fmt: skip
    assert page.count("<h3>") == 4


def test_a_share_that_is_the_same_everywhere_keeps_its_interval():
    every = tables.share(mean(np.ones(10), np.arange(10), bounds=SHARE))
    assert every.text == "100.0" and every.small == ("[66.1, 100.0]", "n 10")
    alone = tables.share(mean(np.ones(3), np.zeros(3), bounds=SHARE))
    assert alone.small == ("too few", "n 3")
