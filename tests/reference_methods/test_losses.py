"""Losses, advantages and averages against known answers, and the identities that tie methods together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reference_methods.parts.advantages import explained_variance, generalised_advantage, leave_one_out, whiten
from reference_methods.parts.aggregation import Aggregation, Totals, aggregate
from reference_methods.parts.losses import bradley_terry, clipped_policy_gradient, clipped_share, clipped_value

torch.set_default_dtype(torch.float32)
finite = st.floats(-20, 20)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(first: Tensor, second: Tensor, parameters: Tensor, tolerance: float = 1e-12) -> None:
    """Equal in value and in gradient."""
    gradients = [torch.autograd.grad(loss, parameters, retain_graph=True)[0] for loss in (first, second)]
    assert torch.allclose(first, second, atol=tolerance)
    assert torch.allclose(*gradients, atol=tolerance)


# --- preference losses ---------------------------------------------------------------------------------------------


def test_loss_at_zero_margin_is_ln_2_whatever_the_label():
    labels = torch.tensor([0.0, 0.5, 1.0])
    for smoothing, robust in ((0.0, False), (0.3, False), (0.3, True)):
        assert torch.allclose(
            bradley_terry(torch.zeros(3), labels, smoothing, robust), torch.full((3,), np.log(2)).float()
        )


def test_conservative_loss_without_smoothing_is_the_plain_one():
    margin = draw(8).requires_grad_()
    p = torch.rand(8, dtype=torch.float64)
    plain = -(p * torch.nn.functional.logsigmoid(margin) + (1 - p) * torch.nn.functional.logsigmoid(-margin)).sum()
    same(bradley_terry(margin, p, 0.0).sum(), plain, margin)
    same(bradley_terry(margin, p, 0.0, robust=True).sum(), plain, margin)


def test_conservative_loss_mixes_both_labels():
    margin = draw(8).requires_grad_()
    one = torch.ones(8, dtype=torch.float64)
    mixed = 0.8 * bradley_terry(margin, one) + 0.2 * bradley_terry(margin, 0 * one)
    same(bradley_terry(margin, one, 0.2).sum(), mixed.sum(), margin)


def test_a_soft_label_is_a_sure_one_smoothed():
    margin = draw(8).requires_grad_()
    one = torch.ones(8, dtype=torch.float64)
    same(bradley_terry(margin, 0.7 * one).sum(), bradley_terry(margin, one, 0.3).sum(), margin)


@given(finite, st.floats(0, 1), st.floats(0, 0.45))
def test_robust_loss_under_flips_is_the_loss_of_clean_labels(margin, p, flip):
    m, label = torch.tensor([margin], dtype=torch.float64, requires_grad=True), torch.tensor([p], dtype=torch.float64)
    # Each observed label is flipped with probability `flip`: the expectation over both observations.
    expected = (1 - flip) * bradley_terry(m, label, flip, robust=True) + flip * bradley_terry(
        m, 1 - label, flip, robust=True
    )
    same(expected.sum(), bradley_terry(m, label).sum(), m, 1e-9)


@given(finite, st.floats(0, 1), st.floats(0, 0.45), st.booleans())
def test_swapping_the_outputs_changes_nothing(margin, p, smoothing, robust):
    m, label = torch.tensor([margin], dtype=torch.float64), torch.tensor([p], dtype=torch.float64)
    one, other = bradley_terry(m, label, smoothing, robust), bradley_terry(-m, 1 - label, smoothing, robust)
    assert torch.allclose(one, other, atol=1e-9)


def test_impossible_smoothing_is_refused():
    with pytest.raises(ValueError, match="below one half"):
        bradley_terry(torch.zeros(1), torch.ones(1), 0.5)


# --- policy gradient -----------------------------------------------------------------------------------------------


def test_clipped_loss_at_ratio_1_is_reinforce():
    new, advantages = draw(6, 4).requires_grad_(), draw(6, 4, seed=1)
    clipped = clipped_policy_gradient(new - new.detach(), advantages).sum()
    gradient = torch.autograd.grad(clipped, new)[0]
    reinforce = torch.autograd.grad(-(advantages * new).sum(), new)[0]
    assert torch.allclose(gradient, reinforce)
    assert clipped_share(new - new.detach(), advantages).sum() == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.3, 1.0, 0.0), (0.7, 1.0, -0.7), (1.3, -1.0, 1.3), (0.7, -1.0, 0.0), (1.1, 1.0, -1.1), (0.9, -1.0, 0.9)],
)
def test_gradient_stops_in_the_two_clipped_quadrants(ratio, advantage, slope):
    log_ratio = torch.tensor([np.log(ratio)], requires_grad=True)
    clipped_policy_gradient(log_ratio, torch.tensor([advantage])).sum().backward()
    assert log_ratio.grad.item() == pytest.approx(slope, abs=1e-6)
    assert clipped_share(log_ratio, torch.tensor([advantage])).item() == (slope == 0)


def test_value_loss_takes_the_worse_of_clipped_and_unclipped():
    values, old, returns = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 0.0]), torch.tensor([2.0, 2.0])
    assert clipped_value(values, returns, old, 0.2).tolist() == pytest.approx([0.5 * 1.8**2, 0.5 * 1.9**2])
    assert clipped_value(values, returns, old, None).tolist() == pytest.approx([0.5, 0.5 * 1.9**2])


def test_leave_one_out_by_hand():
    assert leave_one_out(torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3).tolist() == [-3, -1.5, 4.5, -1.5, -1.5, 3]
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out(torch.ones(3), 1)


def test_leave_one_out_is_the_mean_of_all_pairwise_gradients():
    log_likelihoods, rewards = draw(8).requires_grad_(), draw(8, seed=2)
    k = len(rewards)
    pairs = -((rewards[:, None] - rewards[None]) * (log_likelihoods[:, None] - log_likelihoods[None])).sum() / (
        2 * k * (k - 1)
    )
    same(pairs, -(leave_one_out(rewards, k) * log_likelihoods).mean(), log_likelihoods)


def test_leave_one_out_is_the_centred_reward_up_to_a_factor():
    rewards = draw(8)
    assert torch.allclose(leave_one_out(rewards, 8), 8 / 7 * (rewards - rewards.mean()))


# --- generalised advantages ----------------------------------------------------------------------------------------


def test_without_values_the_advantage_is_what_is_still_to_come():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    advantages, returns = generalised_advantage(rewards, torch.zeros(2, 3), mask, gamma=1, lam=1)
    assert advantages.tolist() == [[6, 5, 3], [9, 5, 0]]
    assert returns.tolist() == advantages.tolist()


def test_lambda_0_is_one_step_of_bootstrapping():
    rewards, values = draw(3, 5), draw(3, 5, seed=1)
    mask = torch.arange(5)[None] < torch.tensor([5, 3, 1])[:, None]
    advantages, _ = generalised_advantage(rewards, values, mask, gamma=0.9, lam=0)
    following = torch.cat([values[:, 1:], torch.zeros(3, 1, dtype=torch.float64)], 1)
    ends = torch.cat([mask[:, 1:], torch.zeros(3, 1, dtype=torch.bool)], 1)
    assert torch.allclose(advantages, (rewards + 0.9 * following * ends - values) * mask)


def test_lambda_1_telescopes_to_return_minus_value():
    rewards, values = draw(4, 6), draw(4, 6, seed=1)
    mask = torch.ones(4, 6, dtype=torch.bool)
    advantages, returns = generalised_advantage(rewards, values, mask, gamma=1, lam=1)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(advantages, to_go - values)
    assert torch.allclose(returns, to_go)


def test_padding_never_enters():
    rewards, values = draw(2, 4), draw(2, 4, seed=1)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    short, _ = generalised_advantage(rewards[1:, :2], values[1:, :2], mask[1:, :2])
    rewards[1, 2:], values[1, 2:] = 1e6, -1e6
    long, returns = generalised_advantage(rewards, values, mask)
    assert torch.allclose(long[1, :2], short[0])
    assert long[1, 2:].tolist() == [0, 0] and returns[1, 2:].tolist() == [0, 0]
    white = whiten(long, mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-12)
    assert float(white[mask].std(unbiased=False)) == pytest.approx(1)
    assert white[1, 2:].tolist() == [0, 0]


def test_whitening_without_shift_is_a_scale():
    values, mask = draw(4, 5) + 3, torch.ones(4, 5, dtype=torch.bool)
    white = whiten(values, mask, shift=False)
    assert torch.allclose(white * values.std(unbiased=False), values)


def test_whitening_does_not_blow_up_rounding():
    values = torch.full((4, 5), 0.3) + 1e-7 * torch.rand(4, 5)
    assert whiten(values, torch.ones(4, 5, dtype=torch.bool)).abs().max() < 1e-3


def test_explained_variance():
    returns, mask = draw(3, 4), torch.ones(3, 4, dtype=torch.bool)
    assert explained_variance(returns, returns, mask) == pytest.approx(1)
    assert explained_variance(torch.zeros_like(returns), returns, mask) == pytest.approx(0)


# --- averages ------------------------------------------------------------------------------------------------------

HOW: tuple[Aggregation, ...] = (
    "token_mean",
    "sequence_mean_token_mean",
    "sequence_mean_token_sum",
    "sequence_mean_token_sum_over_horizon",
)


def test_four_averages_by_hand():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, float("nan"), 99.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = [aggregate(values, mask, how, horizon=10).item() for how in HOW]
    assert found == pytest.approx([10 / 4, (2 + 4) / 2, (6 + 4) / 2, (0.6 + 0.4) / 2])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("weighted", [False, True])
def test_cutting_a_minibatch_changes_neither_loss_nor_gradient(how, weighted):
    parameters = draw(8, 5).requires_grad_()
    mask = torch.arange(5)[None] < torch.tensor([5, 1, 3, 0, 2, 5, 4, 1])[:, None]
    weights = torch.rand(8, dtype=torch.float64) if weighted else torch.ones(8, dtype=torch.float64)
    totals = Totals(float(weights.sum()), float((weights * mask.sum(1)).sum()))
    whole = aggregate(parameters.square(), mask, how, weights=weights, horizon=5)
    for size in (1, 3, 4):
        parts = sum(
            aggregate(
                parameters[i : i + size].square(), mask[i : i + size], how, totals, weights[i : i + size], horizon=5
            )
            for i in range(0, 8, size)
        )
        same(whole, parts, parameters)


def test_empty_responses_are_counted_not_divided_by():
    mask = torch.zeros(2, 3, dtype=torch.bool)
    for how in HOW:
        assert aggregate(torch.ones(2, 3), mask, how, horizon=3).item() == 0
