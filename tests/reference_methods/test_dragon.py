"""DRAGON as a method: sets from the appraiser of an experiment, its two learners, and what it is without sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import farm
from annotators.feedback.answers import said_by
from farm.base.errors import UserError
from farm.experiments.asker import FeedbackAsker
from farm.feedback.kind import kind
from farm.roles.protocols import Learning
from reference_methods.online.dragon import Dragon
from reference_methods.online.rloo import RLOO
from reference_methods.parts.batches import log_likelihoods
from reference_methods.studies.set_rewards import CLASS, QUALITY, entropy_of
from tests.policies.conftest import PROMPTS, make_policy
from tests.reference_methods.tables import Array, learned, learning, policy_of, rollout_of, scorer_of

WORTH = np.array([0.3, -1.0, 0.8, 0.1])


@dataclass(frozen=True)
class OfNumbers:
    """Values a set by the numbers of its responses."""

    of: Any
    name: str = "of numbers"
    free = True

    def appraise(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        numbers = [np.array([int(text.split()[-1]) for text in listed]) for listed in groups["outputs"]]
        return said_by(self.name, groups, seed, replicate, value=[self.of(found) for found in numbers])


def given(value: Any, start: Array, rewards: Array) -> Learning:
    asked = {"sets": FeedbackAsker(kind("sets"), OfNumbers(value), 1)}
    return learning(policy_of(start), models={"reward_model": scorer_of(rewards)}, asked=asked)


def method(**settings: Any) -> Dragon:
    common = {"rollouts": 64, "samples_per_prompt": 8, "missing_eos_reward": None, "steps": 5, "learning_rate": 0.1}
    return Dragon(**{**common, **settings})


def test_without_a_weight_leave_one_out_is_rloo_to_the_bit() -> None:
    settings = {"rollouts": 64, "samples_per_prompt": 8, "missing_eos_reward": None, "steps": 5, "learning_rate": 0.1}
    known = replace(given(None, np.full(4, 0.25), WORTH), asked={})
    ours = method(learner="leave_one_out", weight=0.0, beta=0.05).train(known)
    assert not method(weight=0.0).asks and method().asks == {"sets"}
    assert (learned(ours) == learned(RLOO(beta=0.05, **settings).train(known))).all()  # type: ignore[arg-type]


def test_of_a_sum_the_credit_is_the_reward_and_of_a_mean_rloos_advantage() -> None:
    """[num] R(S) - R(S without i) is r_i where R is a sum, and RLOO's advantage / n where it is a mean."""
    start, nothing = np.full(4, 0.25), np.zeros(4)
    of_mean = given(lambda numbers: WORTH[numbers].mean(), start, nothing)
    dragon = method(learner="leave_one_out", beta=0.0, whiten=False)
    rollout = rollout_of(dragon, of_mean, of_mean.policy)
    numbers = np.array([int(t[0]) for t in rollout.samples.response_tokens])
    plain = replace(rollout, scores=torch.from_numpy(WORTH[numbers]).to(rollout.scores))
    advantages = RLOO(samples_per_prompt=8, rollouts=64, beta=0.0, whiten=False).advantages(plain)
    np.testing.assert_allclose(dragon.credit(rollout, of_mean), advantages, atol=1e-6)
    of_sum = given(lambda numbers: WORTH[numbers].sum(), start, nothing)
    np.testing.assert_allclose(dragon.credit(rollout, of_sum) / 8, WORTH[numbers], atol=1e-6)


def test_places_change_sides_where_the_positive_set_gains_and_all_samples_stay() -> None:
    of_mean = given(lambda numbers: WORTH[numbers].mean(), np.full(4, 0.25), np.zeros(4))
    dragon = method()
    rollout = rollout_of(dragon, of_mean, of_mean.policy)
    better, worse = dragon.two_sets(rollout, of_mean)
    numbers = np.array([int(t[0]) for t in rollout.samples.response_tokens])
    assert (WORTH[numbers][better] >= WORTH[numbers][worse]).all()  # of a mean each place is decided by itself
    assert sorted([*better, *worse]) == list(range(64))
    diverse = given(lambda numbers: float(len(set(numbers))), np.full(4, 0.25), np.zeros(4))
    better, worse = dragon.two_sets(rollout, diverse)
    kinds = [np.array([len(set(row)) for row in numbers[side].reshape(-1, 4)]) for side in (better, worse)]
    assert (kinds[0] >= kinds[1]).all() and (kinds[0] > kinds[1]).any()


def spread(numbers: Array) -> float:
    return float(entropy_of(np.bincount(CLASS[numbers], minlength=3) / len(numbers)))


@pytest.mark.parametrize("learner", ["contrast", "leave_one_out"])
def test_the_entropy_of_classes_in_the_value_keeps_the_policy_more_diverse(learner: Any) -> None:
    """[trend] in the table of the study: 12 responses of three classes, of which one is good."""
    uniform = np.full(12, 1 / 12)
    found = []
    for weight in (0.0, 2.0):
        policy = method(
            learner=learner, weight=weight, steps=10, rollouts=64, learning_rate=0.15, minibatches=1, epochs=1
        ).train(given(spread, uniform, QUALITY))
        found.append(learned(policy))
    plain, diverse = (entropy_of(np.bincount(CLASS, p, 3)) for p in found)
    assert found[0] @ QUALITY > 0.4 and found[1] @ QUALITY > 0.25  # from .25
    assert diverse > plain + 0.05


@dataclass(frozen=True)
class OfWords:
    """Values a set by how many words its outputs have between them."""

    name: str = "of words"
    free = True

    def appraise(self, groups: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        value = [float(len({word for text in listed for word in text.split()})) for listed in groups["outputs"]]
        return said_by(self.name, groups, seed, replicate, value=value)


@pytest.mark.parametrize("learner", ["contrast", "leave_one_out"])
def test_a_language_model_learns_and_repeats_whatever_the_micro_batches(learner: Any) -> None:
    start = make_policy()
    models, texts = {"reward_model": start.scorer(3)}, start.encode(PROMPTS, ["w3 w4 w5"] * len(PROMPTS))
    found, lines = [], list[dict[str, float]]()
    for tokens in (100_000, 100_000, 60):
        asked = {"sets": FeedbackAsker(kind("sets"), OfWords(), 1)}
        prompts = pd.DataFrame({"instruction": PROMPTS})
        here = Learning(seed=1, policy=start, prompts=prompts, models=models, asked=asked, log=lines.append)
        train = method(learner=learner, steps=2, rollouts=16, learning_rate=1e-3, micro_batch_tokens=tokens).train
        found.append(log_likelihoods(train(here), texts).detach())
    assert torch.equal(found[0], found[1]) and torch.allclose(found[0], found[2], atol=0.05)
    assert not torch.allclose(found[0], log_likelihoods(start, texts), atol=1e-4)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-4) and np.isfinite(lines[1]["loss"])


def test_a_set_without_a_value_and_odd_groups_are_refused() -> None:
    lacking = given(lambda numbers: np.nan, np.full(4, 0.25), WORTH)
    with pytest.raises(UserError, match="sets got no value"):
        method(steps=1).train(lacking)
    with pytest.raises(ValueError, match="even and at least 4, not 5"):
        method(samples_per_prompt=5, rollouts=50)


def test_an_experiment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_HOME", str(tmp_path / "home"))
    said = {
        "name": "sets",
        "world": {"use": "matrix", "utilities": [0.0, 1.0, 1.0], "terms": {"tone": [0, 0, 1]}},
        "sft": None,
        "feedback": {"pairs": "gold", "sets": {"annotator": {"use": "appraiser", "by": ["tone"], "width": 0.0}}},
        "judges": {"judge": "gold"},
        "methods": {"dragon": {"steps": 3, "rollouts": 32, "samples_per_prompt": 8, "learning_rate": 0.1}},
        "sizes": {"pairs": 40, "prompts": 20, "evaluation": 10, "samples": 4},
    }
    run = farm.run(said, {"reporter": None}, out=tmp_path / "run")
    outputs = pd.read_parquet(run.folder / "tables" / "outputs.parquet")
    gold = outputs.groupby("method")["gold"].mean()
    assert gold["dragon"] > gold["sft"]
