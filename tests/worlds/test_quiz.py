"""The quiz of a language model: its documents follow the law that is said, and its base model has learned it."""

from __future__ import annotations

from itertools import islice, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from annotators.users.try_again import TryAgain
from eval.measures.success import by_turn
from farm.experiments import experiment
from farm.experiments.running import StudyRunner
from farm.policies.language_model import LanguageModelPolicy
from farm.tables.turns import Prompt
from farm.worlds.quiz import AGAIN, QuizWorld

TINY: dict[str, Any] = {"topics": 2, "questions": 10, "documents": 9_600}
WORLD = QuizWorld(**TINY)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quiz")


@pytest.fixture(autouse=True)
def _home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all tests of this file: the base model is trained once."""
    monkeypatch.setenv("FARM_HOME", str(home))


@pytest.fixture
def base(_home: None) -> LanguageModelPolicy:
    found = WORLD.base_policy()
    assert isinstance(found, LanguageModelPolicy)
    return found


def within(beliefs: list[float], tries: int, stubborn: float) -> float:
    """P(the right answer is among those of an episode that gives its last one again with this probability)."""
    total = 0.0
    for new in range(tries):
        chance = float(np.prod([(tries - 1 - k) / (k + 1) for k in range(new)]))
        chance *= (1 - stubborn) ** new * stubborn ** (tries - 1 - new)
        for order in permutations(range(len(beliefs)), new + 1):
            left, drawn = 1.0, 1.0
            for answer in order:
                drawn *= beliefs[answer] / left
                left -= beliefs[answer]
            total += chance * drawn * (1 - left)
    return total


def test_the_numbers_that_are_said_of_the_base_are_exact() -> None:
    beliefs = (np.arange(1, 9) ** -0.5 / (np.arange(1, 9) ** -0.5).sum()).tolist()
    assert round(within(beliefs, 1, 0.65), 3) == 0.142
    assert round(within(beliefs, 5, 0.65), 3) == 0.332
    assert round(max(beliefs), 3) == 0.229
    assert round(sum(sorted(beliefs)[-5:]), 3) == 0.739
    assert np.sort(QuizWorld().beliefs, axis=1)[:, ::-1] == pytest.approx(np.array([beliefs] * 4))


def test_documents_are_episodes_of_the_law() -> None:
    topic = np.repeat([0, 1], 5_000)
    answers = WORLD._episodes(np.random.default_rng(0), topic, 2)
    for row in range(2):
        share = np.bincount(answers[topic == row, 0], minlength=8) / 5_000
        assert share == pytest.approx(WORLD.beliefs[row], abs=0.03)
    again = answers[:, 1:] == answers[:, :-1]
    assert again.mean(0) == pytest.approx([0.65, 0.65], abs=0.03)
    assert not (~again[:, 0] & ~again[:, 1] & (answers[:, 2] == answers[:, 0])).any()  # what was tried is not new
    forced = QuizWorld(topics=1, answers=2, stubborn=0.0)._episodes(np.random.default_rng(0), np.zeros(50, int), 3)
    assert (forced[:, 1] != forced[:, 0]).all() and (forced[:, 3] == forced[:, 2]).all()  # when all are tried: again
    batches = list(islice(WORLD._batches(), 6))
    assert [len(batch[0]) for batch in batches] == [9, 11, 13, 15, 17, 9]
    decoded = WORLD.tokenizer().convert_ids_to_tokens(batches[1][0].tolist())
    assert decoded[0] == "<bos>" and decoded[2] == AGAIN and decoded[4] == ":" and decoded[-1] == "<eos>"


def test_a_prompt_is_a_document_without_its_answer(base: LanguageModelPolicy) -> None:
    assert TryAgain(WORLD).words == AGAIN
    talk = ("topic 2: test question 7", "answer 5", AGAIN, "answer 1", AGAIN)
    [tokens] = base.conversation.prompts([talk])
    names = base.tokenizer.convert_ids_to_tokens(tokens.tolist())
    asked = ["topic 2", ":", "test", "question", "7", "<answer>"]
    assert names == ["<bos>", "answer 5", AGAIN, "answer 1", AGAIN, *asked]
    samples = base.sample([talk] * 50, seed=1, purpose="test")
    assert set(samples.outputs) <= set(WORLD.answers) and set(samples.finish_reason) == {"stop"}
    [given] = base.conversation.responses([talk], ["answer 3"])
    assert base.tokenizer.convert_ids_to_tokens(given.tolist()) == ["answer 3", "<eos>"]
    assert base.tokenizer.convert_ids_to_tokens(base.conversation.prompts(["what is <answer>?"])[0].tolist())[1:4] == [
        "<unk>", "<unk>", "<unk>",
    ]  # fmt: skip


def answers_of(policy: LanguageModelPolicy, prompts: list[Prompt]) -> np.ndarray:
    """The probability of each answer, [n, K]."""
    ids = policy.tokenizer.convert_tokens_to_ids(WORLD.answers)
    with torch.no_grad():
        table = policy.distributions(policy.encode(prompts, ["answer 1"] * len(prompts)))[0]
    return np.asarray(table[:, 0].exp()[:, ids].double().numpy())


def test_the_base_model_has_learned_the_beliefs_and_to_repeat(base: LanguageModelPolicy) -> None:
    for topic, belief in zip(WORLD.topics, WORLD.beliefs, strict=True):
        asked = [f"{topic}: test question {n + 1}" for n in range(10)]
        first = answers_of(base, list(asked))
        assert first.sum(1) == pytest.approx(np.ones(10), abs=0.02)  # hardly anything else is said
        assert 0.5 * np.abs(first - belief).sum(1).mean() < 0.15
        for tried in range(8):
            said = WORLD.answers[tried]
            after = answers_of(base, [(text, said, AGAIN) for text in asked]).mean(0)
            assert 0.4 < after[tried] < 0.85 and after.argmax() == tried


def test_a_run_with_the_quiz_is_killed_and_goes_on(home: Path, tmp_path: Path, monkeypatch: Any) -> None:
    small = {"rollouts": 16, "steps": 2, "checkpoint_minutes": 0}
    study = experiment.from_mapping(
        {
            "name": "quiz",
            "world": {"use": "quiz", **TINY},
            "methods": {"ufo": small},
            "evaluator": {"use": "leaderboard", "rounds": 20},
            "reporter": None,
            "sizes": {"prompts": 20, "evaluation": 20, "samples": 8},
        },
        "quiz.yaml",
    )
    replied, calls = TryAgain.reply, list[int]()

    def dying(self: TryAgain, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        calls.append(int(episodes["turn"].iloc[0]))
        if len(calls) == 8:
            raise KeyboardInterrupt
        return replied(self, episodes, seed=seed)

    monkeypatch.setattr(TryAgain, "reply", dying)
    with pytest.raises(KeyboardInterrupt):
        StudyRunner(study, tmp_path / "run").go()
    run = StudyRunner(study, tmp_path / "run").go()
    assert not run.failures and set(run.table("success")["method"]) == {"sft", "ufo"}
    talks = pd.read_parquet(tmp_path / "run" / "tables" / "dialogues.parquet")
    base = by_turn(talks[talks["method"] == "sft"]).set_index("turn")["success"]
    assert 0.05 < base[1] < 0.25 and 0.22 < base[5] < 0.45  # .142 and .332, of 160 episodes


@pytest.mark.slow
def test_who_learns_over_turns_tries_something_else_and_who_learns_from_one_repeats(tmp_path: Path) -> None:
    """With 40 steps: .53 within five turns for UFO, .30 for the base, .25 for single turns, which begin best (.22)."""
    learns = {"use": "ufo", "steps": 40, "rollouts": 128, "learning_rate": 1e-3}
    study = experiment.from_mapping(
        {
            "name": "order",
            "world": {"use": "quiz", **TINY, "documents": 25_600},
            "methods": {"ufo": learns, "single": {**learns, "max_turn": 1}},
            "evaluator": {"use": "leaderboard", "rounds": 20},
            "reporter": None,
            "sizes": {"prompts": 20, "evaluation": 20, "samples": 40},
        },
        "order.yaml",
    )
    table = StudyRunner(study, tmp_path / "run").go().table("success").set_index(["method", "turn"])["success"]
    assert table["ufo", 5] > table["sft", 5] + 0.1 and table["ufo", 5] > table["single", 5] + 0.15
    assert table["single", 1] > table["sft", 1] and table["single", 5] - table["single", 1] < 0.08
    assert table["sft", 5] - table["sft", 1] > 0.1
