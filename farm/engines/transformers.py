"""The policy's own loop: transformers' model, or for Llamas a lean cached loop that does the same arithmetic faster."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch

from farm.base.bounds import Bounded, Count
from farm.engines.graphs import graphed
from farm.engines.sampling import Decoder, write
from farm.roles.protocols import Request, Writer, Written

LARGE = 10**9
"""Parameters beyond which a model on an accelerator is better sampled by vLLM."""


@dataclass(frozen=True)
class Transformers(Bounded):
    """See :class:`farm.roles.protocols.SamplingEngine`. The weights are read where they are, so they are never old.

    Args:
        rows_at_once: the most responses written together.
        graphs: on CUDA, whether a step of a Llama is recorded and replayed; see :mod:`farm.engines.graphs`.
    """

    own: ClassVar[bool] = True
    rows_at_once: Count = 512
    graphs: bool = True

    def write(self, writer: Writer, request: Request) -> Written:
        first = next(writer.model.parameters())
        if first.device.type != "cpu" and (size := sum(p.numel() for p in writer.model.parameters())) > LARGE:
            warnings.warn(  # said once a run: Python drops the same words from the same line
                f"{size / 1e9:.1f} billion parameters write by the policy's own loop, which has no paged cache: "
                "`world.engine: vllm` (pip install vllm) is many times faster",
                stacklevel=2,
            )
        with torch.inference_mode():
            decoder: Decoder = writer.decoder()
            if self.graphs:
                decoder = graphed(decoder, first.device)
            return write(decoder, request, self.rows_at_once, first.device)

    def forget(self, writer: Writer) -> None:
        """It holds none of its own."""
