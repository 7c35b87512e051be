"""How large a causal language model is, from its config alone: it is built without memory (torch's device ``meta``), so
the numbers are those of its own class, whatever the family."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from farm.storage.store import home


@dataclass(frozen=True)
class Shape:
    """Numbers of parameters, and widths in numbers a token."""

    parameters: int
    layer: int
    """parameters of one layer"""
    adapted: int
    """inputs and outputs of all linear layers: times the rank, the parameters of adapters"""
    layers: int
    width: int
    inner: int
    """of the feed-forward part"""
    keys: int
    """of a layer's keys and values together"""
    vocabulary: int
    joined: int = 0
    """parameters of which the policy's own loop holds a second copy, joined (farm.engines.llama)"""
    linear: int = 0
    """of all linear layers and the output embedding: with adapters, which are merged, its copy has them all"""


@lru_cache(maxsize=16)
def shape(model: str) -> Shape | None:
    """Of a folder, or of a model in the hub's cache; None where its config is not here, or transformers is not, or it
    is no transformer: a forecast stops no run.

    Nothing is downloaded, and no code of a model's own is run.
    """
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        return None
    folder, converted = Path(model).expanduser(), home() / "models" / model.rpartition("/")[2]
    place = next((str(p) for p in (folder, converted) if (p / "config.json").is_file()), model)
    try:
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return of_model(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
    except (OSError, ValueError, ImportError, AttributeError, KeyError, TypeError, RuntimeError):  # of an odd family
        return None


def of_model(model: Any) -> Shape:
    """Of a model that is there."""
    import torch

    text = model.config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    stacks = [m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList)]
    stack = max(stacks, key=len)
    head = model.get_output_embeddings()
    # GPT-2 keeps its matrices in a module that torch.nn does not know.
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"]
    joined, all_linear = _copied(model)
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        layer=sum(p.numel() for p in stack[-1].parameters()),
        adapted=sum(sum(m.weight.shape) for m in linear if m is not head),
        layers=len(stack),
        width=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size,
        keys=2 * (getattr(text, "num_key_value_heads", None) or heads) * width,
        vocabulary=text.vocab_size,
        joined=joined,
        linear=all_linear,
    )


def _copied(model: Any) -> tuple[int, int]:
    if type(model).__name__ != "LlamaForCausalLM":
        return 0, 0
    joined = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight", "lm_head.weight")
    sizes = {name: p.numel() for name, p in model.named_parameters(remove_duplicate=False)}
    found = sum(size for name, size in sizes.items() if name.endswith(joined))
    return found, found + sum(n for name, n in sizes.items() if name.endswith(("o_proj.weight", "down_proj.weight")))
