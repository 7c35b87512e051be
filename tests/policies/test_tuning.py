"""Full, adapters, or the last layers; gradient checkpointing; the type of the matrix products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farm.base.errors import UserError
from farm.engines.llama import LlamaDecoder, is_plain_llama
from farm.engines.sampling import TransformersDecoder
from farm.hardware import adapters
from farm.policies import load
from farm.policies.body import compute_type
from reference_methods.imitation.sft import SFT
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from tests.policies.conftest import PROMPTS, make_policy
from tests.policies.test_sampling import architectures
from tests.reference_methods.tables import policy_of
from tests.training.conftest import everything, numbers

LORA = {"rank": 4, "alpha": 8.0, "seed": 0}
ONLINE = {"steps": 2, "rollouts": 12, "minibatches": 2, "missing_eos_reward": None, "learning_rate": 1e-2}


def stirred(policy: Any) -> Any:
    """With adapters that do something."""
    with torch.no_grad():
        for i, p in enumerate(policy.parameters()):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.3)
    return policy


def test_adapters_change_nothing_at_first_and_hold_no_second_base() -> None:
    base = make_policy()
    policy = base.with_settings(lora=LORA)
    samples = base.sample(PROMPTS, seed=0, purpose="t")
    assert torch.equal(base.log_probabilities(samples)[0], policy.log_probabilities(samples)[0])
    shared = {id(p) for p in base.model.parameters()}
    own = [p for p in policy.model.parameters() if id(p) not in shared]
    assert {id(p) for p in own} == {id(p) for p in policy.parameters()} and all(p.requires_grad for p in own)
    assert len(own) == 2 * 2 * 7  # A and B of seven linear layers in each of two layers
    before = base.log_probabilities(samples)[0].detach().clone()
    stirred(policy)
    assert torch.equal(base.log_probabilities(samples)[0].detach(), before)
    assert not torch.equal(policy.log_probabilities(samples)[0].detach(), before)
    again = policy.copy()
    assert torch.equal(numbers(again), numbers(policy))
    assert not {id(p) for p in again.parameters()} & {id(p) for p in policy.parameters()}


def test_the_draw_of_adapters_is_keyed_and_leaves_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (make_policy().with_settings(lora={**LORA, "seed": s}) for s in (1, 1, 2))
    assert torch.equal(numbers(first), numbers(second)) and not torch.equal(numbers(first), numbers(other))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_lean_loop_samples_with_adapters() -> None:
    policy = stirred(make_policy().with_settings(lora=LORA))
    assert is_plain_llama(policy.model)
    samples = policy.sample(PROMPTS * 4, seed=0, purpose="t")
    chosen, mask = policy.log_probabilities(samples)
    sampled = torch.from_numpy(np.concatenate(samples.log_probabilities))
    torch.testing.assert_close(chosen[mask].detach(), sampled, atol=1e-4, rtol=1e-3)
    assert isinstance(policy.decoder(), LlamaDecoder)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_adapters_in_other_architectures(name: str) -> None:
    from farm.policies.language_model import LanguageModelPolicy
    from tests.policies.conftest import word_tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architectures()[name]()
    base = LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=6)
    policy = stirred(base.with_settings(lora=LORA))
    assert isinstance(policy.decoder(), TransformersDecoder)
    samples = policy.sample(PROMPTS, seed=0, purpose="t")
    merged = policy.with_settings(lora=None)
    assert not adapters.inside(merged.model)
    torch.testing.assert_close(
        merged.log_probabilities(samples)[0], policy.log_probabilities(samples)[0], atol=1e-4, rtol=1e-4
    )


def test_saved_merged_and_by_themselves(tmp_path: Path) -> None:
    policy = stirred(make_policy().with_settings(lora=LORA))
    policy.save(tmp_path / "p")
    again = load(tmp_path / "p")
    samples = policy.sample(PROMPTS * 2, seed=0, purpose="t")
    torch.testing.assert_close(
        again.log_probabilities(samples)[0], policy.log_probabilities(samples)[0], atol=1e-4, rtol=1e-4
    )
    assert not adapters.inside(again.model)  # opens without peft
    from peft import PeftModel

    whole = PeftModel.from_pretrained(make_policy().model, tmp_path / "p" / "adapter")
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        torch.testing.assert_close(whole(ids).logits, policy.model(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tune", ["full", "lora", "last_layers"])
def test_every_kind_of_method_tunes_what_it_is_told_to(tune: Any) -> None:
    given = everything()
    names = {
        "full": lambda name: True,
        "lora": lambda name: ".lora_" in name,
        "last_layers": lambda name: name.startswith(("model.layers.1.", "model.norm")),
    }[tune]
    shared = {"tune": tune, "last_layers": 1, "lora_rank": 2}
    methods = [
        SFT(epochs=1, batch_size=12, learning_rate=1e-2, **shared),
        DPO(epochs=1, batch_size=12, learning_rate=1e-2, **shared),
        RLOO(**ONLINE, **shared),
        PPO(value_learning_rate=1e-2, **ONLINE, **shared),
    ]
    before = {name: p.detach().clone() for name, p in given.policy.model.named_parameters()}
    for method in methods:
        learned = method.train(given)
        now = dict(learned.model.named_parameters())
        trained = {name for name, p in now.items() if p.requires_grad}
        assert trained and trained == {name for name in now if names(name)}
        changed = {
            n
            for n, p in now.items()
            if n.replace(".base_layer", "") in before
            and ".lora_" not in n
            and not torch.equal(p, before[n.replace(".base_layer", "")])
        }
        assert changed == ({n for n in now if names(n)} if tune != "lora" else set())
    for name, p in given.policy.model.named_parameters():
        assert torch.equal(p, before[name])  # the reference is where it was
    scorer = RewardModel(epochs=1, batch_size=12, learning_rate=1e-2, calibration_samples=0, **shared).train(given)
    assert {n for n, p in scorer.body.model.named_parameters() if p.requires_grad} == {
        n for n, _ in scorer.body.model.named_parameters() if names(n)
    }


def test_a_reward_model_with_adapters_is_saved_and_loaded(tmp_path: Path) -> None:
    given = everything()
    scorer = RewardModel(
        epochs=1, batch_size=8, learning_rate=1e-2, calibration_samples=0, tune="lora", lora_rank=2
    ).train(given)
    scorer.save(tmp_path / "r")
    samples = given.policy.sample(PROMPTS, seed=0, purpose="t")
    torch.testing.assert_close(load(tmp_path / "r").scores(samples), scorer.scores(samples), atol=1e-4, rtol=1e-4)


def test_tables_are_tuned_whole() -> None:
    given = replace(everything(), policy=policy_of([0.5, 0.3, 0.2]))
    assert RLOO(tune="full").start(given) is not given.policy
    with pytest.raises(UserError, match="tune: lora is for language models"):
        RLOO(tune="lora").start(given)


def test_gradient_checkpointing_changes_memory_and_nothing_else() -> None:
    plain, frugal = make_policy(), make_policy(gradient_checkpointing=True)
    samples = plain.sample(PROMPTS * 4, seed=0, purpose="t")
    assert [t.tolist() for t in frugal.sample(PROMPTS * 4, seed=0, purpose="t").response_tokens] == [
        t.tolist() for t in samples.response_tokens
    ]
    kept = []
    for policy in (plain, frugal):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            loss = policy.log_probabilities(samples)[0].sum()
        loss.backward()
        kept.append(sum(sizes))
    assert kept[1] < 0.6 * kept[0]
    for p, q in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    assert not any(m.training for m in frugal.model.modules())


def test_auto_is_bfloat16_where_the_hardware_has_it() -> None:
    device = torch.device("cpu")
    assert compute_type("auto", device) in ("bfloat16", None)
    if torch.cpu._is_avx512_bf16_supported():
        assert compute_type("auto", device) == "bfloat16"
    assert compute_type(None, device) is None and compute_type("float32", device) == "float32"
    with pytest.raises(ValueError, match="compute_dtype"):
        compute_type("int4", device)
