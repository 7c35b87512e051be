"""A transformers causal language model as policies and scorers use it: states, logits, and which layers train."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from farm.base.errors import UserError
from farm.hardware import adapters, processes
from farm.policies.batches import check_lengths, prompt_lengths, states_at
from farm.policies.trees import Lengths, computes_trees, mask_of
from farm.policies.trunk import Trunk
from farm.roles.protocols import Samples

if TYPE_CHECKING:
    from farm.policies.sharding import Spread

Found = TypeVar("Found")

COMPUTE = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def compute_type(name: str | None, device: torch.device) -> str | None:
    """``name``, with "auto" resolved: bfloat16 where the device multiplies matrices of it in hardware, else None.

    Left out (None) it is "auto" on CUDA, and the type of the weights elsewhere.
    """
    if name not in (None, "auto", "float32", *COMPUTE):
        raise ValueError(f"compute_dtype must be auto, float32 or one of {', '.join(COMPUTE)}, not {name!r}")
    if name is None and device.type == "cuda":
        name = "auto"
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    capable = device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # torch has no public question
    )
    return "bfloat16" if capable else None


class Body:
    """A model in evaluation mode for good: dropout would make a policy differ from itself.

    Args:
        model: a transformers causal language model; it is used as it is, not copied.
        train_layers: only the last so many layers and the final norm train; None trains everything.
        compute_dtype: "bfloat16" computes matrix products in it (autocast) whatever the weights are stored in; "auto"
            where the hardware has it.
        lora: ``rank``, ``alpha`` and ``seed`` of adapters, which then are all that trains; None for none.
        gradient_checkpointing: compute the activations of each layer again in the backward pass.
    """

    def __init__(
        self,
        model: Any,
        train_layers: int | None = None,
        compute_dtype: str | None = None,
        lora: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.device: torch.device = next(model.parameters()).device
        self.compute_dtype = compute_type(compute_dtype, self.device)
        if lora is not None and train_layers is not None:
            raise ValueError("either the last layers train (train_layers) or adapters (lora), not both")
        if lora is not None and not adapters.inside(model):
            adapters.add(model, **lora)
        self.train_layers, self.lora, self.gradient_checkpointing = train_layers, lora, gradient_checkpointing
        if gradient_checkpointing:
            if hasattr(model, "activation_checkpointing_enable"):  # its newer name
                model.activation_checkpointing_enable({"use_reentrant": False})
            else:
                model.gradient_checkpointing_enable({"use_reentrant": False})
        config = model.config.get_text_config()
        self.width: int = config.hidden_size
        self.vocabulary: int = config.vocab_size
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self._hold(model)
        self._plain_head = self._head_is_plain()
        self._trees_of = self.width if computes_trees(self.inner, config) else None

    def _hold(self, model: Any) -> None:
        self.model, self.inner = model.eval(), model.base_model
        self._spread: Spread | None = None
        self._trained = chosen(model, self.train_layers, self.lora is not None)
        model.requires_grad_(False)
        for parameter in self._trained:
            parameter.requires_grad_(True)
        inside = {id(p) for p in self.inner.parameters()}
        head = {id(p) for p in model.get_output_embeddings().parameters()} - inside
        self._of_head = [id(p) in head for p in self._trained]
        self._checkpointed = [m for m in model.modules() if getattr(m, "gradient_checkpointing", None) is True]
        partly = self.train_layers is not None
        self._trunk = Trunk.of(self.inner, layers(model), self.compute_dtype) if partly else None

    def share_frozen(self, other: Body) -> None:
        """Hold frozen weights that equal those of ``other``, and are frozen there too, once for both."""
        theirs = dict(other.model.named_parameters(remove_duplicate=False))
        for name, own in list(self.model.named_parameters(remove_duplicate=False)):
            found = theirs.get(name)
            if found is None or own.requires_grad or found.requires_grad or own.dtype != found.dtype:
                continue
            if own.device == found.device and torch.equal(own, found):
                owner, _, leaf = name.rpartition(".")
                self.model.get_submodule(owner)._parameters[leaf] = found
        self._hold(self.model)

    def shard(self) -> None:
        """Spread what trains over the processes (:mod:`farm.policies.sharding`); all must ask at once."""
        if self._spread is None:
            from farm.policies.sharding import Spread

            compute = COMPUTE.get(self.compute_dtype or "")
            self._spread = Spread(self.model, self._trained, layers(self.model), self.device, compute)
            self._trained = [part for part, _ in self._spread.parts]

    def unshard(self) -> None:
        """Hold the whole model in every process again; all must ask at once."""
        if self._spread is not None:
            self._hold(self._spread.plain())
            gc.collect()  # the parts are in circles of references

    def run(self, compute: Callable[[], Found]) -> Found:
        """``compute`` on the model: with gradient a pass of all processes together where the model is spread over
        them, without one on the whole model. Whatever looks at the model runs in here."""
        return compute() if self._spread is None else self._spread.run(compute)

    def check_whole(self) -> None:
        """Refuse to be saved while spread: the other processes would not know."""
        if self._spread is not None:
            raise RuntimeError(
                "a model that is spread over processes cannot be saved; call unshard in all of them first"
            )

    def gather(self) -> None:
        """See to it that the model is whole, for those who look at its weights without gradient."""
        if self._spread is not None:
            self._spread.gather()

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
        return self.run(lambda: self._states(self._hidden, self.width, samples, first, counts))

    def before_head(self, samples: Samples) -> torch.Tensor:
        """What :meth:`project` turns into the logits of every response token, [N, h]; both within :meth:`run`."""
        check_lengths(prompt_lengths(samples) + samples.lengths(), self.context, samples.prompts, "a text")
        first, counts = prompt_lengths(samples) - 1, samples.lengths()
        if self._plain_head:
            return self._states(self._hidden, self.width, samples, first, counts)
        return self._states(self._whole, self.vocabulary, samples, first, counts)

    def _states(self, body: Any, width: int, samples: Samples, first: Lengths, counts: Lengths) -> torch.Tensor:
        in_step = processes.max_over_ranks if self._spread is not None and torch.is_grad_enabled() else None
        below = None
        if self._trunk is not None and self._spread is None and body == self._hidden:
            below = self._trunk.states(samples, first + counts, self.width, self._frozen_states)
        body = body if below is None else self._above_frozen
        return states_at(body, width, samples, first, counts, self.device, in_step, self._trees_of, below)

    @torch.no_grad()
    def _frozen_states(self, samples: Samples, needed: Lengths) -> torch.Tensor:
        """What the frozen layers make of the first ``needed`` tokens of each row, [N, h]."""
        return states_at(self._below, self.width, samples, 0 * needed, needed, self.device, trees_of=self._trees_of)

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Logits [N, V], float32, of what :meth:`before_head` gave; a tensor that no other code reads."""
        if not self._plain_head:
            return states.to(torch.float32, copy=True)
        with self.autocast():
            logits: torch.Tensor = self.model.get_output_embeddings()(states)
        return logits.float()

    def _hidden(
        self, ids: torch.Tensor, positions: torch.Tensor | None = None, branches: torch.Tensor | None = None
    ) -> torch.Tensor:
        with self.autocast(), self._checkpointing():
            states: torch.Tensor = self.inner(**self._inputs(ids, positions, branches)).last_hidden_state
        return states

    def _below(
        self, ids: torch.Tensor, positions: torch.Tensor | None = None, branches: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert self._trunk is not None
        with self.autocast():
            states: torch.Tensor = self._trunk.below(**self._inputs(ids, positions, branches)).last_hidden_state
        return states

    def _above_frozen(
        self, below: torch.Tensor, positions: torch.Tensor | None = None, branches: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert self._trunk is not None
        given = self._inputs(below, positions, branches)
        with self.autocast(), self._checkpointing():
            states: torch.Tensor = self._trunk.above(inputs_embeds=given.pop("input_ids"), **given).last_hidden_state
        return states

    def _whole(
        self, ids: torch.Tensor, positions: torch.Tensor | None = None, branches: torch.Tensor | None = None
    ) -> torch.Tensor:
        with self.autocast(), self._checkpointing():
            logits: torch.Tensor = self.model(**self._inputs(ids, positions, branches)).logits
        return logits

    def _inputs(
        self, ids: torch.Tensor, positions: torch.Tensor | None, branches: torch.Tensor | None
    ) -> dict[str, Any]:
        given: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if branches is None:
            return given
        dtype = COMPUTE.get(self.compute_dtype or "", self.model.dtype)
        return {**given, "position_ids": positions, "attention_mask": mask_of(branches, dtype)}

    @contextlib.contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """transformers recomputes only in layers that say they train; their parts, such as dropout, never do here."""
        active = self._checkpointed if torch.is_grad_enabled() else []
        for module in active:
            module.training = True
        try:
            yield
        finally:
            for module in active:
                module.training = False

    def parameters(self, with_head: bool) -> Iterator[torch.nn.Parameter]:
        """What trains, as chosen at construction; ``with_head`` adds an output embedding of its own."""
        yield from (p for p, of_head in zip(self._trained, self._of_head, strict=True) if with_head or not of_head)

    def bytes_a_token(self, training: bool) -> int:
        """About what a pass keeps of a token, in bytes: with a gradient all that the layers' backward passes read,
        counted for a gated feed-forward layer; without one what a layer holds while it computes.

        Per layer in 16 bits some 48 bytes for each number of the width (the sums along the layers and what the norms
        keep are float32) and 8 for each of the feed-forward layer's; in 32 bits twice that.
        """
        config = self.model.config.get_text_config()
        inner = getattr(config, "intermediate_size", None) or 4 * self.width
        in_16_bits = self.compute_dtype in COMPUTE or self.model.dtype.itemsize < 4
        layer = (48 * self.width + 8 * inner) * (1 if in_16_bits else 2)
        if not training:
            return layer
        number = len(layers(self.model))
        return layer + 4 * self.width * number if self.gradient_checkpointing else layer * number

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor besides the model."""
        return {
            "train_layers": self.train_layers,
            "compute_dtype": self.compute_dtype,
            "lora": self.lora,
            "gradient_checkpointing": self.gradient_checkpointing,
        }

    def copy(self, **changed: Any) -> Body:
        """A body of its own in all that trains there; frozen parts, which do not change, are shared and not copied.

        With adapters, or with the last layers alone, a policy and the one it was made from thus hold one base between
        them. That one must not be trained any further in place.
        """
        settings = {**self.settings(), **changed}
        return Body(self.copy_model(settings["train_layers"], settings["lora"]), **settings)

    def copy_model(self, train_layers: int | None, lora: dict[str, Any] | None) -> Any:
        """The model of :meth:`copy`, before adapters that it does not have yet are put in."""
        model = self.model if self._spread is None else self._spread.plain()
        if self.lora is not None and lora != self.lora:  # other adapters, or none: these become part of the weights
            plain, shared = adapters.plain(model), {p.data_ptr() for p in model.parameters()}
            return copy.deepcopy(plain, {id(p): p for p in plain.parameters() if p.data_ptr() not in shared})
        if lora is None and train_layers is None:
            return copy.deepcopy(model)
        trained = {id(p) for p in chosen(model, train_layers, lora is not None)}
        return copy.deepcopy(model, {id(p): p for p in model.parameters() if id(p) not in trained})


def chosen(model: Any, train_layers: int | None, lora: bool) -> list[torch.nn.Parameter]:
    """The parameters that train; everything else is frozen, and autograd does no work for it."""
    if lora:
        return adapters.parameters(model)
    if train_layers is None:
        return list(model.parameters())
    stack = layers(model)
    if not 0 < train_layers <= len(stack):
        raise UserError(
            f"the model has {len(stack)} layers, and its last {train_layers} cannot train; set `last_layers` of the "
            f"method, or `train_layers` of the world where it comes from, to a number from 1 to {len(stack)}"
        )
    norms = [child for name, child in model.base_model.named_children() if "norm" in name or name.startswith("ln")]
    return [p for module in [*stack[-train_layers:], *norms] for p in module.parameters()]


def layers(model: Any) -> list[torch.nn.Module]:
    """The transformer's layers, first to last: the longest list of modules that is in no other list."""
    stacks = {n: m for n, m in model.base_model.named_modules() if isinstance(m, torch.nn.ModuleList)}
    outer = [list(m) for n, m in stacks.items() if not any(n.startswith(f"{other}.") for other in stacks)]
    return max(outer, key=len)
