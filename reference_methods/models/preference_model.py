"""Pairwise preference model: a network reads both responses, and cannot contradict itself when they are exchanged.

    P(y > y' | x) = sigma(g(x, y'; y) - g(x, y; y'))

g is a scalar head on a copy of the SFT policy that scores a response with the other one before it, after the prompt.
The difference changes its sign with the order by construction, so P(y > y') + P(y' > y) = 1 for any weights, and any
preferences can be fitted, cycles among them. It costs a pass over x, y, y' for each order of each pair.

Papers: the preference models of Munos et al. (arXiv 2312.00886) and of RLHF workflow (arXiv 2405.07863) are asked in
both orders and averaged; here both orders enter the logit, so nothing is left to average. In the table it is a free
antisymmetric table of log-odds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from farm.policies import load, write_descriptor
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Learning, Policy, Samples, Scorer
from reference_methods.parts.games.models import PreferenceFit

PAIRS = "pairs.safetensors"


@dataclass(frozen=True, kw_only=True)
class PairwisePreferenceModel(PreferenceFit):
    """Fits one to ``preferences``."""

    def begin(self, policy: Policy, seed: int) -> Pairwise | PairwiseTable:
        if isinstance(policy, TabularPolicy):
            return PairwiseTable(policy)
        return Pairwise(policy.scorer(seed))

    def train(self, learning: Learning) -> Pairwise | PairwiseTable:
        model = self.begin(learning.policy, learning.seed)
        self.fit(model, learning)
        return model


@dataclass(frozen=True)
class Pairwise:
    """The fitted model on a language model."""

    scorer: Scorer

    def logits(self, first: Samples, second: Samples) -> Tensor:
        """Log-odds of first over second, [B]; both orders in one pass."""
        scores = self.scorer.scores(Samples.concatenate([after(second, first), after(first, second)]))
        return scores[: len(first)] - scores[len(first) :]

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.scorer.parameters()

    def save(self, folder: Path) -> None:
        write_descriptor(folder, Pairwise, {})
        self.scorer.save(folder / "scorer")

    @classmethod
    def load(cls, folder: Path) -> Pairwise:
        scorer = load(folder / "scorer")
        assert isinstance(scorer, Scorer)
        return cls(scorer)


def after(context: Samples, responses: Samples) -> Samples:
    """``responses`` with the tokens of another response between their prompt and them."""
    prompts = [
        np.concatenate([prompt, other])
        for prompt, other in zip(responses.prompt_tokens, context.response_tokens, strict=True)
    ]
    return replace(responses, prompt_tokens=prompts)


class PairwiseTable:
    """The fitted model in the table: log-odds of each pair, [S, K, K], of which the antisymmetric part counts."""

    def __init__(self, policy: TabularPolicy) -> None:
        self.policy = policy
        prompts, responses = policy.logits.shape
        self.table = torch.nn.Parameter(torch.zeros(prompts, responses, responses, dtype=policy.logits.dtype))

    def logits(self, first: Samples, second: Samples) -> Tensor:
        states, rows = (place[:, 0] for place in self.policy.rows.where(first))
        columns = self.policy.rows.where(second)[1][:, 0]
        return self.table[states, rows, columns] - self.table[states, columns, rows]

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield self.table

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        write_descriptor(folder, PairwiseTable, {})
        self.policy.save(folder / "policy")
        save_file({"log_odds": self.table.detach()}, folder / PAIRS)

    @classmethod
    def load(cls, folder: Path) -> PairwiseTable:
        from safetensors.torch import load_file

        found = cls(TabularPolicy.load(folder / "policy"))
        with torch.no_grad():
            found.table.copy_(load_file(folder / PAIRS)["log_odds"])
        return found
