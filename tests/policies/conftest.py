"""A model of a few thousand parameters with a word-level tokenizer, and one with a chat template."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from farm.hardware.models import tiny_llama
from farm.policies.language_model import LanguageModelPolicy

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<bot>"]
PROMPTS = ["w1", "w2 w3 w4", "w5 w6", "w7 w8 w9 w10 w11", "w12 w13", "w14"]
CHAT = (
    "<bos>{% for m in messages %}{{ '<user> ' if m.role == 'user' else '<bot> ' }}{{ m.content }}"
    "{{ '<eos>' if m.role == 'assistant' else '' }} {% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
)


def word_tokenizer(chat: bool = False) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        eos_token="<eos>",
        bos_token="<bos>",
        pad_token="<pad>",
        additional_special_tokens=["<user>", "<bot>"],
    )
    if chat:
        tokenizer.chat_template = CHAT
    return tokenizer


def small_model(seed: int = 0, sharpness: float = 4.0, heads: int = 2) -> Any:
    """``sharpness`` scales the embeddings, so that the next token is far from uniform."""
    model = tiny_llama(len(SPECIAL) + len(WORDS), 16, 2, heads, 32, 64, seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharpness * 2)
        for layer in model.model.layers:
            for p in layer.parameters():
                if p.dim() == 2:
                    p.mul_(sharpness * 2)
    return model


def make_policy(chat: bool = False, **settings: Any) -> LanguageModelPolicy:
    given = {"template": None if chat else "{prompt}", "max_new_tokens": 12, **settings}
    return LanguageModelPolicy(small_model(), word_tokenizer(chat), **given)


def in_float64(policy: LanguageModelPolicy, monkeypatch: pytest.MonkeyPatch) -> LanguageModelPolicy:
    """The policy computing in 64 bits throughout, where what differs among processors is far below what a test finds.

    Llama's norms compute in 32 bits whatever they are given.
    """
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)
    policy.model.double()
    return policy


@pytest.fixture
def policy() -> LanguageModelPolicy:
    return make_policy()
