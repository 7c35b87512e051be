"""One update of a game method: duels on a batch of samples, and gradient steps on what they say.

Duels against the learner itself are held within the group of a prompt: response i meets i + 1, ..., i + duels (in a
circle), and each verdict counts for both. Against another opponent each response meets ``duels`` responses of it. One
duel is one query to the annotator, whatever is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm import processes
from farm.protocols import Policy, Samples
from reference_methods.parts.aggregation import Totals
from reference_methods.parts.batches import Rows, index, minibatches, total_lengths
from reference_methods.parts.games_feedback import Feedback
from reference_methods.parts.games_losses import Play
from reference_methods.parts.games_opponents import RestorableOptimizer
from reference_methods.parts.optimization import Metrics, accumulate
from reference_methods.parts.sampler import alarm_of, compare, keeps_likelihoods, same_of

if TYPE_CHECKING:
    from reference_methods.parts.games_training import Game


@dataclass(frozen=True)
class Batch:
    """n consecutive samples of each of S prompts, and their log-likelihoods. No tensor has a gradient."""

    prompts: list[str]
    samples: Samples
    start: Tensor
    """of the learner before the step, [S, n]; where one pass is made on the batch, that pass puts them here"""
    reference: Tensor
    """[S, n]"""
    from_reference: int
    """how many of the n, the last ones, are the reference's samples"""
    started: float
    """when their sampling began, by ``time.perf_counter``"""

    @property
    def n(self) -> int:
        return self.start.shape[1]


@dataclass(frozen=True)
class Turn:
    """One update on one batch, against whichever opponent it is called with."""

    game: Game
    policy: Policy
    batch: Batch
    feedback: Feedback
    optimizer: RestorableOptimizer
    seed: int
    purpose: str
    calls: list[int] = field(default_factory=list)
    compared: Metrics = field(default_factory=dict)
    """sampler against trainer, on the first micro-batch: nothing is learnt yet, so its own pass serves"""

    def __call__(self, opponent: Policy) -> Metrics:
        self.calls.append(1)
        play = self._play(opponent)
        lengths = total_lengths(self.batch.samples).reshape(-1, self.batch.n).max(1) * self.batch.n
        prompts = len(self.batch.prompts)
        size = prompts // self.game.minibatches
        ids = np.arange(prompts, dtype=np.uint64)
        done = []
        for rows in minibatches(ids, lengths, size, self.game.epochs, self.seed, self.purpose, bucket=1):
            totals = Totals(float(len(rows)), float(lengths[rows].sum()))
            metrics = accumulate(
                lambda part, totals: self._loss(play, part, totals),
                rows,
                totals,
                lengths,
                self.game.micro_batch_tokens,
            )
            if self._fills_start:
                processes.added(self.batch.start)  # each has filled in its share
            if self.optimizer.steps_taken == 0:
                self._same()
            done.append(metrics | self.optimizer.step(metrics["loss"]))
        return {name: float(np.mean([m[name] for m in done])) for name in done[0]} | self.compared

    @property
    def _fills_start(self) -> bool:
        """Whether this is the one pass on the batch, or the first of the two of an extragradient."""
        return self.game.one_pass and len(self.calls) == 1

    def _loss(self, play: Play, rows: Rows, totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
        n = self.batch.n
        flat = (rows[:, None] * n + np.arange(n)).reshape(-1)
        samples = self.batch.samples.select(flat)
        tokens, mask = self.policy.log_probabilities(samples, self.game.temperature)
        if not self.compared:
            own = np.flatnonzero(np.arange(len(flat)) % n < n - self.batch.from_reference)
            there = index(own, tokens)
            self.compared.update(self._compare(samples.select(own), tokens.detach()[there], mask[there]))
        log_probabilities = tokens.sum(1).view(-1, n)
        if self._fills_start:
            self.batch.start[index(rows, self.batch.start)] = log_probabilities.detach().to(self.batch.start)
        part = play.select(index(rows, log_probabilities))
        losses = self.game.loss(log_probabilities, part)
        return losses.sum() / totals.sequences, {
            "win_rate": (part.weights * part.wins).sum() / totals.sequences,
            "drift": (log_probabilities.detach() - part.start).abs().mean(1).sum() / totals.sequences,
        }

    def _same(self) -> None:
        """Raise, in all processes, if in any of them the policy that sampled is not the one that trains."""
        apart = self.compared.get("sampler_kl", 0.0) if keeps_likelihoods(self.policy) else 0.0
        if processes.add_metrics({"processes": float(not apart <= same_of(self.policy))}, ["processes"])["processes"]:
            raise RuntimeError(
                f"{self.purpose}: before the first update the policy that samples and the one that trains are "
                f"{apart:.4f} nats a token apart: sampling and training give different log-probabilities"
            )

    def _compare(self, samples: Samples, trained: Tensor, mask: Tensor) -> Metrics:
        drawn = torch.zeros(mask.shape)
        drawn[mask.cpu()] = torch.from_numpy(np.concatenate(samples.log_probabilities))
        return compare(trained, drawn.to(trained), mask, alarm_of(self.policy))

    def _play(self, opponent: Policy) -> Play:
        start = self.batch.start
        s, n = start.shape
        preferences = asked = torch.zeros(s, n, n, dtype=torch.float64)
        if opponent is self.policy or self.batch.from_reference:
            preferences, asked = self._duels_within()
            answers = asked.sum(2)
            wins = (preferences * asked).sum(2) / answers.clamp(min=1)
        else:
            wins, answers = self._duels_against(opponent)
        learners = (torch.arange(n) < n - self.batch.from_reference).expand(s, n)
        return Play(
            weights=_shares(learners & (answers > 0)).to(start),  # a response no duel of which was decided is left out
            start=start,
            reference=self.batch.reference,
            wins=wins.to(start),
            preferences=preferences.to(start),
            pair_weights=(asked / asked.sum((1, 2), keepdim=True).clamp(min=1)).to(start),
            reference_weights=_shares(~learners).to(start),
        )

    def _duels_within(self) -> tuple[Tensor, Tensor]:
        """P(y_i > y_j) where asked (or the score), and 1 where an answer came, float64 [S, n, n] each."""
        s, n = self.batch.start.shape
        first, second = self._schedule()
        rows = np.arange(s)[:, None] * n
        a, b = (rows + first).reshape(-1), (rows + second).reshape(-1)
        samples = self.batch.samples
        answers = self._verdicts(samples.select(a), samples.select(b))
        table = np.zeros((s, n, n))
        answered = np.zeros((s, n, n))
        prompt = np.repeat(np.arange(s), len(first))
        i, j = np.tile(first, s), np.tile(second, s)
        there = ~np.isnan(answers)
        opposite = -answers if self.game.uses_scores else 1 - answers
        for x, y, values in ((i, j, answers), (j, i, opposite)):  # a pair met once, seen from both sides
            table[prompt[there], x[there], y[there]] = values[there]
            answered[prompt[there], x[there], y[there]] = 1
        return torch.from_numpy(table), torch.from_numpy(answered)

    def _verdicts(self, first: Samples, second: Samples) -> NDArray[np.float64]:
        """P(first > second), or the score, of each pair; NaN where no verdict came."""
        if not self.game.cut_responses_lose:
            return self.feedback(first, second)
        ended = np.array([[reason == "stop" for reason in side.finish_reason] for side in (first, second)])
        verdicts = ended[0].astype(np.float64)
        open_ones = np.flatnonzero(ended[0] == ended[1])
        if len(open_ones):
            verdicts[open_ones] = self.feedback(first.select(open_ones), second.select(open_ones))
        return verdicts

    def _schedule(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Who meets whom in a group of n, each pair at most once."""
        n, theirs = self.batch.n, self.batch.from_reference
        if theirs:  # each of the learner's against ``duels`` of the reference's
            own = n - theirs
            first = np.repeat(np.arange(own), self.game.duels)
            return first, own + (first + np.tile(np.arange(self.game.duels), own)) % theirs
        i = np.repeat(np.arange(n), self.game.duels)
        j = (i + 1 + np.tile(np.arange(self.game.duels), n)) % n
        pairs = np.unique(np.sort(np.column_stack([i, j]), axis=1), axis=0)
        return pairs[:, 0], pairs[:, 1]

    def _duels_against(self, opponent: Policy) -> tuple[Tensor, Tensor]:
        """P(y_i > opponent) from ``duels`` fresh responses of it for each, and how many verdicts came, [S, n]."""
        s, n = self.batch.start.shape
        duels = self.game.duels
        key = f"{self.purpose}/opponent {len(self.calls)}"
        rivals = self.game._sample(opponent, self.batch.prompts, n * duels, self.seed, key)
        own = self.batch.samples.select(np.repeat(np.arange(s * n), duels))
        verdicts = torch.from_numpy(self._verdicts(own, rivals).reshape(s, n, duels))
        answers = (~verdicts.isnan()).sum(2)
        return verdicts.nansum(2) / answers.clamp(min=1), answers


def _shares(where: Tensor) -> Tensor:
    """Equal weights where true that sum to 1 in each row, or a row of zeros, float64."""
    return where.double() / where.sum(-1, keepdim=True).clamp(min=1)
