"""Every command has a function in Python that gives what the command gives."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import farm
from farm import api, cli
from farm.base.errors import UserError

MINE = {
    "name": "mine",
    "world": "matrix",
    "sft": None,
    "annotator": "person",
    "reward_model": None,
    "methods": {"dpo": {"use": "dpo", "learning_rate": 0.1, "epochs": 1}},
    "judges": {"judge": "person"},
    "sizes": {"pairs": 60, "evaluation": 8, "samples": 3},
}
ROW = {"instruction": "q", "output_1": "a", "output_2": "b"}
NAMED = {"generator_1": "base", "generator_2": "mine"}
JUDGED = {**NAMED, "annotator": "judge"}
TWICE = pd.DataFrame([["q", "a", "b", 1]], columns=["instruction", "output_1", "output_1", "preference"])
CYCLE = [[0.5, 0.8, 0.1], [0.2, 0.5, 0.7], [0.9, 0.3, 0.5]]


@pytest.fixture(scope="module")
def told() -> CliRunner:
    return CliRunner()


def printed(told: CliRunner, *words: str) -> object:
    """What a command prints with ``--json``."""
    done = told.invoke(cli._application(), [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_command_has_a_function() -> None:
    other = {"config": "configuration", "list": "configs"}
    commands = [c.name or c.callback.__name__ for c in cli._application().registered_commands if c.callback]
    assert len(commands) >= 15
    for name in commands:
        assert callable(getattr(farm, other.get(name, name))), name
    with pytest.raises(AttributeError, match="did you mean `validate`"):
        farm.valdate


def test_two_runs_their_state_and_their_comparison(tmp_path: Path, told: CliRunner) -> None:
    one = farm.run(MINE, {"reporter": None}, out=tmp_path / "one")
    two = farm.run(MINE, {"reporter": None, "methods.dpo.beta": 0.5}, out=tmp_path / "two")
    state = farm.status(one.folder)
    assert state["state"] == "finished"
    assert state["stages"] == printed(told, "status", str(one.folder))["stages"]  # type: ignore[index]
    found = farm.compare(one.folder, two.folder, out=tmp_path / "page.html")
    assert found.settings_changed["setting"].tolist() == ["methods.dpo.beta"]
    assert found.to_dict() == farm.compare(one.folder, two.folder).to_dict()
    assert (tmp_path / "page.html").is_file()
    with pytest.raises(UserError, match=r"ends in \.html"):
        farm.compare(one.folder, two.folder, out=tmp_path / "page.pdf")

    listed = farm.clean(0)
    assert "stage dpo" in set(listed["what"])
    stages = listed["what"].str.startswith("stage ")  # beside what others left in the temporary folder
    assert (listed.loc[stages, "bytes"] > 0).all()
    assert len(farm.clean(0)) == len(listed)  # nothing was removed
    assert len(farm.clean(1)) == 0
    farm.clean(0, yes=True)
    assert not len(farm.clean(0))
    with pytest.raises(UserError, match="`days` = -1"):
        farm.clean(-1)


def test_the_configuration_is_what_the_command_prints_and_runs_itself(tmp_path: Path, told: CliRunner) -> None:
    shown = told.invoke(cli._application(), ["config", "pocket", "--seed", "4"], catch_exceptions=False).stdout
    plain = farm.configuration("pocket", seed=4)
    assert plain == yaml.safe_load(shown)
    mine = farm.configuration(MINE, {"methods.dpo.beta": 0.3})
    assert mine["methods"]["dpo"]["class"] == "reference_methods.pairs.dpo.DPO"
    assert mine["methods"]["dpo"]["beta"] == 0.3
    one, two = (farm.dry_run(plan) for plan in (mine, {**MINE, "methods": {"dpo": mine["methods"]["dpo"]}}))
    assert [s["stage"] for s in one["stages"]] == [s["stage"] for s in two["stages"]]
    with pytest.raises(UserError, match="did you mean `beta`"):
        farm.configuration(MINE, {"methods.dpo.betta": 1})


def test_a_column_is_renamed_by_a_mapping_or_as_the_command_does(tmp_path: Path, told: CliRunner) -> None:
    rows = [{"question": "q", "chosen": "a", "rejected": "b"}]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    words = ["convert", str(tmp_path / "mine.json"), str(tmp_path / "out.json"), "--to", "labels", "--map"]
    done = told.invoke(cli._application(), [*words, "prompt=question"], catch_exceptions=False)
    assert done.exit_code == 0
    written = json.loads((tmp_path / "out.json").read_text())
    for renamed in ({"prompt": "question"}, ["prompt=question"]):
        assert farm.convert(rows, "labels", renamed=renamed).to_dict("records") == written
    assert farm.convert(rows, renamed={"prompt": "question"}).to_dict("records") == [
        {"prompt": "q", "chosen": "a", "rejected": "b"}
    ]  # in its own format, as the command
    with pytest.raises(UserError, match="`renamed` prompt: say NEW=OLD"):
        farm.convert(rows, "labels", renamed=["prompt"])
    failed = told.invoke(cli._application(), [*words, "prompt"])
    assert str(failed.exception).startswith("--map prompt: say NEW=OLD")


def test_what_there_is_and_what_the_machine_has(told: CliRunner) -> None:
    table = farm.configs("worlds")
    assert dict(zip(table["name"], table["about"], strict=True)) == printed(told, "list", "worlds")["worlds"]  # type: ignore[index]
    assert set(farm.configs()["kind"]) >= {"annotators", "methods", "worlds", "experiments"}
    assert farm.doctor() == printed(told, "doctor")


def test_planning_a_study(told: CliRunner) -> None:
    plan = farm.power(5, flip_rate=0.25)
    assert plan.to_dict() == printed(told, "power", "--difference", "5", "--flip-rate", "0.25")
    shown = farm.power(annotations=plan.annotations, flip_rate=0.25)
    assert shown.difference == pytest.approx(0.05, abs=1e-4)
    with pytest.raises(UserError, match="give either"):
        farm.power()


def votes(people: int, pairs: int, flip: float) -> pd.DataFrame:
    draw = np.random.default_rng([people, pairs])
    right = draw.integers(0, 2, pairs)
    rows = [(p, w, 1 + int(right[p] ^ (draw.random() < flip))) for p in range(pairs) for w in range(people)]
    table = pd.DataFrame(rows, columns=["pair", "annotator", "preference"])
    table["annotator"] = "worker " + table["annotator"].astype(str)
    table["instruction"] = "question " + table["pair"].astype(str)
    return table.assign(output_1="one answer", output_2="a second answer").drop(columns="pair")


def test_judging_the_judge_and_calibrating_a_crowd(tmp_path: Path, told: CliRunner) -> None:
    people, judge = votes(4, 60, 0.2), votes(1, 60, 0.0)
    for name, table in (("people", people), ("judge", judge)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    files = tmp_path / "judge.csv", tmp_path / "people.csv"
    found = farm.validate(*files, rounds=20)
    words = ["validate", str(files[0]), "--human", str(files[1]), "--rounds", "20"]
    assert found.to_dict() == printed(told, *words)
    pd.testing.assert_frame_equal(farm.validate(judge, people, rounds=20).table(), found.table())
    alone = farm.validate(judge.to_dict("records"))
    assert type(alone).__name__ == "JudgeAlone"
    with pytest.raises(UserError, match="no verdict of `nobody`"):
        farm.validate(judge, annotator="nobody")

    crowd = farm.calibrate(people, tmp_path / "crowd.yaml", groups=1)
    assert 0.1 < crowd.flip < 0.3
    assert crowd.to_dict()["groups"] == farm.calibrate(files[1], groups=1).to_dict()["groups"]
    told_again = farm.annotate(judge.assign(generator_1="a", generator_2="b"), tmp_path / "crowd.yaml")
    assert set(told_again["status"]) == {"ok"}
    with pytest.raises(UserError, match=r"written as \.yaml"):
        farm.calibrate(people, tmp_path / "crowd.json")
    with pytest.raises(UserError, match="`groups` = 9"):
        farm.calibrate(people, groups=9)


def test_a_board_with_the_options_of_the_command(tmp_path: Path, told: CliRunner) -> None:
    rows = [
        {"instruction": f"q {i}", "output_1": "x", "output_2": "y", "generator_1": "base", "generator_2": model,
         "annotator": who, "preference": 1.0 + ((i + k) % 3 > 0)}
        for i in range(12) for k, model in enumerate(("a", "b")) for who in ("judge", "other")
    ]  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps(rows))
    board = farm.leaderboard(tmp_path / "all.json", annotator="judge", rounds=50)
    words = ["leaderboard", str(tmp_path / "all.json"), "--annotator", "judge", "--rounds", "50"]
    assert board.to_dict("records") == printed(told, *words)["leaderboard"]  # type: ignore[index]
    (tmp_path / "published.csv").write_text(board[["method", "win_rate"]].to_csv(index=False))
    near = farm.leaderboard(tmp_path / "all.json", annotator="judge", rounds=50, published=tmp_path / "published.csv")
    assert near.attrs["published"]["only_here"] == []
    lengths = {"metrics": "length_controlled", "rounds": 50, "annotator": "judge"}
    other = board[["method", "win_rate"]].assign(length_controlled_winrate=1.0)
    (tmp_path / "other.csv").write_text(other.to_csv(index=False))
    far = farm.leaderboard(tmp_path / "all.json", published=tmp_path / "other.csv", **lengths)
    assert far.attrs["published"]["recipe"].startswith("`difficulty` FILE `regularizer` FILE `lc_recipe` published")
    said = told.invoke(
        cli._application(),
        ["leaderboard", str(tmp_path / "all.json"), "--annotator", "judge", "--rounds", "50", "--metrics",
         "length_controlled", "--published", str(tmp_path / "other.csv")],
    ).stdout  # fmt: skip
    assert "--difficulty FILE --regularizer FILE --lc-recipe published" in " ".join(said.split()) and "`" not in said
    with pytest.raises(UserError, match="no row of annotator `nobody`"):
        farm.leaderboard(tmp_path / "all.json", annotator="nobody")


def test_evaluating_as_the_command_does(tmp_path: Path, told: CliRunner) -> None:
    base = [{"instruction": f"q {i}", "output": "one word", "generator": "base"} for i in range(20)]
    mine = [{"instruction": f"q {i}", "output": "words " * (1 + i % 4), "generator": "mine"} for i in range(20)]
    for name, rows in (("base", base), ("mine", mine)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    found = farm.evaluate(mine, judge="person", baseline=base, judge_settings=["temperature=0.5"], fresh=True, seed=2)
    words = ["evaluate", str(tmp_path / "mine.json"), "--judge", "person", "--baseline", str(tmp_path / "base.json")]
    said = printed(told, *words, "--set", "temperature=0.5", "--fresh", "--seed", "2")
    assert json.loads(found.to_json()) == said  # type: ignore[union-attr]
    people = farm.annotate(
        pd.DataFrame(mine).rename(columns={"output": "output_2", "generator": "generator_2"}).assign(
            output_1="one word", generator_1="base"
        ), "person", order="given",
    )  # fmt: skip
    judged = people.assign(preference=people["preference"].to_numpy()[::-1])
    with_people = farm.evaluate(judged, human=people.head(10))
    assert json.loads(with_people.to_json()) != json.loads(farm.evaluate(judged).to_json())  # type: ignore[union-attr]
    with pytest.raises(UserError, match="belong to a judge"):
        farm.evaluate(judged, fresh=True)


def test_games(tmp_path: Path, told: CliRunner) -> None:
    (tmp_path / "cycle.json").write_text(json.dumps({"preferences": CYCLE, "reference": [0.5, 0.3, 0.2]}))
    words = ["game", str(tmp_path / "cycle.json"), "--method", "egpo", "--iterations", "20"]
    found = farm.game(np.array(CYCLE), "egpo", reference=np.array([0.5, 0.3, 0.2]), iterations=20)
    assert found.plain() == printed(told, *words)
    assert farm.game(tmp_path / "cycle.json", "egpo", iterations=20).plain() == found.plain()
    everyone = farm.game({"preferences": CYCLE}, iterations=3, plot=None)
    assert {"egpo", "reward_model_rlhf"} <= set(everyone["method"])
    farm.game(CYCLE, "inpo", iterations=3, plot=tmp_path / "inpo.svg")
    assert "<svg" in (tmp_path / "inpo.svg").read_text()
    with pytest.raises(UserError, match="the game: `preferences` row 2 has 1 entries"):
        farm.game([[0.5, 0.2], [0.8]])
    with pytest.raises(UserError, match="goes with a matrix"):
        farm.game({"preferences": CYCLE}, reference=[1, 0, 0])


def test_no_module_hides_a_function() -> None:
    """``from farm import status`` finds a module of that name before any function."""
    for name in api.__all__:
        assert getattr(farm, name) is getattr(api, name), name


def test_annotating_as_the_command_does(tmp_path: Path, told: CliRunner) -> None:
    """The same verdicts as `farm annotate` writes, for every way of asking."""
    questions = [f"Name {n} fruits." for n in range(12)]
    outputs = pd.DataFrame(
        [
            {"instruction": q, "output": " ".join(["fig"] * k), "generator": f"m{k}"}
            for q in questions
            for k in (1, 4, 9)
        ]
    )
    pairs = pd.DataFrame({"instruction": questions, "output_1": "Fruit.", "output_2": "Apples and pears, and plums."})
    for name, table in (("outputs", outputs), ("pairs", pairs)):
        table.to_json(tmp_path / f"{name}.json", orient="records")
    kinds = {"ratings": "rater", "reactions": "reactor", "rankings": "ranker", "critiques": "critic"}
    asked: list[tuple[str, str, dict[str, object], list[str]]] = [
        ("pairs", "training", {"replicates": 3, "aggregate": "majority"},
         ["--replicates", "3", "--aggregate", "majority"]),
        ("pairs", "person", {"order": "both"}, ["--both-orders"]),
        ("outputs", "person", {"design": "all"}, ["--design", "all"]),
        ("outputs", "person", {"active": "disagreement", "labels": 9, "rounds": 3},
         ["--active", "disagreement", "--labels", "9", "--rounds", "3"]),
        *(("outputs", name, {"kind": kind}, ["--kind", kind]) for kind, name in kinds.items()),
    ]  # fmt: skip
    for source, name, keywords, words in asked:
        found = farm.annotate(pairs if source == "pairs" else outputs, name, seed=4, **keywords)
        out = tmp_path / "out.parquet"
        command = ["annotate", str(tmp_path / f"{source}.json"), "--annotators", name, "--seed", "4", "--out", str(out)]
        printed(told, *command, *words)
        written = pd.read_parquet(out)
        shared = [c for c in written if c in found and c not in ("seconds", "outputs", "generators")]
        assert {"status"} <= set(shared)
        pd.testing.assert_frame_equal(found[shared], written[shared], check_dtype=False, obj=str(keywords))
    base = outputs[outputs["generator"] == "m1"]
    against = farm.annotate(outputs[outputs["generator"] == "m9"], "person", against=base)
    assert set(against["generator_1"]) == {"m1"}
    assert len(against) == 12
    one = farm.annotate(pairs, "training", replicate=1)
    two = farm.annotate(pairs, "training", replicates=2)
    assert one["preference"].tolist() == two["preference"].tolist()[12:]
    with pytest.raises(UserError, match="no feedback `rating`; did you mean `ratings`"):
        farm.annotate(outputs, "rater", kind="rating")
    with pytest.raises(UserError, match="no design `al`"):
        farm.annotate(outputs, design="al")


WRONG = {
    "annotate": [None, 5, [1, 2], ["a"], [], ROW, [{"instruction": "q"}], TWICE],
    "evaluate": [None, [3], [ROW], [], pd.DataFrame(), [{**ROW, **JUDGED, "preference": "first"}], [{**ROW, **NAMED}],
                 [{**ROW, "preference": 1}], [{**ROW, **JUDGED, "preference": 2}] * 2],
    "validate": [None, [1], [ROW], TWICE],
    "calibrate": [None, [1], [ROW], TWICE],
    "leaderboard": [None, [ROW], pd.DataFrame([ROW])],
}  # fmt: skip


@pytest.mark.parametrize(("name", "rows"), [(name, rows) for name, wrong in WRONG.items() for rows in wrong])
def test_a_wrong_table_is_one_sentence(
    name: str, rows: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path))
    with pytest.raises(UserError) as said:
        getattr(farm, name)(rows)
    assert len(str(said.value)) < 300
    assert "\n" not in str(said.value)


def test_a_wrong_table_gets_the_sentence_of_the_command(tmp_path: Path) -> None:
    rows = [{**ROW, **JUDGED, "preference": 2}, {**ROW, **JUDGED, "preference": "first"}]
    for wrong in (rows, rows[:1] * 2, [ROW]):
        (tmp_path / "rows.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError) as of_file:
            farm.evaluate(tmp_path / "rows.json")
        with pytest.raises(UserError) as of_rows:
            farm.evaluate(wrong)
        assert str(of_rows.value) == str(of_file.value).replace(f"{tmp_path / 'rows.json'}", "the annotations")


def test_a_run_in_a_notebook_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    folder = tmp_path / f"run {evil}".replace("/", "-")
    folder.mkdir()
    board = pd.DataFrame([{"method": evil, "win_rate": 60.0, "win_rate_low": 55.0, "win_rate_high": 65.0}])
    board.to_json(folder / "leaderboard.json", orient="records")
    pd.DataFrame({"headline": [f"a & b {evil}"]}).to_json(folder / "headlines.json", orient="records")
    (folder / "report.html").write_text("")
    run = farm.Run(folder, [{"method": "dpo", "stage": "dpo", "reason": evil}])
    shown = run._repr_html_()
    assert "60.0 ±5.0" in shown
    assert "dpo failed: &lt;script&gt;" in shown
    assert "a &amp; b" in shown
    assert set(re.findall(r"<(\w+)", shown)) <= {"p", "table", "thead", "tbody", "tr", "th", "td", "a"}
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)
    assert 'href="file:///' in shown
    assert "<table" not in farm.Run(tmp_path / "nowhere")._repr_html_()
