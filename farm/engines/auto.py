"""The engine that suits what is there: vLLM on a GPU where it is installed, else the policy's own loop.

Chosen when a policy is made, by the device that its model is on. Under torchrun or in a group of processes it is the
policy's own loop, in which each process samples its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Literal

from farm.base import progress
from farm.base.bounds import Natural, PositiveShare, check
from farm.base.launched import several
from farm.roles.protocols import Request, SamplingEngine, Writer, Written

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Auto:
    """See :class:`farm.roles.protocols.SamplingEngine`.

    Args:
        memory: the share of a GPU's memory that vLLM may use, where it is taken.
        lora_rank: of adapters that travel to it by themselves; 0 hands over merged weights.
    """

    own: ClassVar[bool] = False
    memory: PositiveShare = 0.4
    lora_rank: Natural = 0

    def __post_init__(self) -> None:
        check(self)

    def chosen(self, device: torch.device, rows_at_once: int) -> SamplingEngine:
        """The engine of a policy whose model is on ``device``."""
        from farm.engines.transformers import Transformers
        from farm.engines.vllm import VLLM

        name, why = choice(device.type)
        if why:
            progress.note(why)
        return VLLM(memory=self.memory, lora_rank=self.lora_rank) if name == "vllm" else Transformers(rows_at_once)

    def write(self, writer: Writer, request: Request) -> Written:
        return self._of(writer).write(writer, request)

    def forget(self, writer: Writer) -> None:
        self._of(writer).forget(writer)

    def _of(self, writer: Writer) -> SamplingEngine:
        return self.chosen(next(writer.model.parameters()).device, rows_at_once=512)


def choice(device: str) -> tuple[Literal["vllm", "transformers"], str]:
    """The engine on a kind of device, and one line on what another would bring; empty where none would."""
    if device != "cuda":
        return "transformers", ""
    if several():
        return "transformers", (
            "each process samples its share with the policy's own loop; a vLLM server beside them (engine: server) "
            "would sample faster, and takes a GPU of its own"
        )
    if find_spec("vllm") is None:
        return "transformers", (
            "responses are sampled by the policy's own loop, a Llama's as CUDA graphs; vLLM (pip install vllm) would "
            "also keep the GPU filled when answers end, which pays for models from about 1B parameters on"
        )
    return "vllm", ""
