"""A transformers causal language model as policies and scorers use it: states, logits, and which layers train."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

from farm.policies.batches import Lengths, check_lengths, prompt_lengths, states_at
from farm.protocols import Samples

COMPUTE = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Body:
    """A model in evaluation mode for good: dropout would make a policy differ from itself.

    Args:
        model: a transformers causal language model; it is used as it is, not copied.
        train_layers: only the last so many layers and the final norm train; None trains everything.
        compute_dtype: "bfloat16" computes matrix products in it (autocast) whatever the weights are stored in.
    """

    def __init__(self, model: Any, train_layers: int | None = None, compute_dtype: str | None = None) -> None:
        if compute_dtype not in (None, "float32", *COMPUTE):
            raise ValueError(f"compute_dtype must be float32 or one of {', '.join(COMPUTE)}, not {compute_dtype!r}")
        self.model = model.eval()
        self.train_layers, self.compute_dtype = train_layers, compute_dtype
        self.inner = model.base_model
        config = model.config.get_text_config()
        self.width: int = config.hidden_size
        self.vocabulary: int = config.vocab_size
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self.device: torch.device = next(model.parameters()).device
        self._trained = self._choose_trained()
        self._plain_head = self._head_is_plain()

    def _choose_trained(self) -> list[torch.nn.Module]:
        """The parts that train; everything else is frozen, and autograd does no work for it."""
        self.model.requires_grad_(self.train_layers is None)
        if self.train_layers is None:
            return [self.inner]
        layers = max((m for m in self.inner.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
        if not 0 < self.train_layers <= len(layers):
            raise ValueError(f"train_layers must be between 1 and {len(layers)}, not {self.train_layers}")
        norms = [child for name, child in self.inner.named_children() if "norm" in name or name.startswith("ln")]
        trained = [*layers[-self.train_layers :], *norms]
        for module in trained:
            module.requires_grad_(True)
        return trained

    def _head_is_plain(self) -> bool:
        """Whether the logits are the output embedding of the last hidden state, with no scaling or capping after it."""
        ids = torch.arange(3, device=self.device)[None]
        with torch.no_grad():
            whole = self.model(input_ids=ids, use_cache=False).logits
            parts = self.model.get_output_embeddings()(self.inner(input_ids=ids, use_cache=False).last_hidden_state)
        return whole.shape == parts.shape and bool(torch.allclose(whole, parts, rtol=1e-3, atol=1e-3))

    def autocast(self) -> Any:
        if self.compute_dtype in COMPUTE:
            return torch.autocast(self.device.type, dtype=COMPUTE[self.compute_dtype])
        return contextlib.nullcontext()

    def hidden(self, samples: Samples, first: Lengths, counts: Lengths) -> torch.Tensor:
        """Last hidden states at these places, [N, h], as :func:`farm.policies.batches.states_at`."""
        check_lengths(prompt_lengths(samples) + samples.lengths(), self.context, samples.prompts, "a text")
        return states_at(self._hidden, self.width, samples, first, counts, self.device)

    def before_head(self, samples: Samples) -> torch.Tensor:
        """What :meth:`project` turns into the logits of every response token, [N, h]."""
        check_lengths(prompt_lengths(samples) + samples.lengths(), self.context, samples.prompts, "a text")
        first, counts = prompt_lengths(samples) - 1, samples.lengths()
        if self._plain_head:
            return states_at(self._hidden, self.width, samples, first, counts, self.device)
        return states_at(self._whole, self.vocabulary, samples, first, counts, self.device)

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Logits [N, V], float32, of what :meth:`before_head` gave."""
        if not self._plain_head:
            return states.float()
        with self.autocast():
            logits: torch.Tensor = self.model.get_output_embeddings()(states)
        return logits.float()

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            states: torch.Tensor = self.inner(input_ids=ids, use_cache=False).last_hidden_state
        return states

    def _whole(self, ids: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits

    def parameters(self, with_head: bool) -> Iterator[torch.nn.Parameter]:
        """What trains, as chosen at construction; ``with_head`` adds an output embedding of its own."""
        for module in self._trained:
            yield from module.parameters()
        head = self.model.get_output_embeddings()
        if with_head and self.train_layers is None:
            known = {id(p) for p in self.inner.parameters()}
            yield from (p for p in head.parameters() if id(p) not in known)

    def copy(self) -> Body:
        return Body(self.copy_model(), self.train_layers, self.compute_dtype)

    def copy_model(self) -> Any:
        """A model of its own in all that trains; frozen parts, which nobody changes, are shared and not copied."""
        trained = {id(p) for module in self._trained for p in module.parameters()}
        frozen = self.train_layers is not None
        shared = {id(p): p for p in self.model.parameters() if frozen and id(p) not in trained}
        return copy.deepcopy(self.model, shared)
