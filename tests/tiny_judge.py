"""A judge of seventy thousand parameters, in the files of transformers and vLLM, and in those of llama.cpp (GGUF).

What it says depends on the last token of the prompt. After a closed thought it is 1 or 2, more or less likely by what
stands in the prompt; after the line that opens its turn it begins to think. So it answers with a label only where the
template was told that it is not to think, as Qwen3's is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from farm.hardware.models import tiny_llama

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
SPECIAL, THOUGHT = ["<|im_start|>", "<|im_end|>"], ["<think>", "</think>"]
HIDDEN, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 2, 64, 8192  # vLLM knows no heads below 32


def tokenizer() -> Any:
    """A token for each byte, one of two bytes (readers of GGUF expect that some tokens merge), and the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, "ĊĊ", *SPECIAL, *THOUGHT])}
    inner = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>", additional_special_tokens=SPECIAL
    )
    made.add_tokens(THOUGHT)  # text as any other, but one token each, as Qwen3 has them
    made.chat_template = CHAT
    return made


def model() -> Any:
    """The weights, in 32 bits."""
    of = tokenizer().get_vocab()
    made = tiny_llama(len(of), HIDDEN, LAYERS, HEADS, FEED_FORWARD, CONTEXT, seed=0)
    with torch.no_grad():
        for weights in made.parameters():
            if weights.dim() == 2:
                weights.mul_(7)
        words = made.get_input_embeddings().weight
        words[:, :2] = 0.0  # the first place says that a verdict is due, the second that a thought is
        for token, place, size in (("ĊĊ", 0, 3), ("1", 0, 6), ("2", 0, 6), ("Ċ", 1, 3), ("<think>", 1, 6)):
            words[of[token], place] = float(size)
    made.config.bos_token_id = made.config.eos_token_id = of["<|im_end|>"]
    return made


def save(folder: Path) -> Path:
    """A folder as transformers and vLLM read it."""
    model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_gguf(path: Path) -> Path:
    """A file as llama.cpp reads it."""
    import gguf

    vocabulary = tokenizer().get_vocab()
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(model().config.rms_norm_eps)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(names))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    kinds = gguf.TokenType
    special = dict.fromkeys(SPECIAL, kinds.CONTROL) | dict.fromkeys(THOUGHT, kinds.USER_DEFINED)
    writer.add_token_types([special.get(name, kinds.NORMAL) for name in names])
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_eos_token_id(vocabulary["<|im_end|>"])
    writer.add_bos_token_id(vocabulary["<|im_end|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT)
    for name, weights in model().state_dict().items():
        if name != "lm_head.weight":  # tied
            writer.add_tensor(_of_gguf(name), _turned(name, weights).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _of_gguf(name: str) -> str:
    """The name of these weights in GGUF."""
    known = {
        "embed_tokens": "token_embd", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "layers": "blk",
    }  # fmt: skip
    name = name.removeprefix("model.")
    if name == "norm.weight":
        return "output_norm.weight"
    for theirs, ours in known.items():
        name = name.replace(theirs, ours)
    return name


def _turned(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Llama's queries and keys, whose rotary pairs lie side by side in GGUF and half a head apart in transformers."""
    if "q_proj" not in name and "k_proj" not in name:
        return weights.contiguous()
    return weights.view(HEADS, 2, HIDDEN // HEADS // 2, HIDDEN).transpose(1, 2).reshape(HIDDEN, HIDDEN).contiguous()
