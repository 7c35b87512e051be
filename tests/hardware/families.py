"""Three families with their real classes, configs and tokenizer rules, made small here.

What differs among them is what goes wrong: GPT-2 has transposed matrices, no pad token, no chat template and one token
for begin and end; Qwen ends turns by one token and texts by another, and has no begin; Llama 3 puts a begin before all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from farm.hardware.models import save_causal_lm
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


def llama(width: int) -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    ends = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    own = tokenizer(ends, ["<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"], HEADERS)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=width,
        intermediate_size=2 * width,
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


def qwen(width: int) -> tuple[Any, Any]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    own = tokenizer({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, ["<|im_start|>"], CHATML)
    config = Qwen3Config(
        vocab_size=len(own) + 5,  # as the real ones, whose tables are padded beyond the tokenizer's tokens
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config), own


def gpt2(width: int) -> tuple[Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    one = "<|endoftext|>"
    own = tokenizer({"bos_token": one, "eos_token": one, "unk_token": one}, [], None)
    config = GPT2Config(vocab_size=len(own), n_embd=width, n_layer=2, n_head=2, n_positions=128)
    return GPT2LMHeadModel(config), own


FAMILIES = {"llama": llama, "qwen": qwen, "gpt2": gpt2}


def world_of(family: str, place: Path, width: int = 16, sharpness: float = 1.0, **settings: Any) -> TextWorld:
    """The front door: a folder with a model, and a file of instructions.

    Args:
        width: of the model, a multiple of 4.
        sharpness: a factor of its matrices, by which the next token is further from uniform.
        settings: more of the world's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, own = FAMILIES[family](width)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(sharpness)
    model.generation_config.eos_token_id = own.eos_token_id
    save_causal_lm(model.eval(), own, place / "model")
    (place / "i.json").write_text(json.dumps([{"instruction": text} for text in INSTRUCTIONS]))
    return TextWorld(model=str(place / "model"), instructions=str(place / "i.json"), max_new_tokens=8, **settings)


def learning_of(world: TextWorld) -> Learning:
    """What the methods learn from, of its policy."""
    policy: Any = world.base_policy()
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
