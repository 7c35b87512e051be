"""Further columns of a world's instructions: on every row, read by givers, users and measures, and in no id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.measures.column import Column
from eval.measures.success import Success
from eval.measures.win import Win
from farm.base.errors import UserError
from farm.experiments import experiment
from farm.experiments.claims.measuring import RunTables
from farm.experiments.running import Run, StudyRunner
from farm.feedback.kind import kinds
from farm.tables import feedback_sets
from farm.tables.further import OF_STAGES, Further, of_prompts
from farm.tables.turns import row_ids
from farm.worlds.text import TextWorld
from tests.farm.table_world import EXPERIMENT, write

SCOPED = '''
from dataclasses import dataclass
import pandas as pd
from annotators.people.logit import LogitAnnotator
from farm.base.bounds import Natural
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Features
from farm.tables.records import USAGE_COLUMNS
from table_world_for_test import PROMPTS, RESPONSES, TableWorld

class ScopedWorld(TableWorld):
    """Half of the instructions are in scope; each has a difficulty, too."""
    def __init__(self, columns: bool = True, name: str = "scope"):
        super().__init__()
        self.columns, self.name = columns, name
    def instructions(self, split, limit=None):
        table = super().instructions(split)
        if self.columns:
            table = table.assign(**{self.name: ["in", "out"] * 10, "difficulty": range(20)})
        return table[:limit]
    def base_policy(self):
        return TabularPolicy(PROMPTS, RESPONSES, state="first turn")

@dataclass(frozen=True)
class Looking:
    """An annotator who says what it was shown."""
    features: Features
    def annotate(self, pairs, *, seed, replicate=0):
        table = LogitAnnotator(self.features).annotate(pairs, seed=seed, replicate=replicate)
        return table.assign(looked=pairs["scope"] if "scope" in pairs else None)

@dataclass(frozen=True)
class Asking:
    """A user who asks again once, and says what it was shown."""
    def reply(self, episodes, *, seed):
        last, n = episodes["turn"] == 1, len(episodes)
        said = {"reply": ["again"] * n, "reward": last * 1.0, "done": last, "status": "ok"}
        shown = episodes["scope"] if "scope" in episodes else None
        return episodes.assign(**said, looked=shown, **dict.fromkeys(USAGE_COLUMNS, 0.0))

@dataclass(frozen=True)
class Learner:
    """Asks the annotator and the user while it learns, and says what came back."""
    needs = frozenset({"pairs", "responses", "user"})
    asks = frozenset({"pairs"})
    def train(self, learning):
        pairs = learning.feedback["pairs"]
        asked = learning.ask("pairs", pairs[["instruction", "output_1", "output_2"]])
        first = pairs["instruction"].tolist()
        later = pd.DataFrame({"instruction": first, "turns": [["good", "again"]] * len(pairs), "output": "bad"})
        said = learning.user.reply(later.assign(episode=0, turn=1), seed=0)
        agree = lambda t: int((t["looked"].to_numpy() == pairs["scope"].to_numpy()).sum())
        responses = learning.responses.drop_duplicates("instruction").set_index("instruction")["scope"]
        learning.log({"step": 0, "rows": len(pairs), "asked": agree(asked), "said": agree(said),
                      "responses": int((responses[first].to_numpy() == pairs["scope"].to_numpy()).sum())})
        return learning.policy
'''
SIZES = {"pairs": 40, "prompts": 20, "evaluation": 20, "samples": 2}
CHANGES: dict[str, Any] = {
    "world": {"class": "scoped_for_test.ScopedWorld"},
    "annotator": {"class": "scoped_for_test.Looking"},
    "judges": {"judge": {"class": "scoped_for_test.Looking"}},
    "user": {"class": "scoped_for_test.Asking"},
    "turns": 2,
    "evaluator": {"use": "leaderboard", "rounds": 20},
    "sizes": SIZES,
}
DPO = {"dpo": EXPERIMENT["methods"]["dpo"]}
FURTHER = ["scope", "difficulty"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    (tmp_path / "scoped_for_test.py").write_text(SCOPED)
    return write(tmp_path, **CHANGES, methods={**DPO, "learner": {"class": "scoped_for_test.Learner"}})


def run(out: str, *settings: str) -> Run:
    return StudyRunner(experiment.load("table.yaml", settings), Path(out)).go()


def test_further_columns_reach_responses_givers_users_answers_and_measures(here: Path) -> None:
    assert not run("run").failures
    tables, scope = RunTables(here / "run"), {f"question {i}": "in" if i % 2 == 0 else "out" for i in range(20)}
    for name in ("preferences", "outputs", "dialogues", "judge_judge"):
        table = tables[name]
        assert {*FURTHER, "dataset"} <= set(table.columns), name
        assert (table["scope"] == table["instruction"].map(scope)).all(), name
    for name in ("preferences", "dialogues", "judge_judge"):
        assert (tables[name]["looked"] == tables[name]["scope"]).all(), name
    assert {1} == set(tables["dialogues"].query("turn == 1")["turns"].map(len) - 1)  # whose prompts are longer
    [line] = tables["metrics"].query("method == 'learner'")[["rows", "asked", "said", "responses"]].to_numpy()
    assert line.tolist() == [40] * 4
    inside, outside = (Column(where={"scope": s}).values(tables, "dpo") for s in ("in", "out"))
    assert len(inside) == len(outside) == 20 and set(inside["instruction"].map(scope)) == {"in"}
    everyone = Column().values(tables, "dpo")["value"].mean()
    assert (inside["value"].mean() + outside["value"].mean()) / 2 == pytest.approx(everyone)
    assert len(Win(where={"scope": "out", "difficulty": 3}).values(tables, "dpo")) == 2
    assert Success(2, where={"scope": "in"}).values(tables, "sft")["value"].tolist() == [1.0] * 20
    for name in ("preferences", "outputs", "dialogues", "judge_judge"):  # no other name may be taken by a stage
        for column in set(tables[name].columns) - {"dataset", "looked", "instruction", "turns", *FURTHER}:
            assert {column, column.removesuffix("_1").removesuffix("_2")} & OF_STAGES, (name, column)
    assert all(set(kind.columns) <= OF_STAGES for kind in kinds().values())


def test_they_change_no_text_no_verdict_and_no_policy(here: Path) -> None:
    methods = "methods={dpo: {learning_rate: 0.1, batch_size: 64, epochs: 2}}"
    with_them, without = run("with", methods), run("without", methods, "world.columns=false")
    assert not with_them.failures and not without.failures
    for name in ("preferences", "outputs", "dialogues", "judge_judge"):
        one, other = (pd.read_parquet(here / f / "tables" / f"{name}.parquet") for f in ("with", "without"))
        drop = [*FURTHER, "looked", "seconds"]
        pd.testing.assert_frame_equal(*(t.drop(columns=drop, errors="ignore") for t in (one, other)))
        assert not set(FURTHER) & set(other.columns)


def test_a_name_under_which_a_stage_writes_is_refused_before_anything_is_made(here: Path) -> None:
    with pytest.raises(UserError, match="have a column `gold`, a name under which a stage writes"):
        run("run", "world.name=gold")
    assert not (here / "run").exists()


def test_columns_with_one_value_for_each_prompt_are_of_prompts() -> None:
    rows = pd.DataFrame({"instruction": ["a", "a", "b"], "output": "x", "scope": ["in", "in", None], "n": [1, 2, 1]})
    assert of_prompts(rows) == ["scope"]
    given = Further.of(rows[["instruction", "scope"]], "here")
    world = Further(pd.Index(row_ids(rows[1:])), pd.DataFrame({"scope": ["w", "w"], "task": ["t", "u"]}), given)
    assert world.names == ["scope", "task", "scope"]
    found = world.onto(pd.DataFrame({"instruction": ["a", "c"], "task": ["mine", "mine"]}))
    assert found["scope"].tolist()[0] == "in" and found["task"].tolist() == ["t", "mine"]


def test_a_prompt_has_one_value_and_unknown_prompts_have_none() -> None:
    rows = pd.DataFrame(
        {"instruction": ["a", "b", "a"], "split": "train", "scope": ["in", "out", "in"], "n": [1, 2, 1]}
    )
    known = Further.of(rows.assign(dataset=["x", "y", "z"]), "here")
    found = known.onto(pd.DataFrame({"instruction": ["b", "c", "a"]}))
    assert found["scope"].tolist()[::2] == ["out", "in"] and pd.isna(found["scope"][1])
    assert found["n"].tolist()[::2] == [2, 1] and np.isnan(found["n"][1])
    assert known.onto(pd.DataFrame({"instruction": ["b", "a"]}))["dataset"].tolist() == ["y", "x"]
    assert list(known.onto(pd.DataFrame({"instruction": ["z"]})).columns) == ["instruction"]
    with pytest.raises(UserError, match="'a' stands twice with two values of `scope`"):
        Further.of(rows.assign(scope=["in", "out", "out"]), "here")


def test_what_a_file_says_of_an_instruction_is_kept(tmp_path: Path) -> None:
    rows = pd.DataFrame({"instruction": [f"say {i}" for i in range(30)], "scope": ["in", "out"] * 15, "output": "x"})
    rows["meta"] = [{"k": 1}] * 30
    rows.to_json(tmp_path / "asked.jsonl", orient="records", lines=True)
    world = TextWorld(instructions=str(tmp_path / "asked.jsonl"))
    table = world.instructions("train")
    assert list(table.columns) == ["instruction", "split", "dataset", "scope"]
    known = dict(zip(rows["instruction"], rows["scope"], strict=True))
    assert (table["scope"] == table["instruction"].map(known)).all()


GIVEN = """
from dataclasses import dataclass
from annotators.feedback.ratings import PersonRater
from scoped_for_test import Learner

@dataclass(frozen=True)
class Rates(PersonRater):
    def rate(self, outputs, *, seed, replicate=0):
        table = super().rate(outputs, seed=seed, replicate=replicate)
        return table.assign(saw_heat=outputs["heat"], saw_scope=outputs["scope"])

@dataclass(frozen=True)
class Learns(Learner):
    needs = Learner.needs | {"ratings"}
"""


def test_further_columns_of_given_responses_go_with_them(here: Path) -> None:
    """They were dropped: only instruction, output and generator of the file were read."""
    rows = [
        {"instruction": f"question {i}", "output": "good good"[: 4 + 5 * k], "generator": f"model {k}",
         "scope": "mine", "heat": k / 2, "meta": {"k": 1}, "turn": "x", "label": "x"}
        for i in range(4)
        for k in range(2)
    ]  # fmt: skip
    (here / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "given_for_test.py").write_text(GIVEN)
    said = ["responses={from: said.jsonl}", "feedback={ratings: {class: given_for_test.Rates}}"]
    assert not run("run", *said, "methods={learner: {class: given_for_test.Learns}}").failures
    tables = RunTables(here / "run")
    pairs, rated = tables["preferences"], tables["ratings"]
    assert pairs["scope"].tolist() == ["mine"] * 4 == pairs["looked"].tolist()  # of the prompt, over the world's own
    assert pairs["difficulty"].tolist() == [0, 1, 2, 3]  # which the file does not say
    assert pairs["heat_1"].tolist() == [0.0] * 4 and pairs["heat_2"].tolist() == [0.5] * 4  # of a response
    assert rated["heat"].tolist() == [0.0, 0.5] * 4 == rated["saw_heat"].tolist()
    assert set(rated["scope"]) == {"mine"} == set(rated["saw_scope"])
    assert not {"meta", "meta_1", "turn", "turn_1", "label", "label_1"} & {*pairs.columns, *rated.columns}
    [line] = tables["metrics"][["rows", "asked", "said", "responses"]].to_numpy()
    assert line.tolist() == [4] * 4  # to those asked while a method learns, to users, and to learning.responses
    assert set(tables["outputs"].query("instruction == 'question 2'")["scope"]) == {"in"}  # held out: the world's
    keys = [{node.key for node in StudyRunner(experiment.load("table.yaml", said), here / "run").graph().values()}]
    (here / "said.jsonl").write_text((here / "said.jsonl").read_text().replace("mine", "yours"))
    keys += [{node.key for node in StudyRunner(experiment.load("table.yaml", said), here / "run").graph().values()}]
    assert keys[0] != keys[1]


def test_further_columns_of_given_pairs_and_ratings_go_with_what_follows_from_them() -> None:
    """They were dropped from responses that were taken out of pairs, ratings and reactions, and from pairs by
    comparison."""
    pair = {"instruction": "a", "preference": 1, "scope": "mine", "meta": {"k": 1}, "gold_1": 1.0, "gold_2": 2.0}
    rows = [
        {**pair, "output_1": one, "output_2": two, "heat_1": ord(one), "heat_2": ord(two), "order": k}
        for k, (one, two) in enumerate(("xy", "yz", "zz"))
    ]
    pairs = feedback_sets.of_table(pd.DataFrame(rows), "pairs.json")
    outputs = feedback_sets.as_kind(pairs, "outputs")
    assert list(outputs.columns) == ["instruction", "output", "generator", "scope", "heat"]  # y is in two pairs
    assert outputs["output"].tolist() == ["x", "y", "z"] and outputs["heat"].tolist() == [ord(c) for c in "xyz"]
    liked = feedback_sets.as_kind(pairs, "reactions")
    assert liked["heat"].tolist() == [ord(c) for c in "xyyzzz"] and liked["order"].tolist() == [0, 0, 1, 1, 2, 2]
    assert feedback_sets.as_kind(feedback_sets.of_table(liked, "l.json"), "outputs")["heat"].tolist() == [
        *map(ord, "xyz")
    ]

    said = [{"instruction": i, "output": o, "score": ord(o), "scope": i, "heat": ord(o)} for i in "ab" for o in "xy"]
    rated = feedback_sets.of_table(pd.DataFrame(said).assign(aspect_wit=1), "rated.json")
    compared = feedback_sets.as_kind(rated, "pairs")
    assert compared["scope"].tolist() == ["a", "b"] and compared["heat_2"].tolist() == [ord("y")] * 2
    assert not {"heat", "aspect_wit", "aspect_wit_1", "scope_1"} & set(compared.columns)
    assert list(feedback_sets.as_kind(rated, "outputs").columns) == [*"instruction output generator scope heat".split()]


def test_responses_out_of_given_pairs_keep_their_columns_for_those_who_are_asked(here: Path) -> None:
    rows = [
        {"instruction": f"question {i}", "output_1": "good", "output_2": "good good", "preference": 2,
         "generator_1": "a", "generator_2": "b", "scope": "mine", "heat_1": 0.0, "heat_2": 0.5}
        for i in range(4)
    ]  # fmt: skip
    (here / "prefs.json").write_text(json.dumps(rows))
    (here / "given_for_test.py").write_text(GIVEN)
    given = "ratings: {class: given_for_test.Rates}, reactions: {from: prefs.json}"
    said = ["responses={from: prefs.json}", f"feedback={{{given}}}"]
    assert not run("run", *said, "methods={learner: {class: given_for_test.Learns}}").failures
    tables = RunTables(here / "run")
    rated, pairs = tables["ratings"], tables["preferences"]
    assert rated["saw_heat"].tolist() == [0.0, 0.5] * 4 and set(rated["saw_scope"]) == {"mine"}
    assert set(pairs["looked"]) == {"mine"}
