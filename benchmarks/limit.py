"""Training and sampling against the machine's own limit: which share of its arithmetic and of its memory is used.

    python benchmarks/limit.py                                   # the pocket model's shape and a Llama of 4 million
    python benchmarks/limit.py --model FOLDER --dtypes float32,bfloat16      # a real one, such as SmolLM2-135M-Instruct
    python benchmarks/limit.py --shapes 4m --what sft,sample --threads 1,2 --profile

In one run: the rate of a large matrix product and of reading memory are measured first, for each type and number of
threads, then each piece of work. Counted is useful arithmetic alone: no padding, 2 N a token forward and three times
that where gradients are taken, N of the layers and (where logits are needed) of the head, plus attention's 4 times
width times the tokens before. A step of sampling reads all weights and the keys and values of the tokens before, which
is its share of memory; the two shares together are what the machine must spend, as it does one after the other. On an
accelerator the script is the same, with one row for threads. With --profile the operations that take longest follow.
The limit drifts with what else runs; on a machine with other work no number of this means anything, and shares, which
such work slows above and below the line, mean little. docs/training.md has what was measured, and what was not.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from train_gpu import ByWords, wait, word_tokenizer

from farm.hardware.models import load_causal_lm, tiny_llama
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning, Samples
from reference_methods.imitation.sft import SFT
from reference_methods.online.ppo import PPO
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.batches import in_parts

SHAPES = {  # vocabulary, width, layers, heads, feed-forward, context
    "pocket": (483, 96, 3, 4, 256, 128),
    "4m": (240, 256, 4, 4, 768, 256),
}
ROWS = {"pocket": 128, "4m": 32}
WHAT = ("sft", "dpo", "rloo", "ppo", "score", "logp", "sample")
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def best(work: Callable[[], Any], device: torch.device, times: int = 5) -> float:
    """Seconds of the quickest of a few."""
    work()
    found = []
    for _ in range(times):
        started = wait(device)
        work()
        found.append(wait(device) - started)
    return min(found)


@dataclass(frozen=True)
class Limit:
    """What the machine can do: FLOP a second, and bytes a second that it reads."""

    arithmetic: float
    memory: float

    @classmethod
    def measured(cls, dtype: torch.dtype, device: torch.device) -> Limit:
        n = 8192 if device.type == "cuda" else 1536
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        product = best(lambda: torch.nn.functional.linear(a, b), device)
        numbers = torch.ones(2**26, device=device)
        return cls(2 * n**3 / product, 4 * len(numbers) / best(numbers.sum, device))


@dataclass(frozen=True)
class Model:
    """A policy with what its arithmetic follows from."""

    name: str
    policy: LanguageModelPolicy
    rows: int
    words: int
    """tokens of a response at most"""

    def __post_init__(self) -> None:
        inner = self.policy.model
        shapes = [p.numel() for p in inner.model.layers.parameters() if p.dim() == 2]
        object.__setattr__(self, "layers", sum(shapes))
        object.__setattr__(self, "head", inner.lm_head.weight.numel())
        object.__setattr__(self, "attention", inner.config.num_hidden_layers * inner.config.hidden_size)

    layers: int = 0
    head: int = 0
    attention: int = 0

    def forward(self, samples: Samples, head: bool = True) -> float:
        """FLOP of one pass over prompts and responses, with logits of the responses."""
        before, own = (np.array(list(map(len, t)), float) for t in (samples.prompt_tokens, samples.response_tokens))
        length = before + own
        return float((2 * self.layers * length + 2 * self.attention * length**2 + head * 2 * self.head * own).sum())

    def read(self, samples: Samples, dtype: torch.dtype) -> float:
        """Bytes that sampling reads: in each step all weights, and the keys and values before each row's token."""
        config = self.policy.model.config
        width = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
        before, own = (np.array(list(map(len, t)), float) for t in (samples.prompt_tokens, samples.response_tokens))
        columns = float((before * own + own * (own + 1) / 2).sum())
        weights = float(own.max()) * (self.layers + self.head)
        return (weights + columns * 2 * config.num_hidden_layers * width) * dtype.itemsize


def models(a: argparse.Namespace, dtype: str, device: torch.device) -> Iterator[Model]:
    settings = {"template": "{prompt}", "compute_dtype": None if dtype == "float32" else dtype}
    for name in filter(None, a.shapes.split(",")):
        shape, words = SHAPES[name], {"pocket": 48, "4m": 64}[name]
        inner = tiny_llama(*shape, seed=0).to(device)
        policy = LanguageModelPolicy(inner, word_tokenizer(shape[0]), max_new_tokens=words, **settings)
        yield Model(name, policy, a.rows or ROWS[name], words)
    if a.model:
        model, tokenizer = load_causal_lm(a.model, "float32")
        policy = LanguageModelPolicy(model.to(device), tokenizer, max_new_tokens=48, **settings)
        yield Model(Path(a.model).name, policy, a.rows or 8, 48)


def measured(model: Model, what: str, steps: int, device: torch.device) -> tuple[float, float, float, Samples]:
    """(seconds, FLOP, tokens, samples) of one step, or of one pass."""
    draw, policy, rows = np.random.default_rng(0), model.policy, model.rows
    vocabulary = len(policy.tokenizer) if model.name not in SHAPES else SHAPES[model.name][0]

    def text(mean: float, most: int) -> str:
        count = int(np.clip(draw.lognormal(np.log(mean), 0.7), 3, most))
        chosen = draw.integers(2, vocabulary, count)
        return " ".join(f"w{k}" for k in chosen) if model.name in SHAPES else policy.tokenizer.decode(chosen.tolist())

    n = rows * steps
    texts = [[text(8, 24) for _ in range(n)], *([text(24, model.words - 1) for _ in range(n)] for _ in range(2))]
    table = pd.DataFrame(dict(zip(("instruction", "output_1", "output_2"), texts, strict=True)))
    samples = policy.encode(texts[0][:rows], texts[1][:rows])
    if what == "sample":
        written = policy.sample(texts[0][:rows], seed=0, purpose="measured")
        seconds = best(lambda: policy.sample(texts[0][:rows], seed=0, purpose="measured"), device, 2)
        return seconds, model.forward(written), float(written.lengths().sum()), written
    if what in ("score", "logp"):
        scorer = policy.scorer(1)
        work = scorer.scores if what == "score" else lambda part: policy.log_probabilities(part)[0]
        seconds = best(lambda: in_parts(work, samples, 4096), device, 3)
        return seconds, model.forward(samples, what == "logp"), float(samples.lengths().sum()), samples
    ends: list[tuple[float, float]] = []
    log = lambda line: ends.append((wait(device), line.get("tokens_per_second", np.nan)))  # noqa: E731
    pairs = table.assign(preference=1.0, status="ok")
    given = Learning(
        seed=0,
        policy=policy,
        prompts=table[["instruction"]],
        demonstrations=table.assign(output=table["output_1"])[["instruction", "output"]],
        feedback={"pairs": pairs},
        models={"reward_model": policy.scorer(1) if what == "ppo" else ByWords(device)},  # type: ignore[dict-item]
        log=log,
    )
    shared: dict[str, Any] = {"learning_rate": 1e-5, "micro_batch_tokens": 4096}
    online = {"rollouts": rows, "steps": steps, "missing_eos_reward": None, "epochs": 1, "minibatches": 1, **shared}
    method: Any = {
        "sft": lambda: SFT(epochs=1, batch_size=rows, **shared),
        "dpo": lambda: DPO(epochs=1, batch_size=rows, **shared),
        "rloo": lambda: RLOO(samples_per_prompt=4, **online),
        "ppo": lambda: PPO(**online),
    }[what]()
    method.train(given)
    seconds = (ends[-1][0] - ends[0][0]) / (len(ends) - 1)
    if what == "sft":
        return seconds, 3 * model.forward(samples), float(samples.lengths().sum()), samples
    if what == "dpo":  # the reference is computed before the first step
        both = policy.encode(texts[0][:rows] * 2, texts[1][:rows] + texts[2][:rows])
        return seconds, 3 * model.forward(both), float(both.lengths().sum()), both
    written = policy.sample(texts[0][:rows], seed=0, purpose="measured")
    flop = (1 + 1 + 3) * model.forward(written)  # sampling, reference, policy; the words are counted by a program
    if what == "ppo":
        flop += (1 + 1 + 3) * model.forward(written, head=False)  # reward, values, critic
    return seconds, flop, float(written.lengths().sum()), written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="pocket,4m", help="random models: pocket, 4m")
    parser.add_argument("--model", help="a model besides, by folder or hub id")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--what", default=",".join(WHAT))
    parser.add_argument("--rows", type=int, help="of a batch")
    parser.add_argument("--steps", type=int, default=4, help="of a training; the first is not counted")
    parser.add_argument("--profile", action="store_true")
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{'model':24} type      threads  work      ms a step  tokens/s  GFLOP/s  of arithmetic  of memory")
    for dtype in a.dtypes.split(","):
        for threads in map(int, a.threads.split(",") if device.type == "cpu" else ["1"]):
            torch.set_num_threads(threads)
            limit = Limit.measured(TYPES[dtype], device)
            print(f"{'the machine':24} {dtype:9} {threads:7}  {limit.arithmetic / 1e9:.0f} GFLOP/s, "
                  f"{limit.memory / 1e9:.1f} GB/s")  # fmt: skip
            for model in models(a, dtype, device):
                for what in a.what.split(","):
                    profile: Any = contextlib.nullcontext()
                    if a.profile:
                        profile = torch.profiler.profile()
                    with profile:
                        seconds, flop, tokens, samples = measured(model, what, a.steps, device)
                    rate = flop / seconds
                    read = model.read(samples, TYPES[dtype]) / seconds / limit.memory if what == "sample" else np.nan
                    memory = "" if np.isnan(read) else f"{read:9.0%}"
                    print(f"{model.name:24} {dtype:9} {threads:7}  {what:8} {seconds * 1e3:10.1f} "
                          f"{tokens / seconds:9,.0f} {rate / 1e9:8.1f} {rate / limit.arithmetic:14.0%}  {memory}",
                          flush=True)  # fmt: skip
                    if a.profile:
                        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s")
