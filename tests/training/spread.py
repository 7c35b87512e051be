"""Run by ``test_sharding`` under torchrun, two processes: policies spread over them.

python spread.py FOLDER
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from farm.base.errors import UserError
from farm.engines.sampling import TransformersDecoder
from farm.engines.weights import write_model
from farm.hardware import processes
from farm.policies import batches
from farm.policies.language_model import LanguageModelPolicy
from reference_methods.games.egpo import EGPO
from reference_methods.games.nash_ema import NashEMA
from reference_methods.models.reward_model import RewardModel
from reference_methods.online.grpo import GRPO
from reference_methods.online.quark import Quark
from reference_methods.online.rloo import RLOO
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.optimization import Optimizer
from tests.policies.conftest import PROMPTS, small_model, word_tokenizer
from tests.training.conftest import everything, numbers

SHARED: dict[str, Any] = {"learning_rate": 1e-3, "micro_batch_tokens": 90}
ONLINE = {"rollouts": 12, "minibatches": 2, "missing_eos_reward": None, **SHARED}
# Without centring the bias of the reward model has a gradient of rounding alone.
KINDS: dict[str, Any] = {
    "lora": DPO(epochs=1, batch_size=7, tune="lora", lora_rank=2, shard=True, **SHARED),
    "last layers": DPO(epochs=1, batch_size=7, tune="last_layers", last_layers=1, shard=True, **SHARED),
    "recomputed": DPO(epochs=1, batch_size=7, gradient_checkpointing=True, shard=True, **SHARED),
    "reward model": RewardModel(epochs=1, batch_size=7, head="last+sum", centring=0.1, shard=True, **SHARED),
    "quark": Quark(steps=2, quantiles=3, beta=0.1, shard=True, **ONLINE),
    "egpo lora": EGPO(steps=2, prompts_per_step=6, tune="lora", lora_rank=2, shard=True, **SHARED),
    "nash_ema": NashEMA(steps=2, prompts_per_step=5, decay=0.5, shard=True, **SHARED),
    "anchored": RLOO(steps=2, reward_model="anchored", shard=True, **ONLINE),
    "dapo": GRPO(steps=2, samples_per_prompt=2, drop_equal_groups=True, refills=2, shard=True, **ONLINE),
}
IN_16_BITS = DPO(epochs=1, batch_size=7, shard=True, **SHARED)
RESUMED = RLOO(steps=3, shard=True, checkpoint_minutes=0.0, **ONLINE)


def new_policy(tied: bool = True, dtype: torch.dtype = torch.float64) -> LanguageModelPolicy:
    model = small_model().to(dtype)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach() + 0.01)
    return LanguageModelPolicy(model, word_tokenizer(), template="{prompt}", max_new_tokens=12)


def in_16_bits(tied: bool = True) -> LanguageModelPolicy:
    return new_policy(tied, dtype=torch.float32).with_settings(compute_dtype="bfloat16")


def gathered() -> dict[str, str]:
    """The types in which the parameters of a policy in 16 bits are there for a whole pass: all but the layers'."""
    policy = in_16_bits(tied=False)
    policy.shard()
    model: Any = policy.model
    return policy.body.run(lambda: {n: str(p.dtype) for n, p in model.named_parameters() if ".layers." not in n})


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    batches.TOKENS["cpu"], batches.ONE_MORE["cpu"] = 30, 1  # a micro-batch takes several passes, here more, there fewer
    processes.start()
    given, own = everything(new_policy()), folder / f"rank{processes.rank()}"
    own.mkdir(parents=True)
    for name, method in KINDS.items():
        save_file({"parameters": numbers(method.train(given))}, own / f"{name}.safetensors")
    for tied in (True, False):
        learned = IN_16_BITS.train(everything(in_16_bits(tied)))
        save_file({"parameters": numbers(learned)}, own / f"in 16 bits, tied {tied}.safetensors")
    facts = {
        "float32": anatomy(new_policy(dtype=torch.float32)),
        "tied": anatomy(new_policy()),
        "untied": anatomy(new_policy(tied=False)),
        "gathered": gathered(),
    }
    (own / "facts.json").write_text(json.dumps(facts))
    stop_and_resume(given, folder, own)
    processes.wait()


def anatomy(policy: LanguageModelPolicy) -> dict[str, Any]:
    """What a process holds of a spread policy, and whether it is the policy that it was and will be."""
    before = policy.copy()
    policy.shard()
    optimizer = Optimizer(
        [(policy.parameters(), 1e-2)], steps=1, schedule="constant", warm_up=0, max_gradient_norm=1.0, purpose="test"
    )
    samples = before.sample(PROMPTS, seed=1, purpose="test")
    policy.sample(PROMPTS[: processes.rank()], seed=1, purpose="test")  # the first process has nothing to sample
    same = True
    if not processes.is_first():  # passes without gradient are each process's own
        folder = Path(tempfile.mkdtemp())
        write_model(policy.model, folder, merge=True)  # as for a server
        given = load_file(folder / "model.safetensors")
        shutil.rmtree(folder)
        with torch.no_grad():
            same = torch.equal(policy.log_probabilities(samples)[0], before.log_probabilities(samples)[0])
        same &= all(torch.equal(given[name], value) for name, value in before.model.named_parameters())
    some = samples.select(range(len(samples) if processes.is_first() else 1))  # unequally much to do
    policy.log_probabilities(some)[0].sum().backward()
    optimizer.step()
    held = [part for _, part in zip(policy.parameters(), optimizer._groups[0], strict=True)]
    moments = sum(m.numel() for p in held for n, m in optimizer._adam.state[p].items() if n != "step")
    with torch.no_grad():
        moved = (policy.log_probabilities(samples)[0] - before.log_probabilities(samples)[0]).abs().max()
        spread = policy.log_probabilities(samples)[0]
    own = policy.sample(PROMPTS, seed=1, purpose="test", temperature=0).outputs
    policy.decoder = lambda: TransformersDecoder(policy.model, policy.forbidden, policy.body.autocast)  # type: ignore
    general = policy.sample(PROMPTS, seed=1, purpose="test", temperature=0).outputs
    del policy.decoder
    copied = policy.copy()
    policy.unshard()
    with torch.no_grad():
        back = torch.equal(policy.log_probabilities(samples)[0], spread)
        again = torch.equal(copied.log_probabilities(samples)[0], spread)
    return {
        "all": sum(p.numel() for p in before.parameters()),
        "held": sum(p.numel() for p in held),
        "moments": moments,
        "whole again": sum(p.numel() for p in policy.parameters()),
        "tied": policy.model.lm_head.weight is policy.model.model.embed_tokens.weight,
        "same": same,
        "written": own == general,
        "moved": float(moved),
        "back": back,
        "copied": again,
    }


def stop_and_resume(given: Any, folder: Path, own: Path) -> None:
    """An alarm after the second step; a copy of the checkpoint for one process; then the training goes on."""

    def log(metrics: dict[str, float]) -> None:
        if metrics["step"] == 2:
            raise UserError("an alarm")

    checkpoints = folder / "checkpoints"
    with contextlib.suppress(UserError):
        RESUMED.train(replace(given, log=log, checkpoints=checkpoints))
    processes.wait()
    if processes.is_first():
        shutil.copytree(checkpoints, folder / "for one")
    save_file(
        {"parameters": numbers(RESUMED.train(replace(given, checkpoints=checkpoints)))}, own / "resumed.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
