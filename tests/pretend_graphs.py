"""A recorder of launches on the pretend accelerator, which takes and refuses what a CUDA graph takes and refuses.

While a step is recorded nothing is computed: what an operation would have written is NaN (numbers: 0), and what it
would have changed in place stays as it is. Recorded are the operations with their very tensors. A replay computes them
into these tensors, as one launch. Refused, as on CUDA, is what makes the program wait, what reads the processor's
memory, and a replay after a tensor is gone that the recording reads and did not make: its memory would be another's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.pretend_accelerator import _COMPOSITE, ACTIVE, NAME, Pretended, _count, _plain, _refuse_mixing


class PretendRecorder:
    """See :class:`farm.engines.graphs.Recorder`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.recorded: list[Recording] = []

    def warm(self, step: Callable[[], None]) -> None:
        step()

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        recording, now = Recording(), ACTIVE[-1]
        launches, waits = now.launches.copy(), now.waits.copy()
        try:
            with recording:
                step()
        finally:
            now.launches, now.waits = launches, waits
        self.recorded.append(recording)
        return recording.replay


class Recording(TorchDispatchMode):
    """The operations of one step."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self._made: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.has_kernel_for_dispatch_key(_COMPOSITE):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self._refuse(func, args, kwargs, given)
        schema = func._schema
        if schema.is_mutable:
            changed = args[0] if args else kwargs[schema.arguments[0].name]
            assert schema.arguments[0].is_write and not isinstance(changed, list | tuple), f"{func} is not foreseen"
            self._add(func, args, kwargs, None)
            return changed
        found = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        if not any(out.alias_info is not None for out in schema.returns):
            self._add(func, args, kwargs, found)
            for tensor in made:
                _plain(tensor).fill_(float("nan") if tensor.is_floating_point() else 0)
        self._made |= {id(tensor): tensor for tensor in made}
        return found

    def _refuse(self, func: Any, args: Any, kwargs: dict[str, Any], given: list[torch.Tensor]) -> None:
        name, waits = str(func).rpartition(".")[0], ACTIVE[-1].waits.total()
        _count(func, name, args, kwargs, given)
        _refuse_mixing(name, args, given)
        asked = kwargs.get("device")
        leaves = asked is not None and torch.device(asked).type != NAME
        if ACTIVE[-1].waits.total() > waits or leaves or any(not isinstance(t, Pretended) and t.dim() for t in given):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")

    def _add(self, func: Any, args: Any, kwargs: dict[str, Any], found: Any) -> None:
        self.operations.append((func, tree_map(self._held, args), tree_map(self._held, kwargs), found))

    def _held(self, x: Any) -> Any:
        """What was made in here is the graph's; of what was there, it has the address alone."""
        return weakref.ref(x) if isinstance(x, Pretended) and id(x) not in self._made else x

    def replay(self) -> None:
        ACTIVE[-1].launches["graph"] += 1
        for func, args, kwargs, found in self.operations:
            plain = {**tree_map(_address, kwargs), **({"device": torch.device("cpu")} if "device" in kwargs else {})}
            computed = func(*tree_map(_address, args), **plain)
            if found is not None:
                for there, value in zip(tree_leaves(found), tree_leaves(computed), strict=True):
                    _plain(there).copy_(value)


def _address(x: Any) -> Any:
    if isinstance(x, weakref.ref):
        x = x()
        if x is None:
            raise RuntimeError("a replay reads memory that was given back after the recording")
    return _plain(x)
