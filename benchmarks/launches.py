"""What a step launches on an accelerator, and how often it makes the program wait: counted, not timed, without one.

    python benchmarks/launches.py                 # a model of 2 and of 4 layers, from which that of 30 is computed

A pretend accelerator (tests/pretend_accelerator.py) computes on the processor and counts every operation that would be
a launch, the replay of a recorded step as one, and every one that has to wait for its result or for a copy. Launches of
a real device differ somewhat, since what torch fuses there is computed in parts here (attention, norms): it is two
versions that are compared.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from farm.engines import graphs
from farm.engines.transformers import Transformers
from farm.hardware.models import tiny_llama
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning
from reference_methods.online.grpo import GRPO
from reference_methods.online.ppo import PPO
from reference_methods.pairs.dpo import DPO
from tests.policies.conftest import PROMPTS, SPECIAL, WORDS, word_tokenizer
from tests.pretend_accelerator import NAME, Accelerator, pretended
from tests.pretend_graphs import PretendRecorder
from tests.training.conftest import pair_table

LAYERS = (2, 4)
TOKENS = (24, 40)
"""sampled a row; both are worth recording"""
ONLINE: dict[str, Any] = {"steps": 1, "rollouts": 12, "missing_eos_reward": None, "minibatches": 1, "epochs": 1}
METHODS: dict[str, Any] = {
    "dpo": DPO(epochs=1, batch_size=12),
    "ppo": PPO(**ONLINE),
    "grpo": GRPO(samples_per_prompt=4, **ONLINE),
}


def policy_of(layers: int, device: torch.device) -> LanguageModelPolicy:
    model = tiny_llama(len(SPECIAL) + len(WORDS), 16, layers, 2, 32, 64, 0).to(device)
    return LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=12)


def counted(accelerator: Accelerator, what: Any) -> tuple[float, float]:
    """Launches and waits."""
    accelerator.clear()
    what()
    return sum(accelerator.launches.values()), sum(accelerator.waits.values())


def measure(accelerator: Accelerator) -> dict[str, dict[str, float]]:
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for layers in LAYERS:
        policy = policy_of(layers, accelerator.device)
        given = Learning(
            seed=0,
            policy=policy,
            prompts=pd.DataFrame({"instruction": PROMPTS}),
            feedback={"pairs": pair_table(policy, 12)},
            models={"reward_model": policy.scorer(0)},
        )
        for name, method in METHODS.items():
            # The same rows in smaller micro-batches: what more of these take.
            counts = [
                counted(accelerator, lambda m=replace(method, micro_batch_tokens=t): m.train(given)) for t in (2000, 60)
            ]
            found.setdefault(f"{name}: a step", {})[layers] = counts[0]
            found.setdefault(f"{name}: the same in small micro-batches", {})[layers] = counts[1]
        for engine, how in ((Transformers(graphs=False), "launched one by one"), (Transformers(), "recorded")):
            writer = policy.with_settings(engine=engine)
            few, many = (
                counted(accelerator, lambda n=n: writer.sample(PROMPTS * 4, seed=0, purpose="t", max_new_tokens=n))
                for n in TOKENS
            )
            more = [(b - a) / (TOKENS[1] - TOKENS[0]) for a, b in zip(few, many, strict=True)]
            found.setdefault(f"one more sampled token, {how}", {})[layers] = more[0], more[1]
    few, many = LAYERS
    out = {}
    for what, by_layers in found.items():
        launches, waits = by_layers[few]
        layer = (by_layers[many][0] - launches) / (many - few)
        out[what] = {
            "launches": launches,
            "a layer": layer,
            "of 30 layers": launches + (30 - few) * layer,
            "waits": waits,
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lines", action="store_true", help="name the lines that wait, in sampling and in a step of DPO"
    )
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, pretended(patch) as accelerator:
        patch.setitem(graphs.RECORDERS, NAME, PretendRecorder)
        found = measure(accelerator)
        if a.json:
            print(json.dumps(found, indent=1))
        else:
            print(pd.DataFrame(found).T.round(1).to_string())
        if a.lines:
            policy = policy_of(2, accelerator.device)
            given = Learning(seed=0, policy=policy, prompts=pd.DataFrame(), feedback={"pairs": pair_table(policy, 12)})
            for what in (
                lambda: policy.sample(PROMPTS * 4, seed=0, purpose="t"),
                lambda: METHODS["dpo"].train(given),
            ):
                counted(accelerator, what)
                print(
                    "\n".join(f"{count:6d} {' '.join(where)}" for where, count in accelerator.waits.most_common(30)),
                    "\n",
                )


if __name__ == "__main__":
    main()
