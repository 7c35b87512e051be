"""A language model spread over the processes that train together: fully sharded data parallel (arXiv 2304.11277).

Each process holds its part of every trained parameter, of the gradient and of the optimizer's moments. In a training
pass the parameters of one layer at a time are gathered, used, and dropped; gradients are added up over the processes,
each of which keeps its part. This is torch's ``fully_shard``; what is added here is what a policy asks of it:

* *One root.* The logits are computed apart from the layers, so a pass is any computation on the model: it runs inside a
  module of our own, which holds whatever is not in a layer (embeddings, the last norm) for as long as the pass needs.
* *Whole at times.* Sampling, and every pass without gradient, happens on gathered parameters: each process works alone
  on its share, in its own time. They are gathered at the first such pass after an update, in which all processes must
  take part, and dropped at the next pass with gradient.
* *In step.* A pass with gradient exchanges parameters, so every process must make equally many: who has less to do
  makes empty ones (:func:`farm.policies.batches.states_at`, ``accumulate`` of the methods).
* *Frozen parameters stay whole*, because they are shared with the policy that this one was made from.

* *In 16 bits* the layers, and an output embedding of its own, are gathered in the type that they are computed in, half
  the bytes. What each process holds and steps stays float32, and so does the sum of the gradients. The other embeddings
  and the last norm are gathered in float32: the sums along the layers begin with an embedding, and would go on in its
  16 bits through all layers; and the gradient of a frequent token is a sum over all its places, of which 16 bits lose
  most.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from farm.base.errors import UserError
from farm.hardware import processes

Found = TypeVar("Found")


class _Root(torch.nn.Module):
    """The module in whose forward pass every computation on the model runs."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Found]) -> Found:
        return compute()


class _RootWithHead(torch.nn.Module):
    """One around it, which holds the output embedding as long, in another type."""

    def __init__(self, root: _Root, head: torch.nn.Module) -> None:
        super().__init__()
        self.root, self.head = root, head

    def forward(self, compute: Callable[[], Found]) -> Found:
        found: Found = self.root(compute)
        return found


class Spread:
    """``model`` with what trains in it spread over the processes, in place; all processes must ask at once.

    Args:
        model: a transformers model.
        trained: its parameters that require a gradient, in the order of ``parts``.
        layers: its layers, each gathered by itself.
        compute: the type of the matrix products, where it is not that of the weights.

    Raises:
        UserError: torch is too old.
    """

    def __init__(
        self,
        model: Any,
        trained: Sequence[torch.nn.Parameter],
        layers: Iterable[torch.nn.Module],
        device: torch.device,
        compute: torch.dtype | None = None,
    ) -> None:
        if not hasattr(FSDPModule, "reset_iter_state"):
            raise UserError(f"shard: true needs torch 2.13 or later, and this is {torch.__version__}; update torch")
        frozen = {p for p in model.parameters() if not p.requires_grad}
        blanks = [torch.nn.Parameter(torch.empty_like(p, device="meta")) for p in trained]
        self._frozen: dict[int, Any] = {id(p): p for p in frozen}
        places = {id(p): blank for p, blank in zip(trained, blanks, strict=True)}
        self._blank_model = copy.deepcopy(model, {**self._frozen, **places})
        names = {id(p): name for name, p in model.named_parameters()}
        mesh = init_device_mesh(device.type, (processes.world_size(),))
        # What enters a layer stays as it is: the sums along the layers are float32, with sharding and without.
        reduced = None if compute is None else torch.float32
        precision = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=reduced, cast_forward_inputs=False)
        for layer in layers:
            if any(p.requires_grad for p in layer.parameters()):
                fully_shard(layer, mesh=mesh, ignored_params=frozen, mp_policy=precision)
        head: set[torch.nn.Parameter] = set() if compute is None else _of_head(model) - frozen
        root = _Root(model)
        self._root: Any = fully_shard(root, mesh=mesh, ignored_params=frozen | head)  # the same, in place
        self._held: set[Any] = {self._root}
        if head:
            both = _RootWithHead(root, model.get_output_embeddings())
            self._root = fully_shard(both, mesh=mesh, ignored_params=frozen, mp_policy=precision)
            self._held.add(self._root)
        self._modules: list[Any] = [m for m in self._root.modules() if isinstance(m, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)  # a loss's shares add up to the loss
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        now = dict(model.named_parameters())
        self.parts: list[tuple[Any, torch.nn.Parameter]] = []
        """each trained parameter, spread, and its place in the blank model"""
        for blank, parameter in zip(blanks, trained, strict=True):
            part: Any = now[names[id(parameter)]]
            part.spread = self  # by which an optimizer knows it
            self.parts.append((part, blank))
        run: Any = self._root
        run(lambda: None)  # the first to run is the root for good
        self._whole = True
        self.drop()

    def gather(self) -> None:
        """Every process holds the whole model from now on, to compute without gradient; all must ask at once."""
        if self._whole:
            return
        for module in self._modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        self._whole = True

    def drop(self) -> None:
        """Every process holds its part alone from now on."""
        if not self._whole:
            return
        for module in self._modules:
            module.set_reshard_after_forward(module not in self._held, recurse=False)
        # Passes on the whole model are each process's own: what torch would foresee from them must be forgotten.
        self._root.reset_iter_state()
        self._whole = False

    def run(self, compute: Callable[[], Found]) -> Found:
        """``compute`` on the model. Every process must ask, with or without gradient alike."""
        if torch.is_grad_enabled():
            self.drop()
            found: Found = self._root(compute)
            return found
        self.gather()
        return compute()

    @torch.no_grad()
    def plain(self) -> Any:
        """A model of one's own, whole and as any other; the frozen parameters are shared. All must ask at once."""
        filled: dict[int, Any] = dict(self._frozen)
        for part, blank in self.parts:
            filled[id(blank)] = torch.nn.Parameter(part.detach().full_tensor().clone())
        return copy.deepcopy(self._blank_model, filled)

    @staticmethod
    def own_part(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """What this process holds of one of ``parts``, as a parameter that shares its memory."""
        assert isinstance(parameter, DTensor)
        own: DTensor = parameter.detach()  # type: ignore[assignment]
        return torch.nn.Parameter(own.to_local())

    @staticmethod
    def gathered(part: Tensor, parameter: Tensor) -> Tensor:
        """``part``, a number for each of those that this process holds of ``parameter``, for all of them. All must ask
        at once."""
        assert isinstance(parameter, DTensor)
        mesh, places = parameter.device_mesh, parameter.placements
        spread = DTensor.from_local(part, mesh, places, shape=parameter.shape, stride=parameter.stride())
        return spread.full_tensor()

    @staticmethod
    def part_of(tensor: Tensor, parameter: Tensor) -> Tensor:
        """What this process holds of ``tensor``, which every process has, spread as ``parameter``; all must ask."""
        assert isinstance(parameter, DTensor)
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements).to_local()


def _of_head(model: Any) -> set[torch.nn.Parameter]:
    """The parameters of an output embedding that is not the input embedding."""
    return set(model.get_output_embeddings().parameters()) - set(model.base_model.parameters())
