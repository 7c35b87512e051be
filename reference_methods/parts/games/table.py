"""A preference game played in the table: K responses, exact expectations or Bernoulli verdicts, the same losses.

Each game of a batch is a prompt of one :class:`TabularPolicy`, in float64. The batch a loss is given holds all K
responses, weighted by their probability, so its sums are expectations. An update is what the loss stands for:

    natural gradient    theta <- theta - step F^+ grad L, with F the Fisher matrix of the softmax: for losses whose
                        gradient is that of a regularised preference, a step of mirror descent
    argmin              the minimiser of L, by Newton's method: for methods that are defined by one

With ``samples`` = N every win rate is the mean of N Bernoulli duels against draws of the opponent, and every preference
of a pair the mean of N duels; the expectation over one's own responses stays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from farm.base import rng
from farm.base.arrays import Floats
from farm.policies.tabular import TabularPolicy
from farm.roles.protocols import Policy
from reference_methods.parts.games.losses import Play, product
from reference_methods.parts.games.opponents import Live, Opponent, extragradient
from reference_methods.parts.games.settings import GameSettings
from reference_methods.parts.optimization import Metrics

SCORE_FLOOR = 1e-3
"""a preference this near to 0 or 1 counts as this far from it where its log-odds are needed"""


@dataclass(frozen=True)
class Table:
    """S games of K responses each."""

    preferences: Floats
    """P[s, i, j] = P(y_i > y_j), [S, K, K]"""
    reference: TabularPolicy
    samples: int | None = None
    """duels behind each number; None for exact expectations"""
    seed: int = 0

    @classmethod
    def of(cls, preferences: Floats, reference: Floats, samples: int | None = None, seed: int = 0) -> Table:
        """From [S, K, K] and [S, K], or [K, K] and [K] for one game."""
        preferences = np.atleast_3d(preferences) if preferences.ndim == 3 else preferences[None]
        s, k = preferences.shape[:2]
        probabilities = np.broadcast_to(reference, (s, k))
        prompts, responses = [f"game {i}" for i in range(s)], [f"response {i}" for i in range(k)]
        logits = torch.from_numpy(np.log(probabilities))
        return cls(preferences, TabularPolicy(prompts, responses, logits), samples, seed)

    def labels(self, game: GameSettings, opponent: Policy, iteration: int, call: int) -> tuple[Tensor, Tensor]:
        """Win rates (or scores) against the opponent, [S, K], and preferences of pairs, [S, K, K]."""
        assert isinstance(opponent, TabularPolicy)
        probabilities = opponent.probabilities().detach().numpy()
        table = self.preferences
        if game.uses_scores:
            safe = np.clip(table, SCORE_FLOOR, 1 - SCORE_FLOOR)
            scores = np.log(safe) - np.log1p(-safe)
            if self.samples is not None:  # the scores are a model's, so only the opponents are drawn
                shares = probabilities / probabilities.sum(-1, keepdims=True)
                draw = self._draw(iteration, call)
                probabilities = draw.multinomial(self.samples, shares) / self.samples
            return torch.from_numpy(np.einsum("sij,sj->si", scores, probabilities)), torch.from_numpy(table)
        wins = np.einsum("sij,sj->si", table, probabilities)
        if self.samples is not None and game.learns_from_pairs:
            upper = np.triu(self._draw(iteration, call).binomial(self.samples, table) / self.samples, 1)
            table = upper + np.tril(1 - upper.transpose(0, 2, 1), -1) + 0.5 * np.eye(table.shape[1])
        elif self.samples is not None:
            wins = self._draw(iteration, call).binomial(self.samples, np.clip(wins, 0, 1)) / self.samples
        return torch.from_numpy(wins), torch.from_numpy(table)

    def _draw(self, iteration: int, call: int) -> np.random.Generator:
        return rng.generator(self.seed, "games/table", iteration, call)

    def queries(self, game: GameSettings) -> int:
        """Duels asked in an iteration of each game; 0 for exact expectations."""
        if self.samples is None:
            return 0
        k = int(self.preferences.shape[1])
        each = k * (k - 1) // 2 if game.learns_from_pairs else k
        return each * self.samples * (2 if game.is_extragradient else 1)


def play(game: GameSettings, table: Table, iterations: int, step_size: float | None = None) -> Iterator[Floats]:
    """The policies of ``game`` in the table, [S, K] each: at the start (the reference), then after every iteration."""
    learner = table.reference.copy()
    yield learner.probabilities().detach().numpy()
    opponent: Opponent | None = None
    for iteration in range(iterations):
        method, size = game.in_table(step_size, iteration)
        if opponent is None or method is not game:
            opponent = opponent if _keeps_memory(opponent) else method.opponent(learner, table.reference)
        assert opponent is not None
        turn = _Turn(method, table, learner, iteration, size)
        if game.is_extragradient:
            extragradient(learner, opponent.policy(), turn)
        else:
            turn(opponent.policy())
        opponent.update()
        yield learner.probabilities().detach().numpy()


def _keeps_memory(opponent: Opponent | None) -> bool:
    from reference_methods.parts.games.opponents import Average

    return isinstance(opponent, (Average, Live))


class _Turn:
    """One update of the learner, against whichever opponent it is called with."""

    def __init__(
        self, game: GameSettings, table: Table, learner: TabularPolicy, iteration: int, step_size: float
    ) -> None:
        self.game, self.table, self.learner, self.step_size = game, table, learner, step_size
        self.iteration, self.calls = iteration, 0

    def __call__(self, opponent: Policy) -> Metrics:
        self.calls += 1
        wins, preferences = self.table.labels(self.game, opponent, self.iteration, self.calls)
        batch = exact_play(self.learner, self.table.reference, wins, preferences, self.game.reference_samples)

        def loss(logits: Tensor) -> Tensor:
            return self.game.loss(torch.log_softmax(logits, -1), batch)

        logits = self.learner.logits.detach()
        if self.game.table_update == "argmin":
            new = newton(loss, logits)
        else:
            step = self.step_size / self.game.gradient_unit
            sampled = (batch.weights + batch.reference_weights) / (2 if self.game.reference_samples else 1)
            new = logits - step * natural_gradient(loss, logits, sampled)
        with torch.no_grad():
            self.learner.logits.copy_(new - new.logsumexp(-1, keepdim=True))
        return {}


def exact_play(
    policy: TabularPolicy, reference: TabularPolicy, wins: Tensor, preferences: Tensor, with_reference: bool = False
) -> Play:
    """All responses as a batch, each with its probability; pairs of the policy, or of policy and reference."""
    start, anchor = policy.log_table().detach(), reference.log_table().detach()
    weights, theirs = start.exp(), anchor.exp()
    pairs = product(weights)
    if with_reference:
        mixed = weights[..., :, None] * theirs[..., None, :]
        pairs = (mixed + mixed.transpose(-1, -2)) / 2
    else:
        theirs = torch.zeros_like(theirs)
    return Play(weights, start, anchor, wins, preferences, pairs, theirs)


def natural_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor, sampled: Tensor) -> Tensor:
    """F^+ grad of the losses [S] at the logits [S, K], F = diag(m) - mm' with m the law of the samples, [S, K].

    The samples are the policy's own (then F is its Fisher matrix), or half of them the reference's.
    """
    at = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at).sum(), at)
    scaled = gradient / sampled.clamp(min=1e-300)
    return scaled - scaled.mean(-1, keepdim=True)


def newton(loss: Callable[[Tensor], Tensor], start: Tensor, iterations: int = 60) -> Tensor:
    """The logits, [S, K], that minimise each of the losses [S], from ``start``.

    Eigenvalues of the curvature are taken by size, so that every step descends, and steps are halved until they do. A
    quadratic loss takes one step.
    """
    logits = start.clone()
    s, k = logits.shape
    directions = torch.eye(k, dtype=logits.dtype)[:, None, :].expand(k, s, k)
    curvature = None
    for _ in range(iterations):
        at = logits.clone().requires_grad_()
        value = loss(at)
        (gradient,) = torch.autograd.grad(value.sum(), at, create_graph=True)
        if curvature is not None and float((gradient.detach().abs() / curvature).max()) < 1e-13:
            break
        (rows,) = torch.autograd.grad(gradient, at, directions, is_grads_batched=True)
        gradient, value, hessian = gradient.detach(), value.detach(), rows.transpose(0, 1)
        curvature = hessian.diagonal(dim1=-2, dim2=-1).abs().clamp(min=1e-300)
        # In units in which every response has curvature 1: else those of probability 1e-12 drown in rounding.
        unit = curvature.rsqrt()
        # A shift of all logits alike changes nothing: it is given the curvature 1.
        shift = torch.nn.functional.normalize(1 / unit, dim=-1)
        scaled = hessian * unit[..., :, None] * unit[..., None, :] + shift[..., :, None] * shift[..., None, :]
        values, vectors = torch.linalg.eigh(scaled)
        inside = (vectors.transpose(-1, -2) @ (unit * gradient)[..., None])[..., 0] / values.abs().clamp(min=1e-300)
        step = -unit * (vectors @ inside[..., None])[..., 0]
        step = step / (step.abs().amax(-1, keepdim=True) / 50).clamp(min=1)
        size = torch.ones(s, 1, dtype=logits.dtype)
        for _ in range(30):
            with torch.no_grad():
                worse = loss(logits + size * step) > value + 1e-12 * value.abs()
            if not bool(worse.any()):
                break
            size = torch.where(worse[:, None], size / 2, size)
        logits = logits + size * step
        if float((size * step).abs().max()) < 1e-8:  # the next step would be about its square
            break
    return logits
