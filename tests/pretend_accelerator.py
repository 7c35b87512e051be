"""A pretend accelerator on a torch without one: its tensors say device ``pretend:0``, compute on the processor, refuse
to be mixed with the processor's, and count what they would have launched on a GPU and what would have waited for it.

A tensor is a wrapper around a plain one, below autograd, so gradients, views, in-place operations, inference mode and
deep copies are torch's own. What it cannot show: kernels, precision (autocast does nothing on it), memory, and time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from farm.hardware import device as placement

ROOT = Path(__file__).parent.parent
NAME = "pretend"
INDEXED = {"aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_", "aten._unsafe_index"}
"""operations whose indices may lie on the processor, as on a GPU, which then waits for them"""
READS = {"aten._local_scalar_dense", "aten.equal", "aten.is_nonzero"}
"""operations that give a number to the program"""
SIZED_BY_VALUES = {"aten.nonzero", "aten.masked_select", "aten._unique2", "aten.unique_consecutive", "aten.unique_dim"}
"""operations whose result is as large as the values say, so that a GPU is waited for"""
SIZED_BY_VALUES |= {"aten.masked_scatter_backward"}  # which selects by the mask
VIEWS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view"}
"""operations that launch nothing, besides those whose schema says that they give a view"""


_INFERENCE_MODE = torch.inference_mode
"""torch's own; on the pretend accelerator its name stands for ``no_grad``"""


class Accelerator:
    """What happened on the pretend accelerator since :meth:`clear`."""

    def __init__(self) -> None:
        self.device = torch.device(NAME, 0)
        self.launches: Counter[str] = Counter()
        """by operation"""
        self.waits: Counter[tuple[str, str]] = Counter()
        """by operation and the line of this project that asked for it"""

    def clear(self) -> None:
        self.launches.clear()
        self.waits.clear()

    def wait(self, what: str) -> None:
        self.waits[what, _line()] += 1


ACTIVE: list[Accelerator] = []


class Pretended(torch.Tensor):
    """A tensor of the accelerator; ``inner`` is the plain one behind it."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Pretended:
        with _INFERENCE_MODE(False):  # a view of a plain tensor stays one in inference mode
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=torch.device(NAME, 0),
            )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretended({self.inner!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            with torch.no_grad():
                copied: Any = Pretended(self.inner.clone())
            memo[id(self)] = _as(self, copied)
        return memo[id(self)]

    def tolist(self) -> Any:
        ACTIVE[-1].wait("tolist")
        return self.inner.tolist()

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation. What inference mode leaves whole is taken apart, so that nothing slips through."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = any(isinstance(tensor, Pretended) for tensor in given)
    asked = kwargs.get("device")
    to_us = asked is not None and torch.device(asked).type == NAME
    if (ours or any(isinstance(a, torch.device) for a in args)) and func.has_kernel_for_dispatch_key(_COMPOSITE):
        with _Watch():
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
    if not (ours or to_us):
        return func(*args, **kwargs)
    name = str(func).rpartition(".")[0]
    if name == "aten._fused_sdp_choice":
        return torch.nn.attention.SDPBackend.MATH.value
    _count(func, name, args, kwargs, given)
    if ours:
        _refuse_mixing(name, args, given)
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu") if to_us else asked}
        kwargs.pop("pin_memory", None)
    stays = to_us if asked is not None else isinstance(args[0], Pretended) if name == "aten.copy_" else ours
    found = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
    if func._schema.is_mutable:
        wrappers = {id(_plain(tensor)): tensor for tensor in given}
        return tree_map(lambda x: wrappers.get(id(x), _wrapped(x) if stays else x), found)
    return tree_map(_wrapped, found) if stays else found


_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class _Watch(TorchDispatchMode):
    """Sees what has no tensor of the accelerator among its arguments: what is made there, or brought there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _plain(x: Any) -> Any:
    return x.inner if isinstance(x, Pretended) else x


def _wrapped(x: Any) -> Any:
    return Pretended(x) if isinstance(x, torch.Tensor) and not isinstance(x, Pretended) else x


def _as(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """``new`` as a parameter where ``old`` is one."""
    return torch.nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


def _refuse_mixing(name: str, args: Any, given: list[torch.Tensor]) -> None:
    """As a GPU does: numbers (tensors without dimensions) and indices may come from the processor, nothing else."""
    if name in ("aten.copy_", "aten._to_copy"):
        return
    strangers = [tensor for tensor in given if not isinstance(tensor, Pretended) and tensor.dim()]
    if name in INDEXED and isinstance(args[0], Pretended):
        indices = {id(index) for index in args[1]}
        strangers = [tensor for tensor in strangers if id(tensor) not in indices]
    if strangers:
        raise RuntimeError(f"expected all tensors to be on the same device: {name} at {_line()}")


def _count(func: Any, name: str, args: Any, kwargs: dict[str, Any], given: list[torch.Tensor]) -> None:
    now, short = ACTIVE[-1], name.removeprefix("aten.")
    view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    if not view and short not in VIEWS:
        now.launches[short] += 1
    across = len({isinstance(tensor, Pretended) for tensor in given}) > 1
    asked = kwargs.get("device")
    if name in READS | SIZED_BY_VALUES or (name == "aten.repeat_interleave" and kwargs.get("output_size") is None):
        now.wait(short)
    elif name in INDEXED:
        for index in (i for i in args[1] if i is not None):
            if not isinstance(index, Pretended) or index.dtype in (torch.bool, torch.uint8):
                now.wait("index")
    elif name == "aten.copy_" and across:
        now.wait("copy")
    elif name == "aten._to_copy" and asked is not None and torch.device(asked).type != given[0].device.type:
        if kwargs.get("non_blocking") and torch.device(asked).type == NAME:
            return  # CUDA copies it aside and goes on
        now.wait("to " + torch.device(asked).type)


def _line() -> str:
    """The innermost line of this project, tests aside, that is being run."""
    root, frame = str(ROOT), sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(root) and not file.startswith((f"{root}/tests", f"{root}/.venv")):
            return f"{file[len(root) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


class _Module:
    """What torch asks of the module of a device."""

    def is_initialized(self) -> bool:
        return bool(ACTIVE)

    def is_available(self) -> bool:
        return bool(ACTIVE)

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return len(ACTIVE)

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _register() -> None:
    """Once a process: torch has one place for a device that it does not know."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as setup
    except ImportError:
        pytest.skip(f"torch {torch.__version__} takes no device that is written in Python")
    _device_constructors()  # torch notes once which functions `with torch.device(...)` is about: the real ones
    if torch._C._get_privateuse1_backend_name() != NAME:
        setup(NAME, backend_module=_Module())


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    with pretended(monkeypatch) as now:
        yield now


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    """Within, models are put on the pretend accelerator, as they are on a GPU where there is one."""
    _register()
    now = Accelerator()
    monkeypatch.setattr(placement, "accelerator", lambda: now.device)
    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, _then_moved(getattr(torch, name)))
    monkeypatch.setattr(torch.nn.Module, "_apply", _applied())
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # which makes no views of what was made outside of it
    ACTIVE.append(now)
    try:
        # Autograd counts devices at the first backward pass of a process, which may have been before this one came.
        with _Watch(), torch.autograd.set_multithreading_enabled(False):
            yield now
    finally:
        ACTIVE.pop()


def _then_moved(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """torch.tensor and torch.as_tensor move what they read by a way that no mode sees."""

    def made(data: Any, *args: Any, device: Any = None, **given: Any) -> torch.Tensor:
        if isinstance(data, Pretended):
            return data if device is None else data.to(device)
        if device is None or torch.device(device).type != NAME:
            return make(data, *args, device=device, **given)
        return make(data, *args, device="cpu", **given).to(device)

    return made


def _applied() -> Callable[..., Any]:
    """``Module.to`` and its kin for wrappers, whose data cannot be exchanged in place: a parameter that two modules
    share stays one."""
    moved: dict[tuple[int, int], tuple[Any, ...]] = {}  # with what the ids are of, so that none is used again

    def apply(self: torch.nn.Module, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(fn)
        for table in (self._parameters, self._buffers):
            for name, old in table.items():
                if old is None:
                    continue
                if (id(old), id(fn)) not in moved:
                    with torch.no_grad():
                        new = fn(old)
                    moved[id(old), id(fn)] = (old, fn, old if new is old else _as(old, new))
                table[name] = moved[id(old), id(fn)][-1]
        return self

    return apply
