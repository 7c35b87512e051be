"""A match: a policy writes, its responses duel, and it is improved by what the verdicts say.

Duels against the learner itself are held within the group of a prompt: response i meets i + 1, ..., i + duels (in a
circle), and each verdict counts for both. Against another opponent each response meets ``duels`` responses of it. One
duel is one query to the annotator, whatever is made of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm import processes
from farm.errors import UserError
from farm.protocols import Learning, Policy, PreferenceModel, Samples
from reference_methods.parts.batches import Batch, Work, index, sampled, total_lengths
from reference_methods.parts.games_feedback import AnnotatorFeedback, Feedback, ModelFeedback
from reference_methods.parts.games_gap import GapProbe
from reference_methods.parts.games_losses import Play
from reference_methods.parts.optimization import Metrics
from reference_methods.parts.rollouts import sample_metrics
from reference_methods.parts.sampler import alarm_of, compare, keeps_likelihoods, same_of
from reference_methods.parts.trainer import Trainer

if TYPE_CHECKING:
    from reference_methods.parts.games_training import Game


@dataclass
class Group:
    """n consecutive samples of each of S prompts, and their log-likelihoods. No tensor has a gradient."""

    prompts: list[str]
    samples: Samples
    start: Tensor
    """of the learner before the step, [S, n]; where they are not ``known``, the first pass puts them here"""
    reference: Tensor
    """[S, n]"""
    from_reference: int
    """how many of the n, the last ones, are the reference's samples"""
    known: bool
    started: float
    """when their sampling began, by ``time.perf_counter``"""
    written: float
    rounds: int = 0
    """how often they have duelled"""
    compared: Metrics = field(default_factory=dict)
    """sampler against trainer, on the first micro-batch: nothing is learnt yet, so its own pass serves"""

    @property
    def n(self) -> int:
        return self.start.shape[1]

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which samples are the learner's, [S n]."""
        return np.arange(len(self.samples)) % self.n < self.n - self.from_reference

    def work(self) -> Work:
        lengths = total_lengths(self.samples).reshape(-1, self.n).max(1) * self.n
        return Work(np.arange(len(self.prompts), dtype=np.uint64), lengths, lengths)


@dataclass
class Match:
    """One training of a game method: who plays, who decides, and the trainer."""

    game: Game
    learning: Learning
    policy: Policy
    feedback: Feedback
    probe: GapProbe | None
    trainer: Trainer

    @classmethod
    def of(cls, game: Game, learning: Learning, policy: Policy, **kept: object) -> Match:
        """``kept``: what else there is to remember from step to step."""
        feedback, probe = feedback_of(game, learning), probe_of(game, learning)
        kept |= {"feedback": feedback, "probe": probe.feedback if probe else None}
        trainer = Trainer(game, learning, type(game).__name__, [(policy, game.learning_rate)], kept=kept)
        return cls(game, learning, policy, feedback, probe, trainer)

    # --- the three things a step does ---------------------------------------------------------------------------------

    def write(self, prompts: list[str]) -> Group:
        """What the learner, and where asked the reference, write to these prompts."""
        game, key, started = self.game, self.trainer.key(), time.perf_counter()
        theirs = game.samples_per_prompt // 2 if game.reference_samples else 0
        parts = [self._sample(self.policy, prompts, game.samples_per_prompt - theirs, key)]
        if theirs:
            parts.append(self._sample(self.learning.policy, prompts, theirs, f"{key}/reference"))
        samples = _interleave(parts, len(prompts))
        is_theirs = np.arange(len(samples)) % game.samples_per_prompt >= game.samples_per_prompt - theirs
        known = not game.one_pass or self.trainer.in_step
        if known:
            start = self._likelihoods(self.policy, samples, ~is_theirs)
        else:  # the one pass has them, and it costs none of its own
            start = torch.zeros(len(samples), device=next(self.policy.parameters()).device)
        reference = self._likelihoods(self.learning.policy, samples, is_theirs)
        shape = len(prompts), game.samples_per_prompt
        if self.probe and self.trainer.step % game.gap_every == 0:
            self.trainer.log(gap=self.probe(self.policy, self.trainer.step))
        return Group(
            prompts, samples, start.view(shape), reference.view(shape), theirs, known, started, time.perf_counter()
        )

    def duels(self, group: Group, opponent: Policy) -> Play:
        """Who wins how often of a group, against the learner itself (by identity) or another opponent."""
        group.rounds += 1
        start = group.start
        s, n = start.shape
        preferences = asked = torch.zeros(s, n, n, dtype=torch.float64)
        if opponent is self.policy or group.from_reference:
            preferences, asked = self._duels_within(group)
            answers = asked.sum(2)
            wins = (preferences * asked).sum(2) / answers.clamp(min=1)
        else:
            wins, answers = self._duels_against(group, opponent)
        learners = (torch.arange(n) < n - group.from_reference).expand(s, n)
        return Play(
            weights=_shares(learners & (answers > 0)).to(start),  # a response no duel of which was decided is left out
            start=start,
            reference=group.reference,
            wins=wins.to(start),
            preferences=preferences.to(start),
            pair_weights=(asked / asked.sum((1, 2), keepdim=True).clamp(min=1)).to(start),
            reference_weights=_shares(~learners).to(start),
        )

    def improve(self, group: Group, play: Play) -> None:
        """Gradient steps on what the duels said."""
        for batch in self.trainer.minibatches(group.work()):
            self.trainer.update(batch, partial(self._loss, group, play))
            if not group.known:
                processes.added(group.start)  # each has filled in its share
                group.known = True
            if self.trainer.step == 0:
                self._same(group)
        self.trainer.log(**group.compared, **self._metrics(group))

    # --- what they are made of ----------------------------------------------------------------------------------------

    def _loss(self, group: Group, play: Play, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        n = group.n
        flat = (batch.rows[:, None] * n + np.arange(n)).reshape(-1)
        samples = group.samples.select(flat)
        tokens, mask = self.policy.log_probabilities(samples, self.game.temperature)
        if not group.compared:
            own = np.flatnonzero(group.own[flat])
            there = index(own, tokens)
            group.compared.update(self._compare(samples.select(own), tokens.detach()[there], mask[there]))
        log_probabilities = tokens.sum(1).view(-1, n)
        if not group.known:
            group.start[index(batch.rows, group.start)] = log_probabilities.detach().to(group.start)
        part = play.select(index(batch.rows, log_probabilities))
        return batch.mean(self.game.loss(log_probabilities, part)), {
            "win_rate": batch.mean(part.weights * part.wins),
            "drift": batch.mean((log_probabilities.detach() - part.start).abs().mean(1)),
        }

    def _same(self, group: Group) -> None:
        """Raise, in all processes, if in any of them the policy that sampled was not the one that trains."""
        apart = group.compared.get("sampler_kl", 0.0) if keeps_likelihoods(self.policy) else 0.0
        if processes.add_metrics({"processes": float(not apart <= same_of(self.policy))}, ["processes"])["processes"]:
            raise RuntimeError(
                f"{self.trainer.key()}: before the first update the policy that samples and the one that trains are "
                f"{apart:.4f} nats a token apart: sampling and training give different log-probabilities"
            )

    def _compare(self, samples: Samples, trained: Tensor, mask: Tensor) -> Metrics:
        drawn = torch.zeros(mask.shape)
        drawn[mask.cpu()] = torch.from_numpy(np.concatenate(samples.log_probabilities))
        return compare(trained, drawn.to(trained), mask, alarm_of(self.policy))

    def _duels_within(self, group: Group) -> tuple[Tensor, Tensor]:
        """P(y_i > y_j) where asked (or the score), and 1 where an answer came, float64 [S, n, n] each."""
        s, n = group.start.shape
        first, second = self._schedule(group)
        rows = np.arange(s)[:, None] * n
        a, b = (rows + first).reshape(-1), (rows + second).reshape(-1)
        samples = group.samples
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

    def _schedule(self, group: Group) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Who meets whom in a group of n, each pair at most once."""
        n, theirs = group.n, group.from_reference
        if theirs:  # each of the learner's against ``duels`` of the reference's
            own = n - theirs
            first = np.repeat(np.arange(own), self.game.duels)
            return first, own + (first + np.tile(np.arange(self.game.duels), own)) % theirs
        i = np.repeat(np.arange(n), self.game.duels)
        j = (i + 1 + np.tile(np.arange(self.game.duels), n)) % n
        pairs = np.unique(np.sort(np.column_stack([i, j]), axis=1), axis=0)
        return pairs[:, 0], pairs[:, 1]

    def _duels_against(self, group: Group, opponent: Policy) -> tuple[Tensor, Tensor]:
        """P(y_i > opponent) from ``duels`` fresh responses of it for each, and how many verdicts came, [S, n]."""
        s, n = group.start.shape
        duels = self.game.duels
        key = f"{self.trainer.key()}/opponent {group.rounds}"
        rivals = self._sample(opponent, group.prompts, n * duels, key)
        own = group.samples.select(np.repeat(np.arange(s * n), duels))
        verdicts = torch.from_numpy(self._verdicts(own, rivals).reshape(s, n, duels))
        answers = (~verdicts.isnan()).sum(2)
        return verdicts.nansum(2) / answers.clamp(min=1), answers

    def _sample(self, writer: Policy, prompts: list[str], n: int, purpose: str) -> Samples:
        return sampled(
            writer,
            [prompt for prompt in prompts for _ in range(n)],
            seed=self.learning.seed,
            purpose=purpose,
            temperature=self.game.temperature,
            max_new_tokens=self.game.max_new_tokens,
        )

    def _likelihoods(self, policy: Policy, samples: Samples, own: NDArray[np.bool_]) -> Tensor:
        """log pi(y|x), [B]. What the policy drew itself (``own``, [B]) came with it; a pass computes the others."""
        if not keeps_likelihoods(policy):
            own = np.zeros_like(own)
        found = torch.zeros(len(samples))
        if own.any():
            drawn = [values.sum(dtype=np.float64) for values in samples.select(own).log_probabilities]
            found[torch.from_numpy(own)] = torch.tensor(drawn).to(found)
        if own.all():
            return found.to(next(policy.parameters()).device)

        def compute(part: Samples) -> Tensor:
            return policy.log_probabilities(part, self.game.temperature)[0].sum(1)

        others = self.trainer.compute(compute, samples.select(~own))
        found = found.to(others)
        found[index(np.flatnonzero(~own), found)] = others
        return found

    def _metrics(self, group: Group) -> Metrics:
        mine, written = slice(0, group.n - group.from_reference), group.samples.select(group.own)
        tokens, now = max(1.0, float(written.lengths().sum())), time.perf_counter()
        metrics = {
            "kl": float((group.start - group.reference)[:, mine].mean()),
            "entropy": -float(group.start[:, mine].sum()) / tokens,
            "queries": float(self.feedback.queries),
            "seconds": now - group.written,
            "tokens_per_second": tokens / (now - group.started),
            **sample_metrics(written, self.learning),
        }
        if isinstance(self.feedback, AnnotatorFeedback):
            metrics["unanswered"] = float(self.feedback.unanswered)
        return metrics


def feedback_of(game: Game, learning: Learning) -> Feedback:
    """Who decides the duels."""
    name = type(game).__name__
    if game.preference_model is not None:
        # Its own training is logged where it is a stage of its own; here its steps are none of the game's.
        model = game.preference_model.train(replace(learning, log=lambda metrics: None, steps=lambda total: None))
        if not isinstance(model, PreferenceModel):
            raise UserError(f"preference_model: {type(game.preference_model).__name__} fits no preference model")
        return ModelFeedback(model, game.micro_batch_tokens, game.uses_scores)
    if learning.annotator is None:
        raise UserError(f"{name}: the annotator of the training feedback is missing")
    if game.uses_scores:
        raise UserError(f"{name}: it learns from a model's scores; give it a preference_model")
    return AnnotatorFeedback(learning.annotator, learning.seed, game.soft_labels)


def probe_of(game: Game, learning: Learning) -> GapProbe | None:
    if not game.gap_every:
        return None
    if learning.annotator is None:
        raise UserError(f"{type(game).__name__}: gap_every asks the annotator, and there is none")
    return GapProbe(
        learning.annotator,
        learning.policy,
        learning.prompts["instruction"].tolist()[: game.gap_prompts],
        learning.seed,
        temperature=game.temperature,
        max_new_tokens=game.max_new_tokens,
    )


def _shares(where: Tensor) -> Tensor:
    """Equal weights where true that sum to 1 in each row, or a row of zeros, float64."""
    return where.double() / where.sum(-1, keepdim=True).clamp(min=1)


def _interleave(parts: list[Samples], prompts: int) -> Samples:
    """Samples grouped by prompt in each part, regrouped so that all of a prompt stand together."""
    if len(parts) == 1:
        return parts[0]
    together, offset, places = Samples.concatenate(parts), 0, []
    for part in parts:
        each = len(part) // prompts
        places.append(offset + np.arange(prompts)[:, None] * each + np.arange(each))
        offset += len(part)
    return together.select(np.concatenate(places, axis=1).reshape(-1))
