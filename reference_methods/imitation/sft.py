"""Supervised fine-tuning: maximum likelihood of given responses.

    L = - sum over response tokens of log pi(y_t | x, y_<t) / number of response tokens in the minibatch

The prompt has no loss; the end of sequence has, or the policy would never stop. A response may carry a weight, which
enters the sum and the count alike.

Paper: the start of every method here; settings of AlpacaFarm (arXiv 2305.14387): 3 epochs, learning rate 2e-5 with
cosine decay and 3 % warm-up, batch 128, no weight decay.
Deviations: minibatches hold responses of like lengths; the mean is over the tokens of the whole minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from farm.base import rng
from farm.base.bounds import Count, NotNegative
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.turns import prompt_ids
from reference_methods.parts.aggregation import Aggregation
from reference_methods.parts.batches import Batch, TrainingRows
from reference_methods.parts.preferences import samples_of
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline


@dataclass(frozen=True, kw_only=True)
class SFT(Offline):
    """Fine-tunes the policy on ``demonstrations``."""

    epochs: Count = 3
    batch_size: Count = 128
    learning_rate: NotNegative = 2e-5
    aggregation: Aggregation = "token_mean"
    """how the losses of tokens become one number"""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"demonstrations"})

    def train(self, learning: Learning) -> Policy:
        table = learning.demonstrations
        if table is None or not len(table):
            raise UserError("demonstrations: supervised fine-tuning needs demonstrations; raise `sizes.demonstrations`")
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
        ids = rng.combine(prompt_ids(samples.prompts), rng.text_ids(samples.outputs))
        with Trainer(self, learning, purpose, [(policy, self.learning_rate)]) as trainer:
            for batch in trainer.batches(replace(TrainingRows.of(samples), ids=ids, weights=weights)):
                trainer.update(batch, partial(self.loss, policy, samples))

    def loss(self, policy: Policy, samples: Samples, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        log_probabilities, mask = policy.log_probabilities(samples.select(batch.rows))
        return batch.mean(-log_probabilities, mask, self.aggregation), {}
