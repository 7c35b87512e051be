"""Tokens a second and model FLOP utilisation of sampling and training, on an accelerator.

    python benchmarks/train_gpu.py                     # about 1.1 billion random parameters, bfloat16
    python benchmarks/train_gpu.py --engine vllm       # the same sampled by vLLM
    python benchmarks/train_gpu.py --small             # a toy on the processor: whether the script runs

Utilisation is the model's arithmetic over what the device's matrix product of bfloat16 was measured to do just before:
6 N a token in training and 2 N in sampling, N without the input embedding, plus attention's 12 (or 4) times layers
times width times half the length. The optimizer's step is part of the time. NOT RUN on an accelerator yet: no number of
this file is quoted anywhere.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from farm.hardware.models import tiny_llama
from farm.policies.language_model import LanguageModelPolicy
from farm.roles import config
from farm.roles.protocols import Learning, SamplingEngine
from reference_methods.imitation.sft import SFT


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="transformers", help="a name of configs/engines")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rows", type=int, default=256, help="responses sampled, and rows of a training step")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--length", type=int, default=512, help="tokens of a response")
    parser.add_argument("--micro-batch-tokens", type=int, default=32768)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    a = parser.parse_args()
    if a.small:
        a.rows, a.prompt, a.length, a.micro_batch_tokens = 8, 16, 24, 512
    elif not torch.cuda.is_available():
        raise SystemExit("no accelerator is here; --small tries the script on the processor")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = (500, 64, 2, 4, 128, 128, 0) if a.small else (32000, 2048, 22, 32, 5632, 2048, 0)
    model = tiny_llama(*shape, key_value_heads=None if a.small else 4).to(device, torch.bfloat16)
    n = sum(p.numel() for p in model.model.layers.parameters()) + model.lm_head.weight.numel()
    rate = matrix_rate(device, 512 if a.small else 8192, torch.bfloat16)
    print(f"{n / 1e9:.3f} G parameters that multiply; matrix product of bfloat16 {rate / 1e12:.1f} TFLOP/s")

    draw = np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(f"w{i}" for i in draw.integers(2, shape[0], count))

    policy = LanguageModelPolicy(
        model,
        word_tokenizer(shape[0]),
        template="{prompt}",
        max_new_tokens=a.length,
        gradient_checkpointing=a.checkpointing,
        rows_at_once=a.rows,
        forbidden_tokens=(),
        engine=config.build(SamplingEngine, a.engine),
    )
    prompts = [words(a.prompt) for _ in range(a.rows)]
    policy.sample(prompts[: max(1, a.rows // 8)], seed=0, purpose="warm up", max_new_tokens=8)
    started = wait(device)
    samples = policy.sample(prompts, seed=0, purpose="measured")
    seconds, written = wait(device) - started, int(samples.lengths().sum())
    context = a.prompt + a.length / 2
    each = 2 * n + 4 * shape[2] * shape[1] * context
    print(
        f"sampling ({a.engine}): {written / seconds:,.0f} tokens/s, utilisation {written * each / seconds / rate:.1%} "
        f"({written} tokens, {a.rows} rows at once)"
    )

    steps: list[float] = []
    outputs = [words(a.length - 1) for _ in range(3 * a.rows)]
    table = pd.DataFrame({"instruction": [words(a.prompt) for _ in outputs], "output": outputs})
    method = SFT(epochs=1, batch_size=a.rows, learning_rate=1e-5, micro_batch_tokens=a.micro_batch_tokens)
    method.train(
        Learning(
            seed=0,
            policy=policy,
            prompts=table[["instruction"]],
            demonstrations=table,
            log=lambda line: steps.append(wait(device)),
        )
    )
    seconds, tokens = (steps[-1] - steps[0]) / (len(steps) - 1), a.rows * (a.prompt + a.length)
    each = 6 * n + 12 * shape[2] * shape[1] * (a.prompt + a.length) / 2
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    print(
        f"training (SFT step, optimizer included): {tokens / seconds:,.0f} tokens/s, utilisation "
        f"{tokens * each / seconds / rate:.1%}, peak memory {memory:.1f} GiB"
    )


if __name__ == "__main__":
    main()
