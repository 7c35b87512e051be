"""A reaction model: how likely a response is to be liked, fitted to reactions that were given to single responses.

    P(liked | x, y) = sigma(r(x, y)),     L = w [-liked log sigma(r) - (1 - liked) log sigma(-r)],  mean over reactions
    w = 1 / max(propensity, clip), over its mean

Most people say nothing, and who does is no fair sample: the pleased or the annoyed react oftener. Weighting each
reaction by the inverse of how likely it was makes up for that; ``clip: 1`` takes reactions as they come. Rare
propensities are clipped, which is biased again and less noisy. The score is the log-odds, standardised as a reward
model's, so that both can be summed (``weighted_model``).

Papers: RLUF (Han et al., arXiv 2505.14946), whose P[Love] takes silence for a dislike and is one of several rewards;
the propensities of Rel-MF (arXiv 1909.03601). Deviations: silence is no dislike here, it is not learnt from.
Otherwise as ``reward_model``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from farm.base import rng
from farm.base.bounds import Count, Natural, NotNegative, Share
from farm.base.errors import UserError
from farm.policies.batches import onto
from farm.roles.protocols import Learning, Scorer
from farm.tables.turns import prompt_ids
from reference_methods.parts.batches import Batch, TrainingRows, total_lengths
from reference_methods.parts.calibration import standardise
from reference_methods.parts.preferences import samples_of
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline


@dataclass(frozen=True, kw_only=True)
class ReactionModel(Offline):
    """Fits a scorer to ``reactions``."""

    needs: ClassVar[frozenset[str]] = frozenset({"reactions"})

    clip: Share = 0.1
    """propensities below this count as this; 1 weighs all reactions alike"""
    epochs: Count = 1
    batch_size: Count = 16
    """reactions of one optimizer step"""
    learning_rate: NotNegative = 3e-6
    head: Literal["last", "last+sum"] | None = None
    """as of ``reward_model``"""
    calibration_samples: Natural = 512
    """samples of the SFT policy on which the scores get mean 0 and standard deviation 1; 0 leaves them log-odds"""

    def train(self, learning: Learning) -> Scorer:
        table = learning.feedback.get("reactions")
        if table is None or not len(table):
            raise UserError(
                "reaction_model: nobody reacted to any response; raise `sizes.pairs` or the reactor's `base`"
            )
        liked = table["liked"].astype(float).to_numpy()
        samples, weights = samples_of(table, learning.policy), inverse_propensities(table, self.clip)
        ids = rng.combine(prompt_ids(samples.prompts), rng.text_ids(samples.outputs))
        rows = TrainingRows(ids, total_lengths(samples), samples.lengths())
        scorer = self.start_scorer(learning, self.head)

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            scores = scorer.scores(samples.select(batch.rows))
            like, weight = (onto(v[batch.rows], scores.device).to(scores.dtype) for v in (liked, weights))
            losses = weight * binary_cross_entropy_with_logits(scores, like, reduction="none")
            right = ((scores.detach() > 0) == (like > 0.5)).to(scores.dtype)
            return batch.mean(losses), {"accuracy": batch.mean(right)}

        with Trainer(self, learning, "reaction_model", [(scorer, self.learning_rate)]) as trainer:
            for batch in trainer.batches(rows):
                trainer.update(batch, loss)
        if self.calibration_samples:
            standardise(scorer, learning, self.calibration_samples, self.micro_batch_tokens, "reaction_model")
        return scorer


def inverse_propensities(table: pd.DataFrame, clip: float) -> NDArray[np.float64]:
    """The weight of each reaction, 1 / max(propensity, clip) over the mean of these, [n]; ones where none is told.

    Raises:
        UserError: for a propensity that is no probability above 0.
    """
    if "propensity" not in table.columns:
        return np.ones(len(table))
    propensity = pd.to_numeric(table["propensity"]).to_numpy(np.float64)
    wrong = np.flatnonzero(~((propensity > 0) & (propensity <= 1)))
    if len(wrong):
        raise UserError(
            f"reactions: row {wrong[0]} has propensity {propensity[wrong[0]]}, which is no probability above 0"
        )
    weights = 1 / np.maximum(propensity, clip)
    return np.asarray(weights / weights.mean())
