"""The sections that only some runs have: categories, single verdicts beside people’s, all methods against all."""

from __future__ import annotations

import json
import re
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from eval.rates.categories import by_category
from eval.rates.winrate import scores
from eval.report import categories, leaderboard, validation
from eval.report.folder import RunFolder
from eval.report.html import Html


def with_categories(run, column="dataset"):
    for path in sorted((run / "tables").glob("judge_*.parquet")):
        table = pd.read_parquet(path)
        kind = table["instruction"].str.extract(r"^(\w+)")[0].str.lower()
        table.assign(**{column: "writing/" + kind.where(kind.isin(["tell", "write"]), "facts")}).to_parquet(path)
    return run


def with_matrix(run):
    names = pd.read_json(run / "leaderboard.json")["method"].tolist()
    rows = [
        {"first": a, "second": b, "win_rate": 50 + 8.0 * (j - i), "low": 45 + 8.0 * (j - i), "high": 55 + 8.0 * (j - i)}
        | {"n_total": 360, "n_instructions": 120}
        for (i, a), (j, b) in permutations(enumerate(names), 2)
    ]
    (run / "head_to_head.json").write_text(json.dumps(rows))
    return run


def test_categories_are_those_of_the_statistics(make_run):
    run = RunFolder.read(with_categories(make_run()))
    table = categories.section(run)["table"]
    assert [row[0].text for row in table.rows] == ["writing", "writing/facts", "writing/tell", "writing/write"]
    assert [row[1].text for row in table.rows] == ["120", "72", "24", "24"]
    own = run.judged["judge"][run.judged["judge"]["method"] == "ppo"]
    seen = own["preference"].notna()
    expected = by_category(
        scores(own["preference"])[seen], own.loc[seen, "dataset"], own["instruction"].to_numpy()[seen]
    ).set_index("category")
    shown = [c.head for c in table.columns].index("ppo, %")
    for row in table.rows:
        assert row[shown].sort == pytest.approx(expected.loc[row[0].text, "shrunken"])
        assert (
            row[shown].small[-1]
            == f"raw {expected.loc[row[0].text, 'win_rate']:.1f}, n {expected.loc[row[0].text, 'n']}"
        )


def test_single_verdicts(make_run):
    run = RunFolder.read(make_run())
    section = validation.section(run)
    rows = {row[0].text: row for row in section["table"].rows}
    judge, people = (run.judged[r] for r in ("judge", "humans"))
    keys = ["instruction", "output_1", "output_2"]
    both = judge[[*keys, "preference"]].merge(people[[*keys, "preference"]], on=keys)
    both = both[both["preference_x"].isin([1, 2]) & both["preference_y"].isin([1, 2])]
    known = 100 * (both["preference_x"] == both["preference_y"]).mean()
    assert rows["Agreement with one vote, %"][1].sort == pytest.approx(known)
    assert rows["Agreement with one vote, %"][2].small == ("one vote a pair",)
    assert "Prefers the longer answer, %" in rows and rows["Cohen’s kappa"][1].small[0].startswith("n ")
    assert rows["Kappa of decisive verdicts"][1].sort == pytest.approx(2 * known / 100 - 1)
    assert validation.section(RunFolder.read(make_run("alone", roles=("judge",)))) is None


def test_the_ceiling_is_there_where_people_voted_several_times(make_run):
    folder = make_run()
    path = folder / "tables" / "judge_humans.parquet"
    once = pd.read_parquet(path)
    flipped = np.random.default_rng(0).random(len(once)) < 0.3
    again = once.assign(preference=np.where(flipped, 3 - once["preference"], once["preference"]))
    votes = pd.concat([table.assign(replicate=k) for k, table in enumerate((once, again, once))], ignore_index=True)
    votes.to_parquet(path)
    rows = {row[0].text: row for row in validation.section(RunFolder.read(folder))["table"].rows}
    agreement = rows["Agreement with one vote, %"]
    assert agreement[2].sort > agreement[1].sort and agreement[3].sort < 0  # the ceiling is above the judge


def test_the_matrix(make_run):
    run = RunFolder.read(with_matrix(make_run()))
    section = leaderboard.head_to_head(run)
    (first, cells), *_ = section["rows"]
    assert first == section["names"][0] and cells[0] is None and cells[1]["text"] == "58.0"
    assert cells[1]["side"] == "better" and cells[1]["sure"] and section["rows"][1][1][0]["side"] == "worse"
    assert section["gaps"] is None
    assert leaderboard.head_to_head(RunFolder.read(make_run("other"))) is None


def test_gaps_of_a_game(make_run):
    folder = with_matrix(make_run())
    gaps = {"strongest": "dpo", "win_rate": 61.0, "low": 57.0, "high": 65.0, "gap_low": 0.1, "gap_high": 0.3}
    rows = [{"method": "ppo", "gap": 0.2, **gaps}, {"method": "sft", "gap": 0.15, **gaps}]
    (folder / "exploitability.json").write_text(json.dumps(rows))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    measured = [{"method": "ppo", "step": s, "gap": 0.5 - 0.02 * s} for s in range(0, 10, 2)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, *map(json.dumps, measured)]) + "\n")
    table = leaderboard.head_to_head(RunFolder.read(folder))["gaps"]
    assert [(row[0].text, row[2].text, row[3].small) for row in table.rows] == [
        ("sft", "61.0", ("[0.10, 0.30]",)),
        ("ppo", "61.0", ("[0.10, 0.30]",)),
    ]
    text = Html().write(folder).read_text()
    assert "How far each method is from an equilibrium" in text and "Gap to the best answer by step" in text


def test_all_of_them_in_one_page(make_run):
    folder = with_matrix(with_categories(make_run(), "category"))
    text = Html().write(folder).read_text()
    sections = re.findall(r'<section id="([\w-]+)"', text)
    assert {"categories", "validation", "head-to-head"} <= set(sections)
    navigation = text.partition("<nav")[2].partition("</nav>")[0]
    for name in ("categories", "validation", "head-to-head"):
        assert f'href="#{name}"' in navigation
    assert re.search(r"Spearman [^<]*, R² 0\.\d\d", text)
    assert len(text) < 5_000_000 and "http://" not in text.replace("http://www.w3.org", "")


def test_names_of_categories_are_escaped(make_run):
    folder = make_run()
    path = folder / "tables" / "judge_judge.parquet"
    table = pd.read_parquet(path)
    table["dataset"] = np.where(table.index % 2, "<script>alert(1)</script>", "b")
    table["dataset"] = table.groupby("instruction")["dataset"].transform("first")
    table.to_parquet(path)
    text = Html().write(folder).read_text()
    assert "<script>alert(1)" not in text and "&lt;script&gt;alert(1)" in text
