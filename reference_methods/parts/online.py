"""Learning from one's own samples and their scores: the settings, and a trainer that draws rollouts.

Where the policy samples itself, the log-probabilities it drew with are the denominator of the ratio, so sampling costs
no second pass. Where another engine samples for it (vLLM, a server), or in 16 bits, where rounding alone would clip,
the trainer computes them once more, and :mod:`reference_methods.parts.sampler` compares the two and corrects for the
difference.

In 16 bits a log-probability also depends on the rows that are computed together, by tenths of a nat over a response.
There the denominator is computed in the micro-batches of the updates themselves, and is the numerator in the first: the
ratio is 1 until the policy has moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from farm.base.bounds import Count, NotNegative, Positive
from farm.hardware import memory, processes
from farm.roles.protocols import Learning, Policy, Samples, Scorer
from farm.roles.work import Texts
from farm.tables.turns import Prompt
from reference_methods.parts import kl
from reference_methods.parts.batches import (
    Batch,
    TrainingRows,
    in_parts,
    index,
    micro_batches,
    own_parts,
    sampled,
    total_lengths,
)
from reference_methods.parts.losses import clipped_share
from reference_methods.parts.optimization import Metrics
from reference_methods.parts.precision import AtStart, in_16_bits
from reference_methods.parts.rollouts import Rollout, joined, padded
from reference_methods.parts.sampler import alarm_of, compare, correction, same_of, samples_elsewhere
from reference_methods.parts.scored import Scored
from reference_methods.parts.trainer import Trainer
from reference_methods.parts.training import OnPolicy

RATIO_IS_ONE = {"update_kl": AtStart(0), "clip_fraction": AtStart(0)}
"""what the metrics of a loss with a clipped ratio of tokens are before the first update"""

NO_RATIO = dict.fromkeys(("clip", "importance_cap"), "its loss has no probability ratio")
"""settings that a method which imitates its own samples has no use for"""

COMPARED = 1024
"""A policy that samples itself is compared with what it drew on so many tokens a step: a check, and almost free."""


def ratio_metrics(
    log_ratio: Tensor,
    advantages: Tensor,
    mean: Callable[[Tensor], Tensor],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> dict[str, Tensor]:
    """What is logged of a clipped ratio: its mean, the share that the clip stopped, and the KL of the update (k3)."""
    log_ratio = log_ratio.detach()
    return {
        "ratio": mean(log_ratio.exp()),
        "clip_fraction": mean(clipped_share(log_ratio, advantages, clip_low, clip_high)),
        "update_kl": mean(kl.k3(-log_ratio, torch.zeros_like(log_ratio))),
    }


@dataclass(frozen=True, kw_only=True)
class Online(Scored, OnPolicy):
    """What learning from one's own samples and their rewards adds."""

    rollouts: Count = 512
    """responses of one batch"""
    missing_eos_reward: float | None = -1.0
    """the reward of a response that did not end by itself, instead of its score; ``None`` keeps the score"""
    beta: NotNegative = 0.02
    """the coefficient of the KL to the SFT policy, in the reward"""
    clip: NotNegative = 0.2
    """how far the probability ratio counts beyond 1"""
    epochs: Count = 2
    minibatches: Count = 2
    adam_epsilon: Positive = 1e-5
    same: NotNegative | None = None
    """nats a token, or a share of them, below which sampling and training count as one policy before the first update;
    left out, 1e-3, and 1e-2 in 16 bits, where they round differently. (The mean ratio would not tell: it is 1 for any
    policy.)"""
    importance_cap: Positive | None = 2.0
    """where another engine samples, or in 16 bits, each token's loss is weighted by pi_trainer / pi_sampler, at most
    this (truncated importance sampling); None for no correction"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollouts % self.samples_per_prompt or self.rollouts % self.minibatches:
            raise ValueError(
                f"rollouts ({self.rollouts}) must be a multiple of samples_per_prompt ({self.samples_per_prompt}) "
                f"and of minibatches ({self.minibatches})"
            )

    def work(self, prompts: int, pairs: int) -> Texts:  # noqa: ARG002
        """Each response is written, read by the reward model and the reference, and learned from."""
        n = self.steps * self.rollouts
        return Texts(self.epochs * n, 2 * n, n)

    def start_critic(self, learning: Learning) -> Scorer:
        """The reward model with a head of zeros (the start of a value model), in which what is to be trained trains; of
        a reward that is computed from a reward model that one; a new scalar model where there is none that could be
        trained: one that counts words, say."""
        model: Any = learning.models.get(self.reward_model)
        while isinstance(inner := getattr(model, "scorer", None), Scorer):
            model = inner
        if model is None or next(iter(model.parameters()), None) is None:
            return self.start_scorer(learning).copy(zero_head=True)
        changed = self.changed(learning.seed)
        if changed and hasattr(model, "with_settings"):
            model = model.with_settings(**changed)
        return cast(Scorer, model.copy(zero_head=True))


class OnlineTrainer(Trainer):
    """A :class:`Trainer` whose steps are rollouts."""

    settings: Online

    def steps(self, number: int, updates: int = 0, of: object = None, lines: int | None = None) -> Iterator[int]:
        for step in super().steps(number, updates, of, lines):
            self._drawn = list[Rollout]()
            yield step

    def rollouts(self, policy: Policy, score: Callable[[Samples], Tensor] | None = None) -> Iterator[Rollout]:
        """A step for each batch of scored samples of ``policy`` as it is then."""
        for prompts in self.prompts(self.settings.rollouts // self.settings.samples_per_prompt):
            yield self.rollout(policy, prompts, score=score)

    def rollout(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        purpose: str = "",
        score: Callable[[Samples], Tensor] | None = None,
    ) -> Rollout:
        """``samples_per_prompt`` samples for each prompt, scored by the reward model, or by ``score``, which is given
        the whole batch; as :meth:`scored`."""
        given = self.settings
        scorer, started = given.scorer(self.learning), time.perf_counter()
        samples = sampled(
            policy,
            [prompt for prompt in prompts for _ in range(given.samples_per_prompt)],
            seed=self.learning.seed,
            purpose=self.key(purpose),
            temperature=given.temperature,
            max_new_tokens=given.max_new_tokens,
        )
        scores = self.compute(scorer.scores, samples) if score is None else score(samples)
        if given.missing_eos_reward is not None:
            ended = torch.tensor([reason == "stop" for reason in samples.finish_reason], device=scores.device)
            scores = torch.where(ended, scores, given.missing_eos_reward)
        return self.scored(policy, samples, scores, started, purpose)

    def scored(self, policy: Policy, samples: Samples, scores: Tensor, started: float, purpose: str = "") -> Rollout:
        """The rollout of samples that ``policy`` has just written and their scores [B]: they are compared with what the
        trainer makes of them; the line of a step is of all its rollouts.

        Raises:
            RuntimeError: before the first update, what samples is not the policy that trains.
        """
        self.same = same_of(policy) if self.settings.same is None else self.settings.same
        self._drawn.append(found := self._seen(policy, samples, scores, started, self.key(purpose)))
        return found

    def minibatches(self, data: Samples | TrainingRows, samples: Samples | None = None) -> Iterator[Batch]:
        """As :meth:`Trainer.minibatches`; ``samples`` are those of the rows, where ``data`` has none."""
        batches = list(super().minibatches(data))
        policy: Any = self._networks[0][0]
        if in_16_bits(policy) and batches:
            batches[0] = replace(batches[0], first=not self._updates)
            samples = samples if isinstance(data, TrainingRows) else data
            assert samples is not None
            batches = [batch if batch.first else self._with_old(policy, batch, samples) for batch in batches]
        yield from batches

    @torch.no_grad()
    def _with_old(self, policy: Policy, batch: Batch, samples: Samples) -> Batch:
        """The batch with the log-probabilities that the policy gives its rows before it moves."""
        parts = own_parts(batch, self.tokens)

        def everything() -> list[Tensor]:
            with memory.explained("a pass over samples", "lower micro_batch_tokens"):
                return [policy.log_probabilities(samples.select(part), self.settings.temperature)[0] for part in parts]

        before = torch.zeros(len(samples), int(samples.lengths().max(initial=0)))
        for part, found in zip(parts, processes.raise_together(everything), strict=True):
            before = before.to(found)
            before[index(part, before), : found.shape[1]] = found
        return replace(batch, before=before)

    def line(self) -> Metrics:
        drawn = joined(self._drawn).metrics(self.learning)
        return {**drawn, **super().line(), "tokens_per_second": drawn["tokens_per_second"]}

    def _seen(self, policy: Policy, samples: Samples, scores: Tensor, started: float, key: str) -> Rollout:
        given, tokens = self.settings, self.tokens

        def written_by(writer: Policy, part: Samples) -> Tensor:
            return writer.log_probabilities(part, given.temperature)[0]

        reference = self.compute(partial(written_by, self.learning.reference), samples)
        drawn, mask = padded(samples.log_probabilities, like=reference)
        rollout, alarm = Rollout(samples, mask, drawn, reference, scores.to(reference), started), alarm_of(policy)
        if not (samples_elsewhere(policy) or in_16_bits(policy)):  # a check of a few, which is almost free
            lengths = total_lengths(samples)
            some = micro_batches(np.arange(len(lengths)), lengths, min(COMPARED, tokens))[0]
            trained = in_parts(partial(written_by, policy), samples.select(some), tokens)
            width = trained.shape[1]
            return replace(rollout, comparison=compare(trained, drawn[some, :width], mask[some, :width], alarm))
        trained = self.compute(partial(written_by, policy), samples)
        comparison = compare(trained, drawn, mask, alarm)
        if self.step == 0 and not comparison["sampler_kl"] <= self.same:
            raise RuntimeError(
                f"{key}: before the first update what samples and the policy that trains are "
                f"{comparison['sampler_kl']:.4f} nats a token apart (`same` allows {self.same:g}): other weights, "
                "another temperature, a cut distribution (top_k, top_p) or another precision"
            )
        weights, cut = correction(trained, drawn, mask, given.importance_cap)
        comparison["importance_cut"] = cut
        return replace(rollout, log_probabilities=trained, weights=weights, comparison=comparison)
