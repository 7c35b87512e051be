"""DRAGON: rewards of whole sets of responses, such as how unlike each other they are, from the policy's own samples.

    R(S)           mean of r(x, y) over S + weight x value(S),    value: what is said of sets (feedback `sets`)
    contrast       of a prompt's samples the first half is S+, the other S-; the i-th of both change sides where that
                   raises R(S+) - R(S-), one i after the other;   L = -log sigma(beta (h(y+_i) - h(y-_i)))
    leave_one_out  S is all n samples of a prompt, A_i RLOO's advantage of r - beta KL and besides
                   weight n (value(S) - value(S without i)), and the loss that of RLOO;   h = log pi / pi_ref

Where a value is the mean of rewards of single responses, its credit n (value(S) - value(S without i)) is RLOO's
advantage of these; where it is their sum, value(S) - value(S without i) is a response's own reward. With weight 0
leave_one_out is RLOO.

Paper: DRAGON (arXiv 2504.15217): on-policy samples are put into a positive and a negative set by a reward of
distributions, which are contrasted in the manner of DPO, for diffusion models of music. Ours: how the sets are put
together, the reward model beside the value, and leave-one-out credit. Left out: sets of exemplars. Defaults: 16 samples
a prompt, beta 0.1; others those of ``rloo``, whose clip and ``whiten`` are of leave_one_out alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from farm.base.arrays import Floats
from farm.base.bounds import NotNegative, Number, Several
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy
from farm.tables import turns
from reference_methods.online.rloo import RLOO
from reference_methods.parts.advantages import leave_one_out, whiten
from reference_methods.parts.batches import Batch, Rows, TrainingRows, index, total_lengths
from reference_methods.parts.losses import bradley_terry
from reference_methods.parts.online import RATIO_IS_ONE, OnlineTrainer
from reference_methods.parts.precision import AtStart
from reference_methods.parts.rollouts import Rollout


@dataclass(frozen=True, kw_only=True)
class Dragon(RLOO):
    """Trains the policy on sets of its own samples."""

    learner: Literal["contrast", "leave_one_out"] = "contrast"
    weight: Number = 1.0
    """of what is said of sets, beside the reward model"""
    samples_per_prompt: Several = 16
    beta: NotNegative = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_per_prompt % 2 or self.samples_per_prompt < 4:
            raise ValueError(f"samples_per_prompt must be even and at least 4, not {self.samples_per_prompt}")

    @property
    def asks(self) -> frozenset[str]:
        """The kinds of feedback that it asks for while it learns."""
        return frozenset({"sets"} if self.weight else ())

    def train(self, learning: Learning) -> Policy:
        policy, contrast = self.start(learning), self.learner == "contrast"
        start: dict[str, AtStart] = {} if contrast else RATIO_IS_ONE
        if contrast and learning.reference is learning.policy:  # then all margins are 0
            start["loss"] = AtStart(math.log(2), self.beta / 2, self.beta**2 / 4)
        networks = [(policy, self.learning_rate)]
        with OnlineTrainer(self, learning, "dragon" if contrast else "rloo", networks, at_start=start) as trainer:
            for rollout in trainer.rollouts(policy):
                if contrast:
                    better, worse = self.two_sets(rollout, learning)
                    chosen, other = rollout.samples.select(better), rollout.samples.select(worse)
                    lengths = total_lengths(chosen) + total_lengths(other)
                    rows = TrainingRows(np.arange(len(better), dtype=np.uint64), lengths, lengths)
                    for batch in trainer.minibatches(rows, chosen):
                        trainer.update(batch, partial(self.contrast, policy, rollout, better, worse))
                else:
                    advantages = self.credit(rollout, learning)
                    for batch in trainer.minibatches(rollout.samples):
                        trainer.update(batch, partial(self.loss, policy, rollout, advantages))
        return policy

    def two_sets(self, rollout: Rollout, learning: Learning) -> tuple[Rows, Rows]:
        """The rows of the samples in S+ and in S-, in pairs, prompt after prompt, [B / 2] each."""
        rows = np.arange(len(rollout.samples)).reshape(-1, self.samples_per_prompt)
        plus, minus = np.split(rows, 2, axis=1)
        lead = self.lead(rollout, plus, minus, learning)
        for i in range(plus.shape[1]):
            one, other = plus.copy(), minus.copy()
            one[:, i], other[:, i] = minus[:, i], plus[:, i]
            found = self.lead(rollout, one, other, learning)
            change = found > lead + 1e-9  # not for rounding
            plus, minus = np.where(change[:, None], one, plus), np.where(change[:, None], other, minus)
            lead = np.where(change, found, lead)
        return plus.reshape(-1), minus.reshape(-1)

    def lead(self, rollout: Rollout, plus: Rows, minus: Rows, learning: Learning) -> Floats:
        """R(S+) - R(S-) of each prompt; rows of samples are [prompts, n / 2] each."""
        scores = rollout.scores.double().cpu().numpy()
        value = self.value(rollout, np.concatenate([plus, minus]), learning)
        return np.asarray(scores[plus].mean(1) - scores[minus].mean(1) + value[: len(plus)] - value[len(plus) :])

    def credit(self, rollout: Rollout, learning: Learning) -> Tensor:
        """The advantages by leave-one-out credit, [B]."""
        n = self.samples_per_prompt
        rows = np.arange(len(rollout.samples)).reshape(-1, n)
        whole = self.value(rollout, rows, learning)
        without = self.value(rollout, np.concatenate([np.delete(rows, i, axis=1) for i in range(n)]), learning)
        of_sets = n * (whole[:, None] - without.reshape(n, -1).T)
        advantages = leave_one_out(rollout.sequence_rewards(self.beta), n)
        advantages = advantages + torch.from_numpy(of_sets.reshape(-1)).to(advantages)
        if self.whiten:
            advantages = whiten(advantages, torch.ones_like(advantages, dtype=torch.bool), shift=False)
        return advantages * rollout.sequence_weights()

    def value(self, rollout: Rollout, sets: Rows, learning: Learning) -> Floats:
        """weight x what is said of sets of samples by their rows [m, k], each of one prompt, [m].

        Raises:
            UserError: a set has no value.
        """
        if not self.weight:
            return np.zeros(len(sets))
        samples = rollout.samples
        asked = pd.DataFrame(turns.columns([samples.prompts[i] for i in sets[:, 0]]))
        asked["outputs"] = [[samples.outputs[i] for i in row] for row in sets]
        asked["generators"] = [["policy"] * sets.shape[1]] * len(sets)
        said = pd.to_numeric(learning.ask("sets", asked)["value"]).to_numpy(np.float64)
        if np.isnan(said).any():
            raise UserError(f"dragon: {int(np.isnan(said).sum())} of {len(said)} sets got no value, of which to learn")
        return self.weight * said

    def contrast(
        self, policy: Policy, rollout: Rollout, better: Rows, worse: Rows, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rows = np.concatenate([better[batch.rows], worse[batch.rows]])
        new = policy.log_probabilities(rollout.samples.select(rows), self.temperature)[0].sum(1)
        ratio = (new - rollout.reference[index(rows, new)].sum(1).to(new)).view(2, -1)
        margin = self.beta * (ratio[0] - ratio[1])
        return batch.mean(bradley_terry(margin, torch.ones_like(margin))), {"margin": batch.mean(margin)}
