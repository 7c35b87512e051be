"""The command lines of leaderboard, validate and power."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest


def test_commands_import_lightly():
    heavy = (
        "import sys, eval.face.commands; print([m for m in ('numpy', 'pandas', 'scipy', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout.strip() == "[]"


def test_evaluating_and_planning_wait_for_no_slow_library():
    """Of scipy.stats, a second and more, these need two quantiles and ranks, which are to be had without."""
    evaluators = ("evaluation", "leaderboard", "validation_study", "replicates")
    code = f"import sys, eval.report.html, {', '.join(f'eval.evaluators.{name}' for name in evaluators)}"
    slow = "; print([m for m in ('scipy.stats', 'scipy.optimize', 'torch', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + slow], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_leaderboard_against_the_published(farm, shared_data, tmp_path):
    base = shared_data("alpaca_eval")
    out = tmp_path / "board.csv"
    status, said, err = farm(
        *("leaderboard", base / "results", "--annotator", "weighted_alpaca_eval_gpt4_turbo", "--json", "--out", out),
        *("--published", base / "leaderboards/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"),
        *("--difficulty", base / "instruction_difficulty.csv", "--regularizer", base / "df_gamed_surrogate.csv"),
        *("--lc-recipe", "published", "--lc-alignment", "position"),
    )
    assert status == 0, err
    data = json.loads(said)
    columns = {row["column"]: row for row in data["published"]["columns"]}
    for name in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"):
        assert columns[name]["beyond"] == 0
    assert columns["length_controlled_winrate"]["largest_deviation"] < 0.005
    written = pd.read_csv(out, index_col=0)  # as AlpacaEval's, whose models stand in a column without a name
    assert out.read_text().startswith(",win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,")
    assert written.index.tolist() == [row["method"] for row in data["leaderboard"]]
    official = pd.read_csv(base / "leaderboards/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv", index_col=0)
    assert set(written.columns[:10]) == set(official.columns) - {"mode"}


def test_leaderboard_of_battles(farm, shared_data):
    battles = shared_data("human/llmfao") / "crowd-comparisons.csv"
    status, said, _ = farm("leaderboard", battles, "--cluster", "prompt", "--rounds", "20", "--json")
    data = json.loads(said)
    assert status == 0 and data["leaderboard"][0]["model"] == "GPT 4" and "caution" in data["settings"]
    assert len(said.splitlines()) < 20 * 59 and "draws" not in data  # a line a number, and none for a bootstrap round
    status, said, _ = farm("leaderboard", battles, "--metrics", "elo", "--json")
    assert status == 0 and len(json.loads(said)["leaderboard"]) == 59


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("leaderboard", "no-such-thing"), "no such file or directory, nor a set to fetch"),
        (("leaderboard", "alpaca_eval_2", "--offline"), "run once without --offline"),
        (("leaderboard", "{battles}", "--metrics", "win_rat"), "did you mean `win_rate`"),
        (("leaderboard", "{battles}", "--ties", "haf"), "did you mean `half`"),
        (("leaderboard", "{battles}", "--cluster", "prompts"), "no column `prompts`"),
        (("leaderboard", "{battles}"), "no finite Bradley-Terry ratings"),
        (("leaderboard", "{battles}", "--regularizer", "{battles}"), "needs --difficulty"),
        (("validate", "{battles}", "--by", "judge"), "no `human_label`"),
        (("power",), "give either --difference"),
        (("power", "--difference", "5", "--flip-rate", "0.5"), "--flip-rate = 0.5"),
        (("evaluate", "{battles}"), "name the column that tells the items apart with --item"),
        (("evaluate", "{battles}", "--item", "ids"), "no column `ids` to name the item; did you mean `id`"),
        (("evaluate", "{battles}", "--item", "id", "--baseline", "d"), "compares with the baseline `d`"),
        (("leaderboard", "{battles}", "--pool", "--annotator", "x"), "give one of them"),
        (("evaluate", "{battles}", "--judge", "evaluation"), "need both"),
    ],
)
def test_mistakes_are_one_sentence(farm, tmp_path, arguments, said):
    battles = tmp_path / "battles.csv"
    battles.write_text("model_a,model_b,winner,id\na,b,model_a,1\na,c,model_a,2\nb,c,model_a,3\n")
    status, shown, err = farm(*(a.format(battles=battles) for a in arguments))
    assert status == 2 and not shown
    assert said in err and len(err.strip().splitlines()) == 1, err


def test_a_published_file_with_another_judges_verdicts(farm, shared_data, tmp_path):
    """Mistral-7B-Instruct-v0.2's file of alpaca_eval_gpt4_turbo_fn holds the chain-of-thought judge's verdicts.

    Its 805 preferences are those of the other file, their mean is what the other board publishes (15.53, not 19.63),
    and the rows name their annotator: in one file with the others they are refused until --annotator leaves them out,
    and the rest is as published.
    """
    base = shared_data("alpaca_eval")
    name, model = "alpaca_eval_gpt4_turbo_fn", "Mistral-7B-Instruct-v0.2"
    path, board = base / f"annotations_{name}.parquet", base / f"leaderboards/{name}_leaderboard.csv"
    own, other = (
        t[t["model_dir"] == model].sort_values("instruction_id")
        for t in (pd.read_parquet(path), pd.read_parquet(base / "annotations_alpaca_eval_cot_gpt4_turbo_fn.parquet"))
    )
    assert set(own["annotator"].astype(str)) == {"alpaca_eval_cot_gpt4_turbo_fn"}
    assert own["preference"].tolist() == other["preference"].tolist()
    published = [
        pd.read_csv(base / f"leaderboards/{n}_leaderboard.csv", index_col=0).loc[model, "win_rate"]
        for n in ("alpaca_eval_cot_gpt4_turbo_fn", name)
    ]
    assert 100 * (own["preference"] - 1).mean() == pytest.approx(published[0]) and published[1] - published[0] > 4
    arguments = (
        "leaderboard",
        path,
        "--baseline",
        "gpt4_1106_preview",
        "--published",
        board,
        "--rounds",
        "20",
        "--json",
    )
    status, _, err = farm(*arguments)
    assert status == 2 and model in err and "--annotator" in err, err
    status, said, _ = farm(*arguments, "--annotator", name)
    data = json.loads(said)
    assert status == 0 and not data["published"]["beyond"] and model not in {r["method"] for r in data["leaderboard"]}


def people(turn: bool = False, times: int = 1) -> pd.DataFrame:
    """Votes of three people on two models against a baseline, by question; each vote so many times."""
    rows = [
        (f"{q}", "base", model, 1 if (q * (k + 2) + q // 3 + (model == "m")) % 3 else 2, f"p{k}")
        for q in range(12) for model in "mn" for k in range(3) for _ in range(times)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["question", "model_a", "model_b", "said", "worker"])
    side = (table.index % 2 == 1) & turn
    a, b = table["model_a"].where(~side, table["model_b"]), table["model_b"].where(~side, table["model_a"])
    winner = (3 - table["said"]).where(side, table["said"]).map({1: "model_a", 2: "model_b"})
    return table[["question", "worker"]].assign(model_a=a, model_b=b, winner=winner)


@pytest.mark.parametrize("command", ["evaluate", "leaderboard"])
def test_votes_of_several_people_are_pooled_and_turned_to_the_baseline(farm, tmp_path, command):
    """Neither the order of the two models nor voting twice changes a rate or its error: votes on an item err together.

    In a board each vote is a row of the annotations, as `farm convert` writes them.
    """
    found = {}
    for name, table in (("plain", people()), ("turned", people(turn=True)), ("twice", people(times=2))):
        path = tmp_path / f"{name}.csv"
        if command == "leaderboard":
            names = {"model_a": "generator_1", "model_b": "generator_2", "worker": "annotator"}
            table = table.rename(columns=names).assign(preference=table["winner"].map({"model_a": 1, "model_b": 2}))
            table = table.drop(columns=["winner", *(["annotator"] if name == "twice" else [])])
        elif name == "twice":
            table = table.drop(columns="worker")
        table.to_csv(path, index=False)
        status, said, err = farm(command, path, "--pool", "--item", "question", "--baseline", "base", "--json")
        assert status == 0, err
        data = json.loads(said)
        board = data["methods"] if command == "evaluate" else [r for r in data["leaderboard"] if r["method"] != "base"]
        found[name] = {row["method"]: row for row in board}
        assert {row["n_total"] for row in board} == {72 if name == "twice" else 36}
    for model in "mn":
        expected = people().query("model_b == @model")["winner"].eq("model_b")
        for name in found:
            row, plain = found[name][model], found["plain"][model]
            assert row["win_rate"] == pytest.approx(100 * expected.mean())
            assert row["standard_error"] == pytest.approx(plain["standard_error"])
    status, _, err = farm(command, tmp_path / "plain.csv", "--item", "question", "--baseline", "base")
    assert status == (0 if command == "evaluate" else 2), err  # a board asks for it: an instruction has one verdict


def test_a_judge_is_not_held_against_its_own_file(farm, tmp_path):
    """It was told to agree with itself."""
    people().assign(worker="judge", id=range(len(people()))).to_csv(tmp_path / "judge.csv", index=False)
    (tmp_path / "again.csv").symlink_to(tmp_path / "judge.csv")
    for human in ("judge.csv", "again.csv"):
        status, _, err = farm("validate", tmp_path / "judge.csv", "--human", tmp_path / human)
        assert status == 2 and "--human is" in err and "judge.csv itself: give people's votes" in err, err


def test_validate_takes_the_columns_that_name_the_item(farm, tmp_path):
    humans = people()
    humans.assign(id="all").to_csv(tmp_path / "humans.csv", index=False)
    judge = humans.drop_duplicates(["question", "model_b"]).drop(columns="worker")
    judge.assign(id="all").to_csv(tmp_path / "judge.csv", index=False)
    arguments = ("validate", tmp_path / "judge.csv", "--human", tmp_path / "humans.csv", "--json")
    items = []
    for further in ((), ("--item", "question,model_a,model_b")):
        status, said, err = farm(*arguments, *further)
        assert status == 0, err
        items.append(json.loads(said)["items"])
    assert items == [1, 24]
