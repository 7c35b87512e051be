"""Rewards relative to an anchor, and constants of prompts that no comparison within a prompt can see."""

from pathlib import Path

import numpy as np
import pytest
import torch

from farm.experiments import experiment, running
from farm.policies import load
from farm.policies.tabular import TabularScorer
from farm.roles.protocols import Samples, Scorer
from reference_methods.models.anchored_reward import AnchoredReward
from reference_methods.models.preference_model import PairwiseTable
from reference_methods.models.shifted_reward import ShiftedReward
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.parts.anchored import Anchored, Shifted, spread_between
from reference_methods.parts.games.feedback import RewardPreference
from tests.reference_methods.tables import learned, learning, policy_of, recorder, scorer_of

REWARDS = np.array([1.0, 0.2, -0.7])
UNIFORM = np.full((8, 3), 1 / 3)


def plain() -> TabularScorer:
    return scorer_of(REWARDS, prompts=8)


def anchored(scorer: Scorer, probability: bool = False) -> Anchored:
    return Anchored(RewardPreference(scorer), policy_of(UNIFORM, prompts=8), seed=3, probability=probability)


def every() -> Samples:
    policy = policy_of(UNIFORM, prompts=8)
    return policy.encode([p for p in policy.prompts for _ in range(3)], policy.responses * 8)


def test_a_constant_of_the_prompt_moves_no_anchored_reward() -> None:
    moved = Shifted(plain(), 2.0, seed=5)
    change = (moved.scores(every()) - plain().scores(every())).view(8, 3)
    assert torch.allclose(change, change[:, :1]) and change[:, 0].std() > 1  # one number a prompt, not one for all
    assert torch.allclose(anchored(moved).scores(every()), anchored(plain()).scores(every()), atol=1e-12)


def test_an_anchor_is_as_good_as_itself_and_is_the_same_in_any_company() -> None:
    reward, prompts = anchored(plain()), [f"prompt {i}" for i in range(8)]
    anchors = reward.anchors(prompts)
    assert torch.equal(reward.scores(anchors), torch.zeros(8, dtype=torch.float64))
    assert torch.equal(anchored(plain(), probability=True).scores(anchors), torch.full((8,), 0.5, dtype=torch.float64))
    alone = [anchored(plain()).anchors([prompt]).outputs[0] for prompt in reversed(prompts)]
    assert alone[::-1] == anchors.outputs and len(set(anchors.outputs)) > 1


def test_any_preferences_can_be_anchored_also_those_that_go_in_circles() -> None:
    policy = policy_of([1e-9, 1e-9, 1.0])  # the anchor is the third
    model = PairwiseTable(policy)
    with torch.no_grad():
        model.table += torch.tensor([[0, 2, -1], [-2, 0, 3], [1, -3, 0.0]], dtype=torch.float64) / 2
    samples = policy.encode(["prompt 0"] * 3, policy.responses)
    assert Anchored(model, policy, seed=1).scores(samples).tolist() == [-1.0, 3.0, 0.0]


def test_what_compares_the_responses_to_a_prompt_learns_the_same_from_all_three() -> None:
    method = RLOO(steps=6, rollouts=32, learning_rate=0.1)

    def policy(reward: Scorer) -> np.ndarray:
        given = learning(policy_of(UNIFORM, prompts=8), prompts=8, models={"reward_model": reward})
        return np.stack([learned(method.train(given), row) for row in range(8)])

    without = policy(plain())
    assert np.abs(without - 1 / 3).max() > 0.05
    for reward in (Shifted(plain(), 2.0, 5), anchored(plain()), anchored(Shifted(plain(), 2.0, 5))):
        np.testing.assert_allclose(policy(reward), without, atol=1e-6)


def test_a_probability_over_the_anchor_saturates_so_that_the_anchor_does_not_cancel() -> None:
    """What RLOO compares, a score less the mean of the prompt: the anchor is no part of log-odds, and is of P."""

    def compared(reward: Scorer) -> torch.Tensor:
        scores = reward.scores(every()).view(8, 3)
        return scores - scores.mean(1, keepdim=True)

    assert torch.allclose(compared(anchored(plain())), compared(plain()), atol=1e-12)
    with_probability = compared(anchored(plain(), probability=True))
    assert with_probability.std(0).max() > 0.01 and (with_probability.diff(dim=1) < 0).all()  # the order stays


def test_what_has_a_value_network_learns_less_from_a_reward_with_constants_of_prompts() -> None:
    gained = {}
    for deviation in (0.0, 5.0):
        reward = Shifted(plain(), deviation, seed=5)
        start = policy_of(UNIFORM, prompts=8)
        given = learning(start, prompts=8, models={"reward_model": reward})
        method = PPO(steps=5, rollouts=64, epochs=1, learning_rate=0.1, value_learning_rate=0.02)
        gained[deviation] = np.mean([learned(method.train(given), row) @ REWARDS for row in range(8)])
    assert gained[0.0] > gained[5.0] + 0.03


def test_the_spread_between_prompts_is_without_that_within() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(4_000, 4)))
    constants = torch.from_numpy(np.random.default_rng(1).normal(size=(4_000, 1)))
    assert spread_between(scores) < 0.12 and spread_between(scores + 2 * constants) == pytest.approx(2, abs=0.07)


def test_both_are_models_of_an_experiment_and_can_be_saved(tmp_path: Path) -> None:
    lines, log = recorder()
    given = learning(policy_of(UNIFORM, prompts=8), prompts=8, models={"reward_model": plain()}, log=log)
    moved = ShiftedReward(deviation=2.0).train(given)
    again = learning(given.policy, prompts=8, models={"reward_model": moved}, log=log)
    for model in (moved, AnchoredReward().train(again)):
        assert isinstance(model, Scorer)
        model.save(tmp_path / type(model).__name__)
        opened = load(tmp_path / type(model).__name__)
        assert isinstance(opened, Scorer) and torch.equal(opened.scores(every()), model.scores(every()))
        with pytest.raises(TypeError, match="whole responses"):
            model.values(every())
    (line,) = lines
    assert line["between"] > 1 > line["saturated"] and "anchored_between" in line


def test_an_experiment_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    small = {"steps": 1, "rollouts": 8, "missing_eos_reward": None}
    said = {
        "name": "anchors",
        "world": "matrix",
        "sft": None,
        "reporter": None,
        "reward_model": "verified_reward",
        "preference_model": {"use": "general_preference_model", "epochs": 1},
        "models": {
            "shifted": "shifted_reward",
            "anchored": {"use": "anchored_reward", "model": "shifted"},
            "compared": {"use": "anchored_reward", "model": "preference_model"},
        },
        "methods": {
            "ppo": {**small, "reward_model": "shifted"},
            "rloo": {**small, "reward_model": "anchored"},
            "rloo_compared": {"use": "rloo", **small, "reward_model": "compared"},
        },
        "sizes": {"pairs": 20, "prompts": 20, "evaluation": 4, "samples": 2},
    }
    run = running.StudyRunner(experiment.from_mapping(said, "anchors.yaml"), tmp_path / "run").go()
    assert not run.failures and set(run.table("leaderboard")["method"]) == {"sft", "ppo", "rloo", "rloo_compared"}
