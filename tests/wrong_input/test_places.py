"""Where a result cannot go is told before the work; configurations that are no configurations; what a cell keeps."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from farm.base import files
from farm.base.errors import Alarm, UserError, brief, shown
from farm.experiments import experiment
from farm.experiments.plan import Plan
from farm.roles import named_configs
from farm.tables import formats
from farm.tables import table_files as tables

Farm = Callable[..., tuple[int, str, str]]
ROWS = [
    {"instruction": f"i{k}", "output_1": "a" * k, "output_2": "b", "generator_1": "x", "preference": 1 + k % 2}
    for k in range(4)
]
GAME = {"preferences": [[0.5, 0.7], [0.3, 0.5]]}


def _folder(at: Path) -> Path:
    at.mkdir()
    return at


def _below_a_file(at: Path) -> Path:
    at.parent.joinpath("plain").write_text("x")
    return at.parent / "plain" / at.name


def _loop(at: Path) -> Path:
    at.symlink_to(at)
    return at


def _device(at: Path) -> Path:
    at.symlink_to("/dev/full")
    return at


PLACES: dict[str, Callable[[Path], Path]] = {
    "a folder": _folder,
    "below a file": _below_a_file,
    "too long": lambda at: at.with_name("x" * 300 + at.suffix),
    "below a name that is too long": lambda at: at.parent / ("x" * 300) / at.name,
    "a loop of links": _loop,
    "a full device": _device,
}
COMMANDS = (
    "leaderboard pairs.json --out out.csv",
    "evaluate pairs.json --out out.parquet",
    "validate judge.json --out out.json",
    "validate judge.json --export out.json",
    "annotate pairs.json --annotators training --out out.json",
    "annotate pairs.json --annotators training --out out.parquet --aggregate majority",
    "calibrate judge.json --out out.yaml",
    "game game.json --method nash_md --iterations 2 --plot out.svg",
    "run pocket --out out.run",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written_is_told(farm: Farm, tmp_path: Path, command: str, place: str) -> None:
    if command.startswith("run") and place == "a folder":
        return  # an empty folder is a good place for a run
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))
    (tmp_path / "judge.json").write_text(json.dumps([{**row, "annotator": "j"} for row in ROWS]))
    (tmp_path / "game.json").write_text(json.dumps(GAME))
    words = [tmp_path / word if "." in word else word for word in command.split()]
    at = next(k for k, word in enumerate(words) if isinstance(word, Path) and word.name.startswith("out."))
    words[at] = PLACES[place](words[at])
    before = sorted(tmp_path.rglob("*"))
    status, said, error = farm(*words)
    assert status == 2 and not said, error
    assert error.startswith("farm: ") and len(error.strip()) < 300 and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_told_before_the_work(tmp_path: Path) -> None:
    """A process that may write no byte to a file has what a full disk gives it."""
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))
    command = [sys.executable, "-m", "farm.cli", "leaderboard", "pairs.json", "--out", "new/out.csv"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout, done.stderr
    assert "cannot be written (File too large)" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_an_input_is_never_overwritten(farm: Farm, tmp_path: Path) -> None:
    (path := tmp_path / "pairs.json").write_text(json.dumps(ROWS))
    (tmp_path / "same.json").symlink_to(path)
    for command in ("leaderboard", "evaluate", "validate"):
        status, _, error = farm(command, path, "--out", tmp_path / "same.json")
        assert status == 2 and "would be overwritten" in error
    assert json.loads(path.read_text()) == ROWS


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_what_is_written_again_keeps_its_permissions_and_its_link(tmp_path: Path, mode: int) -> None:
    (tmp_path / "far").mkdir()
    (there := tmp_path / "far" / "table.csv").write_text("old")
    there.chmod(mode)
    (link := tmp_path / "table.csv").symlink_to(there)
    tables.write_table(pd.DataFrame({"a": [1]}), link)
    assert link.is_symlink() and there.read_text() == "a\n1\n"
    assert there.stat().st_mode & 0o777 == mode
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["far", "table.csv", "table.csv"]


def test_a_link_that_leads_to_no_file_is_not_replaced(tmp_path: Path) -> None:
    for name, target in (("loop", tmp_path / "loop"), ("nowhere", tmp_path / "absent"), ("device", Path("/dev/null"))):
        (link := tmp_path / name).symlink_to(target)
        with pytest.raises(UserError, match=name):
            files.write_text(link, "x")
        assert link.is_symlink()


def test_trying_a_place_leaves_nothing(tmp_path: Path) -> None:
    files.check_out(tmp_path / "a" / "b" / "c.csv")
    files.check_folder(tmp_path / "d" / "e")
    assert list(tmp_path.iterdir()) == []


def bomb(letters: str = "abcdefghij") -> str:
    lines = [f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]" for before, one in pairwise(letters)]
    return "\n".join(["a: &a [x, x, x]", *lines])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5_000, "nested too deeply"),
        ("\n".join(" " * k + "a:" for k in range(1_500)), "nested too deeply"),
        ("a: !!int abc", "'abc' is no int"),
        ("a: !!timestamp x", "is not understood"),
        ("a: !!python/object/apply:os.getcwd []", "is not understood"),
        ("a: !!binary x", "is not understood"),
        (bomb(), "once its aliases are written out"),
        ("a: &a [*a]", "inside what it repeats"),
        ("a: \0", "#x0000"),
        ("a: " + "9" * 5_000, "is no int"),
        ("{1: a, '1': b}", "the key `1` stands twice"),
        ("~: 1", "a plain word"),
        ("<<: 1", "merge"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_one_sentence(farm: Farm, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    status, shown_, error = farm("config", tmp_path / "x.yaml")
    assert status == 2 and said in error and error.count("\n") == 1 and len(error.strip()) < 300 and not shown_, error


def test_a_date_is_a_text() -> None:
    assert named_configs.parse_yaml("{a: 2024-13-45, b: 2024-01-02}", "x") == {"a": "2024-13-45", "b": "2024-01-02"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, suffix: str) -> None:
    row = '{"instruction": "i", "preference": 1, "preference": 2}'
    (path := tmp_path / f"a{suffix}").write_text(row if suffix == ".jsonl" else f"[{row}]")
    with pytest.raises(UserError, match="the key 'preference' stands twice"):
        formats.read_annotations(path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
@pytest.mark.parametrize("digits", [401, 5_000])
def test_a_number_that_is_no_number_is_refused(tmp_path: Path, suffix: str, digits: int) -> None:
    number = "1" + "0" * (digits - 1)
    text = {
        ".json": f'[{{"instruction": "i", "preference": {number}}}]',
        ".jsonl": f'{{"instruction": "i", "preference": {number}}}',
        ".csv": f"instruction,preference\ni,{number}\n",
    }[suffix]
    (path := tmp_path / f"a{suffix}").write_text(text)
    with pytest.raises(UserError) as said:
        formats.read_annotations(path)
    assert len(str(said.value)) < 300


FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-x",
    "@SUM(A1)",
    "\tx",
    "\r=x",
    "'=x",
    "''=x",
    "'plain",
    "-1.5",
    "plain",
    "＝1",
]


def test_no_text_of_a_csv_is_a_formula_and_all_come_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"=name": FORMULAS, "number": [-1.5 * k for k in range(len(FORMULAS))]})
    tables.write_table(table, tmp_path / "a.csv")
    raw = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert list(raw.columns) == ["'=name", "number"]
    assert [v for v in raw["'=name"] if v[0] in "=+@\t\r＝"] == [] and raw["number"].tolist() == table[
        "number"
    ].tolist()
    back = tables.read_table(tmp_path / "a.csv")
    assert back["=name"].tolist() == FORMULAS and back["number"].tolist() == table["number"].tolist()


def test_line_breaks_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "a\u2028b\x85c"}\n', encoding="utf-8")
    assert tables.read_table(tmp_path / "a.jsonl")["instruction"].tolist() == ["a\u2028b\x85c"]


def test_lines_and_lists_of_json_are_the_same_table(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": "x"}, {"b": None, "c": True}, {"a": 2.5, "c": None}, {"d": [1]}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = (tables.read_table(tmp_path / f"a{suffix}") for suffix in (".json", ".jsonl"))
    pd.testing.assert_frame_equal(
        one.astype(object).where(one.notna(), None), two.astype(object).where(two.notna(), None)
    )


def test_sentences_are_short() -> None:
    assert len(str(UserError("x" * 10_000 + "\n" + "y" * 10_000))) < 300 and "\n" not in str(UserError("a\nb"))
    assert brief("abc", 3) == "abc" and len(shown(["x" * 1_000] * 1_000)) <= 80
    assert shown(10**5_000) == "a whole number of 5,001 digits"


def test_fewer_instructions_than_were_asked_for_is_said() -> None:
    study = experiment.load("pocket", ["sizes.evaluation=500"])
    with pytest.warns(Alarm, match="`sizes.evaluation` is 500, but the world has 200 instructions"):
        Plan(study.variants[0].experiment, study.origin).setting.check()
