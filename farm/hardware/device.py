"""The device that the models of this process are put on: one rule, which every loader asks.

    cuda:LOCAL_RANK     where torch has CUDA; LOCAL_RANK is 0 where no launcher has started several processes
    cpu                 everywhere else

A setting overrides it (``world.device``, ``device`` of an annotator), and a world whose models are so small that a
processor is faster says so itself (``device = "cpu"``). Which GPUs are there at all is said by CUDA_VISIBLE_DEVICES.

Apple's accelerator (MPS) is not taken: it has no float64, in which tokens are drawn and norms are summed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from farm.base.errors import UserError

if TYPE_CHECKING:
    import torch

Device = Literal["cpu", "cuda"]

_CHOSEN: ContextVar[Device | None] = ContextVar("device", default=None)


def device(chosen: Device | None = None) -> torch.device:
    """Where a model is put.

    Args:
        chosen: what a setting says; None is what :func:`using` says, or else the accelerator where there is one.

    Raises:
        UserError: CUDA is asked for and not there, or there are more processes than GPUs.
    """
    import torch

    chosen = chosen or _CHOSEN.get()
    found = torch.device("cpu") if chosen == "cpu" else accelerator()
    if chosen == "cuda" and found.type == "cpu":
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        raise UserError(f"device: cuda, but {why}; leave `device` out, or install torch for CUDA and its driver")
    return found


@contextmanager
def using(chosen: Device | None) -> Iterator[None]:
    """Inside, :func:`device` is this one where nothing else is said; None changes nothing."""
    before = _CHOSEN.set(chosen or _CHOSEN.get())
    try:
        yield
    finally:
        _CHOSEN.reset(before)


def accelerator() -> torch.device:
    """The GPU of this process; the processor where there is none."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if gpus == 1 and os.environ.get("CUDA_VISIBLE_DEVICES"):  # some launchers show each process the one that is its own
        number = 0
    if number >= gpus:
        raise UserError(
            f"process {number + 1} of this machine has no GPU of its own, as torch sees {gpus}: start as many "
            "processes as GPUs"
        )
    return torch.device("cuda", number)
