"""UFO: returns over turns by hand, one turn is PPO to the bit, and the known answers of the quiz table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from annotators.users.try_again import TryAgain
from eval.measures.success import by_turn
from farm.base.errors import UserError
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning
from farm.roles.work import Texts
from farm.tables.records import USAGE_COLUMNS
from farm.tables.turns import prompts_of
from farm.worlds.quiz_table import QuizTableWorld
from reference_methods.models.verified_reward import VerifiedReward
from reference_methods.online.ppo import PPO
from reference_methods.online.ufo import UFO
from reference_methods.parts.advantages import generalised_advantage
from reference_methods.parts.episodes import Turns, episodes_of, last_turns
from tests.reference_methods.tables import policy_of, recorder, scorer_of

WORLD = QuizTableWorld(questions=20)
QUICK: dict[str, Any] = {"learning_rate": 0.1, "value_learning_rate": 0.1, "schedule": "constant", "warm_up": 0.0}


def quiz(**given: Any) -> Learning:
    return Learning(
        seed=1, policy=WORLD.base_policy(), prompts=WORLD.instructions("train"), user=TryAgain(WORLD), **given
    )


def test_what_a_return_is_worth_by_hand() -> None:
    rows = [  # row, output, reward, valid
        (0, "a", 0.0, True), (0, "A ", 0.0, True), (0, "b", 1.0, True),  # right in the third turn, one repetition
        (1, "c", 1.0, True),
        (2, "", 0.0, False), (2, "d", 1.0, True),  # no answer does not count as a turn
        (3, "e", 0.0, True), (3, "e", 0.0, True),
    ]  # fmt: skip
    talk = pd.DataFrame(rows, columns=["row", "output", "reward", "valid"])
    assert UFO().returns(talk) == pytest.approx([0.25 - 0.5 / 3, 1.0, 1.0, -0.25])
    assert UFO(decay=1.0, repetition=0.0).returns(talk) == pytest.approx([1, 1, 1, 0])
    assert last_turns(talk["row"].to_numpy(np.uint64)).tolist() == [False, False, True, True, False, True, False, True]


def test_the_prompts_whose_returns_vary_most_are_kept() -> None:
    method = UFO(samples_per_prompt=2, rollouts=8)
    returns = np.array([0.0, 0.1, 1.0, 0.0, 0.5, 0.5, 0.3, 0.5])
    assert method.kept(returns).tolist() == [False, False, True, True, False, False, False, False]
    assert UFO(samples_per_prompt=2, kept_share=1.0).kept(returns).all()


def test_advantages_over_turns_are_those_of_one_long_response() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [2, 3, 1, 2]  # rows of the episodes 7, 5, 7, 7
    mask = torch.arange(3)[None] < torch.tensor(lengths)[:, None]
    turns = Turns(np.array([7, 5, 7, 7], dtype=np.uint64), mask)
    rewards, values = (torch.rand(4, 3, generator=generator) * mask for _ in range(2))
    assert torch.equal(turns.apart(turns.together(rewards)), rewards)
    found, _ = generalised_advantage(turns.together(rewards), turns.together(values), turns.mask, 0.9, 0.8)
    long = [torch.cat([x[i, : lengths[i]] for i in (0, 2, 3)])[None] for x in (rewards, values)]
    exact, _ = generalised_advantage(*long, torch.ones(1, 5, dtype=torch.bool), 0.9, 0.8)
    assert torch.equal(turns.apart(found)[[0, 2, 3]][mask[[0, 2, 3]]], exact[0])
    alone, _ = generalised_advantage(rewards[1:2], values[1:2], mask[1:2], 0.9, 0.8)
    assert torch.equal(turns.apart(found)[1], alone[0])


class Paying:
    """A user who pays what a table says and never replies."""

    def __init__(self, rewards: dict[str, float]) -> None:
        self.rewards = rewards

    def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        del seed
        reward = episodes["output"].map(self.rewards).astype(float)
        free = dict.fromkeys(USAGE_COLUMNS, 0.0)
        return episodes.assign(reply="", reward=reward, done=False, status="ok", **free)


class AsPPO(UFO):
    purpose: ClassVar[str] = "ppo"


def test_one_turn_is_ppo_to_the_bit() -> None:
    rewards = [0.3, -1.0, 2.0]
    user = Paying({f"response {i}": r for i, r in enumerate(rewards)})
    prompts = pd.DataFrame({"instruction": [f"prompt {i}" for i in range(4)]})
    same: dict[str, Any] = {
        **QUICK, "steps": 4, "rollouts": 32, "samples_per_prompt": 8, "minibatches": 2, "epochs": 2, "beta": 0.05,
        "clip_high": 0.3, "lam": 0.9, "missing_eos_reward": None,
    }  # fmt: skip
    start, lines = policy_of([0.5, 0.3, 0.2], prompts=4), [recorder(), recorder()]
    given = Learning(
        seed=3, policy=start, prompts=prompts, models={"reward_model": scorer_of(rewards, 4)}, log=lines[0][1]
    )
    ppo = PPO(**same).train(given)
    given = Learning(seed=3, policy=start, prompts=prompts, user=user, log=lines[1][1])
    ufo = AsPPO(**same, max_turn=1, kept_share=1.0).train(given)
    assert torch.equal(next(iter(ppo.parameters())), next(iter(ufo.parameters())))
    assert not torch.equal(next(iter(ppo.parameters())), start.logits)
    for one, other in zip(lines[0][0], lines[1][0], strict=True):
        assert all(one[name] == other[name] for name in ("loss", "reward", "kl", "explained_variance", "value_loss"))


def test_ufo_learns_to_try_something_else_and_one_turn_to_repeat() -> None:
    """Towards (.368, .840), the optimum for shared logits; what learns from single turns loses what the base had."""
    settings: dict[str, Any] = {**QUICK, "steps": 30, "kept_share": 1.0, "beta": 0.0, "minibatches": 1, "epochs": 1}
    found = {}
    for name, turns in (("ufo", 5), ("single", 1)):
        learnt = UFO(**settings, max_turn=turns).train(quiz())
        assert isinstance(learnt, TabularPolicy) and learnt.again is not None
        prompts = [p for p in prompts_of(WORLD.instructions("test")) for _ in range(10)]
        talk = episodes_of(learnt, TryAgain(WORLD), prompts, 5, seed=9, purpose="look")
        found[name] = [*by_turn(talk.assign(method=name))["success"], learnt.again.item()]
    assert found["ufo"][4] > 0.7 and found["ufo"][5] < -1
    assert found["single"][4] < 0.5 and found["single"][0] > 0.27 and found["single"][5] == 0


def test_a_dialogue_method_that_was_killed_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    method = UFO(**QUICK, steps=4, rollouts=32, checkpoint_minutes=0)
    whole, lines = method.train(quiz()), list[float]()

    def dying(metrics: dict[str, float]) -> None:
        lines.append(metrics["step"])
        if lines == [0, 1, 2]:
            raise KeyboardInterrupt

    asked = list[int]()

    class Counting(TryAgain):
        def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
            asked.append(int(episodes["turn"].iloc[0]))
            return super().reply(episodes, seed=seed)

    given = replace(quiz(log=dying, checkpoints=tmp_path), user=Counting(WORLD))
    with pytest.raises(KeyboardInterrupt):
        method.train(given)
    again = method.train(given)
    assert asked.count(0) == 3 + 2  # the steps 0 to 2, of which the last was lost, then 2 and 3
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_episode_is_as_many_texts_as_it_may_have_turns() -> None:
    """It was foreseen as one, and all of them were learned from."""
    method = UFO(steps=3, rollouts=32, max_turn=4, kept_share=0.25, epochs=2)
    assert method.work(100, 0) == Texts(trained=2 * 2 * 96, read=2 * 96, written=4 * 96)


def test_without_a_user_ufo_says_so() -> None:
    with pytest.raises(UserError, match="set `user`"):
        UFO(steps=1).train(Learning(seed=1, policy=WORLD.base_policy(), prompts=WORLD.instructions("train")))
    with pytest.raises(ValueError, match="max_turn"):
        UFO(max_turn=0)


def test_the_verified_reward_is_the_belief() -> None:
    scorer = VerifiedReward(WORLD).train(quiz())
    base = WORLD.base_policy()
    assert isinstance(base, TabularPolicy)
    asked = [f"{topic}: q" for topic in WORLD.topics for _ in WORLD.answers]
    scores = scorer.scores(base.encode(asked, WORLD.answers * len(WORLD.topics)))
    np.testing.assert_allclose(scores.detach().numpy(), WORLD.beliefs.ravel(), rtol=1e-12)
    with pytest.raises(UserError, match="table"):
        VerifiedReward(WORLD).train(Learning(seed=1, policy=object(), prompts=pd.DataFrame()))  # type: ignore[arg-type]
