"""Losses of the preference game: pure functions of log-probabilities of n responses to each of S prompts.

All take ``log_probabilities`` log pi(y_i|x), [S, n] with gradient, and what is known of the batch (:class:`Play`), and
return the loss of each prompt, [S]. In the table the n responses are all there are, weighted by their probability, so
the sums are exact expectations; on a model they are samples, weighted alike. The loss does not know the difference.

    duel form          the expectation over pairs of samples of one policy
    win-rate form      P(y > opponent) of each response against any opponent

Reductions (each is a test): the regularised win rate, the policy gradient and the regression of INPO have one gradient
direction at the sampling policy; the identity-preference loss of EGPO is the first of them with one anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from reference_methods.parts.losses import bradley_terry, clipped_policy_gradient


@dataclass(frozen=True)
class Play:
    """What is known of n responses to each of S prompts before an update. No tensor has a gradient."""

    weights: Tensor
    """of each response in an expectation over the sampling policy, [S, n]; sums to 1 over n"""
    start: Tensor
    """log pi_t(y_i): of the policy at the start of the update, which sampled, [S, n]"""
    reference: Tensor
    """log pi_ref(y_i), [S, n]"""
    wins: Tensor
    """P(y_i > opponent), or the score against it, [S, n]"""
    preferences: Tensor
    """P(y_i > y_j), [S, n, n]; meaningful where ``pair_weights`` is positive"""
    pair_weights: Tensor
    """of each ordered pair of responses, symmetric, [S, n, n]; sums to 1, or 0 where a prompt has no answered duel"""
    reference_weights: Tensor
    """of each response in an expectation over the reference, [S, n]; zeros where no method asked for them"""

    def select(self, prompts: Tensor) -> Play:
        """The batch of these prompts, an index into S."""
        return Play(**{name: value[prompts] for name, value in vars(self).items()})


def mean(values: Tensor, weights: Tensor) -> Tensor:
    return (weights * values).sum(-1)


def covariance(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Of two numbers of the responses under their weights, [S]."""
    return mean(centred(first, weights) * centred(second, weights), weights)


def centred(values: Tensor, weights: Tensor) -> Tensor:
    return values - mean(values, weights)[..., None]


def differences(values: Tensor) -> Tensor:
    """v_i - v_j, [S, n] -> [S, n, n]."""
    return values[..., :, None] - values[..., None, :]


def regularised_win_rate(
    log_probabilities: Tensor, wins: Tensor, weights: Tensor, anchors: Sequence[tuple[float, Tensor]]
) -> Tensor:
    """sum_k b_k/2 Var(log pi - a_k) - Cov(log pi, wins), with anchors (b_k, a_k = log-probabilities [S, n]).

    Over samples of pi itself its gradient is that of -P(pi > opponent) + sum_k b_k KL(pi || a_k). Its minimum is at
    log pi = (sum_k b_k a_k + wins) / sum_k b_k + c whatever the samples come from, so it stays right for several
    steps on one batch. Online identity preference optimisation is the case of one anchor:
    ``b/4`` E[(D(y, y') - (P(y > opp) - P(y' > opp)) / b)^2] up to a constant, written so that b = 0 has a meaning.
    """
    loss = -covariance(log_probabilities, wins, weights)
    for strength, anchor in anchors:
        ratio = log_probabilities - anchor
        loss = loss + 0.5 * strength * covariance(ratio, ratio, weights)
    return loss


def policy_gradient(log_probabilities: Tensor, play: Play, beta: float, clip: float) -> Tensor:
    """-E[R A], clipped as in PPO: A = P(y > opponent) - 1/2 - beta log pi_t/pi_ref(y), R = pi/pi_t of the response.

    At the sampling policy the gradient is that of -P(pi > opponent) + beta KL(pi || pi_ref): the KL enters through
    the log-ratio of the whole response, not token by token (which would lose what a token does to later ones).
    """
    advantage = play.wins - 0.5 - beta * (play.start - play.reference)
    return mean(clipped_policy_gradient(log_probabilities - play.start, advantage, clip, clip), play.weights)


def pair_regression(log_ratio: Tensor, target: Tensor, pair_weights: Tensor) -> Tensor:
    """E over pairs of (h(y_i) - h(y_j) - target_ij)^2 (IPO, INPO), [S]."""
    return (pair_weights * (differences(log_ratio) - target).square()).sum((-1, -2))


def pair_cross_entropy(margin: Tensor, p_first: Tensor, pair_weights: Tensor) -> Tensor:
    """E over pairs of the Bradley-Terry loss of ``margin``, [S, n], towards the labels (DPO, DNO), [S]."""
    gaps = differences(margin)
    losses = bradley_terry(gaps.reshape(-1), p_first.reshape(-1)).view_as(gaps)
    return (pair_weights * losses).sum((-1, -2))


def regression(log_ratio: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """E over responses of (h(y_i) - target_i)^2 (SPPO, GPO), [S]: the normaliser of the tilt is taken as 1."""
    return mean((log_ratio - target).square(), weights)


def product(weights: Tensor) -> Tensor:
    """The weights of ordered pairs drawn independently, [S, n] -> [S, n, n]."""
    return weights[..., :, None] * weights[..., None, :]
