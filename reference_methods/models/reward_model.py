"""A Bradley-Terry reward model: a scalar head on a copy of the SFT policy, fitted to annotated pairs.

    P(y_1 > y_2 | x) = sigma(r(x, y_1) - r(x, y_2)),     L = -[p log P + (1 - p) log(1 - P)],  mean over pairs

The score is read at the last real token. It is determined up to a constant per prompt, and its spread by how consistent
the labels are: a share e of flipped labels keeps every fitted difference below log((1 - e) / e), ln 3 at 25 %. After
training the scores are therefore shifted and scaled to mean 0 and standard deviation 1 on samples of the SFT policy, so
that a KL coefficient means the same for every reward model.

Variants, each a setting: ``label_smoothing`` e trains towards (1 - e) p + e (1 - p); ``margin`` m asks the preferred
side to lead by m |2 p - 1|, as Llama 2 does with graded labels (arXiv 2307.09288, eq. 2); ``centring`` c adds
c (r_1 + r_2)^2, which fixes the constant (Eisenstein et al., arXiv 2312.09244; 0.01 in TRL); ``ties`` theta gives a tie
a likelihood of its own (Rao and Kupper; 5 in VideoReward, arXiv 2501.13918), where it else counts half for both sides.
Pairs may have weights, and margins of their own (columns ``label_weight`` and ``label_margin``, see
``denoised_reward_model``): a pair's loss is weight x L(r_1 - r_2 - margin).

Paper: Ouyang et al. (arXiv 2203.02155), Stiennon et al. (arXiv 2009.01325). Settings of AlpacaFarm (arXiv 2305.14387):
1 epoch, learning rate 3e-6 with cosine decay and 3 % warm-up, batch 16.
Deviations from AlpacaFarm: the response ends with its end-of-sequence token; the scores are standardised; ties count
half for both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from farm.base.bounds import Count, ErrorRate, Natural, NotNegative, Share
from farm.base.errors import UserError
from farm.policies.batches import onto
from farm.roles.protocols import Learning, Scorer
from reference_methods.parts.batches import Batch, in_parts, tokens_at_once
from reference_methods.parts.calibration import standardise
from reference_methods.parts.checkpoints import log_once
from reference_methods.parts.losses import bradley_terry, rao_kupper
from reference_methods.parts.preferences import Preferences, agreement
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline


@dataclass(frozen=True, kw_only=True)
class RewardModel(Offline):
    """Fits a scorer to ``preferences``."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    epochs: Count = 1
    batch_size: Count = 16
    learning_rate: NotNegative = 3e-6
    head: Literal["last", "last+sum"] | None = None
    """what a language model's score reads: the last token, or a sum over tokens besides, which learns from fewer labels
    and is easier to over-optimize; as the policy says where omitted"""
    label_smoothing: ErrorRate = 0.0
    """the share of labels assumed to be flipped"""
    margin: float = 0.0
    """by how much a preferred response must lead"""
    centring: NotNegative = 0.0
    """the weight of the squared sum of both scores, which draws them to mean 0"""
    ties: Annotated[float, Ge(1)] = 1.0
    """theta of the ties' likelihood: equally good responses tie with (theta - 1) / (theta + 1); at 1 none do"""
    context: str | None = None
    """a column of the pairs whose text is put before the prompt (``context``, as contextual annotators write it): the
    score is of a response in that context (arXiv 2407.14916), and asked for with it before the prompt"""
    held_out_share: Share = 0.05
    """share of the pairs that is not trained on, for the accuracy logged at the end; 0 for none"""
    calibration_samples: Natural = 512
    """samples of the SFT policy on which the scores get mean 0 and standard deviation 1; 0 leaves them as they are"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ties > 1 and (self.label_smoothing or self.margin):
            raise ValueError("ties has a likelihood of its own, beside which label_smoothing and margin must be 0")

    def train(self, learning: Learning) -> Scorer:
        pairs, held_out = Preferences.read(learning, self.context).hold_out(
            self.held_out_share, learning.seed, "reward_model/held out"
        )
        if not len(pairs):
            raise UserError(f"reward_model: held_out_share {self.held_out_share} leaves no pair to train on")
        scorer = self.start_scorer(learning, self.head)

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            first, second = scorer.scores(pairs.both(batch.rows)).chunk(2)
            margin, label = first - second, pairs.labels(batch.rows, first)
            lead, beyond = self.margin * (2 * label - 1).abs(), margin
            if pairs.lead is not None:
                beyond = margin - onto(pairs.lead[batch.rows], margin.device).to(margin.dtype)
            if self.ties > 1:
                losses = rao_kupper(beyond, label, self.ties)
            else:
                losses = bradley_terry(beyond, label, self.label_smoothing, offset=lead)
            if self.centring:
                losses = losses + self.centring * (first + second).square()
            if pairs.weight is not None:
                losses = losses * onto(pairs.weight[batch.rows], losses.device).to(losses.dtype)
            return batch.mean(losses), {
                "accuracy": batch.mean(agreement(margin, label)),
                "margin": batch.mean((2 * label - 1) * margin),
            }

        with Trainer(self, learning, "reward_model", [(scorer, self.learning_rate)]) as trainer:
            for batch in trainer.batches(pairs.training_rows()):
                trainer.update(batch, loss)
        if self.calibration_samples:
            standardise(scorer, learning, self.calibration_samples, self.micro_batch_tokens, "reward_model")
        if np.any(held_out.p_first != 0.5):
            log_once(learning.log, {"step": trainer.step, **self._held_out(scorer, held_out)})
        return scorer

    def _held_out(self, scorer: Scorer, pairs: Preferences) -> dict[str, float]:
        both = pairs.both(np.arange(len(pairs)))
        tokens = tokens_at_once(self.micro_batch_tokens, scorer, training=False)
        first, second = in_parts(scorer.scores, both, tokens, together=True).chunk(2)
        label = torch.as_tensor(pairs.p_first).to(first)
        return {
            "held_out_accuracy": float(agreement(first - second, label)[label != 0.5].mean()),
            "held_out_pairs": float(np.count_nonzero(pairs.p_first != 0.5)),
        }
