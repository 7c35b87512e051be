"""Settings that mean nothing are refused when a method is described, before anything is sampled or trained."""

from __future__ import annotations

from typing import Any

import pytest

from farm.base.errors import UserError
from farm.experiments import presets
from farm.roles import config
from farm.roles.protocols import Method
from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.imitation.reward_conditioning import RewardConditioning
from reference_methods.imitation.sft import SFT
from reference_methods.lists.lipo import LiPO
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.ipo import IPO
from reference_methods.pairs.kto import KTO
from reference_methods.pairs.simpo import SimPO
from reference_methods.selection.expert_iteration import ExpertIteration
from reference_methods.selection.raft import RAFT

LEAST = "is wrong: input should be greater than or equal to"


@pytest.mark.parametrize(
    ("method", "settings", "complaint"),
    [
        (DPO, {"learning_rate": -1.0}, f"`learning_rate` = -1.0 {LEAST} 0"),
        (DPO, {"learning_rate": float("nan")}, "`learning_rate` = nan is wrong: input should be a finite number"),
        (DPO, {"beta": -0.1}, f"`beta` = -0.1 {LEAST} 0"),
        (DPO, {"label_smoothing": 0.7}, "`label_smoothing` = 0.7 is wrong: input should be less than 0.5"),
        (SimPO, {"label_smoothing": -0.1}, f"`label_smoothing` = -0.1 {LEAST} 0"),
        (KTO, {"batch_size": 0}, f"`batch_size` = 0 {LEAST} 1"),
        (IPO, {"epochs": 0}, f"`epochs` = 0 {LEAST} 1"),
        (RewardConditioning, {"micro_batch_tokens": 0}, f"`micro_batch_tokens` = 0 {LEAST} 1"),
        (RewardModel, {"calibration_samples": -1}, f"`calibration_samples` = -1 {LEAST} 0"),
        (SFT, {"warm_up": 2.0}, "`warm_up` = 2.0 is wrong: input should be less than or equal to 1"),
        (SFT, {"max_gradient_norm": 0.0}, "`max_gradient_norm` = 0.0 is wrong: input should be greater than 0"),
        (SFT, {"tune": "lora", "lora_rank": 0}, f"`lora_rank` = 0 {LEAST} 1"),
        (SFT, {"tune": "last_layers", "last_layers": 0}, f"`last_layers` = 0 {LEAST} 1"),
        (ExpertIteration, {"n": 0}, f"`n` = 0 {LEAST} 1"),
        (ExpertIteration, {"prompts": 0}, f"`prompts` = 0 {LEAST} 1"),
        (LiPO, {"epochs": 0}, f"`epochs` = 0 {LEAST} 1"),
        (LiPO, {"batch_size": 0}, f"`batch_size` = 0 {LEAST} 1"),
        (LiPO, {"learning_rate": -1.0}, f"`learning_rate` = -1.0 {LEAST} 0"),
        (RAFT, {"stages": 0}, f"`stages` = 0 {LEAST} 1"),
        (PPO, {"learning_rate": float("nan")}, "`learning_rate` = nan is wrong: input should be a finite number"),
        (PPO, {"value_learning_rate": -1.0}, f"`value_learning_rate` = -1.0 {LEAST} 0"),
        (PPO, {"clip": -1.0}, f"`clip` = -1.0 {LEAST} 0"),
        (GRPO, {"samples_per_prompt": 0}, f"`samples_per_prompt` = 0 {LEAST} 2"),
        (GRPO, {"rollouts": 0}, f"`rollouts` = 0 {LEAST} 1"),
        (GRPO, {"epochs": 0}, f"`epochs` = 0 {LEAST} 1"),
        (GRPO, {"minibatches": 0}, f"`minibatches` = 0 {LEAST} 1"),
        (OnlineDPO, {"minibatches": 0}, f"`minibatches` = 0 {LEAST} 1"),
        (GRPO, {"max_new_tokens": 0}, f"`max_new_tokens` = 0 {LEAST} 1"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(method: Any, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        method(**settings)


def test_the_borders_are_allowed() -> None:
    DPO(learning_rate=0.0, beta=0.0, warm_up=1.0, label_smoothing=0.0, max_gradient_norm=float("inf"))
    ExpertIteration(prompts=None, checkpoint_minutes=0.0)


@pytest.mark.parametrize(
    ("name", "setting", "value", "why"),
    [
        ("sppo", "beta", 0.1, "its loss has no KL to the reference"),
        ("dno", "beta", 0.1, "its loss has no KL to the reference"),
        ("gpo", "beta", 0.1, "its loss has no KL to the reference"),
        ("spo", "beta", 0.1, "its KL to the SFT policy is `kl`"),
        ("quark", "clip", 0.2, "its loss has no probability ratio"),
        ("superhf", "importance_cap", None, "its loss has no probability ratio"),
        ("alpaca_farm_quark", "quantile_texts", ["a", "b"], "no quantile is told to the policy"),
        ("alpaca_farm_ppo", "importance_cap", 2.0, "its losses have no importance weights"),
        ("ufo", "missing_eos_reward", -1.0, "the user judges responses that were cut"),
    ],
)
def test_a_setting_that_a_method_inherits_and_does_not_read_is_refused(
    name: str, setting: str, value: Any, why: str
) -> None:
    """Failed before: it was taken, whatever was set, and the same was learned."""
    for read in (config.build, config.described):
        with pytest.raises(UserError, match=f"`{setting}` would change nothing of .*: {why}; leave it out"):
            read(Method, {"use": name, setting: value})
    assert setting not in config.described(Method, name)


def test_what_a_preset_says_of_all_methods_is_for_those_that_read_it() -> None:
    preset = presets.load("smollm2").settings
    assert preset.fields["missing_eos_reward"] is None
    assert "missing_eos_reward" not in config.described(Method, "ufo", preset=preset)
    assert config.described(Method, "ppo", preset=preset)["missing_eos_reward"] is None
