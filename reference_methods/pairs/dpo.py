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
from functools import partial

from torch import Tensor

from farm.base.bounds import Count, ErrorRate, NotNegative
from farm.roles.protocols import Learning, Policy
from reference_methods.parts.losses import bradley_terry
from reference_methods.parts.pairs import PairMethod, Pairs, PairsWithReference
from reference_methods.parts.precision import AtStart
from reference_methods.parts.preferences import Preferences
from reference_methods.parts.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class DPO(PairMethod):
    """Trains the policy on ``preferences``."""

    beta: NotNegative = 0.1
    """strength of the anchor to the SFT policy"""
    label_smoothing: ErrorRate = 0.0
    """the share of labels assumed to be flipped"""
    robust: bool = False
    """whether the assumed flips are corrected for (robust DPO) rather than smoothed over (cDPO)"""
    epochs: Count = 2
    batch_size: Count = 64
    learning_rate: NotNegative = 1e-6

    def train(self, learning: Learning) -> Policy:
        pairs, policy = Preferences.read(learning), self.start(learning)
        networks, start = [(policy, self.learning_rate)], {}
        if learning.reference is learning.policy and type(self).pair_loss is DPO.pair_loss:  # then all margins are 0
            start["loss"] = AtStart(math.log(2), self.beta / 2, self.beta**2 / 4)
        with Trainer(self, learning, "dpo", networks, at_start=start) as trainer:
            data = PairsWithReference.of(pairs, trainer, learning.reference)
            for batch in trainer.batches(pairs.training_rows()):
                trainer.update(batch, partial(self.loss, policy, data))
        return policy

    def pair_loss(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        margin = self.beta * (pairs.log_ratio[0] - pairs.log_ratio[1])
        return bradley_terry(margin, pairs.label, self.label_smoothing, self.robust), margin
