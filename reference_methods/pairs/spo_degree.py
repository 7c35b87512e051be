"""SPO-degree: beside any loss of pairs, the policy learns to tell how much of a response was left out.

    L = L_pairs(DPO, IPO, SimPO, ...) + gamma x mean of -log softmax(A h(x, y~))_d

y~ is a copy of each response of a pair with key tokens left out to a degree d in 0 .. D drawn for it
(parts/degrees.py), h the model's last state at its end, A a linear head that is thrown away afterwards. The copies are
never preferred or rejected: they are data that need no label. With gamma 0 it is the other method to the bit.

Paper: SPO (Li et al., arXiv 2409.17791): DPO, IPO, KTO, SimPO with it on TL;DR and HH; key content by RAKE, several
degrees. Deviations: rare tokens in place of RAKE's phrases; one copy of each response and step; gamma, D and the head's
shape are not given in what could be read: 0.1, 4, linear. The head has a learning rate of its own: it starts at 0, and
in the few steps of a policy's small rate it would tell nothing, so that nothing would be learnt from it.
``deletion: random`` leaves out as many tokens, whichever: the control.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from farm.base import rng
from farm.base.bounds import Bounded, Count, NotNegative, PositiveShare
from farm.base.errors import UserError
from farm.policies.batches import onto
from farm.policies.language_model import LanguageModelPolicy
from farm.roles.protocols import Learning, Method, Policy, Samples
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.batches import Batch, total_lengths
from reference_methods.parts.degrees import Degrees
from reference_methods.parts.pairs import PairMethod, PairsWithReference
from reference_methods.parts.preferences import Preferences
from reference_methods.parts.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class SPODegree(Bounded):
    """Trains the policy on ``preferences`` by another method, and on degrees."""

    method: Method | None = None
    """whose loss of pairs; DPO where omitted"""
    gamma: NotNegative = 0.1
    """the weight of the degrees"""
    head_learning_rate: NotNegative = 1e-2
    """of A"""
    levels: Count = 4
    """D"""
    most: PositiveShare = 0.3
    """the share of a response's tokens that is left out at degree D"""
    deletion: Literal["key", "random"] = "key"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"pairs"})

    def train(self, learning: Learning) -> Policy:
        method = self.method or DPO()
        if not isinstance(method, PairMethod):
            raise UserError(
                f"spo_degree: `method` must learn from pairs, as dpo, ipo or simpo; {type(method).__name__} does not"
            )
        pairs, policy = Preferences.read(learning), method.start(learning)
        networks: list[tuple[Any, float]] = [(policy, method.learning_rate)]
        head = None
        if self.gamma:
            head = DegreeHead(policy, self.levels)
            networks.append((head, self.head_learning_rate))
        reference = learning.reference if method.uses_reference() else None
        with Trainer(method, learning, type(method).__name__.lower(), networks) as trainer:
            data = PairsWithReference.of(pairs, trainer, reference)
            degrees = self.degrees(pairs, policy) if head else None
            for batch in trainer.batches(pairs.training_rows()):
                loss = partial(method.loss, policy, data)
                if head and degrees:
                    key = trainer.key("degrees")
                    loss = partial(self.loss, method, policy, data, head, degrees, (learning.seed, key))
                trainer.update(batch, loss)
        return policy

    def degrees(self, pairs: Preferences, policy: Policy) -> Degrees:
        """How tokens are left out, with their rarity among both sides of the pairs."""
        assert isinstance(policy, LanguageModelPolicy)
        responses = [*pairs.first.response_tokens, *pairs.second.response_tokens]
        ends, at_random = policy.conversation.ends, self.deletion == "random"
        return Degrees.of(responses, policy.body.vocabulary, ends, self.levels, self.most, at_random)

    def loss(
        self,
        method: PairMethod,
        policy: Policy,
        data: PairsWithReference,
        head: DegreeHead,
        degrees: Degrees,
        draws: tuple[int, str],
        batch: Batch,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        preferred, metrics = method.loss(policy, data, batch)
        both, rows = data.pairs.both(batch.rows), data.pairs.ids[batch.rows]
        ids = rng.combine(np.concatenate([rows, rows]), rng.text_ids(both.outputs))
        copies, degree = degrees.copies(both, ids, *draws)
        told = head(copies)
        wanted = onto(degree, told.device)
        found = cross_entropy(told, wanted, reduction="none").view(2, -1).mean(0)
        right = (told.detach().argmax(1) == wanted).to(told.dtype).view(2, -1).mean(0)
        more = {"degree_loss": batch.mean(found), "degree_accuracy": batch.mean(right)}
        return preferred + self.gamma * batch.mean(found), {**metrics, **more}


class DegreeHead:
    """A linear map of the policy's last state at the end of a response to D + 1 degrees; it starts at 0."""

    def __init__(self, policy: Policy, levels: int) -> None:
        if not isinstance(policy, LanguageModelPolicy):
            raise UserError(f"spo_degree reads states of language models, not of a {type(policy).__name__}")
        self.body = policy.body
        self.weight = torch.nn.Parameter(torch.zeros(levels + 1, policy.body.width, device=policy.body.device))
        self.bias = torch.nn.Parameter(torch.zeros(levels + 1, device=policy.body.device))

    def __call__(self, samples: Samples) -> Tensor:
        """Logits of the degrees, [B, D + 1]."""
        last = total_lengths(samples) - 1
        states = self.body.hidden(samples, last, np.ones_like(last))
        return torch.nn.functional.linear(states.float(), self.weight, self.bias)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.weight, self.bias]
