"""People's votes in the layouts that others publish are read alike by every command."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import farm
from annotators.runs.annotation_summary import sentences
from eval.evaluators.evaluation import evaluate_table
from farm.base.errors import UserError
from farm.statistics import terminal
from farm.tables import feedback_sets, vote_layouts

WIDE = [
    {"idx": n, "instruction": "Shorten it.", "input": f"Text {n}.", "cmp_key": "one_two", "response1": f"a{n}",
     "response2": True if n == 1 else f"b{n}", "annotator1": 1 + n % 2, "annotator2": 2, "annotator3": 0}
    for n in range(4)
]  # fmt: skip
CROWD = "id,left,right,worker,winner\n0,one,two,ann,left\n0,one,two,bob,tie\n1,two,one,ann,right\n1,two,one,bob,left\n"


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    path = tmp_path / "wide.json"
    path.write_text(json.dumps(WIDE))
    return path


def test_a_column_an_annotator_is_a_row_a_vote_with_the_input_in_the_instruction(wide: Path) -> None:
    found = feedback_sets.read(wide)
    assert (found.kind, len(found.table)) == ("pairs", 12)
    first = found.table[found.table["annotator"] == "annotator1"]
    assert first["instruction"].tolist() == [f"Shorten it.\n\nText {n}." for n in range(4)]
    assert first["preference"].tolist() == [1, 2, 1, 2] and first["output_2"].tolist()[:2] == ["b0", "True"]
    assert set(found.table.loc[found.table["annotator"] == "annotator3", "preference"]) == {1.5}
    note = feedback_sets.convert(wide, wide.with_name("prefs.jsonl"), "preferences")
    assert "to preferences of 8; 4 ties" in note


def test_every_command_counts_the_same_votes(wide: Path) -> None:
    """validate and calibrate read them before; evaluate, leaderboard and convert refused them."""
    rates = [
        farm.evaluate(wide, pool=True, baseline="one").methods["win_rate"].tolist(),
        farm.leaderboard(wide, pool=True, baseline="one")["win_rate"].tolist(),
    ]
    assert rates == [[pytest.approx(100 * (0.5 + 1 + 0.5) / 3)]] * 2
    assert "labels: 12;" in str(farm.validate(wide, pool=True))


def test_words_of_a_crowd_are_winners(tmp_path: Path) -> None:
    path = tmp_path / "crowd.csv"
    path.write_text(CROWD)
    feedback_sets.convert(path, tmp_path / "battles.csv", "battles")
    table = pd.read_csv(tmp_path / "battles.csv")
    assert table["winner"].tolist() == ["model_a", "tie", "model_b", "model_a"]
    assert table["model_a"].tolist() == ["one", "one", "two", "two"] and table["judge"].tolist() == ["ann", "bob"] * 2
    with pytest.raises(UserError, match="crowd: row 2: `winner` is 'perhaps'"):
        vote_layouts.shares(pd.Series(["left", "perhaps"]), "winner", "crowd")


def test_alpacaevals_people_are_evaluated(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"q{n}", "output_1": "a", "output_2": "b", "human_preference": 1 + n % 2,
         "human_annotator_index": n % 3}
        for n in range(6)
    ]  # fmt: skip
    path = tmp_path / "people.json"
    path.write_text(json.dumps(rows))
    assert farm.evaluate(path, pool=True).methods["win_rate"].tolist() == [50.0]
    assert feedback_sets.read(path).table["annotator"].tolist() == [0, 1, 2, 0, 1, 2]


def test_an_export_has_the_votes_of_everybody_in_a_pool(wide: Path) -> None:
    """It had one vote a pair, of all that were pooled."""
    out = wide.with_name("votes.json")
    farm.validate(wide, pool=True, export=out)
    document = json.loads(out.read_text())
    assert len(document["annotators"]) == 3
    assert sum(len(c["annotations"]) for c in document["comparisons"]) == 12
    assert document["comparisons"][0]["prompt"] == "Shorten it.\n\nText 0."


def test_texts_by_id_are_joined_to_the_humans_as_to_the_judge(tmp_path: Path) -> None:
    """The judge had texts and the humans ids then, and the command asked for what it had been given."""
    crowd = tmp_path / "crowd.csv"
    crowd.write_text(CROWD)
    (tmp_path / "judge.csv").write_text("id,left,right,winner\n0,one,two,left\n1,two,one,right\n")
    texts = [{"id": n, "text": f"q{n}", "result_x": "yes", "result_y": "no"} for n in range(2)]
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps(texts))
    found = farm.validate(tmp_path / "judge.csv", crowd, pairs=pairs, rounds=20)
    assert "human votes: 4;" in str(found)


def test_many_methods_are_compared_with_their_neighbours_on_the_terminal() -> None:
    rows = pd.DataFrame(
        [(f"q{q}", "base", f"m{m:02}", 1 + ((q + m) % 12 < m)) for q in range(12) for m in range(12)],
        columns=["instruction", "generator_1", "generator_2", "preference"],
    )
    found = evaluate_table(rows)
    said = str(found)
    assert len(found.differences) == 66 and "differences of neighbours" in said and "all 66" in said
    block = said.split("):\n")[1].split("\n\n")[0]
    assert sum(line.startswith("m") for line in block.splitlines()) == 11


def test_names_in_cells_break_at_underscores_and_lists_read_as_lists() -> None:
    name = "length_controlled_winrate"
    said = terminal.shown(pd.DataFrame({column: [name] * 2 for column in "abcd"}))
    assert [line.split()[0] for line in said.splitlines()[:3]] == ["a", "length_controlled_", "winrate"]
    lines = sentences({"models": ["a", "b"], "output_tokens_at_most": 30}).splitlines()
    assert lines == ["models                a, b", "output tokens at most 30"]
