"""Duels: who meets whom among the responses to a prompt, and what the verdicts say of each.

Duels against the learner itself are held within the group of a prompt: response i meets i + 1, ..., i + duels (in a
circle), and each verdict counts for both. Against another opponent each response meets ``duels`` responses of it. One
duel is one query to the annotator, whatever is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.roles.protocols import Samples
from farm.tables.turns import Prompt
from reference_methods.parts.batches import TrainingRows, total_lengths
from reference_methods.parts.games.losses import Play
from reference_methods.parts.optimization import Metrics

Decide = Callable[[Samples, Samples], NDArray[np.float64]]
"""P(first > second), or the score, of each pair; NaN where no verdict came"""


@dataclass
class Group:
    """n consecutive samples of each of S prompts, and their log-likelihoods. No tensor has a gradient."""

    prompts: list[Prompt]
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
    """how often they have met an opponent"""
    compared: Metrics = field(default_factory=dict)
    """sampler against trainer, on the first micro-batch: nothing is learnt yet, so its own pass serves"""

    @property
    def n(self) -> int:
        return self.start.shape[1]

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which samples are the learner's, [S n]."""
        return np.arange(len(self.samples)) % self.n < self.n - self.from_reference

    def training_rows(self) -> TrainingRows:
        lengths = total_lengths(self.samples).reshape(-1, self.n).max(1) * self.n
        return TrainingRows(np.arange(len(self.prompts), dtype=np.uint64), lengths, lengths)


def cut_loses(decide: Decide) -> Decide:
    """``decide``, but a response that did not end by itself loses to one that did, without being asked for."""

    def decided(first: Samples, second: Samples) -> NDArray[np.float64]:
        ended = np.array([[reason == "stop" for reason in side.finish_reason] for side in (first, second)])
        verdicts = ended[0].astype(np.float64)
        open_ones = np.flatnonzero(ended[0] == ended[1])
        if len(open_ones):
            verdicts[open_ones] = decide(first.select(open_ones), second.select(open_ones))
        return verdicts

    return decided


def schedule(n: int, theirs: int, duels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who meets whom in a group of n, each pair at most once; the last ``theirs`` are the reference's."""
    if theirs:  # each of the learner's against ``duels`` of the reference's
        own = n - theirs
        first = np.repeat(np.arange(own), duels)
        return first, own + (first + np.tile(np.arange(duels), own)) % theirs
    i = np.repeat(np.arange(n), duels)
    j = (i + 1 + np.tile(np.arange(duels), n)) % n
    pairs = np.unique(np.sort(np.column_stack([i, j]), axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def duels_within(group: Group, duels: int, decide: Decide, scores: bool) -> Play:
    """Duels of a group's responses with one another; ``scores`` says that ``decide`` gives scores."""
    s, n = group.start.shape
    first, second = schedule(n, group.from_reference, duels)
    rows = np.arange(s)[:, None] * n
    a, b = (rows + first).reshape(-1), (rows + second).reshape(-1)
    answers = decide(group.samples.select(a), group.samples.select(b))
    table, answered = np.zeros((s, n, n)), np.zeros((s, n, n))
    prompt, i, j = np.repeat(np.arange(s), len(first)), np.tile(first, s), np.tile(second, s)
    there = ~np.isnan(answers)
    opposite = -answers if scores else 1 - answers
    for x, y, values in ((i, j, answers), (j, i, opposite)):  # a pair met once, seen from both sides
        table[prompt[there], x[there], y[there]] = values[there]
        answered[prompt[there], x[there], y[there]] = 1
    preferences, asked = torch.from_numpy(table), torch.from_numpy(answered)
    count = asked.sum(2)
    return _play(group, (preferences * asked).sum(2) / count.clamp(min=1), count, preferences, asked)


def duels_against(group: Group, rivals: Samples, decide: Decide) -> Play:
    """Duels of a group's responses with an opponent's: as many ``rivals`` for each response, one after the other."""
    s, n = group.start.shape
    duels = len(rivals) // (s * n)
    own = group.samples.select(np.repeat(np.arange(s * n), duels))
    verdicts = torch.from_numpy(decide(own, rivals).reshape(s, n, duels))
    count = (~verdicts.isnan()).sum(2)
    zeros = torch.zeros(s, n, n, dtype=torch.float64)
    return _play(group, verdicts.nansum(2) / count.clamp(min=1), count, zeros, zeros)


def _play(group: Group, wins: Tensor, count: Tensor, preferences: Tensor, asked: Tensor) -> Play:
    """``wins`` [S, n] from ``count`` verdicts each; ``preferences`` [S, n, n] where ``asked``."""
    start, n = group.start, group.n
    learners = (torch.arange(n) < n - group.from_reference).expand(start.shape)
    return Play(
        weights=_shares(learners & (count > 0)).to(start),  # a response no duel of which was decided is left out
        start=start,
        reference=group.reference,
        wins=wins.to(start),
        preferences=preferences.to(start),
        pair_weights=(asked / asked.sum((1, 2), keepdim=True).clamp(min=1)).to(start),
        reference_weights=_shares(~learners).to(start),
    )


def _shares(where: Tensor) -> Tensor:
    """Equal weights where true that sum to 1 in each row, or a row of zeros, float64."""
    return where.double() / where.sum(-1, keepdim=True).clamp(min=1)
