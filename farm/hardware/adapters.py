"""Low-rank adapters (LoRA, arXiv 2106.09685) in a transformers model, through peft.

The adapters are put into the model's own linear layers, so it stays the model that it was, with a few more parameters:

    W x  becomes  W x + (alpha / rank) B A x,      A drawn, B zero, so that at first nothing changes

What is saved as a model has them merged, and opens without peft. The adapters alone are saved for serving.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from farm.base.errors import need

NAME = "default"


def config(rank: int, alpha: float) -> Any:
    """The peft configuration: adapters on every linear layer but the output embedding."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise need("lora", "peft", "tune: lora") from error
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")


def add(model: Any, rank: int, alpha: float, seed: int) -> None:
    """Put adapters into ``model``, in place; the draw of A depends on ``seed`` alone.

    On a base in 16 bits they are float32: what trains in 16 bits loses most of its updates to rounding.
    """
    settings = config(rank, alpha)
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, model, adapter_name=NAME)
    for parameter in parameters(model):
        if parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()
    model.eval()


def inside(model: Any) -> dict[str, Any]:
    """The linear layers with adapters, by the name they have in the model."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def parameters(model: Any) -> list[torch.nn.Parameter]:
    """What trains: A and B of every layer."""
    return [p for name, p in model.named_parameters() if ".lora_A." in name or ".lora_B." in name]


def weight(linear: Any) -> Tensor:
    """The weight of a linear layer, adapters included, without gradient."""
    base = getattr(linear, "base_layer", linear).weight.detach()
    if not hasattr(linear, "lora_A"):
        return base
    a, b = linear.lora_A[NAME].weight.detach(), linear.lora_B[NAME].weight.detach()
    change = linear.scaling[NAME] * (b.float() @ a.float())
    turned = change.T if getattr(linear, "fan_in_fan_out", False) else change  # GPT-2 keeps its matrices transposed
    return (base.float() + turned).to(base.dtype)


def tensors(model: Any) -> dict[str, Tensor]:
    """What a saved model has, by name. (``state_dict`` would take apart a model that is spread over processes.)"""
    out = {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                out[f"{prefix}.{name}" if prefix else name] = buffer
    return out


def merging(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors under the names they have without adapters, one after the other. Adapters are merged into a
    weight when it is asked for, so whoever drops it before the next one holds one merged weight at a time."""
    layers = inside(model)
    for name, tensor in tensors(model).items():
        if ".lora_" in name:
            continue
        owner = name.rpartition(".base_layer.")[0]
        plain = name.replace(".base_layer.", ".")
        yield plain, weight(layers[owner]) if owner in layers and plain.endswith(".weight") else tensor.detach()


def without(model: Any) -> dict[str, Tensor]:
    """The same tensors, in the same order, with the adapters left out."""
    return {n.replace(".base_layer.", "."): t.detach() for n, t in tensors(model).items() if ".lora_" not in n}


def plain(model: Any, device: torch.device | None = None) -> Any:
    """The model without adapters: itself where it has none, else another one with them merged, which shares whatever
    they do not change; on another ``device`` it has a copy of everything."""
    if not inside(model):
        return model
    with torch.device("meta"):  # a model that holds nothing, and draws nothing
        fresh = type(model)(model.config)
    where = device or next(model.parameters()).device
    fresh.load_state_dict({name: tensor.to(where) for name, tensor in merging(model)}, assign=True)
    own = dict(fresh.named_modules())
    for name, buffer in model.named_buffers():  # those that are not saved, such as rotary tables, among them
        place, _, last = name.replace(".base_layer", "").rpartition(".")
        persistent = last not in own[place]._non_persistent_buffers_set
        own[place].register_buffer(last, buffer.to(where), persistent=persistent)
    fresh.tie_weights()
    if getattr(model, "generation_config", None) is not None:
        fresh.generation_config = model.generation_config
    return fresh.eval()


def save(model: Any, folder: Path) -> None:
    """The adapters alone, in peft's format, safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    layers = inside(model)
    first = next(iter(layers.values()))
    rank, scale = first.r[NAME], first.scaling[NAME]
    tensors = {}
    for name, layer in layers.items():
        for part in ("lora_A", "lora_B"):
            matrix = getattr(layer, part)[NAME].weight.detach().cpu().contiguous()
            tensors[f"base_model.model.{name}.{part}.weight"] = matrix
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = config(rank, scale * rank)
    settings.target_modules = sorted({name.rpartition(".")[2] for name in layers})
    settings.save_pretrained(folder)
