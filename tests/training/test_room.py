"""What is held at once: micro-batches by the memory that is there, and no model twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from farm.base.errors import UserError
from farm.hardware import adapters, memory, processes
from farm.policies.tabular import TabularPolicy
from farm.roles import config
from farm.roles.protocols import Method
from reference_methods.online.ppo import PPO
from reference_methods.pairs.dpo import DPO
from reference_methods.parts import batches
from reference_methods.parts.batches import LEAST, MOST, ON_A_PROCESSOR, in_parts, tokens_at_once
from tests.policies.conftest import make_policy
from tests.training.conftest import everything

GIB = 2**30


def test_micro_batches_are_what_they_were_on_a_processor() -> None:
    policy = make_policy()
    assert tokens_at_once("auto", policy) == tokens_at_once("auto", TabularPolicy(["a"], ["x", "y"])) == ON_A_PROCESSOR
    assert tokens_at_once(77, policy) == 77 and DPO().micro_batch_tokens == "auto"


def test_neither_a_number_nor_auto_is_one_sentence_with_the_key() -> None:
    with pytest.raises(UserError, match=r"`micro_batch_tokens` = 'most' is wrong: .* valid integer.* or .* 'auto'"):
        config.build(Method, {"use": "dpo", "micro_batch_tokens": "most"})


def test_micro_batches_fill_the_memory_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, left = make_policy(), [0]
    monkeypatch.setattr(memory, "free", lambda device: left[0])

    def at(gibibytes: float, *networks: Any, **given: Any) -> int:
        left[0] = int(gibibytes * GIB)
        return tokens_at_once("auto", *networks, **given)

    layer = 2 * (48 * 16 + 8 * 32)  # in 32 bits: of a width of 16, and of 32 in the feed-forward layer
    still_to_come = 12 * sum(p.numel() for p in policy.parameters())  # gradients and moments
    assert at(1.1, policy) == int(0.7 * (1.1 * GIB - GIB - still_to_come) / (2 * layer))
    assert at(1.1, policy, policy.copy()) < 0.6 * at(1.1, policy)  # a critic besides
    assert at(1.1, policy.with_settings(gradient_checkpointing=True)) > 1.5 * at(1.1, policy)
    assert at(1.1, policy, training=False) > 1.5 * at(1.1, policy)
    assert at(1.1, make_policy(compute_dtype="bfloat16")) > 1.5 * at(1.1, policy)
    assert at(0, policy) == LEAST and at(1000, policy) == MOST


def test_a_trainer_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    real = batches.micro_batches

    def seen(rows: Any, lengths: Any, tokens: int, prompts: Any = None) -> Any:
        passes.append(tokens)
        return real(rows, lengths, tokens, prompts)

    monkeypatch.setattr("reference_methods.parts.optimization.micro_batches", seen)
    monkeypatch.setattr(memory, "free", lambda device: 0)
    PPO(steps=1, rollouts=8, minibatches=1, epochs=1, missing_eos_reward=None).train(everything())
    assert passes == [LEAST]


def test_processes_whose_devices_have_unequal_memory_share_the_same_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut otherwise by each, rows were computed twice and added up, or never."""
    policy = TabularPolicy([f"p{k}" for k in range(12)], ["x", "y"])
    samples = policy.encode([f"p{k}" for k in range(12)], ["x"] * 12)
    room = {0: 10, 1: 6}
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    monkeypatch.setattr(processes, "max_over_ranks", lambda count: max(count, *(-tokens for tokens in room.values())))
    monkeypatch.setattr(processes, "raise_together", lambda compute: compute())
    monkeypatch.setattr(processes, "all_reduce_sum", lambda tensor: tensor)
    shares = []
    for rank, tokens in room.items():
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(in_parts(lambda part: torch.ones(len(part)), samples, tokens, together=True))
    assert torch.equal(shares[0] + shares[1], torch.ones(12))


def test_a_model_with_adapters_is_merged_without_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy().with_settings(lora={"rank": 2, "alpha": 4.0, "seed": 0})
    plain = adapters.plain(policy.model)
    assert not any(t.is_meta for t in [*plain.parameters(), *plain.buffers()])
    embedding = policy.model.get_input_embeddings().weight
    assert plain.get_input_embeddings().weight.data_ptr() == embedding.data_ptr()  # it is shared
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, policy.model(ids).logits, atol=1e-5, rtol=1e-5)
    merged: list[Any] = []
    monkeypatch.setattr(adapters, "plain", lambda model: merged.append(plain) or plain)
    own = policy.with_settings(lora=None)  # a policy that trains has a copy of its own, of what was merged no second
    assert merged and own.model.get_input_embeddings().weight.data_ptr() != embedding.data_ptr()
    name = "model.layers.0.mlp.up_proj.weight"
    assert own.model.get_parameter(name).data_ptr() == plain.get_parameter(name).data_ptr()


def test_gradients_travel_in_messages_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[torch.Tensor] = []

    def doubled(flat: torch.Tensor) -> None:
        sent.append(flat)
        flat.mul_(2)

    monkeypatch.setattr(processes, "world_size", lambda: 2)
    monkeypatch.setattr(processes.dist, "all_reduce", doubled)
    monkeypatch.setattr(processes, "BUCKET_BYTES", 100)
    sizes = [(5, 2), (13,), (40,), (1,), (3, 3)]
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    for number, parameter in enumerate(parameters[:-1]):  # the last has none here
        parameter.grad = torch.full_like(parameter, number + 1.0)
    processes.add_gradients(parameters)
    assert [flat.numel() for flat in sent] == [23, 40, 10]  # 25 numbers fit; more than that travels alone
    for number, parameter in enumerate(parameters[:-1]):
        assert parameter.grad is not None and bool((parameter.grad == 2 * (number + 1)).all())
    assert parameters[-1].grad is not None and not parameters[-1].grad.any()


def test_processes_with_unlike_room_cut_samples_into_the_same_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counted its own free memory, so that some samples were computed twice and others by nobody."""
    policy = make_policy()
    monkeypatch.setattr(memory, "free", lambda device: 2 * GIB)
    assert tokens_at_once("auto", policy) > 1000
    monkeypatch.setattr(processes, "max_over_ranks", lambda count: max(count, -1000))  # another has room for 1,000
    assert tokens_at_once("auto", policy) == 1000


def test_cudas_own_words_for_a_lack_of_memory_are_known() -> None:
    for words in ("CUDA error: out of memory\nSearch for", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"):
        with pytest.raises(UserError, match="out of memory during a pass"), memory.explained("a pass"):
            raise RuntimeError(words)
    assert not memory.is_shortage(RuntimeError("CUDA error: an illegal memory access was encountered"))
