"""Learning from annotated pairs with a policy: the loop that DPO, IPO, SLiC, ORPO and SimPO share.

Each of them is a loss of what this loop computes: the log-likelihoods of both responses of a pair, those of the
reference where the method has one (computed once, before training), and the label. A method says ``contrast``: its loss
of each pair, and its margin, how far it puts the first response above the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from farm.protocols import Learning, Policy
from reference_methods.parts.aggregation import Totals
from reference_methods.parts.batches import Rows, in_parts, index, log_likelihoods
from reference_methods.parts.descent import Descent
from reference_methods.parts.preferences import Preferences, agreement


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


@dataclass(frozen=True, kw_only=True)
class Contrast(Descent):
    """Settings and loop of the methods that train a policy on ``preferences``."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    first_loss: ClassVar[float | None] = None
    """what the loss is before the first step, whatever the labels are"""

    batch_size: int = 64
    """pairs of one optimizer step"""

    def uses_reference(self) -> bool:
        """Whether the loss looks at the reference."""
        return True

    def contrast(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """The loss of each pair and the margin of its first response over its second, [b] each."""
        raise NotImplementedError

    def train(self, learning: Learning) -> Policy:
        pairs = Preferences.read(learning)
        policy, purpose = self.start(learning), type(self).__name__.lower()
        counts = [torch.as_tensor(side.lengths()).clamp(min=1) for side in (pairs.first, pairs.second)]
        reference = self._reference(learning.policy, pairs) if self.uses_reference() else torch.zeros(2, len(pairs))

        def loss(rows: Rows, totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
            written = log_likelihoods(policy, pairs.both(rows)).view(2, -1)
            batch = Pairs(
                written,
                reference[:, index(rows, reference)].to(written),
                torch.stack(counts)[:, torch.as_tensor(rows)].to(written),
                pairs.labels(rows, written),
            )
            losses, margin = self.contrast(batch)
            return losses.sum() / totals.sequences, {
                name: value.sum() / totals.sequences for name, value in self._metrics(batch, margin).items()
            }

        self.descend(
            loss,
            policy,
            learning,
            purpose,
            ids=pairs.ids,
            lengths=pairs.lengths(),
            response_tokens=pairs.first.lengths() + pairs.second.lengths(),
            first_loss=self.first_loss,
        )
        return policy

    def _metrics(self, pairs: Pairs, margin: Tensor) -> dict[str, Tensor]:
        """Both sides apart, for the margin may grow while both become less likely; [b] each."""
        shown, what = (
            (pairs.log_ratio, "log_ratio") if self.uses_reference() else (pairs.log_likelihoods, "log_likelihood")
        )
        chosen = torch.where(pairs.label >= 0.5, shown[0], shown[1])
        return {
            "accuracy": agreement(margin, pairs.label),
            "margin": (2 * pairs.label - 1) * margin,
            f"chosen_{what}": chosen,
            f"rejected_{what}": shown.sum(0) - chosen,
        }

    def _reference(self, policy: Policy, pairs: Preferences) -> Tensor:
        both = pairs.both(np.arange(len(pairs)))
        return in_parts(lambda part: log_likelihoods(policy, part), both, self.micro_batch_tokens, True).view(2, -1)
