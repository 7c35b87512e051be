"""Pretraining with human preferences: what a blank model makes of a corpus whose sentences are scored.

    mle            -log p of every token
    filter         the same, on documents without a bad sentence
    conditional    the same, each document after a text that says whether it has one; answers are written after "good"
    unlikelihood   -log p of the tokens of good sentences, -alpha log(1 - p) of bad ones
    rwr            -exp(R / beta) log p,   R: the score of the token's sentence, weights at most 1,000
    awr            -alpha exp((R - V) / beta) log p + (1 - alpha) (V - R)^2,   V: a value network, no gradient in R - V

A sentence's score is minus how often it has a ``feature``: 0 is good. With beta to infinity rwr is mle; with alpha 0
unlikelihood is mle on good tokens. ``plain`` documents of mle may come first, so that feedback comes late, as in
fine-tuning.

Paper: Korbak et al. (arXiv 2302.08582) and its code: alpha 1 (unlikelihood), beta 10 (rwr), weights clipped at 1,000,
1 % of the tags left out. Conditional training cuts undesired content most, at hardly a cost in capability.
Deviations: a tag stands before a document and not before each sentence, for a policy writes no tags; threshold 0, so
that bad is bad; the value network has a body of its own; the end of sequence is good.
It logs once ``clean_nll``: -log p a token of documents that were held out and have no bad sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base import rng
from farm.base.bounds import Count, Natural, NotNegative, Positive, Share
from farm.base.errors import UserError, nearest
from farm.hardware import processes
from farm.roles.protocols import Corpus, Learning, Policy, Samples, Scorer, World
from farm.tables.turns import prefixed
from reference_methods.parts.batches import Batch, TrainingRows, in_parts, log_likelihoods
from reference_methods.parts.checkpoints import following, log_once
from reference_methods.parts.conditioning import ConditionedPolicy, controllable, with_prompts
from reference_methods.parts.losses import unlikelihood
from reference_methods.parts.rollouts import padded
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import Offline

Objective = Literal["mle", "filter", "conditional", "unlikelihood", "rwr", "awr"]
MOST = 1000.0
"""weight of a token"""


@dataclass(frozen=True)
class Documents:
    """n documents with the score of each token's sentence, and the sum of each document's scores."""

    samples: Samples
    scores: list[NDArray[np.float32]]
    sums: NDArray[np.float64]

    def select(self, rows: NDArray[np.int64]) -> Documents:
        return Documents(self.samples.select(rows), [self.scores[i] for i in rows], self.sums[rows])


@dataclass(frozen=True, kw_only=True)
class Pretraining(Offline):
    """Trains a blank model of the world on its corpus."""

    needs: ClassVar[frozenset[str]] = frozenset()

    world: World | None = None
    """the experiment's: it gives the documents, the blank model, and the features that score sentences"""
    objective: Objective = "mle"
    feature: str = "length"
    """what is bad in a sentence"""
    documents: Count = 5000
    plain: Natural = 0
    """documents of mle before them"""
    held_out: Count = 200
    """documents on which ``clean_nll`` is measured, as far as they are clean"""
    dealt: bool = False
    """whether the scores are those of other sentences: a control"""
    good: str = "Good text. "
    """what stands before the request of a document without a bad sentence, and of every request afterwards"""
    bad: str = "Bad text. "
    dropped: Share = 0.01
    """share of documents without such a text"""
    alpha: NotNegative = 1.0
    beta: Positive = 10.0
    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: NotNegative = 5e-4

    def train(self, learning: Learning) -> Policy:
        if not isinstance(self.world, Corpus):
            raise UserError("pretraining: this world has no corpus and no blank model; `pocket` has both")
        if self.tune not in (None, "full"):
            raise UserError(f"pretraining: a blank model trains as a whole, so leave `tune: {self.tune}` out")
        processes.start()
        policy = controllable(self.world.blank_policy(learning.seed), [self.good, self.bad])
        number = self.plain + self.documents + self.held_out
        corpus = self.read(policy, self.world.documents(number, learning.seed), learning.seed)
        first, second, last = np.split(np.arange(number), [self.plain, self.plain + self.documents])
        learnt_from = second if self.objective == "filter" else last
        if not all((corpus.sums[rows] == 0).any() for rows in (learnt_from, last)):
            raise UserError(
                f"pretraining: every document has `{self.feature}`, so none is good; name a `feature` few have, or "
                "raise `documents` and `held_out`"
            )
        lines = 0
        if self.plain:
            mle = replace(self, objective="mle")
            lines = self.fit(mle, policy, corpus.select(first), learning, "pretraining/plain")
        lines += self.fit(self, policy, corpus.select(second), following(learning, lines), "pretraining")
        trained = ConditionedPolicy(policy, self.good) if self.objective == "conditional" else policy
        clean = corpus.select(last[corpus.sums[last] == 0]).samples
        nll = -in_parts(partial(log_likelihoods, trained), clean, 4096, together=True).sum() / clean.lengths().sum()
        log_once(learning.log, {"step": lines, "clean_nll": float(nll)})
        return trained

    def read(self, policy: Policy, table: pd.DataFrame, seed: int) -> Documents:
        """The corpus as responses, scored. Raises UserError for a feature that there is not."""
        assert self.world is not None
        counts, rows = table["tokens"].tolist(), np.repeat(np.arange(len(table)), table["sentences"].map(len))
        instructions = table["instruction"].to_numpy()[rows].tolist()
        seen = self.world.features(instructions, [text for texts in table["sentences"] for text in texts])
        if self.feature not in seen:
            raise UserError(f"pretraining: there is no feature `{self.feature}`; {nearest(self.feature, seen.columns)}")
        score = -seen[self.feature].to_numpy(np.float64)
        if self.dealt:
            score = score[rng.permutation(np.arange(len(score), dtype=np.uint64), seed, "pretraining/dealt")]
        samples = policy.encode(table["instruction"].tolist(), table["output"].tolist())
        ends = np.cumsum([len(row) for row in counts])[:-1]
        of_documents = np.split(score, ends)
        scores = [np.repeat(s, c).astype(np.float32) for s, c in zip(of_documents, counts, strict=True)]
        missing = samples.lengths() - [len(row) for row in scores]
        if not set(missing.tolist()) <= {0, 1}:  # 1 for the end of sequence
            raise UserError("pretraining: the sentences of the corpus are not the tokens of its documents")
        scores = [np.pad(row, (0, end)) for row, end in zip(scores, missing, strict=True)]
        return Documents(samples, scores, np.bincount(rows, weights=score, minlength=len(table)).astype(np.float64))

    def fit(self, by: Pretraining, policy: Policy, corpus: Documents, learning: Learning, purpose: str) -> int:
        """Train on documents by an objective, in place; how many steps it took."""
        if by.objective == "filter":
            corpus = corpus.select(np.flatnonzero(corpus.sums == 0))
        if by.objective == "conditional":
            corpus = replace(corpus, samples=self.tagged(policy, corpus, learning.seed))
        critic = policy.scorer(learning.seed) if by.objective == "awr" else None
        networks = [(network, self.learning_rate) for network in (policy, critic) if network is not None]
        rows = replace(TrainingRows.of(corpus.samples), ids=rng.text_ids(corpus.samples.outputs))
        with Trainer(self, learning, purpose, networks) as trainer:
            for batch in trainer.batches(rows):
                trainer.update(batch, partial(by.loss, policy, critic, corpus))
        return trainer.step

    def tagged(self, policy: Policy, corpus: Documents, seed: int) -> Samples:
        """Every document after what is said of it, but for those that are dropped."""
        draws = rng.uniform(seed, "pretraining/dropped", np.arange(len(corpus.sums), dtype=np.uint64))
        tags = np.where(draws < self.dropped, "", np.where(corpus.sums == 0, self.good, self.bad)).tolist()
        prompts = [prefixed(tag, p) if tag else p for tag, p in zip(tags, corpus.samples.prompts, strict=True)]
        return with_prompts(policy, corpus.samples, prompts)

    def loss(
        self, policy: Policy, critic: Scorer | None, corpus: Documents, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        samples = corpus.samples.select(batch.rows)
        log_p, mask = policy.log_probabilities(samples)
        score = padded([corpus.scores[i] for i in batch.rows], like=log_p.detach())[0]
        losses, metrics = -log_p, {"nll": batch.mean(-log_p.detach(), mask)}
        if self.objective == "unlikelihood":
            losses = torch.where(score < 0, self.alpha * unlikelihood(log_p), losses)
        elif self.objective == "rwr":
            losses = (score / self.beta).exp().clamp(max=MOST) * losses
        elif critic is not None:
            value = critic.values(samples)
            weight = ((score - value.detach()) / self.beta).exp().clamp(max=MOST)
            losses = self.alpha * weight * losses + (1 - self.alpha) * (value - score).square()
            metrics["value_loss"] = batch.mean((value - score).square().detach(), mask)
        return batch.mean(losses, mask), metrics
