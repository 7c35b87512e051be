"""The quiz table: its success rates are those of the closed forms, and what is hidden follows its key."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from annotators.users.try_again import TryAgain
from eval.measures.success import by_turn
from farm.base import rng
from farm.base.errors import UserError
from farm.policies.tabular import TabularPolicy
from farm.roles.users import User, Verifier, dialogues, replies
from farm.tables.turns import Prompt, columns, prompts_of
from farm.worlds.matrix import MatrixWorld
from farm.worlds.quiz_table import QuizTableWorld

WORLD = QuizTableWorld(questions=20)
BASE = WORLD.base_policy()
assert isinstance(BASE, TabularPolicy)


def talks(policy: TabularPolicy, samples: int = 40, turns: int = 5, order: int | None = None) -> pd.DataFrame:
    """All held-out questions, ``samples`` episodes each."""
    prompts = [p for p in prompts_of(WORLD.instructions("test")) for _ in range(samples)]
    numbers = np.tile(np.arange(samples, dtype=np.uint64), len(prompts) // samples)
    user, rows = TryAgain(WORLD), np.arange(len(prompts), dtype=np.uint64)
    if order is not None:
        rows = np.random.default_rng(order).permutation(rows)

    def take(turn: int, going: list[Prompt], ids: rng.Ids) -> pd.DataFrame:
        written = policy.sample(going, seed=1, purpose=f"turn {turn}", draws=numbers[ids])
        shown = pd.DataFrame({**columns(going), "output": written.outputs})
        return replies(user, shown.assign(episode=numbers[ids], turn=turn), seed=2)

    return pd.concat(dialogues(take, [prompts[int(i)] for i in rows], rows, turns), ignore_index=True).assign(
        method="m"
    )


def test_a_question_of_no_topic_is_one_sentence() -> None:
    """It was a KeyError."""
    asked = pd.DataFrame({"instruction": ["topic 9: who?"], "output": ["answer 1"], "episode": [0], "turn": [0]})
    for ask in (lambda: WORLD.right(asked, seed=0), lambda: WORLD.features(["topic 9: who?"], ["answer 1"])):
        with pytest.raises(UserError, match=r"'topic 9: who\?' is of no topic that it knows; did you mean `topic"):
            ask()


def policy(sharpness: float, again: float | None) -> TabularPolicy:
    return TabularPolicy(WORLD.topics, WORLD.answers, sharpness * np.log(WORLD.beliefs), state="topic", again=again)


@pytest.mark.parametrize(
    ("sharpness", "again", "one", "five"),
    [
        (1.0, 0.0, 0.2068, 0.6044),  # the base
        (40.0, 0.0, 0.3679, 0.3679),  # best for one turn: it repeats its answer
        (40.0, -1e4, 0.3679, 0.8401),  # best for five: the five likeliest, each once
        (0.0, -1e4, 1 / 8, 5 / 8),  # never repeats, knows nothing
    ],
)
def test_success_within_one_and_five_turns(sharpness: float, again: float, one: float, five: float) -> None:
    table = talks(policy(sharpness, again))
    found = by_turn(table).set_index("turn")["success"]
    n = int(by_turn(table)["n_episodes"].iloc[0])
    for turn, exact in ((1, one), (5, five)):
        assert abs(found[turn] - exact) < 4.5 * (exact * (1 - exact) / n) ** 0.5
    assert (np.diff(found) >= 0).all()


def test_the_base_is_the_memoryless_policy_and_a_world_without_memory_has_no_logit_for_it() -> None:
    assert isinstance(BASE, TabularPolicy)
    np.testing.assert_allclose(BASE.probabilities().detach().numpy(), WORLD.beliefs, rtol=1e-12)
    blind = QuizTableWorld(again=None).base_policy()
    assert isinstance(blind, TabularPolicy) and len(list(blind.parameters())) == 1
    talk = ("topic 1: q", "answer 1", "no")
    told = blind.distributions(blind.encode(["topic 1: q", talk], ["answer 1"] * 2))[0]
    assert torch.equal(told[0], told[1])


def test_gold_is_the_chance_of_being_right_after_what_was_wrong() -> None:
    belief = dict(zip(WORLD.answers, WORLD.beliefs[0], strict=True))
    first, second = WORLD.answers[:2]
    talk = ("topic 1: q", first, "no")
    found = WORLD.features(["topic 1: q", talk, talk, "topic 1: q"], [first, second, first, "what?"])["right"].tolist()
    assert found == pytest.approx([belief[first], belief[second] / (1 - belief[first]), 0, 0])


def test_episodes_do_not_depend_on_their_order_and_stay_over_when_they_are() -> None:
    straight, shuffled = talks(policy(1.0, -1.0), samples=5), talks(policy(1.0, -1.0), samples=5, order=3)
    keys = ["instruction", "episode", "turn"]
    one, other = (
        t.sort_values(keys, ignore_index=True)[[*keys, "output", "reward", "done"]] for t in (straight, shuffled)
    )
    pd.testing.assert_frame_equal(one, other)
    ends = straight.groupby(["instruction", "episode"])["done"]
    assert (ends.sum() <= 1).all() and (ends.last() | (ends.size() == 5)).all()
    hidden = straight[straight["done"]].groupby(["instruction", "episode"])["output"].first()
    assert len(set(hidden)) > 3  # the right answer is the episode's, not the question's


def test_a_user_needs_a_world_that_can_check() -> None:
    assert isinstance(WORLD, Verifier) and isinstance(TryAgain(WORLD), User)
    with pytest.raises(ValueError, match="quiz_table"):
        TryAgain(MatrixWorld(utilities=[0.0, 1.0]))
