"""A trainer of games: what a policy and its reference write, who decides the duels, and what is logged of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.base.errors import UserError
from farm.hardware import processes
from farm.roles.protocols import Learning, Policy, PreferenceModel, Samples
from farm.tables.turns import Prompt, prompts_of
from reference_methods.parts.batches import Batch, index, sampled, tokens_at_once
from reference_methods.parts.games.duels import Group, cut_loses, duels_against, duels_within
from reference_methods.parts.games.feedback import AskedFeedback, Feedback, ModelFeedback
from reference_methods.parts.games.gap import GapProbe
from reference_methods.parts.games.losses import Play
from reference_methods.parts.games.settings import GameSettings
from reference_methods.parts.optimization import Metrics
from reference_methods.parts.rollouts import sample_metrics
from reference_methods.parts.sampler import alarm_of, compare, keeps_likelihoods, same_of
from reference_methods.parts.trainer import Loss, Trainer


class GameTrainer(Trainer):
    """A :class:`Trainer` whose steps are groups of responses that duel. ``state``: what a checkpoint holds besides the
    policy and what was asked."""

    settings: GameSettings

    def __init__(self, game: GameSettings, learning: Learning, policy: Policy, **state: object) -> None:
        self.policy, self.feedback, self.probe = policy, feedback_of(game, learning), probe_of(game, learning)
        self.decide = cut_loses(self.feedback) if game.cut_responses_lose else self.feedback
        state |= {"feedback": self.feedback}
        super().__init__(game, learning, type(game).__name__, [(policy, game.learning_rate)], state=state)

    def groups(self) -> Iterator[Group]:
        """A step for each batch of prompts, with what the learner, and where asked the reference, write to them."""
        for prompts in self.prompts(self.settings.prompts_per_step):
            self.group = self._write(prompts)
            yield self.group

    def duels(self, group: Group, opponent: Policy) -> Play:
        """Who wins how often of a group, against the learner itself (by identity) or another opponent."""
        group.rounds += 1
        game = self.settings
        if opponent is self.policy or group.from_reference:
            return duels_within(group, game.duels, self.decide, game.uses_scores)
        rivals = self._sample(opponent, group.prompts, group.n * game.duels, f"{self.key()}/opponent {group.rounds}")
        return duels_against(group, rivals, self.decide)

    def log_likelihoods(self, group: Group, batch: Batch) -> Tensor:
        """log pi(y|x) of the responses to a batch's prompts, [b, n] with gradient."""
        n = group.n
        flat = (batch.rows[:, None] * n + np.arange(n)).reshape(-1)
        samples = group.samples.select(flat)
        tokens, mask = self.policy.log_probabilities(samples, self.settings.temperature)
        if not group.compared:
            own = np.flatnonzero(group.own[flat])
            there = index(own, tokens)
            group.compared.update(self._compare(samples.select(own), tokens.detach()[there], mask[there]))
        log_probabilities = tokens.sum(1).view(-1, n)
        if not group.known:
            group.start[index(batch.rows, group.start)] = log_probabilities.detach().to(group.start)
        return log_probabilities

    def update(self, batch: Batch, loss: Loss) -> Metrics:
        metrics = super().update(batch, loss)
        if not self.group.known:
            processes.all_reduce_sum(self.group.start)  # each has filled in its share
            self.group.known = True
        if self.step == 0:
            self._same(self.group)
        return metrics

    def line(self) -> Metrics:
        return {**super().line(), **self.group.compared, **self._metrics(self.group)}

    # --- what they are made of ----------------------------------------------------------------------------------------

    def _write(self, prompts: list[Prompt]) -> Group:
        game, key, started = self.settings, self.key(), time.perf_counter()
        theirs = game.samples_per_prompt // 2 if game.reference_samples else 0
        parts = [self._sample(self.policy, prompts, game.samples_per_prompt - theirs, key)]
        if theirs:
            parts.append(self._sample(self.learning.reference, prompts, theirs, f"{key}/reference"))
        samples = _interleave(parts, len(prompts))
        is_theirs = np.arange(len(samples)) % game.samples_per_prompt >= game.samples_per_prompt - theirs
        known = not game.one_pass or self.sharded
        if known:
            start = self._likelihoods(self.policy, samples, ~is_theirs)
        else:  # the one pass has them, and it costs none of its own
            start = torch.zeros(len(samples), device=next(self.policy.parameters()).device)
        reference = self._likelihoods(self.learning.reference, samples, is_theirs)
        shape = len(prompts), game.samples_per_prompt
        if self.probe and self.step % game.gap_every == 0:
            self.log(gap=self.probe(self.policy, self.step))
        return Group(
            prompts, samples, start.view(shape), reference.view(shape), theirs, known, started, time.perf_counter()
        )

    def _sample(self, writer: Policy, prompts: list[Prompt], n: int, purpose: str) -> Samples:
        return sampled(
            writer,
            [prompt for prompt in prompts for _ in range(n)],
            seed=self.learning.seed,
            purpose=purpose,
            temperature=self.settings.temperature,
            max_new_tokens=self.settings.max_new_tokens,
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
            return policy.log_probabilities(part, self.settings.temperature)[0].sum(1)

        others = self.compute(compute, samples.select(~own))
        found = found.to(others)
        found[index(np.flatnonzero(~own), found)] = others
        return found

    def _same(self, group: Group) -> None:
        """Raise, in all processes, if in any of them the policy that sampled was not the one that trains."""
        apart = group.compared.get("sampler_kl", 0.0) if keeps_likelihoods(self.policy) else 0.0
        if processes.add_metrics({"processes": float(not apart <= same_of(self.policy))}, ["processes"])["processes"]:
            raise RuntimeError(
                f"{self.key()}: before the first update the policy that samples and the one that trains are "
                f"{apart:.4f} nats a token apart: sampling and training give different log-probabilities"
            )

    def _compare(self, samples: Samples, trained: Tensor, mask: Tensor) -> Metrics:
        drawn = torch.zeros(mask.shape)
        drawn[mask.cpu()] = torch.from_numpy(np.concatenate(samples.log_probabilities))
        return compare(trained, drawn.to(trained), mask, alarm_of(self.policy))

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
        if isinstance(self.feedback, AskedFeedback):
            metrics["unanswered"] = float(self.feedback.unanswered)
        return metrics


def feedback_of(game: GameSettings, learning: Learning) -> Feedback:
    """Who decides the duels."""
    name = type(game).__name__
    if game.preference_model is not None:
        # Its own training is logged where it is a stage of its own; here its steps are none of the game's.
        model = game.preference_model.train(replace(learning, log=lambda metrics: None, steps=lambda total: None))
        if not isinstance(model, PreferenceModel):
            raise UserError(f"preference_model: {type(game.preference_model).__name__} fits no preference model")
        tokens = tokens_at_once(game.micro_batch_tokens, model, training=False)
        return ModelFeedback(model, tokens, game.uses_scores)
    if game.uses_scores:
        raise UserError(f"{name} needs the scores of a model: set its `preference_model`")
    return AskedFeedback(learning, soft=game.soft_labels)


def probe_of(game: GameSettings, learning: Learning) -> GapProbe | None:
    if not game.gap_every:
        return None
    return GapProbe(
        learning,
        prompts_of(learning.prompts)[: game.gap_prompts],
        temperature=game.temperature,
        max_new_tokens=game.max_new_tokens,
    )


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
