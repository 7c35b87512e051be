"""`farm compare`: two runs side by side."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from eval.report.compare import changes, compare
from farm import cli
from farm.base.errors import UserError


def test_settings_that_differ_have_dotted_names():
    one = {"seed": 1, "annotator": {"class": "Flip", "probability": 0.25}, "judges": [{"seed": 7}], "gone": 1}
    two = {"seed": 1, "annotator": {"class": "Flip", "probability": 0.1}, "judges": [{"seed": 8}], "new": [1, 2]}
    assert changes(one, two).to_numpy().tolist() == [
        ["annotator.probability", "0.25", "0.1"],
        ["judges.0.seed", "7", "8"],
        ["gone", "1", "not set"],
        ["new", "not set", "[1, 2]"],
    ]
    assert changes(one, one).empty


def test_differences_are_paired_by_instruction(make_run):
    first, second = make_run("a"), make_run("b", seed=2)
    found, one, two = compare(first, second)
    table = found.methods.set_index(["role", "method"])
    sides = []
    for run in (one, two):
        own = run.judged["judge"][run.judged["judge"]["method"] == "ppo"].dropna(subset="preference")
        sides.append((own["preference"] - 1).groupby(own["instruction"]).agg(["sum", "count"]))
    rates = [s["sum"].sum() / s["count"].sum() for s in sides]
    row = table.loc[("judge", "ppo")]
    assert row["difference"] == pytest.approx(100 * (rates[1] - rates[0]))
    # the obvious formula: influence of each instruction on the difference
    influence = sum(
        sign * (s["sum"] - r * s["count"]) / s["count"].sum() for sign, s, r in zip((-1, 1), sides, rates, strict=True)
    )
    error = np.sqrt((influence**2).sum() * len(influence) / (len(influence) - 1))
    assert (row["high"] - row["low"]) / 2 == pytest.approx(100 * 1.980100 * error, rel=1e-3)  # t of 119 degrees
    assert row["shared"] == 120 and row["instructions"] == 120
    assert set(table.index.get_level_values(0)) == {"judge", "humans", "gold"}


def test_a_run_with_itself(make_run):
    run = make_run()
    found, *_ = compare(run, run)
    assert (found.methods["difference"] == 0).all() and found.settings_changed.empty
    assert (found.methods["rank_first"] == found.methods["rank_second"]).all()


@pytest.fixture
def farm(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["farm", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_the_command(farm, make_run, tmp_path):
    first, second = make_run("a"), make_run("b", seed=2, rename={"dpo": "<b>dpo</b>"})
    settings = yaml.safe_load((second / "config.yaml").read_text())
    settings["annotator"]["probability"] = "<script>alert(1)</script>"
    (second / "config.yaml").write_text(yaml.safe_dump(settings))
    status, said, err = farm("compare", first, second)
    assert status == 0 and "annotator.probability" in said and "difference" in said
    page = tmp_path / re.search(r"written: (.*)", err)[1]
    text = page.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "&lt;b&gt;dpo" in text
    assert len(text) < 5_000_000 and "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    status, said, _ = farm("compare", first, second, "--json", "--out", tmp_path / "x.html")
    data = json.loads(said)
    assert status == 0 and data["only_first"] == ["dpo"] and len(data["methods"]) == 15


def test_mistakes(farm, make_run, tmp_path):
    run = make_run()
    (tmp_path / "file").touch()
    for arguments, words in (
        ((run, tmp_path), "not a run folder"),
        ((run, run, "--out", tmp_path), "ends in .html"),
        ((run, run, "--out", tmp_path / "file" / "x.html"), "x.html"),
    ):
        status, said, err = farm("compare", *arguments)
        assert status == 2 and words in err and len(err.strip().splitlines()) == 1 and not said
    (run / "tables" / "judge_judge.parquet").unlink()
    with pytest.raises(UserError, match="no verdicts of a judge"):
        compare(run, run)
    pd.testing.assert_frame_equal(changes({}, {}), pd.DataFrame([], columns=["setting", "first", "second"]))
