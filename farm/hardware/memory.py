"""Out of memory on any device: one sentence that says during what, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from farm.base.errors import UserError


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out. The processor's allocator raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


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
