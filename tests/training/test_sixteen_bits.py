"""Sixteen bits that learn: what trains is held in 32, and a ratio is 1 until the policy has moved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from farm.base.errors import UserError
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.worlds.alpaca_farm import AlpacaFarmWorld
from reference_methods.imitation.sft import SFT
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.alpaca_farm_ppo import AlpacaFarmPPO
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.precision import in_16_bits
from tests.policies.conftest import PROMPTS, make_policy
from tests.training.conftest import everything, numbers

LORA = {"rank": 2, "alpha": 4.0, "seed": 0}
OFFLINE: dict[str, Any] = {"epochs": 1, "batch_size": 4, "schedule": "constant", "warm_up": 0.0}


def held_in_16_bits(**settings: Any) -> LanguageModelPolicy:
    policy = make_policy(**settings)
    policy.model.bfloat16()
    return policy.with_settings()


def test_weights_move_in_16_bits_as_they_do_in_32() -> None:
    """Held in bfloat16 nearly all of them would stand still at this rate."""
    given = everything()
    moved = []
    for compute in ("float32", "bfloat16"):
        policy = make_policy(compute_dtype=compute)
        learned = SFT(learning_rate=1e-6, **OFFLINE).train(replace(given, policy=policy))
        moved.append(numbers(learned) - numbers(policy))
    exact, found = moved
    assert float((found == 0).double().mean()) < 0.02 + float((exact == 0).double().mean())
    cosine = float(exact @ found / (exact.norm() * found.norm()))
    assert cosine > 0.8  # Adam makes a step of full size of a gradient that is rounding alone
    rounded = (numbers(policy) + exact).bfloat16().double() - numbers(policy).bfloat16().double()
    assert float((rounded == 0).double().mean()) > 0.5  # what would be left of the same steps in bfloat16


def test_adapters_are_float32_on_a_base_in_16_bits_and_all_of_them_move() -> None:
    base = held_in_16_bits()
    given = replace(everything(), policy=base)
    learned: Any = SFT(learning_rate=1e-5, tune="lora", lora_rank=2, **OFFLINE).train(given)
    assert base.model.dtype == learned.model.dtype == torch.bfloat16 and in_16_bits(learned)
    assert {p.dtype for p in learned.parameters()} == {torch.float32}
    start = base.with_settings(lora={"rank": 2, "alpha": 32.0, "seed": 3})
    change = numbers(learned) - numbers(start)
    assert float((change == 0).double().mean()) < 0.1


def test_a_saved_policy_with_adapters_is_what_it_was(tmp_path: Path) -> None:
    policy = held_in_16_bits().with_settings(lora=LORA)
    with torch.no_grad():
        for number, parameter in enumerate(policy.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    policy.save(tmp_path / "p")
    again = load(tmp_path / "p")
    assert again.model.dtype == torch.bfloat16  # type: ignore[attr-defined]
    samples = policy.sample(PROMPTS, seed=0, purpose="t", max_new_tokens=4)
    difference = again.log_probabilities(samples)[0] - policy.log_probabilities(samples)[0]
    assert float(difference.detach().abs().mean()) < 0.2  # merged, and so rounded


@pytest.mark.parametrize(
    "method", [SFT(**OFFLINE), DPO(**OFFLINE), RewardModel(calibration_samples=0, epochs=1), PPO(steps=1, rollouts=4)]
)
def test_a_training_of_weights_in_16_bits_is_refused_with_the_reason(method: Any) -> None:
    given = everything()
    policy = held_in_16_bits()
    with pytest.raises(UserError, match="held in bfloat16, which rounds most updates away; set the world's"):
        method.train(replace(given, policy=policy))


@pytest.mark.parametrize("method", [DPO(**OFFLINE), RewardModel(calibration_samples=0, epochs=1)])
def test_a_training_with_gradients_in_float16_is_refused_with_the_reason(method: Any) -> None:
    """No loss is scaled here, so those below 6e-8 became 0 without a word."""
    given = everything()
    policy = make_policy(compute_dtype="float16")
    with pytest.raises(UserError, match="`compute_dtype: float16` has no room for small gradients"):
        method.train(replace(given, policy=policy))


def test_the_world_of_the_paper_holds_weights_that_learn() -> None:
    world = AlpacaFarmWorld(data="nowhere")
    assert world.dtype == "float32" and world.policy_settings["compute_dtype"] == "auto"


# --- the ratio before the policy has moved ----------------------------------------------------------------------------

ONLINE: dict[str, Any] = {"steps": 1, "rollouts": 12, "missing_eos_reward": None, "learning_rate": 0.0, "epochs": 2}
METHODS = {
    "rloo": RLOO(samples_per_prompt=3, minibatches=2, **ONLINE),
    "ppo": PPO(minibatches=2, value_learning_rate=0.0, **ONLINE),
    "grpo": GRPO(samples_per_prompt=3, minibatches=2, beta=0.0, **ONLINE),
    "alpaca_farm_ppo": AlpacaFarmPPO(minibatches=2, value_learning_rate=0.0, **ONLINE),
}


@pytest.mark.parametrize("tokens", [60, 4096])
@pytest.mark.parametrize("name", METHODS)
def test_in_16_bits_the_ratio_of_a_policy_that_does_not_move_is_1(name: str, tokens: int) -> None:
    """In every minibatch of every epoch, however they are cut: the old probabilities come from the same passes."""
    given = everything(make_policy(compute_dtype="bfloat16"))
    lines: list[dict[str, float]] = []
    method = replace(METHODS[name], micro_batch_tokens=tokens)
    method.train(replace(given, log=lines.append))
    assert lines[0]["update_kl"] < 1e-9 and lines[0]["clip_fraction"] == 0
    assert lines[0]["ratio"] == pytest.approx(1, abs=1e-4)
    assert lines[0]["sampler_gap"] > 1e-3  # passes that are cut otherwise do round otherwise


@pytest.mark.parametrize("tokens", [30, 4096])
def test_in_16_bits_the_first_loss_of_dpo_is_ln_2(tokens: int) -> None:
    given = everything(make_policy(compute_dtype="bfloat16"))
    lines: list[dict[str, float]] = []
    method = DPO(beta=1.0, learning_rate=0.0, micro_batch_tokens=tokens, **{**OFFLINE, "epochs": 2})
    method.train(replace(given, log=lines.append))
    assert len(lines) > 2
    for line in lines:
        assert line["loss"] == pytest.approx(0.6931472, abs=1e-6) and abs(line["margin"]) < 1e-6
