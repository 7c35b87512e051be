"""Quark, quantised reward conditioning: sort what was written into quantiles of reward, learn each under its own token.

    for each step:  y ~ pi(. | best token, x), scored and put in a pool, which is sorted into K equal quantiles
                    L = -log pi(y | q, x) + beta KL(pi(. | q, x) || pi_ref(. | x)) - entropy H(pi(. | q, x)),
                    mean over tokens, on minibatches from the pool, q the token of y's quantile
    answers:        pi(. | best token, x)

The KL is exact at every place (the sum over the vocabulary), in the direction of the public codes; the reference does
not see the token. The first batch is sampled without a token. No policy gradient and no value network is needed.

Paper: Lu et al. (arXiv 2205.13636): K 5, beta 0.05, learning rate 1e-5, batch 128; in its code entropy 0.06.
Defaults: 80 steps of 512 samples, each learnt from in two minibatches; otherwise the paper's, entropy 0.
Deviations: the tokens are words (``quantile_texts``) unless special tokens of the tokenizer are named; nothing is added
to the vocabulary. The pool is in the checkpoints, so they grow with it. ``alpaca_farm_quark`` is AlpacaFarm's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base import rng
from farm.base.bounds import Count, NotNegative, Several
from farm.policies.batches import of_sampled
from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.turns import prefixed
from reference_methods.parts import kl
from reference_methods.parts.batches import Batch, TrainingRows
from reference_methods.parts.checkpoints import packed, unpacked
from reference_methods.parts.conditioning import ConditionedPolicy, controllable, with_prompts
from reference_methods.parts.online import NO_RATIO, Online, OnlineTrainer


@dataclass(frozen=True, kw_only=True)
class Quark(Online):
    """Trains the policy on its own samples, sorted by the reward model."""

    unused_settings: ClassVar[dict[str, str]] = NO_RATIO

    quantiles: Several = 5
    quantile_texts: Sequence[str] | None = None
    """what stands before a prompt for each quantile, worst first; words where omitted"""
    beta: NotNegative = 0.05
    """the coefficient of the KL to the SFT policy, in the loss"""
    entropy: NotNegative = 0.0
    """the coefficient of the entropy of each next token"""
    epochs: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantiles > self.rollouts:
            raise ValueError(f"there cannot be more quantiles ({self.quantiles}) than rollouts ({self.rollouts})")
        if self.quantile_texts is not None and len(set(self.quantile_texts)) != self.quantiles:
            raise ValueError(f"quantile_texts must be {self.quantiles} different texts, one a quantile, worst first")

    def texts(self) -> list[str]:
        """What stands before a prompt for each quantile, worst first."""
        if self.quantile_texts is not None:
            return list(self.quantile_texts)
        return [f"Quality {k + 1} of {self.quantiles}. " for k in range(self.quantiles)]

    def train(self, learning: Learning) -> Policy:
        policy = controllable(self.start(learning), self.texts())
        pool = Pool(ConditionedPolicy(policy, ""), self.texts())
        networks = [(policy, self.learning_rate)]
        with OnlineTrainer(self, learning, "quark", networks, state={"pool": pool}) as trainer:
            for rollout in trainer.rollouts(pool.writer):
                pool.add(rollout.samples, rollout.scores.double().cpu().numpy())
                plain, conditioned = pool.samples, pool.conditioned(policy)
                trainer.log(pool=len(plain))
                for batch in self.draws(plain, learning.seed, trainer.key()):
                    trainer.update(batch, partial(self.loss, policy, learning.reference, plain, conditioned))
        return pool.writer

    def draws(self, pool: Samples, seed: int, key: str) -> Iterator[Batch]:
        """As many minibatches as a batch of rollouts has, each drawn afresh from the pool."""
        rows, size = TrainingRows.of(pool), min(len(pool), max(1, self.rollouts // self.minibatches))
        for update in range(self.epochs * self.minibatches):
            yield rows.batch(rng.permutation(rows.ids, seed, f"{key}/update {update}")[:size])

    def loss(
        self, policy: Policy, reference: Policy, plain: Samples, conditioned: Samples, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = conditioned.select(batch.rows)
        if not self.beta and not self.entropy:  # the vocabulary need not be looked at
            likelihood, mask = policy.log_probabilities(chosen, self.temperature)
            nll = batch.mean(-likelihood, mask)
            return nll, {"nll": nll}
        new, mask = policy.distributions(chosen, self.temperature)
        with torch.no_grad():
            old, _ = reference.distributions(plain.select(batch.rows), self.temperature)
        nll, divergence = batch.mean(-of_sampled(new, chosen, mask), mask), batch.mean(kl.full(new, old), mask)
        loss = nll + self.beta * divergence
        if self.entropy:
            loss = loss + self.entropy * batch.mean((new.exp() * new).sum(-1), mask)
        return loss, {"nll": nll, "token_kl": divergence}


def quantile_of(scores: NDArray[np.float64], quantiles: int) -> NDArray[np.int64]:
    """The quantile of each score, 0 the worst; as equal in size as can be, equal scores by their place, [n]."""
    rank = np.empty(len(scores), dtype=np.int64)
    rank[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return rank * quantiles // max(1, len(scores))


@dataclass
class Pool:
    """All that was written so far, with its scores. From the second step on ``writer`` is asked for the best."""

    writer: ConditionedPolicy
    texts: list[str]
    parts: list[Samples] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, samples: Samples, scores: NDArray[np.float64]) -> None:
        self.parts, self.scores = [*self.parts, samples], [*self.scores, scores]
        self.writer.control = self.texts[-1]

    @property
    def samples(self) -> Samples:
        return Samples.concatenate(self.parts)

    def conditioned(self, policy: Policy) -> Samples:
        """Every response under the text of its quantile among all."""
        samples = self.samples
        quantile = quantile_of(np.concatenate(self.scores), len(self.texts))
        asked = [prefixed(self.texts[q], p) for q, p in zip(quantile, samples.prompts, strict=True)]
        return with_prompts(policy, samples, asked)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, for a checkpoint."""
        return {"scores": torch.from_numpy(np.concatenate(self.scores)), **packed(self.samples)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.parts, self.scores = [], []
        self.add(unpacked(state), state["scores"].numpy())
