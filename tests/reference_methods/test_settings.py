"""Settings that mean nothing are refused when a method is described, before anything is sampled or trained."""

from __future__ import annotations

from typing import Any

import pytest

from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.imitation.reward_conditioning import RewardConditioning
from reference_methods.imitation.sft import SFT
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.pairs.dpo import DPO
from reference_methods.pairs.ipo import IPO
from reference_methods.pairs.kto import KTO
from reference_methods.pairs.simpo import SimPO
from reference_methods.selection.expert_iteration import ExpertIteration
from reference_methods.selection.raft import RAFT


@pytest.mark.parametrize(
    ("method", "settings", "complaint"),
    [
        (DPO, {"learning_rate": -1.0}, "learning_rate must be a finite number from 0 on, not -1.0"),
        (DPO, {"learning_rate": float("nan")}, "learning_rate must be a finite number from 0 on, not nan"),
        (DPO, {"beta": -0.1}, "beta must be a finite number from 0 on, not -0.1"),
        (DPO, {"label_smoothing": 0.7}, "label_smoothing is a share from 0 to below one half, not 0.7"),
        (SimPO, {"label_smoothing": -0.1}, "label_smoothing is a share from 0 to below one half, not -0.1"),
        (KTO, {"batch_size": 0}, "batch_size must be at least 1, not 0"),
        (IPO, {"epochs": 0}, "epochs must be at least 1, not 0"),
        (RewardConditioning, {"micro_batch_tokens": 0}, "micro_batch_tokens must be at least 1, not 0"),
        (RewardModel, {"calibration_samples": -1}, "calibration_samples must be a finite number from 0 on, not -1"),
        (SFT, {"warm_up": 2.0}, "warm_up is a share of the steps, between 0 and 1, not 2.0"),
        (SFT, {"max_gradient_norm": 0.0}, "max_gradient_norm must be above 0, not 0.0"),
        (SFT, {"tune": "lora", "lora_rank": 0}, "lora_rank must be at least 1, not 0"),
        (SFT, {"tune": "last_layers", "last_layers": 0}, "last_layers must be at least 1, not 0"),
        (ExpertIteration, {"n": 0}, "n must be at least 1, not 0"),
        (ExpertIteration, {"prompts": 0}, "prompts must be at least 1, not 0"),
        (RAFT, {"stages": 0}, "stages must be at least 1, not 0"),
        (PPO, {"learning_rate": float("nan")}, "learning_rate must be a finite number from 0 on, not nan"),
        (PPO, {"value_learning_rate": -1.0}, "value_learning_rate must be a finite number from 0 on, not -1.0"),
        (PPO, {"clip": -1.0}, "clip must be a finite number from 0 on, not -1.0"),
        (GRPO, {"samples_per_prompt": 0}, "samples_per_prompt must be at least 1, not 0"),
        (GRPO, {"rollouts": 0}, "rollouts must be at least 1, not 0"),
        (GRPO, {"epochs": 0}, "epochs must be at least 1, not 0"),
        (GRPO, {"minibatches": 0}, "minibatches must be at least 1, not 0"),
        (OnlineDPO, {"minibatches": 0}, "prompts_per_step, minibatches and epochs must be at least 1"),
        (GRPO, {"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(method: Any, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        method(**settings)


def test_the_borders_are_allowed() -> None:
    DPO(learning_rate=0.0, beta=0.0, warm_up=1.0, label_smoothing=0.0, max_gradient_norm=float("inf"))
    ExpertIteration(prompts=None, checkpoint_minutes=0.0)
