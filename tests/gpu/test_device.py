"""What must hold on an accelerator, and holds on a processor too: the same tests run on both, so that they stay true.

``make test-gpu`` runs them on CUDA, ``make test`` on the processor. Only a device shows which kernels it takes and what
makes it wait (``test_cuda.py``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist

from farm.hardware import processes
from farm.hardware.models import tiny_llama
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning
from reference_methods.imitation.sft import SFT
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from tests.gpu.conftest import policy_on, sampled_on_processor
from tests.policies.conftest import PROMPTS, SPECIAL, WORDS, word_tokenizer
from tests.training.conftest import everything, numbers

ONCE: dict[str, Any] = {"steps": 1, "rollouts": 8, "missing_eos_reward": None, "learning_rate": 1e-3, "minibatches": 1}
OFFLINE: dict[str, Any] = {"epochs": 1, "batch_size": 24, "learning_rate": 1e-3}
METHODS: dict[str, Any] = {
    "sft": SFT(**OFFLINE),
    "dpo": DPO(**OFFLINE),
    "rloo": RLOO(**ONCE),
    "ppo": PPO(value_learning_rate=1e-3, **ONCE),
    "grpo": GRPO(samples_per_prompt=2, **ONCE),
}


@pytest.fixture
def given(device: torch.device) -> Learning:
    return everything(policy_on(device))


def test_likelihoods_are_the_processors_in_32_bits(device: torch.device) -> None:
    samples = sampled_on_processor()
    expected, mask = policy_on(torch.device("cpu")).log_probabilities(samples)
    found, _ = policy_on(device).log_probabilities(samples)
    assert found.device.type == device.type
    assert float((found.cpu() - expected)[mask].abs().max()) < 1e-4


def test_in_16_bits_the_next_token_is_nearly_the_processors(device: torch.device) -> None:
    samples = sampled_on_processor()
    expected, mask = policy_on(torch.device("cpu")).distributions(samples)
    found, _ = policy_on(device, compute_dtype="bfloat16").distributions(samples)
    kl = (expected.exp() * (expected - found.cpu())).sum(-1)[mask]
    assert float(kl.mean()) < 5e-3


def test_a_policy_in_16_bits_leaves_what_others_compute_in_32_alone(device: torch.device) -> None:
    """TF32 is switched on for a whole program, and rounds positions beyond 2,048 where their angles are a product."""
    policy_on(device, compute_dtype="bfloat16").log_probabilities(sampled_on_processor())
    assert not torch.backends.cuda.matmul.allow_tf32


def test_scores_and_values_are_the_processors(device: torch.device) -> None:
    samples = sampled_on_processor()
    expected, found = (policy_on(where).scorer(0) for where in (torch.device("cpu"), device))
    assert float((expected.scores(samples) - found.scores(samples).cpu()).abs().max()) < 1e-4
    assert float((expected.values(samples) - found.values(samples).cpu()).abs().max()) < 1e-4


def test_greedy_answers_are_the_processors(device: torch.device) -> None:
    ours, theirs = (policy_on(where) for where in (torch.device("cpu"), device))
    expected, found = (p.sample(PROMPTS * 3, seed=0, purpose="t", temperature=0.0) for p in (ours, theirs))
    assert found.outputs == expected.outputs and found.finish_reason == expected.finish_reason


def test_samples_have_the_policys_likelihoods(device: torch.device) -> None:
    policy = policy_on(device)
    samples = policy.sample(PROMPTS * 6, seed=0, purpose="t")
    chosen, mask = policy.log_probabilities(samples)
    drawn = torch.from_numpy(np.concatenate(samples.log_probabilities))
    assert float((chosen[mask].detach().cpu() - drawn).abs().max()) < 1e-3
    again = policy.sample(PROMPTS[:2] * 6, seed=0, purpose="t")  # a draw does not depend on its batch
    assert again.outputs[:2] == samples.outputs[:2]


def test_the_cut_into_micro_batches_changes_nothing(device: torch.device, given: Learning) -> None:
    """Of the loss and the gradient; Adam makes a full step of a gradient that is rounding."""
    lines: list[list[dict[str, float]]] = [[], []]
    for tokens, log in zip((512, 32768), lines, strict=True):
        DPO(micro_batch_tokens=tokens, **{**OFFLINE, "batch_size": 24}).train(replace(given, log=log.append))
    for small, large in zip(*lines, strict=True):
        for name in ("loss", "gradient_norm", "margin"):
            assert small[name] == pytest.approx(large[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("tune", ["full", "lora"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_one_step_of_each_method(device: torch.device, name: str, compute: str, tune: Any) -> None:
    given, lines = everything(policy_on(device, compute_dtype=compute)), list[dict[str, float]]()
    learned: Any = replace(METHODS[name], tune=tune, lora_rank=2).train(replace(given, log=lines.append))
    assert lines and all(np.isfinite(list(line.values())).all() for line in lines)
    held = {(p.device.type, p.dtype) for p in learned.parameters()}
    assert held == {(device.type, torch.float32)}
    untrained = replace(METHODS[name], tune=tune, lora_rank=2).start(given)
    assert not torch.equal(numbers(learned), numbers(untrained))


def test_a_reward_model_is_trained_saved_and_loaded(device: torch.device, given: Learning, tmp_path: Path) -> None:
    scorer = RewardModel(calibration_samples=8, **OFFLINE).train(given)
    scorer.save(tmp_path / "r")
    samples = sampled_on_processor()
    difference = load(tmp_path / "r").scores(samples).cpu() - scorer.scores(samples).cpu()
    assert float(difference.abs().max()) < 1e-4


def test_a_training_goes_on_from_its_checkpoint(device: torch.device, given: Learning, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    method = RLOO(checkpoint_minutes=0.0, **{**ONCE, "steps": 3})
    expected = numbers(method.train(given))

    def log(line: dict[str, float]) -> None:
        if line["step"] == 2:
            raise Killed

    with pytest.raises(Killed):
        method.train(replace(given, log=log, checkpoints=tmp_path))
    lines: list[dict[str, float]] = []
    found = numbers(method.train(replace(given, log=lines.append, checkpoints=tmp_path)))
    assert [line["step"] for line in lines] == [0, 1, 2]
    # On CUDA some sums are made in no fixed order, and Adam makes a full step of a gradient that is rounding.
    assert float((found - expected).abs().mean()) < (1e-12 if device.type == "cpu" else 1e-5)


def test_a_group_of_one_adds_gradients_and_spreads_a_policy(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nccl on CUDA and gloo on a processor."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        policy = policy_on(device, compute_dtype="bfloat16")
        samples = sampled_on_processor()
        policy.log_probabilities(samples)[0].sum().backward()
        before = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
        monkeypatch.setattr(processes, "BUCKET_BYTES", 1000)
        with monkeypatch.context() as several:
            several.setattr(processes, "world_size", lambda: 2)  # there is one: the sums are what they were
            processes.add_gradients(list(policy.parameters()))
        after = [p.grad for p in policy.parameters() if p.grad is not None]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        plain = policy.copy()
        policy.shard()
        policy.log_probabilities(samples)[0].sum().backward()
        with torch.no_grad():
            spread, whole = policy.log_probabilities(samples)[0], plain.log_probabilities(samples)[0]
        assert float((spread - whole).abs().mean()) < 0.05
        policy.unshard()
        assert torch.equal(numbers(policy), numbers(plain))
    finally:
        dist.destroy_process_group()


def test_a_saved_policy_is_the_same_when_loaded(device: torch.device, tmp_path: Path) -> None:
    policy = policy_on(device)
    policy.save(tmp_path / "p")
    again: Any = load(tmp_path / "p")
    assert isinstance(again, LanguageModelPolicy)
    if device.type == "cuda":
        assert again.body.device.type == "cuda"  # a loader puts a model where it computes fastest
    samples = sampled_on_processor()
    difference = again.log_probabilities(samples)[0].cpu() - policy.log_probabilities(samples)[0].cpu()
    assert float(difference.abs().max()) < 1e-4


@pytest.mark.parametrize("trees", [False, True])
def test_attention_is_computed_by_one_kernel(
    device: torch.device, trees: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the plain causal kind, and of branches that share a prompt, which take a mask."""
    model = tiny_llama(len(SPECIAL) + len(WORDS), 128, 2, 2, 256, 64, 0).to(device)
    policy = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", compute_dtype="bfloat16")
    prompt = " ".join(f"w{i}" for i in range(30))
    prompts = [prompt] * 4 if trees else [f"w{i} {prompt}" for i in range(4)]
    samples = policy.encode(prompts, ["w1 w2", "w3", "w4 w5", "w6"])
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        policy.log_probabilities(samples)
    used = {event.key for event in profile.key_averages() if "_scaled_dot_product" in event.key}
    with capsys.disabled():
        print(f"\n{device}, {'branches' if trees else 'plain'}: {', '.join(sorted(used))}")
    assert used and not any(name.endswith("_math") for name in used)
