"""The numbers of the tabular game of every method of games, each to the digits given here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from farm.base.arrays import Floats
from reference_methods.games.dno import DNO
from reference_methods.games.egpo import EGPO
from reference_methods.games.inpo import INPO
from reference_methods.games.nash_md import NashMD
from reference_methods.games.nash_mp import NashMP
from reference_methods.games.online_dpo import OnlineDPO
from reference_methods.games.online_ipo import OnlineIPO
from reference_methods.games.self_play import SelfPlay
from reference_methods.games.spo import SPO
from reference_methods.games.sppo import SPPO
from reference_methods.parts.games.matrix_game import (
    best_response,
    bradley_terry_scores,
    duality_gap,
    equilibrium,
    kl,
    payoff,
    softmax,
    win_rates,
)
from reference_methods.parts.games.table import Table, play
from reference_methods.parts.games.training import Game

Cycle = tuple[Floats, Floats]
BETA = 0.1


def course(game: Game, cycle: Cycle, iterations: int, step: float | None) -> Floats:
    return np.array([policy[0] for policy in play(game, Table.of(*cycle), iterations, step)])


def first_below(game: Game, cycle: Cycle, step: float, bound: float = 1e-8, most: int = 200) -> int | None:
    """The first iteration whose regularised duality gap is below the bound."""
    for t, policy in enumerate(play(game, Table.of(*cycle), most, step)):
        if duality_gap(*cycle, BETA, policy[0]) < bound:
            return t
    return None


@pytest.mark.parametrize(
    ("beta", "known"),
    [
        (1.0, (0.496305, 0.271801, 0.231894)),
        (0.3, (0.436923, 0.248104, 0.314973)),
        (0.1, (0.294475, 0.309797, 0.395728)),
        (0.03, (0.233093, 0.398657, 0.368250)),
        (0.01, (0.224334, 0.429442, 0.346224)),
        (0.0, (2 / 9, 4 / 9, 3 / 9)),
    ],
)
def test_equilibria(cycle: Cycle, beta: float, known: tuple[float, ...]) -> None:
    found = equilibrium(*cycle, beta)
    np.testing.assert_allclose(found, known, atol=5.1e-7)
    assert duality_gap(*cycle, beta, found) < 1e-15


def test_initial_values_and_the_two_baselines(cycle: Cycle) -> None:
    preferences, reference = cycle
    star = equilibrium(*cycle, BETA)
    assert kl(star, reference) == pytest.approx(0.1241, abs=5e-5)
    assert duality_gap(*cycle, BETA, reference) == pytest.approx(0.0762, abs=5e-5)
    scores = bradley_terry_scores(preferences)
    np.testing.assert_allclose(scores, (-0.135, -0.135, 0.270), atol=5e-4)
    rlhf = softmax(np.log(reference) + scores / BETA)
    np.testing.assert_allclose(rlhf, (0.041, 0.024, 0.935), atol=5e-4)
    assert duality_gap(*cycle, BETA, rlhf) == pytest.approx(0.391, abs=5e-4)
    one_step = best_response(*cycle, BETA, reference)
    np.testing.assert_allclose(one_step, (0.378, 0.068, 0.554), atol=6e-4)
    assert duality_gap(*cycle, BETA, one_step) == pytest.approx(0.0995, abs=5e-5)


def test_the_gap_is_twice_the_gain_of_the_best_response(cycle: Cycle) -> None:
    for policy in np.random.default_rng(0).dirichlet(np.ones(3), 20):
        for beta in (0.0, 0.03, 1.0):
            answer = best_response(*cycle, beta, policy)
            gain = 2 * (payoff(*cycle, beta, answer, policy) - 0.5)
            assert duality_gap(*cycle, beta, policy) == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "descent", "egpo", "nash_mp"),
    [(0.5, 171, 146, 154), (1, 92, 66, 74), (2, 58, 27, 35), (4, 83, 10, 16), (6, None, 29, 11), (8, None, None, 10)],
)
def test_iterations_to_a_gap_of_1e_8(
    cycle: Cycle, step: float, descent: int | None, egpo: int | None, nash_mp: int
) -> None:
    assert first_below(INPO(beta=BETA), cycle, step) == descent
    assert first_below(OnlineIPO(beta=BETA), cycle, step) == descent
    assert first_below(SelfPlay(beta=BETA), cycle, step) == descent
    assert first_below(EGPO(beta=BETA), cycle, step) == egpo
    assert first_below(NashMP(beta=BETA), cycle, step) == nash_mp


@pytest.mark.parametrize(
    ("game", "step", "known"),
    [
        (OnlineIPO(beta=BETA), 6, 0.084),
        (OnlineIPO(beta=BETA), 8, 0.146),
        (EGPO(beta=BETA), 8, 0.110),
    ],
)
def test_gap_where_a_method_diverges(cycle: Cycle, game: Game, step: float, known: float) -> None:
    *_, last = play(game, Table.of(*cycle), 2999, step)  # the number is of the 3000th policy, the reference the first
    assert duality_gap(*cycle, BETA, last[0]) == pytest.approx(known, abs=6e-4)


def test_nash_mp_at_large_steps(cycle: Cycle) -> None:
    assert first_below(NashMP(beta=BETA), cycle, 18) == 110
    circling = duality_gap(*cycle, BETA, course(NashMP(beta=BETA), cycle, 400, 20)[-50:])
    assert np.median(circling) == pytest.approx(0.012, abs=6e-4) and np.ptp(circling) < 2.5e-3
    best_responses = duality_gap(*cycle, BETA, course(NashMP(beta=BETA), cycle, 200, 1e9)[-100:])
    assert best_responses.max() == pytest.approx(0.48, abs=0.01)
    *_, tame = play(NashMP(beta=0.3), Table.of(*cycle), 200, 1e9)
    assert duality_gap(*cycle, 0.3, tame[0]) < 1e-8
    *_, wild = play(NashMP(beta=0.01), Table.of(*cycle), 300, 8)
    assert duality_gap(*cycle, 0.01, wild[0]) > 1e-3


def test_a_single_proximal_step_without_the_half_point_is_slower(cycle: Cycle) -> None:
    class OneProximalStep(NashMP):
        is_extragradient = False

    assert first_below(OneProximalStep(beta=BETA), cycle, 2) == 64


def test_nash_mp_meets_its_bound(cycle: Cycle) -> None:
    star = equilibrium(*cycle, BETA)
    distance = kl(star, course(NashMP(beta=BETA), cycle, 50, 2 * BETA / BETA))
    for t, known in ((1, 0.0788), (10, 1.1e-3), (50, 6.5e-12)):
        assert distance[t] == pytest.approx(known, rel=0.05 if t > 1 else 1e-3)
    bound = distance[0] * (1 + 2 * BETA) ** -np.arange(51.0)  # two queries an iteration: (1 + 2 beta)^(-N/2)
    assert bound[10] == pytest.approx(0.0200, abs=1e-4)
    assert (distance[1:] <= bound[1:]).all()
    assert (distance[40] / distance[10]) ** (1 / 30) == pytest.approx(0.62, abs=5e-3)


def test_nash_md_stalls_at_a_floor_that_falls_with_the_square_of_the_step(cycle: Cycle) -> None:
    star = equilibrium(*cycle, BETA)
    floors = {}
    for step, known, iterations in (
        (0.5, 2.55e-4, 300),
        (0.25, 6.1e-5, 600),
        (0.1, 9.5e-6, 1500),
        (0.05, 2.4e-6, 3000),
    ):
        floors[step] = kl(star, course(NashMD(beta=BETA), cycle, iterations, step)[-1])
        assert floors[step] == pytest.approx(known, rel=0.02)
    assert floors[0.5] / floors[0.25] == pytest.approx(4, rel=0.1)
    assert floors[0.1] / floors[0.05] == pytest.approx(4, rel=0.05)


@pytest.mark.slow
def test_nash_md_floor_at_a_small_step(cycle: Cycle) -> None:
    last = course(NashMD(beta=BETA), cycle, 12000, 0.01)[-1]
    assert kl(equilibrium(*cycle, BETA), last) == pytest.approx(9.4e-8, rel=0.02)


def test_nash_md_converges_with_the_falling_step(cycle: Cycle) -> None:
    star = equilibrium(*cycle, BETA)
    distance = kl(star, course(NashMD(beta=BETA), cycle, 1000, None))
    assert distance[10] == pytest.approx(3.5e-3, rel=0.02)
    assert distance[100] == pytest.approx(3.6e-5, rel=0.02)
    assert distance[1000] < 5e-7
    t = np.arange(1001.0)
    assert (distance <= 8 / (BETA**2 * (t + 1))).all()


def test_nash_md_one_step_bound(cycle: Cycle) -> None:
    star = equilibrium(*cycle, BETA)
    for step in (0.1, 0.5, 1.0):
        distance = kl(star, course(NashMD(beta=BETA), cycle, 30, step))
        assert (distance[1:] <= (1 - step * BETA) * distance[:-1] + 2 * step**2).all()


def test_egpo_falls_by_the_known_factor(cycle: Cycle) -> None:
    distance = kl(equilibrium(*cycle, BETA), course(EGPO(beta=BETA), cycle, 100, 0.5))
    assert (distance[90] / distance[40]) ** (1 / 50) == pytest.approx(0.895, abs=5e-4)


@pytest.mark.slow
def test_egpo_without_regularisation_reaches_the_winner_with_its_last_policy(cycle: Cycle) -> None:
    *_, last = play(EGPO(beta=0.0), Table.of(*cycle), 20000, 0.5)
    assert duality_gap(*cycle, 0.0, last[0]) == pytest.approx(8e-13, rel=0.3)
    np.testing.assert_allclose(last[0], (2 / 9, 4 / 9, 3 / 9), atol=1e-11)


@pytest.mark.slow
def test_multiplicative_weights_circle_and_average(cycle: Cycle) -> None:
    policies = course(SPO(), cycle, 20000, 0.1)[:-1]
    gaps = duality_gap(*cycle, 0.0, policies)
    assert gaps[-1000:].min() > 0.1 and gaps[-1000:].max() < 1.0
    average = policies.mean(0)
    assert duality_gap(*cycle, 0.0, average) == pytest.approx(0.0022, abs=5e-5)
    np.testing.assert_allclose(average, (2 / 9, 4 / 9, 3 / 9), atol=5e-3)


def test_dno_and_spo_and_sppo_take_the_step_of_multiplicative_weights(cycle: Cycle) -> None:
    preferences, _ = cycle
    policy = softmax(np.array([0.3, -0.8, 0.1]))
    table = Table.of(preferences, policy)
    for step in (0.1, 1.0, 3.0):
        known = softmax(np.log(policy) + step * win_rates(preferences, policy))
        for game in (DNO(), SPO(), INPO(beta=0.0)):
            *_, new = play(game, table, 1, step)
            np.testing.assert_allclose(new[0], known, atol=1e-10)
            assert new[0] @ preferences @ policy >= 0.5
            assert policy @ win_rates(preferences, policy) == pytest.approx(0.5)


def test_sppo_is_that_step_up_to_the_third_order(cycle: Cycle) -> None:
    preferences, reference = cycle
    distances = []
    for step, known in ((2.0, 1.0e-3), (1.0, 1.2e-4), (0.5, 1.5e-5), (0.25, 1.9e-6), (10.0, 0.09)):
        *_, new = play(SPPO(), Table.of(*cycle), 1, step)
        exact = softmax(np.log(reference) + step * win_rates(preferences, reference))
        distances.append(np.abs(new[0] - exact).sum() / 2)
        assert distances[-1] == pytest.approx(known, rel=0.06)
    assert distances[2] / distances[3] == pytest.approx(8, rel=0.05)


def test_sppo_at_the_papers_step_is_no_longer_that_step(cycle: Cycle) -> None:
    *_, new = play(SPPO(), Table.of(*cycle), 1, 1e3)
    np.testing.assert_allclose(new[0], (1 / 6, 0, 5 / 6), atol=1e-3)


def test_online_dpo_has_another_fixed_point(cycle: Cycle) -> None:
    *_, last = play(OnlineDPO(beta=BETA), Table.of(*cycle), 1500, 1.0)
    np.testing.assert_allclose(last[0], (0.2304, 0.4064, 0.3633), atol=6e-5)
    assert duality_gap(*cycle, BETA, last[0]) == pytest.approx(0.0177, abs=5e-5)


def test_ipo_is_the_first_iteration_of_inpo(cycle: Cycle) -> None:
    preferences, reference = cycle
    tau = 0.3
    *_, new = play(INPO(beta=tau), Table.of(*cycle), 1, 1 / tau)
    np.testing.assert_allclose(new[0], softmax(np.log(reference) + preferences @ reference / tau), atol=1e-12)
    spread = np.log(new[0] / reference)
    assert spread.max() - spread.min() <= 1 / tau
    sure = np.array([[0.5, 1.0], [0.0, 0.5]])  # one pair, always won: the difference is 1/(2 tau), however sure it is
    *_, new = play(INPO(beta=tau), Table.of(sure, np.array([0.4, 0.6])), 1, 1 / tau)
    assert math.log(new[0][0] / new[0][1]) - math.log(0.4 / 0.6) == pytest.approx(1 / (2 * tau))
