"""Models of a user's own: three families with their real classes, configs and tokenizer rules, made small here.

What differs among them is what goes wrong: GPT-2 has transposed matrices, no pad token, no chat template and one token
for begin and end; Qwen ends turns by one token and texts by another, and has no begin; Llama 3 puts a begin before all.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farm.hardware.models import save_causal_lm
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning
from farm.worlds.text import TextWorld
from reference_methods.imitation.sft import SFT
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.pairs.dpo import DPO
from tests.games.conftest import asker
from tests.training.conftest import LikesLength, pair_table

INSTRUCTIONS = [f"Write {n} words about the {thing}." for n in ("two", "ten") for thing in ("sea", "sun", "old dog")]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + "
    "'<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def tokenizer(special: dict[str, str], more: list[str], chat: str | None) -> Any:
    """Byte-level BPE as the three families have it, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    names = list(dict.fromkeys([*special.values(), *more]))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        INSTRUCTIONS, trainers.BpeTrainer(vocab_size=300, special_tokens=names, initial_alphabet=alphabet)
    )
    found = PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=more, **special)
    found.chat_template = chat
    return found


def llama() -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    ends = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    own = tokenizer(ends, ["<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"], HEADERS)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )
    return LlamaForCausalLM(config), own


def qwen() -> tuple[Any, Any]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    own = tokenizer({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, ["<|im_start|>"], CHATML)
    config = Qwen3Config(
        vocab_size=len(own) + 5,  # as the real ones, whose tables are padded beyond the tokenizer's tokens
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config), own


def gpt2() -> tuple[Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    one = "<|endoftext|>"
    own = tokenizer({"bos_token": one, "eos_token": one, "unk_token": one}, [], None)
    config = GPT2Config(vocab_size=len(own), n_embd=16, n_layer=2, n_head=2, n_positions=128)
    return GPT2LMHeadModel(config), own


FAMILIES = {"llama": llama, "qwen": qwen, "gpt2": gpt2}


@pytest.fixture(scope="module", params=FAMILIES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextWorld:
    """The front door: a folder with a model, and a file of instructions."""
    place = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, own = FAMILIES[request.param]()
    model.generation_config.eos_token_id = own.eos_token_id
    save_causal_lm(model.eval(), own, place / "model")
    (place / "i.json").write_text(json.dumps([{"instruction": text} for text in INSTRUCTIONS]))
    return TextWorld(model=str(place / "model"), instructions=str(place / "i.json"), max_new_tokens=8)


@pytest.fixture(scope="module")
def given(world: TextWorld) -> Learning:
    policy = world.base_policy()
    written = policy.sample(INSTRUCTIONS, seed=1, purpose="demonstrations").frame("human")
    reward_model = policy.scorer(2)
    reward_model.calibrate(0.0, 0.2)
    return Learning(
        seed=3,
        policy=policy,
        prompts=written[["instruction"]],
        demonstrations=written[["instruction", "output"]],
        feedback={"pairs": pair_table(policy, 6)},
        models={"reward_model": reward_model},
        asked={"pairs": asker(LikesLength(), 3)},
    )


ONLINE: dict[str, Any] = {"steps": 1, "rollouts": 8, "missing_eos_reward": None}
METHODS: dict[str, Any] = {
    "sft": SFT(epochs=1, batch_size=8, learning_rate=1e-3),
    "dpo": DPO(epochs=1, batch_size=8, learning_rate=1e-3),
    "ppo": PPO(learning_rate=1e-3, value_learning_rate=1e-3, **ONLINE),
    "grpo": GRPO(learning_rate=1e-3, samples_per_prompt=4, **ONLINE),
}


@pytest.mark.parametrize(
    ("name", "tune"),
    [
        *((name, "full") for name in METHODS),
        ("ppo", "lora"),
        *(pytest.param(name, "lora", marks=pytest.mark.slow) for name in METHODS if name != "ppo"),
    ],
)
def test_each_family_takes_a_step_of_each_method_and_is_saved(
    name: str, tune: Any, given: Learning, tmp_path: Path
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    lines: list[dict[str, float]] = []
    learned = replace(METHODS[name], tune=tune, lora_rank=2).train(replace(given, log=lines.append))
    assert len(lines) == 1 and all(np.isfinite(list(lines[0].values())))
    samples = given.policy.encode(INSTRUCTIONS, INSTRUCTIONS)
    with torch.no_grad():
        before, after = (policy.log_probabilities(samples)[0] for policy in (given.policy, learned))
        assert not torch.allclose(before, after, atol=1e-6)
        learned.save(tmp_path / "learned")
        opened = load(tmp_path / "learned")
        torch.testing.assert_close(opened.log_probabilities(samples)[0], after, atol=1e-5, rtol=1e-4)


def test_prompts_begin_and_responses_end_as_the_family_does(world: TextWorld) -> None:
    policy: Any = world.base_policy()
    own = policy.tokenizer
    samples = policy.encode(INSTRUCTIONS[:1], ["the sea <|im_end|> <|eot_id|> <|endoftext|>"])
    said = own.decode(samples.prompt_tokens[0])
    assert INSTRUCTIONS[0] in said
    if own.chat_template:
        asked = [{"role": "user", "content": INSTRUCTIONS[0]}]
        assert said == own.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    tokens = samples.response_tokens[0].tolist()
    assert tokens[-1] == own.eos_token_id and not policy.conversation.ends & set(tokens[:-1])
    written = policy.sample(INSTRUCTIONS * 8, seed=0, purpose="t", max_new_tokens=8)
    for row, reason in zip(written.response_tokens, written.finish_reason, strict=True):
        assert (int(row[-1]) in policy.conversation.ends) == (reason == "stop")
        assert reason == "stop" or len(row) == 8


def test_both_loops_write_the_same_and_with_the_trainers_likelihoods(
    world: TextWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = world.base_policy()
    lean = policy.sample(INSTRUCTIONS, seed=0, purpose="t")
    monkeypatch.setattr("farm.policies.language_model.is_plain_llama", lambda model: False)
    own = policy.sample(INSTRUCTIONS, seed=0, purpose="t")
    for samples in (lean, own):
        with torch.no_grad():
            trained, mask = policy.log_probabilities(samples)
        drawn = torch.from_numpy(np.concatenate(samples.log_probabilities))
        torch.testing.assert_close(trained[mask], drawn, atol=2e-4, rtol=1e-4)
    same = np.mean([one == other for one, other in zip(lean.outputs, own.outputs, strict=True)])
    assert same >= 0.5  # a draw on the edge between two tokens may fall to either side by rounding


def test_a_template_and_end_tokens_of_ones_own(world: TextWorld) -> None:
    one = replace_world(world, template="Q: {prompt}\nA:", end_tokens=["."])
    policy: Any = one.base_policy()
    assert isinstance(policy, LanguageModelPolicy)
    assert policy.tokenizer.decode(policy.conversation.prompts(["why"])[0]).endswith("Q: why\nA:")
    assert policy.conversation._id(".") in policy.conversation.ends


def replace_world(world: TextWorld, **more: Any) -> TextWorld:
    return TextWorld(model=world.model, instructions=world.file, **more)
