"""Known theory on random games of 3 to 30 responses: exact convergence, rates of averages, floors under noise."""

from __future__ import annotations

import numpy as np
import pytest

from farm.base.arrays import Floats
from reference_methods.games.dno import DNO
from reference_methods.games.egpo import EGPO
from reference_methods.games.inpo import INPO
from reference_methods.games.nash_mp import NashMP
from reference_methods.games.self_play import SelfPlay
from reference_methods.games.spo import SPO
from reference_methods.games.sppo import SPPO
from reference_methods.parts.games.matrix_game import duality_gap, equilibrium, kl
from reference_methods.parts.games.table import Table, play
from reference_methods.parts.games.training import Game

Games = list[tuple[Floats, Floats]]
BETA = 0.1
FEW = slice(0, 28, 9)
"""batches for the quick tests: sizes 3, 12, 21, 30; the slow ones take all 100 games"""


def reaches_equilibrium(game: Game, games: Games, step: float, most: int = 400) -> None:
    for preferences, reference in games:
        for _, policy in zip(range(most), play(game, Table.of(preferences, reference), most, step), strict=False):
            if (duality_gap(preferences, reference, BETA, policy) < 1e-8).all():
                break
        else:
            raise AssertionError(f"no gap below 1e-8 within {most} iterations for {preferences.shape[1]} responses")
        np.testing.assert_allclose(policy, equilibrium(preferences, reference, BETA), atol=1e-3)


@pytest.mark.parametrize(("game", "step"), [(EGPO(beta=BETA), 1.0), (NashMP(beta=BETA), 2.0)])
def test_last_policies_reach_the_equilibrium(random_games: Games, game: Game, step: float) -> None:
    reaches_equilibrium(game, random_games[FEW], step)


@pytest.mark.slow
@pytest.mark.parametrize(("game", "step"), [(EGPO(beta=BETA), 1.0), (NashMP(beta=BETA), 2.0)])
def test_last_policies_reach_the_equilibrium_of_100_games(random_games: Games, game: Game, step: float) -> None:
    assert sum(len(p) for p, _ in random_games) == 100
    reaches_equilibrium(game, random_games, step)


def meets_its_bound(games: Games, beta: float) -> None:
    for preferences, reference in games:
        star = equilibrium(preferences, reference, beta)
        start = kl(star, reference)
        for k, policy in enumerate(play(NashMP(beta=beta), Table.of(preferences, reference), 12, 2.0)):
            assert (kl(star, policy) <= start * (1 + 2 * beta) ** -k + 1e-13).all()


@pytest.mark.parametrize("beta", [0.03, 0.3])
def test_nash_mp_meets_its_bound(random_games: Games, beta: float) -> None:
    meets_its_bound(random_games[FEW], beta)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_nash_mp_meets_its_bound_in_100_games(random_games: Games, beta: float) -> None:
    meets_its_bound(random_games, beta)


def average_keeps_its_rate(game: Game, games: Games, iterations: int) -> None:
    """The regret of multiplicative weights: gap of the average <= 2 (log(1/min ref)/(step T) + step/8)."""
    for preferences, reference in games:
        distance = np.log(1 / reference.min())
        step = float(np.sqrt(8 * distance / iterations))
        policies = np.array(list(play(game, Table.of(preferences, reference), iterations, step)))[:-1]
        gap = duality_gap(preferences, reference, 0.0, policies.mean(0))
        assert (gap <= 2 * (distance / (step * iterations) + step / 8)).all()
        assert (gap < duality_gap(preferences, reference, 0.0, policies[: iterations // 16].mean(0))).all()


@pytest.mark.parametrize("game", [SPO(), DNO(), SPPO()])
def test_average_policies_fall_at_their_rate(random_games: Games, game: Game) -> None:
    average_keeps_its_rate(game, random_games[FEW], 400 if isinstance(game, SPO) else 64)


@pytest.mark.slow
@pytest.mark.parametrize("game", [SPO(), DNO(), SPPO()])
def test_average_policies_fall_at_their_rate_in_100_games(random_games: Games, game: Game) -> None:
    average_keeps_its_rate(game, random_games, 400)


def floor(game: Game, step: float, samples: int, cycle: tuple[Floats, Floats], iterations: int) -> float:
    """The mean KL to the equilibrium that is left under noise, over 60 independent games and the second half."""
    preferences, reference = cycle
    table = Table.of(np.stack([preferences] * 60), reference, samples, seed=1)
    star = equilibrium(preferences, reference, BETA)
    policies = list(play(game, table, iterations, step))
    return float(np.mean([kl(star, policy) for policy in policies[iterations // 2 :]]))


@pytest.mark.parametrize("game", [SelfPlay(beta=BETA), EGPO(beta=BETA), NashMP(beta=BETA)])
def test_the_floor_under_bernoulli_verdicts_is_in_proportion_to_step_and_variance(
    cycle: tuple[Floats, Floats], game: Game
) -> None:
    one = floor(game, 0.4, 40, cycle, 160)
    half_the_step, quarter_the_variance = floor(game, 0.2, 40, cycle, 320), floor(game, 0.4, 160, cycle, 160)
    assert one / half_the_step == pytest.approx(2, rel=0.3)
    assert one / quarter_the_variance == pytest.approx(4, rel=0.25)


def test_the_floor_of_descent_is_that_of_its_linearisation(cycle: tuple[Floats, Floats]) -> None:
    """theta' = (1 - eta beta) theta + eta P_hat pi + ...: noise of variance eta^2 s^2 and the slope at the equilibrium
    have a stationary law, whose KL to the equilibrium is half its variance under the equilibrium."""
    preferences, reference = cycle
    step, samples = 0.3, 400
    star = equilibrium(preferences, reference, BETA)
    wins = preferences @ star
    fisher = np.diag(star) - np.outer(star, star)
    centre = np.eye(3) - 1 / 3
    slope = centre @ ((1 - step * BETA) * np.eye(3) + step * preferences @ fisher) @ centre
    noise = centre @ np.diag(step**2 * wins * (1 - wins) / samples) @ centre
    law = np.zeros((3, 3))
    for _ in range(2000):
        law = slope @ law @ slope.T + noise
    known = 0.5 * np.trace(fisher @ law)
    assert floor(SelfPlay(beta=BETA), step, samples, cycle, 240) == pytest.approx(known, rel=0.1)


def test_noise_is_keyed_by_the_seed(cycle: tuple[Floats, Floats]) -> None:
    def last(seed: int, game: Game) -> Floats:
        *_, policy = play(game, Table.of(*cycle, samples=5, seed=seed), 5)
        return policy

    for game in (EGPO(), INPO(), SPO()):
        np.testing.assert_array_equal(last(1, game), last(1, game))
        assert np.abs(last(1, game) - last(2, game)).max() > 1e-6
