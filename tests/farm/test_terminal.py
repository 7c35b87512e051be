"""What reaches the terminal: no sequence that steers it, tables of 80 columns, and how a command ends on Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm import cli
from farm.base import progress
from farm.base.errors import UserError, cause
from farm.experiments import run_folder
from farm.face import tables

FARM = Path(sys.executable).parent / "farm"
EVIL = "\x1b]0;owned\x07evil\x1b[2J\x9b31m\u202e\r"
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text(st.characters(codec=None)))
def test_printable_text_steers_nothing_and_can_be_written(text: str) -> None:
    shown = progress.printable(text)
    shown.encode()
    assert not STEERING.search(shown.replace("\r\n", "\n"))
    assert progress.printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_names_from_a_file_do_not_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"instruction": f"q{i}", "output_1": "x", "output_2": "yy", "generator_1": "base", "generator_2": EVIL,
         "annotator": EVIL, "preference": 1 + i % 2}
        for i in range(10)
    ]  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    for command, file in (("evaluate", "all.json"), ("leaderboard", "all.json"), ("evaluate", f"{EVIL}.json")):
        monkeypatch.setattr(sys, "argv", ["farm", command, file])
        with pytest.raises(SystemExit):
            cli.main()
        said = capsys.readouterr()
        assert "owned" in said.out + said.err
        assert not STEERING.search(said.out + said.err), (command, file)


def test_messages_in_the_middle_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    progress.note(f"the server says {EVIL}")
    with progress.task(f"asking {EVIL}") as work:
        work.advance(1, note=EVIL)
    tables.print_table(pd.DataFrame({"method": [EVIL, "[red]b"], "win_rate": [1.0, 2.0]}), EVIL)
    said = capsys.readouterr()
    assert not STEERING.search(said.out + said.err)
    assert said.err.count("owned") == 3
    assert said.out.count("owned") == 2
    assert "[red]b" in said.out


def test_a_table_of_eighty_columns_keeps_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    board = pd.DataFrame({"rank": [1, 2], "rank_low": [1, 1], "rank_high": [2, 2]})
    board["method"] = ["ppo", "general_preference_model_of_a_very_long_name"]
    for column, value in (("win_rate", 81.44), ("win_rate_humans", 100.0), ("win_rate_gold", 7.31), ("gold", -12.345)):
        board[[column, f"{column}_low", f"{column}_high"]] = value, value - 2.7, value + 2.7
    board["kl"] = [13.31, 0.0]
    tables.print_table(run_folder.compact(board), "pocket, seed 1")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("-12.35 ±2.70") == 2
    assert shown.count("100.0 ±2.7") == 2
    words = "".join(re.findall("[a-z_]+", shown))
    assert "general_preference_model_of_a_very_long_name" in words  # folded, not cut


@pytest.mark.parametrize("words", [["--kind", "ratings"], []])
def test_ctrl_c_in_annotate_exits_with_130(words: list[str], tmp_path: Path) -> None:
    """Interrupted while it works, not while it starts: as soon as a first verdict is there."""
    annotator = """
import os, signal, time
import pandas as pd
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
class Slow:
    def annotate(self, pairs, *, seed, replicate=0):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    def rate(self, outputs, *, seed, replicate=0):
        return self.annotate(outputs, seed=seed)
"""
    (tmp_path / "interrupted_for_test.py").write_text(annotator)
    (tmp_path / "slow.yaml").write_text("class: interrupted_for_test.Slow\n")
    kind = "output" if words else "output_1"
    rows = [{"instruction": f"q{i}", kind: "x", "output_2": "y", "generator": "m"} for i in range(3)]
    if words:
        rows = [{k: v for k, v in row.items() if k != "output_2"} for row in rows]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    done = subprocess.run(
        [FARM, "annotate", "in.json", "--annotators", "slow.yaml", "--out", "out.json", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "FARM_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "interrupted after 0 of 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_group_of_exceptions_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = ExceptionGroup("tasks", [OSError("no room"), ExceptionGroup("more", [UserError("row 3 is wrong")])])
    assert str(cause(inner)) == "row 3 is wrong"
    for error, status, said in (
        (inner, 2, "farm: row 3 is wrong\n"),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt()]), 130, "farm: interrupted; what is done is kept"),
        (ExceptionGroup("tasks", [ValueError("odd")]), 1, "farm: unexpected ValueError: odd; please report it"),
    ):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli, "_application", lambda fail=fail: fail)
        monkeypatch.setattr(sys, "argv", ["farm"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == status
        assert capsys.readouterr().err.startswith(said)
