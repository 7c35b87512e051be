"""Curry-DPO: several pairs of each prompt, from rated responses, in the order of how easily they are told apart.

    y_(1) .. y_(K)   the responses to a prompt by their ratings, best first
    stage s          DPO on (y_(1), y_(K)), then (y_(1), y_(K-1)), ..., (y_(1), y_(2)):  rating gaps that do not grow
    reference        of each stage the policy at the end of the one before (``last_stage``), or the SFT policy (``sft``)

With Bradley-Terry labels a stage that is fitted perfectly tilts its reference by exp(u / beta): after S stages with a
moved reference the policy is pi_ref exp(S u / beta) / Z, which is what a fixed reference gives at beta / S. A moved
reference is a weaker anchor: compare arms at equal KL. For that, ``measured`` samples are drawn after each stage.

Paper: Pattnaik et al. (arXiv 2403.07230): K = 4, one epoch a stage; beta, learning rate and epochs are not given.
Deviations: gaps by ratings alone (the paper also orders by a reward model and by likelihood). Responses with the same
rating are no pair. ``order`` beside easy_first: hard_first; shuffled, all pairs dealt over the stages (with
``reference: sft`` the paper's MultiPair DPO); same, (y_(1), y_(K)) in every stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from farm.base import rng
from farm.base.bounds import Count, Natural
from farm.base.errors import UserError
from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.turns import prompt_ids, prompts_of, row_ids
from reference_methods.pairs.dpo import DPO
from reference_methods.parts.batches import Rows, log_likelihoods, prompt_stream, sampled
from reference_methods.parts.checkpoints import CurrentPolicy
from reference_methods.parts.pairs import PairsWithReference
from reference_methods.parts.precision import AtStart
from reference_methods.parts.preferences import Preferences, samples_of
from reference_methods.parts.rollouts import sample_metrics
from reference_methods.parts.trainer import Trainer

Order = Literal["easy_first", "hard_first", "shuffled", "same"]


@dataclass(frozen=True, kw_only=True)
class CurryDPO(DPO):
    """Trains the policy on ``ratings`` of several responses to each prompt."""

    needs: ClassVar[frozenset[str]] = frozenset({"ratings"})

    order: Order = "easy_first"
    reference: Literal["last_stage", "sft"] = "last_stage"
    measured: Natural = 0
    """samples after each stage, for the KL to the SFT policy (and the gold utility) in the log"""
    epochs: Count = 1
    """of each stage"""

    def train(self, learning: Learning) -> Policy:
        stages, policy = self.stages(learning), self.start(learning)
        lines = sum(1 + self.epochs * -(-len(pairs) // self.batch_size) for pairs in stages) + 1
        with Trainer(self, learning, "curry_dpo", state={"policy": CurrentPolicy(policy)}) as trainer:
            for s in trainer.steps(len(stages), of=[pairs.ids.tobytes() for pairs in stages], lines=lines):
                if s == 0:
                    self.measure(trainer, policy)
                moved = s > 0 and self.reference == "last_stage"
                self.stage(policy, stages[s], policy.copy() if moved else learning.reference, trainer.part("dpo"), s)
                self.measure(trainer, policy)
        return policy

    def stage(self, policy: Policy, pairs: Preferences, reference: Policy, learning: Learning, number: int = 0) -> None:
        """DPO of ``policy``, in place, on the pairs of one stage."""
        at_start = {}
        if self.reference == "last_stage" and number > 0:  # then all margins are 0
            at_start["loss"] = AtStart(math.log(2), self.beta / 2, self.beta**2 / 4)
        networks = [(policy, self.learning_rate)]
        with Trainer(self, learning, f"curry_dpo/stage {number}", networks, at_start=at_start) as trainer:
            data = PairsWithReference.of(pairs, trainer, reference)
            for batch in trainer.batches(pairs.training_rows()):
                trainer.update(batch, partial(self.loss, policy, data))

    def stages(self, learning: Learning) -> list[Preferences]:
        """The pairs of each stage.

        Raises:
            UserError: no prompt has two responses with different ratings.
        """
        table = learning.feedback.get("ratings")
        if table is None or not len(table):
            raise UserError("curry_dpo: there are no ratings to learn from; raise `sizes.pairs`")
        best, other, place = ranked(table, learning.seed)
        if not len(best):
            raise UserError(
                "curry_dpo: no two responses to a prompt have different ratings; raise `responses.per_prompt`"
            )
        samples, last = samples_of(table, learning.policy), int(place.max())
        stage = last - place  # the worst of the longest lists come first
        if self.order == "hard_first":
            stage = last - stage
        elif self.order == "shuffled":
            dealt = rng.permutation(other.astype(np.uint64), learning.seed, "curry_dpo/shuffled")
            stage = np.sort(stage)[np.argsort(dealt)]
        if self.order == "same":
            worst = stage == 0
            chosen = [np.flatnonzero(worst)] * (int(stage.max()) + 1)
        else:
            chosen = [np.flatnonzero(stage == s) for s in range(int(stage.max()) + 1)]
        return [pairs_of(samples, best[rows], other[rows]) for rows in chosen if len(rows)]

    def measure(self, trainer: Trainer, policy: Policy) -> None:
        """Log KL(policy, SFT policy) and what samples are like; the same prompts at every stage."""
        learning, purpose = trainer.learning, "curry_dpo/measured"
        if not self.measured:
            return
        (prompts,) = prompt_stream(prompts_of(learning.prompts), self.measured, 1, learning.seed, purpose)
        samples = sampled(policy, prompts, seed=learning.seed, purpose=purpose)
        ours, theirs = (
            trainer.compute(partial(log_likelihoods, writer), samples) for writer in (policy, learning.reference)
        )
        trainer.log(kl=float((ours - theirs).mean()), **sample_metrics(samples, learning))


def ranked(table: pd.DataFrame, seed: int) -> tuple[Rows, Rows, Rows]:
    """Pairs of rows of one list: its best, another with a lower score, and the place of that (1: second best).

    A list is the rows of a ``group``, or of a prompt where there are no groups; equal scores are ordered by a draw.
    """
    lists = table["group"].to_numpy() if "group" in table.columns else pd.factorize(row_ids(table))[0]
    score = pd.to_numeric(table["score"]).to_numpy(np.float64)
    draws = rng.bits(seed, "curry_dpo/equal", row_ids(table), rng.text_ids(table["output"]))
    order = np.lexsort((draws, -score, lists))
    starts = np.r_[True, lists[order][1:] != lists[order][:-1]]
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1]
    place, best = np.arange(len(order)) - first, order[first]
    kept = score[order] < score[best]
    return best[kept], order[kept], place[kept]


def pairs_of(samples: Samples, first: Rows, second: Rows) -> Preferences:
    """Pairs of samples whose first is preferred."""
    sides = samples.select(first), samples.select(second)
    texts = [rng.text_ids(side.outputs) for side in sides]
    ids = rng.combine(prompt_ids(sides[0].prompts), rng.unordered(*texts))
    return Preferences(*sides, np.ones(len(first), np.float32), ids)
