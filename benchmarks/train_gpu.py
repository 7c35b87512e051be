"""Tokens a second and model FLOP utilisation of sampling and training, on an accelerator.

    python benchmarks/train_gpu.py                     # about 1.1 billion random parameters, all of which train
    python benchmarks/train_gpu.py --large             # 6.7 billion, of which adapters train on a base in bfloat16
    python benchmarks/train_gpu.py --engine vllm       # the same sampled by vLLM, to which weights are handed over
    python benchmarks/train_gpu.py --small             # a toy on the processor: whether the script runs

One GRPO step (sampling, scoring, one update) and a few of SFT. Weights that train are float32 and computed in bfloat16.
Utilisation is the model's arithmetic over what the device's matrix product of bfloat16 was measured to do just before:
6 N a token in training (4 N with adapters) and 2 N in sampling, N without the input embedding, plus attention's 12 (or
4) times layers times width times half the length. The optimizer's step is part of the time. With --out the figures are
added to a file, a JSON object a line. NOT RUN on an accelerator yet: no number of this file is quoted anywhere.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from farm.hardware.models import tiny_llama
from farm.policies.language_model import LanguageModelPolicy
from farm.roles import config
from farm.roles.protocols import Learning, Samples, SamplingEngine
from reference_methods.imitation.sft import SFT
from reference_methods.online.grpo import GRPO

SHAPES = {  # vocabulary, width, layers, heads, feed-forward, context; heads of keys and values
    "small": ((500, 64, 2, 4, 128, 128), 4),
    "1b": ((32000, 2048, 22, 32, 5632, 2048), 4),
    "7b": ((32000, 4096, 32, 32, 11008, 2048), 32),
}


def word_tokenizer(size: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<eos>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, size)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>")


def wait(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def matrix_rate(device: torch.device, size: int, dtype: torch.dtype) -> float:
    """FLOP a second of a square matrix product, the best of five."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = np.inf
    for _ in range(6):
        started = wait(device)
        for _ in range(4):
            a @ b
        best = min(best, wait(device) - started)
    return float(4 * 2 * size**3 / best)


def random_model(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Made where it stays, in the type that it keeps: a large one is nowhere held twice."""
    shape, keys = SHAPES[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return tiny_llama(*shape, seed=0, key_value_heads=keys).to(device)
    finally:
        torch.set_default_dtype(before)


class ByWords:
    """A reward that needs no second model: the share of even words."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def scores(self, samples: Samples) -> torch.Tensor:
        even = [float(np.mean(tokens % 2 == 0)) if len(tokens) else 0.0 for tokens in samples.response_tokens]
        return torch.tensor(even, device=self.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="transformers", help="a name of configs/engines")
    parser.add_argument("--eager", action="store_true", help="vLLM starts at once, and samples more slowly")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rows", type=int, default=256, help="responses sampled, and rows of a training step")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--length", type=int, default=512, help="tokens of a response")
    parser.add_argument("--steps", type=int, default=3, help="of SFT; the first is not counted")
    parser.add_argument("--micro-batch-tokens", default="auto")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--out", type=Path, help="the figures are added to this file")
    a = parser.parse_args()
    if a.small:
        a.rows, a.prompt, a.length, a.steps = 8, 16, 24, 2
    elif not torch.cuda.is_available():
        raise SystemExit("no accelerator is here; --small tries the script on the processor")
    if a.micro_batch_tokens != "auto":
        a.micro_batch_tokens = int(a.micro_batch_tokens)
    if a.eager and a.engine != "vllm":
        parser.error("--eager is a setting of --engine vllm")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, tune = "small" if a.small else "7b" if a.large else "1b", "lora" if a.large else "full"
    engine: Any = config.build(SamplingEngine, a.engine)
    if a.eager:
        engine = replace(engine, eager=True)
    figures: dict[str, Any] = {"model": name, "tune": tune, "engine": a.engine, "torch": torch.__version__}
    figures["eager"] = a.eager
    model = random_model(name, device, torch.bfloat16 if a.large else torch.float32)
    n = sum(p.numel() for p in model.model.layers.parameters()) + model.lm_head.weight.numel()
    rate = matrix_rate(device, 512 if a.small else 8192, torch.bfloat16)
    figures |= {"parameters that multiply": n, "FLOP/s of a bfloat16 matrix product": rate}

    draw = np.random.default_rng(0)
    (vocabulary, width, layers, *_), _ = SHAPES[name]

    def words(count: int) -> str:
        return " ".join(f"w{i}" for i in draw.integers(2, vocabulary, count))

    policy = LanguageModelPolicy(
        model,
        word_tokenizer(vocabulary),
        template="{prompt}",
        max_new_tokens=a.length,
        gradient_checkpointing=a.checkpointing,
        compute_dtype="auto" if a.small else "bfloat16",
        rows_at_once=a.rows,
        engine=engine,
    )
    prompts = [words(a.prompt) for _ in range(a.rows)]
    policy.sample(prompts[: max(1, a.rows // 8)], seed=0, purpose="warm up", max_new_tokens=8)
    started = wait(device)
    samples = policy.sample(prompts, seed=0, purpose="measured")
    seconds, written = wait(device) - started, int(samples.lengths().sum())
    context = a.prompt + a.length / 2
    figures["sampling, tokens/s"] = written / seconds
    figures["sampling, utilisation"] = written * (2 * n + 4 * layers * width * context) / seconds / rate

    ends: list[float] = []
    shared = {"tune": tune, "micro_batch_tokens": a.micro_batch_tokens, "learning_rate": 1e-5}
    outputs = [words(a.length - 1) for _ in range(a.steps * a.rows)]
    table = pd.DataFrame({"instruction": [words(a.prompt) for _ in outputs], "output": outputs})
    given = Learning(
        seed=0,
        policy=policy,
        prompts=table[["instruction"]],
        demonstrations=table,
        models={"reward_model": ByWords(device)},  # type: ignore[arg-type]
        log=lambda line: ends.append(wait(device)),
    )
    SFT(epochs=1, batch_size=a.rows, **shared).train(given)
    seconds, tokens = (ends[-1] - ends[0]) / (len(ends) - 1), a.rows * (a.prompt + a.length)
    each = (4 if tune == "lora" else 6) * n + 12 * layers * width * (a.prompt + a.length) / 2
    figures["SFT, tokens/s"], figures["SFT, utilisation"] = tokens / seconds, tokens * each / seconds / rate

    line: dict[str, float] = {}
    step = GRPO(steps=1, rollouts=a.rows, samples_per_prompt=8, missing_eos_reward=None, **shared)
    started = wait(device)
    step.train(Learning(**{**vars(given), "log": line.update}))
    figures["one GRPO step, seconds"] = wait(device) - started
    figures |= {f"GRPO: {key}": line[key] for key in ("update_kl", "clip_fraction", "sampler_error") if key in line}
    if device.type == "cuda":
        figures["device"] = torch.cuda.get_device_name()
        figures["peak memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    for key, value in figures.items():
        print(f"{key:40s} {value:,.4g}" if isinstance(value, float) else f"{key:40s} {value}")
    if a.out:
        with a.out.open("a") as file:
            file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
