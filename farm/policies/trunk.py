"""The layers below those that train, computed once for all passes of a step and all networks that share them.

Where a policy's last layers train, the policy, its reference, a reward model and a critic are one model up to there,
and read the same texts in turn, in PPO five times. Within :func:`kept` the states above the frozen layers are kept, of
each text once, and a pass begins with them.

What is kept ends with the ``with`` statement, so a step does not depend on the one before, and a training that goes on
from a checkpoint computes what it would have computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from farm.policies.trees import Lengths
from farm.roles.protocols import Samples

MOST_BYTES = 2**30
"""of states that are kept; a pass over more texts than these hold computes all layers"""


@dataclass(eq=False)
class _Kept:
    """The states of texts, by the layers that computed them."""

    of: dict[Any, dict[bytes, torch.Tensor]] = field(default_factory=dict)
    trunks: list[Trunk] = field(default_factory=list)
    """held, as their weights are known by where they are"""
    room: int = MOST_BYTES
    """bytes that are left"""


_NOW: list[_Kept] = []


@contextmanager
def kept(keep: bool = True) -> Iterator[None]:
    """Keep states until the end of the ``with`` statement; or none, also where a statement around it keeps some."""
    _NOW.append(mine := _Kept(room=MOST_BYTES if keep else 0))
    try:
        yield
    finally:
        _NOW.remove(mine)  # a loop that an error left may end later than those after it


class Trunk:
    """The frozen first layers of a transformers model, and the rest of it.

    Args:
        inner: the model without its head.
        frozen: how many of its first layers do not train, nor do its embeddings.
        computed_in: what the states depend on besides the weights, for example the type of the products.
    """

    def __init__(self, inner: Any, name: str, frozen: int, computed_in: Any) -> None:
        stack = inner._modules[name]
        self.below, self.above = _part(inner, name, stack[:frozen]), _part(inner, name, stack[frozen:])
        for child in self.below._modules:
            if "norm" in child:
                self.below._modules[child] = torch.nn.Identity()
        self.key = computed_in, tuple(id(p) for p in self.below.parameters())

    @classmethod
    def of(cls, inner: Any, layers: list[torch.nn.Module], computed_in: Any) -> Trunk | None:
        """None where the first layer trains, or the two parts do not compute what the whole does."""
        frozen = next((i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())), 0)
        outside = [p for p in inner.get_input_embeddings().parameters() if p.requires_grad]
        names = [n for n, child in inner.named_children() if isinstance(child, torch.nn.ModuleList)]
        names = [n for n in names if len(inner._modules[n]) == len(layers) and inner._modules[n][0] is layers[0]]
        if not frozen or outside or not names or not _alike(inner.config, frozen, len(layers)):
            return None
        trunk = cls(inner, names[0], frozen, computed_in)
        ids = torch.arange(3, device=next(inner.parameters()).device)[None]
        with torch.no_grad():
            try:
                states = trunk.below(input_ids=ids, use_cache=False).last_hidden_state
                parts = trunk.above(inputs_embeds=states, use_cache=False).last_hidden_state
            except (IndexError, RuntimeError, TypeError, ValueError):  # it is put together in another way
                return None
            whole = inner(input_ids=ids, use_cache=False).last_hidden_state
        return trunk if torch.equal(parts, whole) else None

    def states(
        self, samples: Samples, needed: Lengths, width: int, compute: Callable[[Samples, Lengths], torch.Tensor]
    ) -> list[torch.Tensor] | None:
        """Of each row the states of its first ``needed`` tokens, or of more, [t, h] each; None where nothing is kept,
        or there is no room for them. ``compute`` gives those of some rows one after the other."""
        if not _NOW:
            return None
        now = _NOW[-1]
        if self.key not in now.of:
            now.of[self.key] = {}
            now.trunks.append(self)
        known, wanted = now.of[self.key], dict[bytes, int]()
        texts = [
            np.concatenate([p, r], dtype=np.int64, casting="unsafe").tobytes()
            for p, r in zip(samples.prompt_tokens, samples.response_tokens, strict=True)
        ]
        for row, text in enumerate(texts):
            there = needed[wanted[text]] if text in wanted else len(known.get(text, ()))
            if needed[row] > there:
                wanted[text] = row
        rows = np.array(list(wanted.values()), dtype=np.int64)
        size = 4 * width * int(needed[rows].sum())
        if size > now.room:
            return None
        now.room -= size
        if len(rows):
            found = compute(samples.select(rows), needed[rows])
            known |= zip(wanted, torch.split(found, needed[rows].tolist()), strict=True)
        return [known[text] for text in texts]


def _alike(config: Any, frozen: int, number: int) -> bool:
    """Whether layers have the kind of attention that a model looks up by their place also where those above are counted
    from 0. Three tokens do not tell: a window hides what is further away."""
    kinds = list(getattr(config.get_text_config(), "layer_types", None) or ())
    return kinds[: number - frozen] == kinds[frozen:number]


def _part(inner: Any, name: str, layers: Any) -> Any:
    """The model with these layers alone; the modules are its own."""
    part = copy.copy(inner)
    part._modules = {**inner._modules, name: layers}
    return part
