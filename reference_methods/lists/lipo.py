"""LiPO, listwise preference optimisation: alignment as learning to rank, from K labelled responses to each prompt.

    y_1 .. y_K ~ pi_ref,   psi_k = mean over i of P(y_k > y_i),   s_k = beta (log pi - log pi_ref)(y_k)
    L = a ranking loss of s against psi, mean over lists         (reference_methods/parts/listwise.py has seven)

The lambda loss weighs each pair by what exchanging its two places would cost the ranking: wrong orders at the top cost
most. ``pair_logistic`` is DPO on all pairs of a list, ``pair_hinge`` SLiC.

Paper: Liu et al. (arXiv 2402.01878): K = 8 sampled at temperature 0.7, psi from a pairwise ranking model, beta 0.05,
batch 32, learning rate 2e-5 with Adafactor.
Deviations: Adam; samples of the whole distribution at temperature 1 (the paper's are cut at top-k 40);
P(y_k > y_i) = sigma(r_k - r_i) of the experiment's reward model, which takes one pass over the list where a model that
reads pairs takes K^2. With ``hard`` psi_k is the share of the *other* responses that y_k beats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from farm.base.bounds import Count, NotNegative, Positive, Several
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy, Samples
from farm.roles.work import Texts
from farm.tables.turns import prompt_ids, prompts_of
from reference_methods.parts.batches import Batch, TrainingRows, index, log_likelihoods, sampled, total_lengths
from reference_methods.parts.listwise import ListLoss, list_loss
from reference_methods.parts.scored import Scored
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline


@dataclass(frozen=True, kw_only=True)
class LiPO(Scored, Offline):
    """Trains the policy on lists of the SFT policy's responses, labelled by the reward model."""

    loss: ListLoss = "lambda"
    list_size: Several = 8
    """K"""
    hard: bool = False
    """whether only the order of the reward model counts"""
    prompts: Count | None = None
    """how many lists; one for each prompt that there is where omitted"""
    beta: NotNegative = 0.05
    """strength of the anchor to the SFT policy"""
    temperature: Positive = 1.0
    """of the samples"""
    epochs: Count = 2
    batch_size: Count = 32
    """lists of one optimizer step"""
    learning_rate: NotNegative = 2e-5

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        n = min(self.prompts or prompts, prompts) * self.list_size
        return Texts(self.epochs * n, 2 * n, n)

    def train(self, learning: Learning) -> Policy:
        if not len(learning.prompts):
            raise UserError("lipo needs prompts to sample for: raise `sizes.prompts`")
        policy, scorer = self.start(learning), self.scorer(learning)
        samples = self.lists(learning)
        with Trainer(self, learning, "lipo", [(policy, self.learning_rate)]) as trainer:
            scores = trainer.compute(scorer.scores, samples).view(-1, self.list_size)
            reference = trainer.compute(partial(log_likelihoods, learning.reference), samples).view(-1, self.list_size)
            data = Lists(samples, labels(scores, self.hard), reference)
            for batch in trainer.batches(data.training_rows()):
                trainer.update(batch, partial(self.batch_loss, policy, data))
        return policy

    def lists(self, learning: Learning) -> Samples:
        """K responses of the SFT policy to each prompt, one list after the other; the same for every loss."""
        prompts = list(dict.fromkeys(prompts_of(learning.prompts)))[: self.prompts]
        asked = [prompt for prompt in prompts for _ in range(self.list_size)]
        return sampled(learning.policy, asked, seed=learning.seed, purpose="lipo/lists", temperature=self.temperature)

    def batch_loss(self, policy: Policy, data: Lists, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        where = index(batch.rows, data.reference)
        written = log_likelihoods(policy, data.responses(batch)).view(-1, self.list_size)
        ratio, psi = written - data.reference[where].to(written), data.labels[where].to(written)
        best, worst = psi.argmax(1, keepdim=True), psi.argmin(1, keepdim=True)
        return batch.mean(list_loss(self.loss, self.beta * ratio, psi)), {
            "accuracy": batch.mean(ordered_share(ratio.detach(), psi)),
            "chosen_log_ratio": batch.mean(ratio.gather(1, best)[:, 0]),
            "rejected_log_ratio": batch.mean(ratio.gather(1, worst)[:, 0]),
        }


@dataclass(frozen=True)
class Lists:
    """n lists of K responses."""

    samples: Samples
    """n K, one list after the other"""
    labels: Tensor
    """psi, [n, K]"""
    reference: Tensor
    """log pi_ref of each response, [n, K]"""

    def responses(self, batch: Batch) -> Samples:
        """Those of a batch of lists, b K."""
        size = self.labels.shape[1]
        return self.samples.select((batch.rows[:, None] * size + np.arange(size)).ravel())

    def training_rows(self) -> TrainingRows:
        """What a list costs to learn from."""
        shape = self.labels.shape
        lengths, tokens = (v.reshape(shape) for v in (total_lengths(self.samples), self.samples.lengths()))
        ids = prompt_ids(self.samples.prompts[:: shape[1]])
        return TrainingRows(ids, shape[1] * lengths.max(1), tokens.sum(1))


def labels(scores: Tensor, hard: bool) -> Tensor:
    """psi of each response of a list from its rewards, [n, K]: the mean chance to beat a response of the list, itself
    (one half) among them; ``hard``: the share of the others that it beats, a tie counting one half."""
    differences = scores[:, :, None] - scores[:, None, :]
    if not hard:
        return torch.sigmoid(differences).mean(2)
    return ((torch.sign(differences) + 1) / 2).sum(2).sub(0.5) / (scores.shape[1] - 1)


def ordered_share(scores: Tensor, psi: Tensor) -> Tensor:
    """The share of a list's pairs with different labels that the scores order alike, equal ones one half, [B]."""
    wanted, found = (torch.sign(v[:, :, None] - v[:, None, :]) for v in (psi, scores))
    differing = wanted.abs().sum((1, 2)).clamp(min=1)
    return ((1 + wanted * found) / 2 * wanted.abs()).sum((1, 2)) / differing
