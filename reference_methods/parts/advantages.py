"""Advantages: how much better than expected. Pure functions without gradient; [B] or [B, T] in, the same out."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def generalised_advantage(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """GAE (arXiv 1506.02438, eq. 16) of responses that end: there is nothing after the last real token.

        delta_t = r_t + gamma V_{t+1} - V_t,     A_t = delta_t + gamma lam A_{t+1},     G_t = A_t + V_t

    Args:
        rewards: the reward of each token, [B, T].
        values: V_t, the value before token t is written, [B, T].
        mask: true at real tokens, which come first in each row, [B, T].

    Returns:
        advantages and returns (the targets of the value model), [B, T], 0 where masked.
    """
    real = mask.to(rewards.dtype)
    rewards, values = rewards * real, values * real
    advantages = torch.zeros_like(rewards)
    ahead = rewards.new_zeros(len(rewards))
    next_value = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):  # a recursion in t: the batch is what is vectorised
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        ahead = (delta + gamma * lam * ahead) * real[:, t]
        next_value = values[:, t]
        advantages[:, t] = ahead
    return advantages, (advantages + values) * real


@torch.no_grad()
def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """RLOO (arXiv 2402.14740): A_i = R_i - mean of the other rewards of its group; [B], groups consecutive."""
    if group_size < 2:
        raise ValueError(f"a leave-one-out baseline needs at least 2 responses to a prompt, not {group_size}")
    groups = rewards.view(-1, group_size)
    others = (groups.sum(1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).reshape(-1)


@torch.no_grad()
def group_relative(
    rewards: Tensor, group_size: int, by_deviation: bool = True, degrees_of_freedom: int = 1, floor: float = 1e-4
) -> Tensor:
    """GRPO (arXiv 2402.03300): A_i = (R_i - mean) / (deviation + floor) within the group; [B], groups consecutive.

    Without ``by_deviation`` the centred reward (Dr. GRPO, arXiv 2503.20783). ``degrees_of_freedom`` is what is taken
    off the count under the variance: 1 in TRL and verl; with 0 a reward of 0 or 1 has A = sqrt((1 - p) / p) where 1.
    """
    if group_size < 2:
        raise ValueError(f"a group has at least 2 responses to compare, not {group_size}")
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    if by_deviation:
        centred = centred / (groups.std(1, keepdim=True, correction=degrees_of_freedom) + floor)
    return centred.reshape(-1)


@torch.no_grad()
def same_in_group(rewards: Tensor, group_size: int, tolerance: float = 1e-6) -> Tensor:
    """Whether all rewards of a response's group are equal, so that there is nothing to learn from it; bool [B]."""
    groups = rewards.view(-1, group_size)
    equal = groups.max(1).values - groups.min(1).values <= tolerance
    return equal.repeat_interleave(group_size)


@torch.no_grad()
def whiten(values: Tensor, mask: Tensor, shift: bool = True, floor: float = 1e-3) -> Tensor:
    """Values over their standard deviation, and with ``shift`` at mean 0; moments over real places of the whole batch.

    ``floor`` is the least standard deviation divided by, so that differences that are only rounding are not blown up.
    Masked places are 0. Without ``shift`` this is a pure scale: putting the old mean back, as some codes do, adds the
    same constant to every token, which is a reward for length.
    """
    real = mask.to(values.dtype)
    count = real.sum().clamp(min=1)
    mean = (values * real).sum() / count
    deviation = (((values - mean) * real).square().sum() / count).sqrt().clamp(min=floor)
    return ((values - mean) if shift else values) * real / deviation


@torch.no_grad()
def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(G - V) / Var(G) over real places: 1 is a perfect value model, 0 no better than a constant, and 0 where
    the returns do not vary."""
    target, error = returns[mask], (returns - values)[mask]
    spread = float(target.var(unbiased=False))
    return 1 - float(error.var(unbiased=False)) / spread if spread > 0 else 0.0
