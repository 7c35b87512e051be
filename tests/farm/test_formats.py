"""Files in and out: the dialects of a preference, four formats, and refusals that name row and field."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from farm.base.errors import UserError
from farm.tables import formats

TABLE = pd.DataFrame(
    {
        "instruction": ["Say hi", 'Quote "this", please\nwith a line', "Ünïcode"],
        "output_1": ["hi", "a,b", "ä"],
        "output_2": ["hello", "", "ö"],
        "generator_1": "base",
        "generator_2": "model",
        "preference": [1.0, np.nan, 1.25],
    }
)


@pytest.mark.parametrize("suffix", [*formats.SUFFIXES, ".json.gz", ".jsonl.gz"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    formats.write_annotations(TABLE, path)
    if suffix == ".csv":  # CSV cannot tell an empty text from a missing one
        with pytest.raises(UserError, match="row 2: `output_2` is missing"):
            formats.read_pairs(path)
        return
    back = formats.read_annotations(path)
    for column in TABLE.columns:
        pd.testing.assert_series_equal(back[column].astype(TABLE[column].dtype), TABLE[column])
    assert back["status"].tolist() == ["ok", "unparseable", "ok"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("stored", "meaning"),
    [(1, 1.0), (2, 2.0), (1.5, 1.5), (0, 1.5), ("2", 2.0), (1.75, 1.75), (None, None), (-1, None)],
)
def test_dialects_of_a_preference(stored: object, meaning: float | None) -> None:
    value = formats.preferences(pd.Series([stored], dtype=object), "f.json")[0]
    assert (np.isnan(value) and meaning is None) or value == meaning


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", '[{"instruction": "x", "preference": 3}]', r"a\.json: row 1: `preference` = 3 is outside \[1, 2\]"),
        ("a.json", '[{"instruction": "x", "preference": "A"}]', r"row 1: `preference` is not a number: 'A'"),
        ("a.json", '[{"instruction": "x"}, {"inst', r"a\.json: line 1: not JSON .*cut off"),
        ("a.json", '{"instruction": "x"}', "expected a list"),
        (
            "a.jsonl",
            '{"instruction": "x", "preference": 1}\n{"instruction": 3, "preference": 1}',
            "row 2: `instruction`",
        ),
        ("a.jsonl", '{"instruction": "x", "preference": 1}\n{"instr', "line 2: not JSON"),
        ("a.csv", "instruction,prefrence\nx,1\n", "`preference` is missing; did you mean `prefrence`"),
        ("a.csv", "preference\n1\n", "neither `instruction` nor `instruction_id`"),
        ("a.txt", "x", "the suffix tells the format"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=complaint):
        formats.read_annotations(path)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"nowhere\.json: no such file"):
        formats.read_table("nowhere.json")


def test_alpaca_inputs_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    path.write_text('[{"instruction": "Translate", "input": "Haus"}, {"instruction": "Hi", "input": ""}]')
    assert formats.read_instructions(path)["instruction"].tolist() == ["Translate\n\nHaus", "Hi"]


@pytest.mark.parametrize("cells", [[True, False], [1.0, True], [None, False], ["true", 1]])
@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_true_is_no_preference(tmp_path: Path, suffix: str, cells: list[object]) -> None:
    rows = [{"instruction": "x", "output_1": "a", "output_2": f"b {i}", "preference": v} for i, v in enumerate(cells)]
    path = tmp_path / f"p{suffix}"
    path.write_text(json.dumps(rows)) if suffix == ".json" else pd.DataFrame(rows).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"row \d: `preference` is not a number"):
        formats.read_annotations(path)
