"""Direct preference optimisation: the policy is its own reward model.

    h(y) = log pi(y|x) - log pi_ref(y|x), summed over response tokens, end of sequence included
    L = -[p log sigma(m) + (1 - p) log sigma(-m)],   m = beta (h(y_1) - h(y_2)),   mean over pairs

With Bradley-Terry labels of a utility u the optimum is pi_ref exp(u / beta) / Z. Before the first step pi = pi_ref, so
the loss is ln 2 whatever the labels are, which is checked: it catches a wrong reference, dropout, a wrong mask.

Paper: Rafailov et al. (arXiv 2305.18290), eq. 7. ``label_smoothing`` is cDPO; with ``robust`` it is robust DPO (arXiv
2403.00409), whose expectation under that rate of flips is the loss of clean labels.
Settings of AlpacaFarm (arXiv 2305.14387): beta 0.1, 2 epochs, learning rate 1e-6 with cosine decay, batch 64.
Deviations: a tie counts half for both sides. The log-probabilities of the reference are computed once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farm.protocols import Learning, Policy, Samples
from reference_methods.parts.aggregation import Totals
from reference_methods.parts.batches import Rows, in_parts, index, log_likelihoods
from reference_methods.parts.descent import Descent
from reference_methods.parts.losses import bradley_terry
from reference_methods.parts.preferences import Preferences, agreement


@dataclass(frozen=True, kw_only=True)
class DPO(Descent):
    """Trains the policy on ``preferences``."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})

    beta: float = 0.1
    """strength of the anchor to the SFT policy"""
    label_smoothing: float = 0.0
    """the share of labels assumed to be flipped"""
    robust: bool = False
    """whether the assumed flips are corrected for (robust DPO) rather than smoothed over (cDPO)"""
    epochs: int = 2
    batch_size: int = 64
    learning_rate: float = 1e-6

    def train(self, learning: Learning) -> Policy:
        pairs = Preferences.read(learning)
        policy = learning.policy.copy()
        first, second = (self._reference(learning.policy, side) for side in (pairs.first, pairs.second))
        reference = torch.stack([first, second])

        def loss(rows: Rows, totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
            log_ratio = log_likelihoods(policy, pairs.both(rows)).view(2, -1) - reference[:, index(rows, reference)]
            margin, label = self.beta * (log_ratio[0] - log_ratio[1]), pairs.labels(rows, log_ratio)
            losses = bradley_terry(margin, label, self.label_smoothing, self.robust)
            chosen = torch.where(label >= 0.5, log_ratio[0], log_ratio[1])
            return losses.sum() / totals.sequences, {
                "accuracy": agreement(margin, label).sum() / totals.sequences,
                "margin": ((2 * label - 1) * margin).sum() / totals.sequences,
                "chosen_log_ratio": chosen.sum() / totals.sequences,
                "rejected_log_ratio": (log_ratio.sum(0) - chosen).sum() / totals.sequences,
            }

        self.descend(
            loss,
            policy.parameters(),
            learning,
            "dpo",
            ids=pairs.ids,
            lengths=pairs.lengths(),
            response_tokens=pairs.first.lengths() + pairs.second.lengths(),
            first_loss=math.log(2),
        )
        return policy

    def _reference(self, policy: Policy, samples: Samples) -> Tensor:
        return in_parts(lambda part: log_likelihoods(policy, part), samples, self.micro_batch_tokens)
