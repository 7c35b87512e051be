"""Every kind of broken file, given to every command: one sentence, exit status 2, nothing written, nothing printed."""

from __future__ import annotations

import json

import pandas as pd
import pytest


def rows(n: int = 6, **changes) -> list[dict]:
    return [
        {
            "instruction": f"i{k}",
            "output_1": "a" * (k + 1),
            "output_2": "b" * (2 * k + 1),
            "generator_1": "base",
            "generator_2": "m",
            "annotator": "j",
            "preference": [1, 2, 1.5, 2, 1, 2][k % 6],
        }
        | changes
        for k in range(n)
    ]


def changed(row: int, **values) -> str:
    table = rows()
    table[row] |= values
    return json.dumps(table)


GOOD = json.dumps(rows(), indent=2)
CSV = pd.DataFrame(rows()).to_csv(index=False)
FILES = {
    "cut.json": (GOOD[: len(GOOD) // 2], "line "),
    "tail.json": (GOOD[:-3], "the file is cut off"),
    "empty.json": ("", "empty.json"),
    "nothing.json": ("[]", "nothing.json"),
    "object.json": ('{"a": 1}', "object.json"),
    "numbers.json": ("[1, 2]", "numbers.json"),
    "deep.json": ("[" * 100_000, "deep.json"),
    "latin.json": (json.dumps(rows(instruction="café"), ensure_ascii=False).encode("latin-1"), "UTF-8"),
    "utf16.json": (GOOD.encode("utf-16"), "UTF-8"),
    "outside.json": (changed(3, preference=7), "row 4"),
    "word.json": (changed(2, preference="x"), "row 3"),
    "list.json": (changed(1, preference=[1]), "row 2"),
    "cut.jsonl": ("\n".join(map(json.dumps, rows()))[:-20], "line 6"),
    "cut.csv": (CSV[:150], "cut.csv"),
    "empty.csv": ("", "empty.csv"),
    "quote.csv": ('instruction,preference\n"a,1\n', "quote.csv"),
    "ragged.csv": ("instruction,preference,generator_1,generator_2\na,1,b,c,d,e\n", "ragged.csv"),
    "bad.parquet": ("PAR1 and no more", "parquet"),
    "bad.csv.gz": ("not gzip", "bad.csv.gz"),
    "folder": (None, "folder"),
    "absent.json": (None, "absent.json"),
}


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content, encoding="utf-8")
    elif path.name == "folder":
        path.mkdir()


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_one_sentence(farm, tmp_path, name):
    content, said = FILES[name]
    broken, good, votes, out = (tmp_path / n for n in (name, "good.json", "votes.csv", "out.csv"))
    write(broken, content)
    good.write_text(GOOD)
    votes.write_text("pair_id,preference,annotator\n1,1,a\n1,2,b\n2,1,a\n2,1,b\n")
    commands = [(command, broken, "--out", out) for command in ("leaderboard", "evaluate", "validate")]
    if name in ("cut.json", "empty.csv", "bad.parquet", "deep.json", "folder"):  # the file in every other place
        commands += [
            ("leaderboard", good, broken, "--out", out),
            ("leaderboard", broken, "--metrics", "bradley_terry", "--out", out),
            ("leaderboard", good, "--difficulty", broken, "--out", out),
            ("leaderboard", good, "--published", broken, "--out", out),
            ("evaluate", good, "--human", broken, "--out", out),
            ("validate", votes, "--human", broken, "--out", out),
            ("validate", votes, "--pairs", broken, "--out", out),
        ]
    for command in commands:
        status, shown, err = farm(*command)
        sentence = err.strip().splitlines()
        assert status == 2 and len(sentence) == 1 and not shown, (command, err)
        assert not out.exists()
        if command[:2] == ("evaluate", broken):
            assert said in sentence[0] and str(broken) in sentence[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(rows() + rows()), "row 7"),
        (changed(4, generator_1="other"), "row 5: the baseline is `other`"),
        (changed(2, instruction=None), "row 3: `instruction` is missing"),
        (json.dumps(rows(preference=None)), "no row has a preference"),
    ],
)
@pytest.mark.parametrize("command", ["leaderboard", "evaluate"])
def test_rows_that_contradict_each_other(farm, tmp_path, content, said, command):
    path, out = tmp_path / "a.json", tmp_path / "out.csv"
    path.write_text(content)
    status, shown, err = farm(command, path, "--out", out)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1 and not shown and not out.exists(), err


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"output_2": [1]}, "row 2: `output_2` is not a text or number"),
        ({"output_1": {"a": 1}}, "row 2: `output_1` is not a text or number"),
        ({"generator_2": None}, "row 2: `generator_2` is missing, which tells the rows apart"),
    ],
)
def test_a_cell_that_is_no_text_or_no_name_is_one_sentence(farm, tmp_path, suffix, values, said):
    """Failed: an unhashable list, a name that is not a text, and a method without a name on the board."""
    if suffix == ".csv" and None not in values.values():
        pytest.skip("a cell of a CSV is a text")
    table = rows()
    table[1] |= values
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        pd.DataFrame(table).to_csv(path, index=False)
    else:
        path.write_text(json.dumps(table) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in table))
    for command in ("evaluate", "leaderboard"):
        status, shown, err = farm(command, path)
        assert status == 2 and said in err and err.count("\n") == 1 and not shown, (command, err)


def test_tiny_input_is_no_accident(farm, tmp_path):
    """One pair, one vote, equal models, opposite halves: numbers or blanks, never a traceback."""
    judge, people = tmp_path / "judge.csv", tmp_path / "people.csv"
    models = "model_a,model_b,winner,id,worker\n"
    for size in (1, 2, 3, 4):
        lines = ["a,b,model_a,1", "b,c,model_a,2", "c,a,model_a,3", "a,b,tie,4"][:size]
        judge.write_text(models + "".join(f"{line},judge\n" for line in lines))
        people.write_text(models + "".join(f"{line},{w}\n" for line in lines for w in ("x", "y")))
        status, _, err = farm("validate", judge, "--human", people, "--rounds", "5")
        assert status == 0, err
        status, _, err = farm("validate", judge)
        assert status == 0, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--difference", "70"), "70 percent points cannot be"),
        (("--difference", "-5"), "give its size"),
        (("--difference", "0"), "cannot be"),
        (("--difference", "nan"), "cannot be"),
        (("--annotations", "-3"), "greater than or equal to 2"),
        (("--difference", "5", "--flip-rate", "25"), "--flip-rate = 25.0 is wrong: input should be less than 0.5"),
        (("--difference", "5", "--power", "80"), "--power = 80.0 is wrong: input should be less than 1"),
        (("--difference", "5", "--variance", "-1"), "--variance = -1.0 is wrong: input should be greater than 0"),
        (("--difference", "5", "--per-cluster", "0.5"), "greater than or equal to 1"),
        (("--difference", "5", "--icc", "0.2"), "--icc needs --per-cluster"),
    ],
)
def test_power_refuses_impossible_plans(farm, arguments, said):
    status, shown, err = farm("power", *arguments)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1 and not shown
