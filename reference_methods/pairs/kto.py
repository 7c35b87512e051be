"""Kahneman-Tversky optimisation: single responses, each desirable or not, against a common reference point.

    h(y) = log pi(y|x) - log pi_ref(y|x), summed over tokens
    z0   = max(0, mean of h(y') over responses y' to other prompts)
    L    = w_D (1 - sigma(beta (h - z0)))  if y is desirable,   w_U (1 - sigma(beta (z0 - h)))  if it is not

z0 estimates KL(pi || pi_ref), is not differentiated, and is one number a minibatch. The loss saturates on both sides:
a response that is far from the reference point, as a mislabelled one soon is, loses its pull.

Paper: Ethayarajh et al. (arXiv 2402.01306), eqs. 7 and 8: beta 0.1, weights with w_D n_D / (w_U n_U) between 1 and
4/3; 1 and 1 here, for every pair gives one desirable response, its preferred one, and one that is not.
Deviations: a tie is half of each. y' is the response to the next prompt in an order fixed for the run (so that its
reference log-probability is computed once), not the next in the batch; it is cut to the longest text of the data. The
mean is over the whole minibatch, however it is cut to fit into memory. Where all pairs are of one prompt, y' is the
response of another pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from farm.base import rng
from farm.base.bounds import Count, NotNegative
from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.turns import prompt_ids
from reference_methods.parts.batches import Batch, TrainingRows, index, log_likelihoods, total_lengths
from reference_methods.parts.losses import prospect
from reference_methods.parts.preferences import Preferences
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline


@dataclass(frozen=True, kw_only=True)
class KTO(Offline):
    """Trains the policy on both sides of ``preferences``, each by itself."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    beta: NotNegative = 0.1
    """strength of the anchor to the SFT policy"""
    weight_desirable: NotNegative = 1.0
    weight_undesirable: NotNegative = 1.0
    epochs: Count = 2
    batch_size: Count = 64
    """responses of one optimizer step; the reference point is their mean"""
    learning_rate: NotNegative = 1e-6

    def train(self, learning: Learning) -> Policy:
        pairs, policy = Preferences.read(learning), self.start(learning)
        samples, others = Samples.concatenate([pairs.first, pairs.second]), mismatched(pairs, learning.seed)
        desirable = torch.as_tensor(np.concatenate([pairs.p_first, 1 - pairs.p_first]))
        ours, theirs = partial(log_likelihoods, policy), partial(log_likelihoods, learning.reference)
        ids = rng.combine(np.tile(pairs.ids, 2), rng.text_ids(samples.outputs))
        with Trainer(self, learning, "kto", [(policy, self.learning_rate)]) as trainer:
            reference, elsewhere = trainer.compute(theirs, samples), trainer.compute(theirs, others)
            for batch in trainer.batches(replace(TrainingRows.of(samples), ids=ids)):
                ratio = trainer.compute(ours, others.select(batch.rows)) - elsewhere[index(batch.rows, elsewhere)]
                point, likes = ratio.mean().clamp(min=0), float(desirable[batch.rows].sum())
                trainer.update(batch, partial(self.loss, policy, samples, desirable, reference, point, likes))
        return policy

    def loss(
        self,
        policy: Policy,
        samples: Samples,
        desirable: Tensor,
        reference: Tensor,
        point: Tensor,
        likes: float,
        batch: Batch,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rows, total = batch.rows, batch.totals.sequences
        ratio = log_likelihoods(policy, samples.select(rows)) - reference[index(rows, reference)]
        liked = desirable[torch.as_tensor(rows)].to(ratio, non_blocking=True)
        value = self.beta * (ratio - point)
        return batch.mean(prospect(value, liked, self.weight_desirable, self.weight_undesirable)), {
            "accuracy": batch.mean(0.5 + 0.5 * torch.sign(value.detach()) * torch.sign(liked - 0.5)),
            "chosen_log_ratio": (liked * ratio).sum() / max(likes, 1e-9),
            "rejected_log_ratio": ((1 - liked) * ratio).sum() / max(total - likes, 1e-9),
            "reference_point": point * len(rows) / total,
        }


def mismatched(pairs: Preferences, seed: int) -> Samples:
    """For each response, first sides then second, its prompt with a response to another: 2 n samples.

    The response is to the same prompt only where more than half of all pairs are of that prompt.
    """
    ids = rng.combine(pairs.ids, rng.text_ids(pairs.first.outputs))  # the two orders of a pair differ
    order = rng.permutation(ids, seed, "kto/others")
    prompts = prompt_ids(pairs.first.prompts)[order]
    _, first, prompt, counts = np.unique(prompts, return_index=True, return_inverse=True, return_counts=True)
    order = order[np.argsort(first[prompt], kind="stable")]  # the pairs of a prompt together
    longest = int(counts.max())  # as many pairs further on stands another prompt
    partner = np.empty_like(order)
    partner[order] = np.roll(order, -longest if longest < len(order) else -1)
    samples = Samples.concatenate([pairs.first, pairs.second])
    theirs = Samples.concatenate([pairs.first.select(partner), pairs.second.select(partner)])
    room = int(total_lengths(samples).max())
    tokens = [
        response[: max(1, room - len(prompt))]
        for prompt, response in zip(samples.prompt_tokens, theirs.response_tokens, strict=True)
    ]
    return replace(theirs, prompts=samples.prompts, prompt_tokens=samples.prompt_tokens, response_tokens=tokens)
