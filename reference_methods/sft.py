"""Supervised fine-tuning: maximum likelihood of given responses.

    L = - sum over response tokens of log pi(y_t | x, y_<t) / number of response tokens in the minibatch

The prompt has no loss; the end of sequence has, or the policy would never stop. A response may carry a weight, which
enters the sum and the count alike.

Paper: the start of every method here; settings of AlpacaFarm (arXiv 2305.14387): 3 epochs, learning rate 2e-5 with
cosine decay and 3 % warm-up, batch 128, no weight decay.
Deviations: minibatches hold responses of like lengths; the mean is over the tokens of the whole minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm import rng
from farm.errors import UserError
from farm.protocols import Learning, Policy, Samples
from reference_methods.parts.aggregation import Aggregation, Totals, aggregate
from reference_methods.parts.batches import Rows, total_lengths
from reference_methods.parts.descent import Descent
from reference_methods.parts.preferences import samples_of


@dataclass(frozen=True, kw_only=True)
class SFT(Descent):
    """Fine-tunes the policy on ``demonstrations``."""

    needs: ClassVar[frozenset[str]] = frozenset({"demonstrations"})

    epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 2e-5
    aggregation: Aggregation = "token_mean"
    """how the losses of tokens become one number"""

    def train(self, learning: Learning) -> Policy:
        table = learning.demonstrations
        if table is None or not len(table):
            raise UserError("demonstrations: supervised fine-tuning learns from demonstrations, and there are none")
        policy = self.start(learning)
        self.imitate(policy, samples_of(table, policy), learning, purpose="sft")
        return policy

    def imitate(
        self,
        policy: Policy,
        samples: Samples,
        learning: Learning,
        purpose: str,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Raise the likelihood of ``samples`` under ``policy``, which is changed in place."""

        def loss(rows: Rows, totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
            log_probabilities, mask = policy.log_probabilities(samples.select(rows))
            weight = None if weights is None else torch.as_tensor(weights[rows]).to(log_probabilities)
            return aggregate(-log_probabilities, mask, self.aggregation, totals, weight), {}

        self.descend(
            loss,
            policy,
            learning,
            purpose,
            ids=rng.combine(rng.text_ids(samples.prompts), rng.text_ids(samples.outputs)),
            lengths=total_lengths(samples),
            response_tokens=samples.lengths(),
            weights=weights,
        )
