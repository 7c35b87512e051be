"""`farm annotate`: files in and out, the summary, going on after an interruption, and one sentence for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from annotators.face import commands
from annotators.face.options import AnnotateOptions
from annotators.runs import annotation_run
from annotators.runs.annotation_run import prepare
from annotators.runs.annotation_summary import sentences
from farm.asking import ask as asking
from farm.asking.kept import kept
from farm.base import progress
from farm.base.errors import UserError
from farm.feedback.pairs import KIND as PAIRS
from farm.storage.store import Store
from farm.tables.formats import read_annotations, write_table

Farm = Callable[..., Any]


@pytest.fixture
def farm() -> Farm:
    app = typer.Typer()
    commands.register(app)
    app.command("other")(lambda: None)  # with one command only, typer drops its name

    def run(*arguments: object) -> Any:
        result = CliRunner().invoke(app, ["annotate", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    generator = np.random.Generator(np.random.Philox(1))
    words = np.array("the cat sat on a mat and looked out of window at rain that fell all day long".split())

    def text() -> str:
        return " ".join(generator.choice(words, generator.integers(3, 40))) + "."

    rows = [{"instruction": f"Write {i}.", "output_1": text(), "output_2": text()} for i in range(300)]
    rows[7]["output_2"] = rows[7]["output_1"]
    path = tmp_path / "pairs.json"
    write_table(pd.DataFrame(rows), path)
    return path


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_annotations_go_to_any_format_and_come_back(farm, pairs, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    said = farm(pairs, "--annotators", "training", "--out", out, "--seed", 3)
    table, asked = read_annotations(out), pd.read_json(pairs)
    for column in ("instruction", "output_1", "output_2"):
        assert table[column].tolist() == asked[column].tolist()
    assert table["preference"].isin([1.0, 1.5, 2.0]).all() and table["preference"].iloc[7] == 1.5
    assert "verdicts" in said and "prefers first" in said and "persona-0-" in said
    assert "cached" not in table


def test_the_same_command_gives_the_same_file(farm, pairs, tmp_path):
    outs = [tmp_path / name for name in ("a.json", "b.json", "c.json", "d.json")]
    store = ("--store", tmp_path / "store.sqlite")
    for out, seed, more in zip(outs, (1, 1, 1, 2), ((), store, store, ()), strict=True):
        farm(pairs, "--annotators", "training", "--out", out, "--seed", seed, *more)
    texts = [out.read_text() for out in outs]
    assert texts[0] == texts[1] == texts[2] != texts[3]


def test_the_summary_adds_up(farm, pairs, tmp_path):
    out = tmp_path / "out.parquet"
    said = farm(pairs, "--annotators", "training", "--out", out, "--replicates", 3, "--json")
    summary, table = json.loads(said), pd.read_parquet(out)
    assert summary["verdicts"] == len(table) == 900 and summary["status"] == {"ok": 900}
    assert set(table["replicate"]) == {0, 1, 2}
    assert summary["ties"] == 3
    assert summary["coins"] == pytest.approx(table["coin"].mean(), abs=1e-4) == pytest.approx(0.5, abs=0.1)
    assert sum(a["verdicts"] for a in summary["annotators"].values()) == 900
    share = summary["prefers_first"]
    assert share["estimate"] == pytest.approx((2 - table["preference"]).mean(), abs=1e-4)
    assert share["low"] < share["estimate"] < share["high"] and share["n"] == 900


def test_the_interval_is_clustered_by_instruction():
    """Each row four times: the interval is that of the distinct rows, not half of it."""
    generator = np.random.Generator(np.random.Philox(1))
    table = pd.DataFrame(
        {
            "instruction": np.arange(400).astype(str),
            "output_1": "one",
            "output_2": "two",
            "preference": generator.choice([1.0, 1.5, 2.0], 400),
            "status": "ok",
            "annotator": "a",
            **dict.fromkeys(("input_tokens", "output_tokens", "price"), 0.0),
        }
    )
    once, four = (PAIRS.summary(t)["prefers_first"] for t in (table, pd.concat([table] * 4)))
    assert four["high"] - four["low"] == pytest.approx(once["high"] - once["low"], abs=3e-4)
    error = (2 - table["preference"]).std(ddof=1) / 20
    assert once["high"] - once["low"] == pytest.approx(2 * 1.966 * error, rel=0.01)  # Student, 399 degrees of freedom


def test_a_unanimous_share_has_an_interval():
    """Twenty of twenty: the score interval with Student's t, 1 / (1 + t^2 / 20), not a certainty."""
    table = pd.DataFrame(
        {
            "instruction": np.arange(20).astype(str),
            "output_1": "one",
            "output_2": "two",
            "preference": 1.0,
            "status": "ok",
            "annotator": "a",
            **dict.fromkeys(("input_tokens", "output_tokens", "price"), 0.0),
        }
    )
    t = 2.0930  # 97.5 % of Student's distribution with 19 degrees of freedom
    share = PAIRS.summary(table)["prefers_first"]
    assert (share["estimate"], share["high"]) == (1.0, 1.0)
    assert share["low"] == pytest.approx(1 / (1 + t**2 / 20), abs=1e-4)
    one = PAIRS.summary(table.head(1))["prefers_first"]
    assert (one["low"], one["high"]) == (None, None)
    assert PAIRS.summary(table.head(0))["prefers_first"] == {"n": 0, "estimate": None, "low": None, "high": None}


def test_orders(farm, pairs, tmp_path):
    """A strong position bias shows in the given order, not in a random one, and ties in both orders."""
    shares = {}
    for order in ([], ["--given-order"], ["--both-orders"]):
        said = farm(
            pairs, "--annotators", "position_bias", "--set", "weights={}", "--set", "position_bias=8",
            "--out", tmp_path / "out.json", "--json", *order,
        )  # fmt: skip
        shares[order[0] if order else "random"] = json.loads(said)
    assert shares["--given-order"]["prefers_first"]["estimate"] > 0.98
    assert abs(shares["random"]["prefers_first"]["estimate"] - 0.5) < 0.12
    assert shares["--both-orders"]["ties"] > 280 and shares["--both-orders"]["consistent"] < 0.05


def test_settings_change_the_annotators(farm, pairs, tmp_path):
    said = farm(
        pairs, "--annotators", "training", "--set", "rate=0.5", "--set", "annotator.size=2", "--out",
        tmp_path / "out.json", "--json",
    )  # fmt: skip
    summary = json.loads(said)
    assert set(summary["annotators"]) <= {"coin", "persona-0-01", "persona-0-02"} and summary["coins"] > 0.98


def test_dry_run_asks_nobody(farm, pairs, tmp_path):
    out, store = tmp_path / "out.json", tmp_path / "store.sqlite"
    plan = json.loads(farm(pairs, "--annotators", "training", "--out", out, "--store", store, "--dry-run", "--json"))
    assert (plan["pairs"], plan["verdicts"], plan["identical_outputs"], plan["cached"]) == (300, 300, 1, 0)
    assert not out.exists() and Store(store).totals().empty
    farm(pairs, "--annotators", "training", "--out", out, "--store", store)
    assert "cached            300" in farm(
        pairs, "--annotators", "training", "--out", out, "--store", store, "--dry-run"
    )


def test_an_interrupted_run_goes_on_where_it_was(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_run, "CHUNK", 50)
    whole = tmp_path / "whole.json"
    prepare(pairs, "training", whole, AnnotateOptions(seed=1)).go()
    for store, said in ((tmp_path / "store.sqlite", "goes on from there"), (None, "name a --store")):
        run = prepare(pairs, "training", tmp_path / "out.json", AnnotateOptions(seed=1, store=store))
        calls: list[int] = []

        def stop(*arguments: Any, **keywords: Any) -> pd.DataFrame:
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return kept(*arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(asking, "kept", stop)
            with pytest.raises(UserError, match=f"interrupted after 100 of 300 verdicts.*{said}"):
                run.go()
        assert not (tmp_path / "out.json").exists()
    options = AnnotateOptions(seed=1, store=tmp_path / "store.sqlite")
    again = prepare(pairs, "training", tmp_path / "out.json", options).go()
    assert again["from_store"] == pytest.approx(1 / 3, abs=1e-4)
    assert (tmp_path / "out.json").read_text() == whole.read_text()


def test_an_annotated_file_can_be_annotated_again(farm, pairs, tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    farm(pairs, "--annotators", "training", "--out", one)
    farm(one, "--annotators", "evaluation", "--out", two)
    table = pd.read_parquet(two)
    assert "coin" not in table and "coin" not in set(table["annotator"])


def test_a_matrix_world_and_its_truth(farm, tmp_path):
    world = tmp_path / "world.yaml"
    world.write_text('class: farm.worlds.matrix.MatrixWorld\nutilities: [0, 1]\nresponses: ["low", "high"]\n')
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("instruction,output_1,output_2\nprompt 1,low,high\nprompt 1,high,low\n")
    farm(pairs, "--annotators", "gold", "--world", world, "--out", tmp_path / "out.json")
    assert pd.read_json(tmp_path / "out.json")["preference"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["PAIRS", "--annotators", "trainnig", "--out", "o.json"], "did you mean `training`"),
        (["PAIRS", "--annotators", "training", "--out", "o.txt"], "the suffix tells the format"),
        (["PAIRS", "--annotators", "training", "--out", "PAIRS"], "would be overwritten"),
        (["nowhere.json", "--annotators", "training", "--out", "o.json"], "no such file"),
        (["PAIRS", "--annotators", "training", "--out", "o.json", "--set", "rat=1"], "did you mean `rate`"),
        (["PAIRS", "--annotators", "training", "--out", "o.json", "--set", "rate=2"], "`rate` = 2 is wrong"),
        (["PAIRS", "--annotators", "gold", "--out", "o.json"], "`world`"),
        (["PAIRS", "--annotators", "training", "--out", "o.json", "--world", "pokcet"], "no such config"),
        (["PAIRS", "--annotators", "person", "--out", "o.json", "--set", "self_enhancement=1", "--set",
          "weights={nonsense: 1}"], "`nonsense`"),
        (["PAIRS", "--annotators", "preference", "--world", "matrix", "--out", "o.json"], "is no response of this wo"),
        (["PAIRS", "--annotators", "gold", "--world", "matrix", "--out", "o.json"], "is no response of this world"),
        (["PAIRS", "--annotators", "training", "--out", "o.json", "--aggregate", "glad"], "by --replicates"),
        (["PAIRS", "--annotators", "training", "--out", "o.json", "--both-orders", "--given-order"], "contradict each"),
        (["PAIRS", "--annotators", "mock_judge", "--out", "o.json", "--set", "model=openai"], r"or mock/longer$"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(farm, pairs, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as error:
        farm(*(str(pairs) if a == "PAIRS" else a for a in arguments))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize(
    ("annotator", "column", "value", "said"),
    [
        ("fatigue", "place_in_session", "late", "`place_in_session` is not a number: 'late'"),
        ("fatigue", "place_in_session", None, "`place_in_session` is missing, not a number from 0 on"),
        ("fatigue", "place_in_session", -2, "`place_in_session` is -2, not a number from 0 on"),
        ("sycophancy", "agreement_1", "late", "`agreement_1/2` is not a number: 'late'"),
        ("sycophancy", "agreement_1", None, "`agreement_1/2` is missing, not a number"),
    ],
)
def test_a_column_that_is_read_as_a_number_is_refused_by_its_row(farm, pairs, tmp_path, annotator, column, value, said):
    table = pd.read_json(pairs).assign(place_in_session=1, agreement_1=0.5, agreement_2=0.5).astype({column: object})
    table.loc[3, column] = value
    table.to_json(tmp_path / "odd.json", orient="records")
    with pytest.raises(UserError, match=f"row 4: {said}"):
        farm(tmp_path / "odd.json", "--annotators", annotator, "--out", tmp_path / "o.json")


def test_the_command_line_exits_with_two(pairs, tmp_path):
    command = [sys.executable, "-m", "farm.cli", "annotate", str(pairs), "--annotators", "no", "--out", "o.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("farm: no: no such config in configs/annotators")


def test_the_command_module_is_light():
    code = "import sys, annotators.face.commands; print([m for m in ('torch', 'pandas', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_long_lists_of_annotators_are_cut():
    summary = {"annotators": {f"a{i:02d}": {"verdicts": 1, "prefers_first": 0.5} for i in range(30)}}
    text = sentences(summary)
    assert "a19" in text and "a20" not in text and "and 10 more" in text


def test_progress_counts_every_verdict(pairs, tmp_path, monkeypatch):
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(progress.Task, "_render", lambda self: seen.append((self.done, self.total)))
    monkeypatch.setattr(annotation_run, "CHUNK", 100)
    prepare(pairs, "training", tmp_path / "out.json", AnnotateOptions(replicates=2)).go()
    assert [done for done, _ in seen] == [100, 200, 300, 400, 500, 600]
