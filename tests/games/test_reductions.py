"""The identities that tie the methods together: equal losses, equal gradients, equal steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from farm.base.arrays import Floats
from farm.policies.tabular import TabularPolicy
from reference_methods.games.egpo import EGPO
from reference_methods.games.gpo import GPO
from reference_methods.games.inpo import INPO
from reference_methods.games.nash_ema import NashEMA
from reference_methods.games.nash_md import NashMD
from reference_methods.games.nash_mp import NashMP
from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.games.online_ipo import OnlineIPO
from reference_methods.games.self_play import SelfPlay
from reference_methods.games.sppo import SPPO
from reference_methods.games.xpo import XPO
from reference_methods.parts.games.losses import Play, pair_cross_entropy, product, regularised_win_rate
from reference_methods.parts.games.matrix_game import softmax
from reference_methods.parts.games.opponents import Average, extragradient, geometric_mixture
from reference_methods.parts.games.table import Table, exact_play, play
from reference_methods.parts.games.training import Game
from reference_methods.parts.optimization import Optimizer
from tests.policies.conftest import PROMPTS, make_policy, small_model, word_tokenizer

BETA, SIZE = 0.3, 5


@pytest.fixture
def world() -> tuple[Tensor, TabularPolicy, TabularPolicy]:
    """Preferences [1, 5, 5], a policy and a reference, float64."""
    draw = np.random.default_rng(3)
    upper = np.triu(draw.uniform(-0.5, 0.5, (SIZE, SIZE)), 1)
    policies = [
        TabularPolicy(["x"], [str(i) for i in range(SIZE)], torch.from_numpy(draw.normal(size=(1, SIZE))))
        for _ in range(2)
    ]
    return torch.from_numpy(0.5 + upper - upper.T)[None], policies[0], policies[1]


def batch(
    world: tuple[Tensor, TabularPolicy, TabularPolicy], opponent: Tensor | None = None, mixed: bool = False
) -> Play:
    preferences, policy, reference = world
    against = policy.probabilities().detach() if opponent is None else opponent
    wins = torch.einsum("sij,sj->si", preferences, against)
    return exact_play(policy, reference, wins, preferences, mixed)


def gradient(game: Game, known: Play, policy: TabularPolicy) -> Tensor:
    logits = policy.logits.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(game.loss(torch.log_softmax(logits, -1), known).sum(), logits)
    return found


def test_the_methods_of_the_regularised_game_have_one_gradient(world) -> None:
    _preferences, policy, _reference = world
    known = batch(world)
    logits = policy.logits.detach().clone().requires_grad_()
    log_policy = torch.log_softmax(logits, -1)
    payoff = (log_policy.exp() * (known.wins - BETA * (log_policy - known.reference))).sum()
    (whole,) = torch.autograd.grad(-payoff, logits)
    for game in (SelfPlay(beta=BETA), NashMD(beta=BETA, mixture=0.0), NashEMA(beta=BETA), OnlineIPO(beta=BETA)):
        torch.testing.assert_close(gradient(game, known, policy), whole)
    mp = NashMP(beta=BETA, step_size=2.0)  # at pi_k the KL to pi_k has no gradient
    torch.testing.assert_close(gradient(mp, known, policy), whole)
    inpo = INPO(beta=BETA, step_size=0.7)  # squares of differences count each response twice
    torch.testing.assert_close(gradient(inpo, known, policy) / (4 * 0.7), whole)


def test_nash_md_against_the_reference_is_rlhf_with_the_win_rate_over_it(world) -> None:
    preferences, policy, reference = world
    known = batch(world, reference.probabilities().detach())
    logits = policy.logits.detach().clone().requires_grad_()
    log_policy = torch.log_softmax(logits, -1)
    reward = torch.einsum("sij,sj->si", preferences, reference.probabilities().detach())
    (rlhf,) = torch.autograd.grad(-(log_policy.exp() * (reward - BETA * (log_policy - known.reference))).sum(), logits)
    torch.testing.assert_close(gradient(NashMD(beta=BETA, mixture=1.0), known, policy), rlhf)
    assert NashMD(mixture=1.0).opponent(policy, reference).policy() is reference
    assert NashMD(mixture=0.0).opponent(policy, reference).policy() is policy


def test_the_scaled_loss_of_online_ipo_is_the_papers(world) -> None:
    """b/4 E[(D - d win / b)^2] up to a constant; with uniform samples a plain step lr is one of 4 lr/(K b)."""
    _preferences, policy, _reference = world
    known = replace(batch(world), weights=torch.full((1, SIZE), 1 / SIZE, dtype=torch.float64))
    logits = policy.logits.detach().clone().requires_grad_()
    h = torch.log_softmax(logits, -1) - known.reference
    pairs = (h[..., :, None] - h[..., None, :]) - (known.wins[..., :, None] - known.wins[..., None, :]) / BETA
    paper = (product(known.weights) * pairs.square()).sum()
    (of_paper,) = torch.autograd.grad(paper, logits)
    torch.testing.assert_close(gradient(OnlineIPO(beta=BETA), known, policy), of_paper * BETA / 4)
    rate = 0.05
    eta = 4 * rate / (SIZE * BETA)
    new = torch.softmax(logits.detach() - rate * of_paper, -1)
    omd = (1 - eta * BETA) * known.start + eta * BETA * known.reference + eta * known.wins
    torch.testing.assert_close(new, torch.softmax(omd, -1))


def test_egpo_with_the_policy_as_half_point_is_online_ipo(world) -> None:
    assert EGPO.loss is OnlineIPO.loss
    preferences, _policy, reference = world
    table = Table.of(preferences.numpy(), reference.probabilities().detach().numpy())
    plain = [p.copy() for p in play(OnlineIPO(beta=BETA), table, 3, 0.5)]
    looked = [p.copy() for p in play(EGPO(beta=BETA), table, 3, 0.5)]
    assert np.abs(plain[1] - looked[1]).max() > 1e-4
    # the first half of an EGPO step is the plain step
    theta = np.log(table.reference.probabilities().detach().numpy())
    half = softmax(theta + 0.5 * np.einsum("sij,sj->si", preferences.numpy(), softmax(theta)))
    np.testing.assert_allclose(plain[1], half, atol=1e-12)
    full = softmax(theta + 0.5 * np.einsum("sij,sj->si", preferences.numpy(), half))
    np.testing.assert_allclose(looked[1], full, atol=1e-12)


def test_inpo_learns_the_same_from_verdicts_as_from_probabilities(world) -> None:
    """Labels 1 with probability P: the gradient of the expected loss is that of the loss at P."""
    preferences, policy, _ = world
    game, known = INPO(beta=BETA, step_size=0.7), batch(world)
    one, zero = torch.ones_like(preferences), torch.zeros_like(preferences)
    sure = []
    for verdicts in (one, zero):
        weights = known.pair_weights * (preferences if verdicts is one else 1 - preferences)
        sure.append(gradient(game, replace(known, preferences=verdicts, pair_weights=weights), policy))
    torch.testing.assert_close(sure[0] + sure[1], gradient(game, known, policy))


def test_gpo_on_centred_preferences_is_sppo(world) -> None:
    _, policy, _ = world
    known = batch(world)
    centred = replace(known, wins=known.wins - 0.5)
    for step in (0.5, 3.0):
        other = torch.log_softmax(policy.logits.detach() * 0.3, -1)
        torch.testing.assert_close(
            GPO(step_size=step).loss(other, centred), SPPO(step_size=step).loss(other, known), rtol=0, atol=1e-12
        )


def test_xpo_without_optimism_is_online_dpo_against_the_reference(world) -> None:
    _, policy, _ = world
    known = batch(world, mixed=True)
    log_policy = torch.log_softmax(policy.logits.detach() * 0.3, -1)
    torch.testing.assert_close(
        XPO(beta=BETA, optimism=0.0).loss(log_policy, known), OnlineDPO(beta=BETA).loss(log_policy, known)
    )
    more = gradient(XPO(beta=BETA, optimism=0.5), known, policy) - gradient(XPO(beta=BETA, optimism=0.0), known, policy)
    reference = known.reference.exp()
    torch.testing.assert_close(more, 0.5 * (reference - policy.probabilities().detach()))


def test_dno_has_its_minimum_at_soft_policy_iteration(world) -> None:
    _, _policy, _ = world
    known = batch(world)
    target = torch.sigmoid(known.wins[..., :, None] - known.wins[..., None, :])
    logits = (known.start + 0.4 * known.wins).requires_grad_()
    margin = (torch.log_softmax(logits, -1) - known.start) / 0.4
    (found,) = torch.autograd.grad(pair_cross_entropy(margin, target, product(known.weights)).sum(), logits)
    assert found.abs().max() < 1e-12


def test_the_proximal_minimiser_is_the_closed_form(world) -> None:
    _preferences, _policy, reference = world
    known = batch(world, reference.probabilities().detach())
    step = 2.0
    best = (BETA * known.reference + known.start / step + known.wins) / (BETA + 1 / step)
    logits = best.clone().requires_grad_()
    loss = regularised_win_rate(
        torch.log_softmax(logits, -1), known.wins, known.weights, [(BETA, known.reference), (1 / step, known.start)]
    )
    (found,) = torch.autograd.grad(loss.sum(), logits)
    assert found.abs().max() < 1e-12
    log_policy = best.log_softmax(-1).requires_grad_()
    proximal = (  # the objective itself, P(opp > pi) + beta KL(pi || ref) + KL(pi || pi_k) / step
        log_policy.exp() * (-known.wins + BETA * (log_policy - known.reference) + (log_policy - known.start) / step)
    ).sum()
    (slope,) = torch.autograd.grad(proximal, log_policy)
    tangent = slope - slope.sum() * log_policy.exp().detach()
    assert tangent.abs().max() < 1e-12


# --- opponents --------------------------------------------------------------------------------------------------------


def adam(policy: TabularPolicy) -> Optimizer:
    networks = [(policy.parameters(), 0.1)]
    return Optimizer(networks, steps=10, schedule="constant", warm_up=0.0, max_gradient_norm=1e9, purpose="test")


def test_an_optimizer_comes_back_with_what_it_remembers() -> None:
    """As if the steps since had never been: Adam forgets them too."""
    policy, plain = (TabularPolicy(["x"], ["a", "b", "c"], torch.zeros(1, 3)) for _ in range(2))
    optimizer, uninterrupted = adam(policy), adam(plain)
    for k in range(3):
        here = optimizer.snapshot()
        for scale in (5.0, 7.0):
            (policy.log_table()[0, 1] * scale).backward()
            optimizer.step()
        optimizer.restore(here)
        for each, step in ((policy, optimizer), (plain, uninterrupted)):
            (each.log_table()[0, 0] * -(k + 1.0)).backward()
            step.step()
    assert optimizer.steps_taken == 3 and torch.equal(plain.logits, policy.logits)


def test_the_extragradient_of_a_table_comes_back_before_it_steps() -> None:
    policy = TabularPolicy(["x"], ["a", "b", "c"], torch.zeros(1, 3))
    starts, opponents = [], []

    def step(opponent: TabularPolicy) -> None:
        starts.append(policy.logits.detach().clone())
        opponents.append(opponent.logits.detach().clone())
        with torch.no_grad():
            policy.logits[0, 0] += 1.0

    extragradient(policy, policy, step)
    torch.testing.assert_close(starts[0], starts[1])
    assert not torch.equal(opponents[1], starts[0])  # the half point, not the start


def test_the_average_is_exponential() -> None:
    policy = TabularPolicy(["x"], ["a", "b"], torch.zeros(1, 2, dtype=torch.float64))
    average = Average(policy, 0.75)
    expected = torch.zeros(1, 2, dtype=torch.float64)
    for k in range(1, 4):
        with torch.no_grad():
            policy.logits.add_(torch.tensor([[float(k), 0.0]]))
        average.update()
        expected = 0.75 * expected + 0.25 * policy.logits.detach()
        torch.testing.assert_close(average.policy().logits.detach(), expected)


def test_a_mixture_of_language_models_mixes_next_token_logits() -> None:
    first = make_policy()
    second = make_policy().with_settings()
    second = type(first)(small_model(seed=1), word_tokenizer(), template="{prompt}", max_new_tokens=12)
    for share in (0.25, 0.8):
        mixed = geometric_mixture(first, second, share)
        samples = mixed.sample(PROMPTS * 3, seed=4, purpose="test")
        one, mask = first.distributions(samples)
        two, _ = second.distributions(samples)
        known = torch.log_softmax((1 - share) * one + share * two, -1)
        whole, _ = mixed.distributions(samples)
        torch.testing.assert_close(whole[mask], known[mask])
        chosen, _ = mixed.log_probabilities(samples)
        for row, drawn in enumerate(samples.log_probabilities):  # the sampler drew from the same distribution
            np.testing.assert_allclose(chosen[row, : len(drawn)].detach().numpy(), drawn, atol=2e-4)
    a, b = (geometric_mixture(first, second, s).sample(PROMPTS, seed=1, purpose="t") for s in (1e-9, 1 - 1e-9))
    assert a.outputs == first.sample(PROMPTS, seed=1, purpose="t").outputs
    assert b.outputs == second.sample(PROMPTS, seed=1, purpose="t").outputs


def test_numbers_of_a_game_do_not_depend_on_the_games_beside_it(cycle: tuple[Floats, Floats]) -> None:
    preferences, reference = cycle
    other = 1 - preferences
    for game in (EGPO(), INPO(), SPPO(), OnlineDPO()):
        *_, alone = play(game, Table.of(preferences, reference), 5, 1.0)
        *_, together = play(game, Table.of(np.stack([other, preferences]), reference), 5, 1.0)
        np.testing.assert_allclose(alone[0], together[1], atol=1e-12)
