"""Annotated pairs in a loss: what DPO, IPO, SLiC, ORPO and SimPO are functions of, and the loop of the plain ones.

Each of them is a loss of the log-likelihoods of both responses of a pair, those of the reference where the method has
one (computed once, before training), and the label. A method says ``pair_loss``: its loss of each pair, and its margin,
how far it puts the first response above the second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from farm.base.bounds import Count
from farm.policies.batches import onto
from farm.roles.protocols import Learning, Policy
from farm.roles.work import Texts
from reference_methods.parts.batches import Batch, index, log_likelihoods
from reference_methods.parts.precision import in_16_bits
from reference_methods.parts.preferences import Preferences, agreement
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline


@dataclass(frozen=True)
class Pairs:
    """b annotated pairs in a loss; the first index says which response, 0 the first shown and 1 the second."""

    log_likelihoods: Tensor
    """log pi(y|x), summed over response tokens with the end of sequence, [2, b], with gradient"""
    reference: Tensor
    """log pi_ref(y|x), [2, b]; zeros for a method without a reference"""
    lengths: Tensor
    """response tokens, at least 1, [2, b]"""
    label: Tensor
    """how far the first is preferred: 1, 0, 1/2 for a tie, or in between, [b]"""

    @property
    def log_ratio(self) -> Tensor:
        """h(y) = log pi(y|x) - log pi_ref(y|x), [2, b]."""
        return self.log_likelihoods - self.reference

    @property
    def mean_log_likelihoods(self) -> Tensor:
        """log pi(y|x) per token, [2, b]."""
        return self.log_likelihoods / self.lengths


@dataclass(frozen=True)
class PairsWithReference:
    """All annotated pairs, with their log-likelihoods under the reference, or who gives them."""

    pairs: Preferences
    reference: Tensor
    """[2, n]; zeros where there is none"""
    writer: Policy | None = None
    """the reference itself, in 16 bits: they round by what is computed together, so it is asked about each micro-batch,
    and the ratio to it is 1 until the policy has moved"""

    @classmethod
    def of(cls, pairs: Preferences, trainer: Trainer, reference: Policy | None) -> PairsWithReference:
        if reference is None:
            return cls(pairs, torch.zeros(2, len(pairs)))
        if in_16_bits(reference):
            return cls(pairs, torch.zeros(2, len(pairs)), reference)
        both = pairs.both(np.arange(len(pairs)))
        return cls(pairs, trainer.compute(partial(log_likelihoods, reference), both).view(2, -1))

    def under(self, policy: Policy, batch: Batch) -> Pairs:
        """The pairs of a batch as ``policy`` sees them."""
        rows, sides, both = batch.rows, (self.pairs.first, self.pairs.second), self.pairs.both(batch.rows)
        if self.writer is None:
            reference = self.reference[:, index(rows, self.reference)]
        else:
            with torch.no_grad():
                reference = log_likelihoods(self.writer, both).view(2, -1)
        written = log_likelihoods(policy, both).view(2, -1)
        lengths = onto(np.stack([side.lengths()[rows].clip(min=1) for side in sides]), written.device)
        reference, lengths = reference.to(written), lengths.to(written.dtype)
        return Pairs(written, reference, lengths, self.pairs.labels(rows, written))


def pair_metrics(pairs: Pairs, margin: Tensor, batch: Batch, anchored: bool = True) -> dict[str, Tensor]:
    """Both sides apart, for the margin may grow while both become less likely."""
    shown, what = (pairs.log_ratio, "log_ratio") if anchored else (pairs.log_likelihoods, "log_likelihood")
    chosen = torch.where(pairs.label >= 0.5, shown[0], shown[1])
    return {
        "accuracy": batch.mean(agreement(margin, pairs.label)),
        "margin": batch.mean((2 * pairs.label - 1) * margin),
        f"chosen_{what}": batch.mean(chosen),
        f"rejected_{what}": batch.mean(shown.sum(0) - chosen),
    }


@dataclass(frozen=True, kw_only=True)
class PairMethod(Offline):
    """Settings and loop of the methods that train a policy on annotated pairs."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    batch_size: Count = 64
    """pairs of one optimizer step"""

    def uses_reference(self) -> bool:
        """Whether the loss looks at the reference."""
        return True

    def work(self, prompts: int, pairs: int) -> Texts | None:
        texts = super().work(prompts, pairs)
        return texts if texts is None or self.uses_reference() else replace(texts, read=0.0)

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """The loss of each pair and the margin of its first response over its second, [b] each."""
        raise NotImplementedError

    def train(self, learning: Learning) -> Policy:
        pairs, policy = Preferences.read(learning), self.start(learning)
        networks, reference = [(policy, self.learning_rate)], learning.reference if self.uses_reference() else None
        with Trainer(self, learning, type(self).__name__.lower(), networks) as trainer:
            data = PairsWithReference.of(pairs, trainer, reference)
            for batch in trainer.batches(pairs.training_rows()):
                trainer.update(batch, partial(self.loss, policy, data))
        return policy

    def loss(self, policy: Policy, data: PairsWithReference, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = data.under(policy, batch)
        losses, margin = self.pair_loss(pairs)
        return batch.mean(losses), pair_metrics(pairs, margin, batch, self.uses_reference())
