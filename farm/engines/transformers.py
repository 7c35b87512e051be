"""The policy's own loop: transformers' model, or for Llamas a lean cached loop that does the same arithmetic faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from farm.base.bounds import Count, check
from farm.engines.sampling import write
from farm.roles.protocols import Request, Writer, Written


@dataclass(frozen=True)
class Transformers:
    """See :class:`farm.roles.protocols.SamplingEngine`. The weights are read where they are, so they are never old.

    Args:
        rows_at_once: the most responses written together.
    """

    own: ClassVar[bool] = True
    rows_at_once: Count = 512

    def __post_init__(self) -> None:
        check(self)

    def write(self, writer: Writer, request: Request) -> Written:
        with torch.inference_mode():
            return write(writer.decoder(), request, self.rows_at_once, next(writer.model.parameters()).device)

    def forget(self, writer: Writer) -> None:
        """It holds none of its own."""
