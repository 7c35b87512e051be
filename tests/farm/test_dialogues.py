"""Experiments with a user: dialogues with held-out users, killed and resumed, and success by turn."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from annotators.llm.backends import mock
from annotators.llm.completion import Request
from annotators.users.try_again import TryAgain
from eval.evaluators.leaderboard import Leaderboard
from eval.measures.success import by_turn
from farm.asking.limits import Limits, OverBudget
from farm.asking.purse import current, limited
from farm.asking.replies import kept
from farm.base.errors import Fruitless, UserError
from farm.experiments import experiment, running
from farm.experiments.plan import Plan
from farm.experiments.stages.dialogues import Dialogues
from farm.experiments.stages.stage import StageContext
from farm.hardware.models import save_causal_lm
from farm.storage.artifacts import Place
from farm.tables import turns
from farm.tables.records import USAGE_COLUMNS
from farm.worlds.quiz_table import QuizTableWorld
from tests.policies.conftest import small_model, word_tokenizer

QUIZ: dict[str, Any] = {
    "name": "quiz",
    "world": "quiz_table",
    "reporter": "html",
    "evaluator": {"use": "leaderboard", "rounds": 20},
    "methods": {"ufo": {"steps": 2, "rollouts": 32}},
    "sizes": {"pairs": 20, "prompts": 20, "evaluation": 8, "samples": 3},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))


def made(place: Path, **changes: Any) -> bytes:
    """The bytes of the SFT policy's dialogues, made in a place that may hold a beginning."""
    study = experiment.from_mapping({**QUIZ, **changes}, "quiz.yaml")
    plan = Plan(study.variants[0].experiment, "quiz.yaml")
    for folder in ("made", "checkpoints"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    where = Place(place / "made", place / "checkpoints", place / "progress.json")
    Dialogues(plan.setting, "sft").make(StageContext(where, plan.folder))
    return (place / "made" / "dialogues.parquet").read_bytes()


def test_dialogues_that_were_killed_go_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(tmp_path / "whole")
    replied, calls = TryAgain.reply, list[int]()

    def dying(self: TryAgain, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        calls.append(int(episodes["turn"].iloc[0]))
        if calls == [0, 1, 2]:
            raise KeyboardInterrupt
        return replied(self, episodes, seed=seed)

    monkeypatch.setattr(TryAgain, "reply", dying)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "killed")
    assert made(tmp_path / "killed") == whole
    assert calls[:4] == [0, 1, 2, 2]  # what was over was not asked again
    table = pd.read_parquet(tmp_path / "whole" / "made" / "dialogues.parquet")
    assert table["turn"].max() <= 4 and table.groupby(["instruction", "episode"])["done"].sum().max() == 1
    late = table[table["turn"] == 2]
    assert all(len(turns) == 4 for turns in late["turns"]) and set(late["turns"].iloc[0][1::2]) == {TryAgain.words}


def test_conversations_that_begin_alike_are_episodes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two with the same first turn were counted as one episode, which had succeeded where either had."""
    asked = pd.DataFrame({
        "instruction": ["topic 1: who?", "topic 1: who?", "topic 2: who?"], "split": "test", "dataset": "quiz",
        "turns": [[], ["answer 1", "Incorrect. Please think again."], []],
    })  # fmt: skip
    monkeypatch.setattr(QuizTableWorld, "instructions", lambda self, split, limit=None: asked[:limit])
    made(tmp_path)
    table = pd.read_parquet(tmp_path / "made" / "dialogues.parquet")
    found = by_turn(table.assign(method="sft"))
    assert (found["n_episodes"] == 9).all() and found["turns"].iloc[0] == 1
    assert table[table["turn"] == 0].groupby("instruction")["episode"].apply(sorted).to_dict() == {
        "topic 1: who?": [0, 1, 2, 3, 4, 5], "topic 2: who?": [0, 1, 2],
    }  # fmt: skip


PAID = '''
from typing import ClassVar
from annotators.users.try_again import TryAgain

class Paid(TryAgain):
    """Takes a quarter of a dollar for each reply."""
    free: ClassVar[bool] = False
    asked: ClassVar[list[int]] = []

    def reply(self, episodes, *, seed):
        self.asked.extend(episodes["turn"])
        return super().reply(episodes, seed=seed).assign(price=0.25)
'''


def test_a_user_who_costs_money_is_held_to_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What users cost was added up in the table alone."""
    (tmp_path / "paid_for_test.py").write_text(PAID)
    monkeypatch.syspath_prepend(tmp_path)
    user = {"class": "paid_for_test.Paid"}
    for who, pays in (("try_again", False), (user, True)):
        plan = Plan(experiment.from_mapping({**QUIZ, "user": who}, "quiz.yaml").variants[0].experiment, "quiz.yaml")
        talking = [node for node in plan.graph.values() if node.kind in ("dialogues", "method")]
        assert len(talking) == 3 and all(node.pays is pays for node in talking)
    with limited(Limits(budget=7.0)) as purse:
        with pytest.raises(OverBudget, match=r"about \$\d\.\d\d more is needed"):
            made(tmp_path / "paid", user=user)
        assert purse.spent == 6.0  # the first turn of 24 dialogues; the second had no room
    with limited(Limits(budget=100.0)) as purse:
        made(tmp_path / "paid", user=user)
    table = pd.read_parquet(tmp_path / "paid" / "made" / "dialogues.parquet")
    assert purse.spent == table["price"].sum() == 0.25 * len(table)
    assert sorted(sys.modules["paid_for_test"].Paid.asked) == sorted(table["turn"])  # nothing was asked twice


DYING = f'''{PAID}
class Dying(Paid):
    """Is killed once, in the second turn of the third step of a training with 32 episodes."""
    steps: ClassVar[list[int]] = []

    def reply(self, episodes, *, seed):
        turn = episodes["turn"].iloc[0]
        if turn == 0 and len(episodes) > 24:
            self.steps.append(len(episodes))
        if turn == 1 and len(self.steps) == 3:
            self.steps.append(0)
            raise KeyboardInterrupt
        return super().reply(episodes, seed=seed)
'''


def test_what_a_user_was_paid_in_a_training_that_was_killed_counts_and_is_not_paid_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replies of the steps before the checkpoint did not count, and those after it were asked, and paid, again."""
    (tmp_path / "dying_for_test.py").write_text(DYING)
    monkeypatch.syspath_prepend(tmp_path)
    methods = {"ufo": {"steps": 3, "rollouts": 32, "checkpoint_minutes": 0}}
    study = experiment.from_mapping(
        {**QUIZ, "reporter": None, "user": {"class": "dying_for_test.Dying"}, "methods": methods}, "quiz.yaml"
    )

    def go(budget: float) -> running.Run:
        return running.StudyRunner(study, tmp_path / "run").go(limits=Limits(budget=budget))

    def paid() -> float:
        plan = Plan(study.variants[0].experiment, "quiz.yaml")
        return sum(plan.artifacts.paid(node.name, node.key) for node in plan.graph.values() if node.pays)

    for _ in range(2):
        with pytest.raises(Fruitless, match=r"about \$\d+\.\d\d more"):
            go(0.25)
    asked = sys.modules["dying_for_test"].Paid.asked
    assert asked == [0] and paid() == 0.25  # the one that told the price
    with pytest.raises(KeyboardInterrupt):
        go(1000.0)
    before = 0.25 * len(asked)
    assert paid() == before > 3 * 8.0
    with pytest.raises(Fruitless, match="ends in the stage"):
        go(before)  # there is no room for another reply
    assert 0.25 * len(asked) == before == paid()
    assert not go(1000.0).failures
    assert 0.25 * len(asked) == paid()  # all is counted
    assert len(sys.modules["dying_for_test"].Dying.steps) == 4  # the first turn of the third step was not asked again


def test_replies_that_a_kill_left_half_written_are_asked_for_again(tmp_path: Path) -> None:
    """They were read with the others, and the stage could not go on."""

    class Paid:
        def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
            said: dict[str, Any] = {"reply": "", "reward": 1.0, "done": True, "status": "ok"}
            return episodes.assign(**said, **{**dict.fromkeys(USAGE_COLUMNS, 0.0), "price": 0.25})

    shown = pd.DataFrame({"instruction": ["a", "b"], "output": "c", "episode": 0, "turn": 0})
    for attempt in range(2):
        with limited(Limits(budget=1.0)) as purse:
            user = kept(Paid(), tmp_path / "replies")
            assert purse.spent == 0.5 * attempt
            assert user.reply(shown, seed=0)["price"].sum() == purse.spent == 0.5
        (tmp_path / "replies" / f".farm-1-{attempt}.parquet").write_bytes(b"PAR1")


def test_a_question_that_comes_again_after_a_kill_counts_once(tmp_path: Path) -> None:
    """Kept replies counted by their prices, and a question behind them that was in the store once more."""
    shown = pd.DataFrame({"instruction": ["a", "b"], "output": "c", "episode": 0, "turn": 0})

    @dataclass
    class Asks:
        """Asks one question for all rows, which is in its store from the first time on."""

        store: str = "answers"

        def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
            purse = current()
            assert purse is not None
            purse.ledger.known(b"the question", 0.5)
            said: dict[str, Any] = {"reply": "", "reward": 1.0, "done": True, "status": "ok"}
            return episodes.assign(**said, **{**dict.fromkeys(USAGE_COLUMNS, 0.0), "price": 0.5})

    for _ in range(2):
        with limited(Limits(budget=5.0)) as purse:
            user = kept(Asks(), tmp_path / "replies")
            for turn in (0, 1):
                user.reply(shown.assign(turn=turn), seed=0)
            assert purse.spent == 0.5
            user.reply(shown.assign(turn=2), seed=1)
            assert purse.spent == 0.5


def test_a_run_with_a_user_tells_success_by_turn(tmp_path: Path) -> None:
    study = experiment.from_mapping(QUIZ, "quiz.yaml")
    run = running.StudyRunner(study, tmp_path / "run").go()
    assert not run.failures
    table = run.table("success")
    assert set(table["method"]) == {"sft", "ufo"} and table.groupby("method")["turn"].max().tolist() == [5, 5]
    assert (table["success_low"] <= table["success"]).all() and (table["n_episodes"] == 24).all()
    assert re.fullmatch(r"Success in dialogues within 5 turns, %: (ufo|sft) [\d.]+ \(.*\), .*\.", run.headlines[0])
    talks = pd.read_parquet(tmp_path / "run" / "tables" / "dialogues.parquet")
    assert {"method", "episode", "turn", "reply", "reward", "done"} <= set(talks.columns)
    from farm.experiments.run_folder import read_comparison

    again = Leaderboard(rounds=20).evaluate(read_comparison(tmp_path / "run"))["success"]
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "annotators.users.try_again.TryAgain" in config
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Success by turn" in page and "Within 5, %" in page


def test_a_method_that_needs_a_user_is_refused_without_one(tmp_path: Path) -> None:
    study = experiment.from_mapping({**QUIZ, "user": None}, "quiz.yaml")
    with pytest.raises(UserError, match="set `user`"):
        running.StudyRunner(study, tmp_path / "run").go()
    wrong = experiment.from_mapping({**QUIZ, "world": "matrix", "sft": None, "user": "try_again"}, "quiz.yaml")
    with pytest.raises(UserError, match="quiz_table"):
        running.StudyRunner(wrong, tmp_path / "run").go()


def test_two_turn_instructions_go_the_whole_way(tmp_path: Path) -> None:
    """The main job with conversations as instructions, on a random model with a chat template: pairs, labels, a reward
    model, DPO, PPO, best of n, and a judge who sees all turns."""
    asked = list[str]()

    @mock.script("talks of a test")
    def judge(request: Request) -> str:
        asked.append(request.user)
        return mock.answer(request, lambda pair: 1)

    folder = tmp_path / "tiny"
    save_causal_lm(small_model(sharpness=1.0), word_tokenizer(chat=True), folder)
    talks = [(f"w{i}", f"w{i + 1} w3", f"w{i % 7 + 2} w{i % 5}") for i in range(36)]
    (tmp_path / "talks.json").write_text(json.dumps([{"messages": turns.messages(talk)} for talk in talks]))
    learns = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    study = experiment.from_mapping(
        {
            **QUIZ,
            "name": "talks",
            "world": {"class": "farm.worlds.text.TextWorld", "model": str(folder), "max_new_tokens": 4}
            | {"instructions": str(tmp_path / "talks.json")},
            "sft": None,
            "reward_model": {"use": "reward_model", **learns, "calibration_samples": 8},
            "methods": {
                "dpo": learns,
                "ppo": {"steps": 1, "rollouts": 8, "missing_eos_reward": None},
                "best_of_n": {"n": 2},
            },
            "judges": {"judge": {"use": "mock_judge", "model": "mock/talks of a test"}},
            "sizes": {"pairs": 24, "prompts": 12, "evaluation": 6, "samples": 1},
        },
        "talks.yaml",
    )
    run = running.StudyRunner(study, tmp_path / "run").go()
    assert not run.failures
    for name in ("outputs", "judge_judge", "preferences"):
        table = pd.read_parquet(tmp_path / "run" / "tables" / f"{name}.parquet")
        assert set(turns.prompts_of(table)) <= set(talks)
    assert asked and all(user.count("<turn of=") == 3 for user in asked)  # the judge was shown the conversations
    assert "Assistant: w" in (tmp_path / "run" / "report.html").read_text()
