"""Policies that choose among n samples of another one by a reward model: all that does not depend on how they choose.

Their samples carry the log-probabilities that the other policy gave them: those of what is chosen have no closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch

from farm.policies import load
from farm.roles.protocols import Policy, Samples, Scorer
from farm.tables.turns import Prompt


class Choosing:
    """A policy but for its ``sample``, ``copy``, ``save`` and ``load``.

    Args:
        policy: whose samples are chosen from.
        scorer: by which.
        n: samples drawn for each prompt.
    """

    def __init__(self, policy: Policy, scorer: Scorer, n: int, micro_batch_tokens: int = 4096) -> None:
        self.policy, self.reward_model, self.n = policy, scorer, n
        self.micro_batch_tokens = micro_batch_tokens

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError("the likelihood of the best of n samples has no closed form; see `kl_bound`")

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError("the best of n samples is not written token by token; see `kl_bound`")

    def encode(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> Samples:
        return self.policy.encode(prompts, outputs)

    def scorer(self, seed: int) -> Scorer:
        return self.policy.scorer(seed)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.policy.parameters()

    def save_parts(self, folder: Path) -> None:
        self.policy.save(folder / "policy")
        self.reward_model.save(folder / "reward_model")


def load_parts(folder: Path) -> tuple[Policy, Scorer]:
    """What :meth:`Choosing.save_parts` saved."""
    return cast(Policy, load(folder / "policy")), cast(Scorer, load(folder / "reward_model"))
