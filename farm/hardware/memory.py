"""The memory of a device: out of it is one sentence that says during what, and what to do; and giving it back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from farm.base.errors import UserError

SHORTAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out. The processor's allocator and CUDA's libraries raise RuntimeErrors."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in SHORTAGES)
    )


def free(device: torch.device) -> int | None:
    """Bytes that a CUDA device can still give, what torch keeps for later among them; None of any other device."""
    if device.type != "cuda":
        return None
    left, _ = torch.cuda.mem_get_info(device)
    return left + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@contextmanager
def explained(
    what: str,
    remedy: str = "lower micro_batch_tokens, set gradient_checkpointing, or train less of the model with `tune`",
) -> Iterator[None]:
    """Turn an out-of-memory error inside into a UserError that names ``what`` was computed, and the ``remedy``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise UserError(f"out of memory during {what}: {remedy}") from error


def give_back() -> None:
    """Return what torch keeps of a GPU for its next tensors, for other processes to take."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
