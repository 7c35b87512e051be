"""Responses to one prompt as branches of one sequence, so that the prompt is computed once for all of them.

    prompt   response 1   response 2   response 3          branch    0 0 0 0  1 1 1  2 2  3 3 3 3
                                                           position  0 1 2 3  4 5 6  4 5  4 5 6 7

A token sees the prompt and what stands before it in its own branch, and its position counts as if the other branches
were not there: what is computed of a response is what would be computed of it alone. Two responses of as many tokens as
their prompt cost three quarters, eight of them little more than half. The price is that attention looks at every
earlier token of the tree and masks most of them, so a tree must not become long against the width of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.roles.protocols import Tokens

Lengths = NDArray[np.int64]
Rows = NDArray[np.int64]

KEY = 0.25
"""What attending to one more key costs a token, as a share of all else it costs, in a model of width 1 (measured on
processors: it falls as 1 / width)."""

MOST_BRANCHES = 16


def same_prompts(prompt_tokens: Sequence[Tokens]) -> NDArray[np.int64]:
    """A number for each row, the same for rows with the same prompt, int64 [B]."""
    seen: dict[bytes, int] = {}
    keys = (np.asarray(tokens, dtype=np.int64).tobytes() for tokens in prompt_tokens)
    return np.fromiter((seen.setdefault(key, len(seen)) for key in keys), np.int64, len(prompt_tokens))


def group_into_trees(
    prompts: NDArray[np.int64], prompt_lengths: Lengths, response_lengths: Lengths, width: int
) -> list[Rows]:
    """Which rows are computed together, each row in one tree; a tree of one row is that row by itself.

    Args:
        prompts: of :func:`same_prompts`, [B].
        prompt_lengths, response_lengths: tokens to compute of both, [B].
        width: of the model.
    """
    order = np.lexsort((-response_lengths, prompts))
    groups = np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1) if len(order) else []
    trees: list[Rows] = []
    for group in groups:
        number = np.arange(1, min(len(group), MOST_BRANCHES) + 1)
        length = prompt_lengths[group[0]] + number * response_lengths[group].mean()
        keys = np.where(number == 1, length / 2, length)  # plain causal attention skips what a mask throws away
        cheapest = int(number[(length * (1 + KEY * keys / width) / number).argmin()])
        trees += np.array_split(group, -(-len(group) // cheapest))
    return trees


def mask_of(branches: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the attention scores: 0 where a token may look, the least number elsewhere, [b, 1, t, t].

    ``branches``: of each token, int64 [b, t], 0 in the prompt; padding at the end may be anything.
    """
    t = branches.shape[1]
    own = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    seen = own & torch.ones(t, t, dtype=torch.bool, device=branches.device).tril()
    mask = torch.zeros(seen.shape, dtype=dtype, device=branches.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def computes_trees(inner: Any, config: Any) -> bool:
    """Whether a transformers model, without its head, computes each branch of a tree as it computes it alone.

    Models that attend to a window, or keep a state besides attention, do not. Whether nothing leaks from one branch to
    the next is tried on a tree of two.
    """
    takes = inspect.signature(inner.forward).parameters
    if not {"position_ids", "attention_mask"} <= set(takes) or not _attends_to_everything(config):
        return False
    if any(buffer.dim() == 4 for buffer in inner.buffers()):  # a causal mask of its own, and a tree may be longer
        return False
    ids, other = torch.tensor([[0, 1, 2, 2, 1, 0]]), torch.tensor([[0, 1, 0, 0, 1, 0]])
    branches, positions = torch.tensor([[0, 0, 1, 1, 2, 2]]), torch.tensor([[0, 1, 2, 3, 2, 3]])
    device = next(inner.parameters()).device
    shape = {"position_ids": positions.to(device), "attention_mask": mask_of(branches.to(device), inner.dtype)}

    def second(ids: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = inner(input_ids=ids.to(device), use_cache=False, **more).last_hidden_state
        return found[0, -2:].float()

    with torch.no_grad():
        try:
            tree, changed = second(ids, **shape), second(other, **shape)
        except (IndexError, RuntimeError, TypeError, ValueError):  # it takes masks of another kind
            return False
        alone = second(ids[:, [0, 1, 4, 5]])
    rounding = (1e-4 if inner.dtype.itemsize >= 4 else 2e-2) * float(alone.abs().max())
    return bool((tree - alone).abs().max() <= rounding and (tree - changed).abs().max() <= rounding / 100)


def _attends_to_everything(config: Any) -> bool:
    """Whether every layer attends to all that came before, in code that takes a mask of numbers."""
    kinds = {*(getattr(config, "layer_types", None) or ()), *(getattr(config, "attention_layers", None) or ())}
    window = getattr(config, "sliding_window", None) if not kinds else None
    takes_numbers = getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
    return takes_numbers and window is None and kinds <= {"full_attention", "global"}
