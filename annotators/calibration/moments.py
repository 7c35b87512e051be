"""The last step of a calibration: the groups moved, all alike, until simulated votes have the people's statistics.

The likelihood weighs every split of votes; the statistics that a crowd is asked to reproduce (agreement, ceiling, ties,
preferences) are single numbers, and a model that is not quite true misses some by a little. The method of simulated
moments (McFadden 1989) closes the gap: with x the common shifts of log σ, log η, the log-odds of ε, the position,
length and list biases in units of σ, and the spread of η from pair to pair, damped Gauss-Newton steps on

    Σ_k ((simulated_k(x) - people_k) / SE_k)²  +  Σ_j (x_j / reach_j)²

with keyed, and so common, random numbers. The second term keeps shifts that no statistic asks for at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

from annotators.calibration.ballots import Ballots
from annotators.calibration.check import crowd_of, simulated, statistics
from annotators.people.crowd import Group
from farm.base.arrays import Floats
from farm.statistics.uncertainty import Estimate

_REACH = np.array([1.0, 1.0, 1.5, 1.0, 1.0, 1.0, 1.0])
_STEP = np.array([0.15, 0.15, 0.5, 0.1, 0.1, 0.1, 0.3])
_TIE_SPREAD = 6
_SEEDS = tuple(range(101, 113))
NOT_MATCHED = frozenset({"pairs with one opinion"})
"""left out of the matching, so that it tests the result"""


def shifted(groups: list[Group], x: Floats) -> list[Group]:
    """The groups moved by the first six of x: log σ, log η, log-odds of ε, and the biases over σ."""
    out = []
    for group in groups:
        spread = group.spread * float(np.exp(x[0]))
        flip = float(expit(logit(np.clip(group.flip, 0.003, 0.997)) + x[2])) if group.flip or x[2] else 0.0
        out.append(group.model_copy(update={
            "spread": round(spread, 4),
            "utility": round(group.utility * float(np.exp(x[0])), 4),
            "tie_width": round(group.tie_width * float(np.exp(x[1])), 4),
            "flip": round(flip, 4),
            "position_bias": round(group.position_bias * float(np.exp(x[0])) + spread * float(x[3]), 4),
            "length_bias": round(group.length_bias * float(np.exp(x[0])) + spread * float(x[4]), 4),
            "list_bias": round(group.list_bias * float(np.exp(x[0])) + spread * float(x[5]), 4),
        }))  # fmt: skip
    return out


def matched(
    given: Ballots, groups: list[Group], people: dict[str, Estimate], *, rounds: int = 6
) -> tuple[list[Group], float]:
    """The groups, and the tie spread, shifted so that their simulated votes have the statistics of ``people``."""
    names = [n for n, e in people.items() if e.standard_error > 0 and n not in NOT_MATCHED]
    target = np.array([people[n].value for n in names])
    error = np.array([people[n].standard_error for n in names])
    free = np.array([
        True, any(g.tie_width for g in groups), True, "position" in given.known, "length" in given.known,
        "list" in given.known, any(g.tie_width for g in groups),
    ])  # fmt: skip

    def missed(x: Floats, seeds: Sequence[int]) -> Floats:
        crowd = crowd_of(given, shifted(groups, x), tie_spread=max(float(x[_TIE_SPREAD]), 0.0))
        runs = [statistics(simulated(given, crowd, seed)) for seed in seeds]
        return np.mean([[r[n].value if n in r else people[n].value for n in names] for r in runs], axis=0) - target

    # Averages over as many simulations as make them surer than the people's own statistics.
    seeds = _SEEDS[: int(np.clip(60_000 // len(given.item), 3, len(_SEEDS)))]
    x = np.zeros(len(_REACH))
    x[_TIE_SPREAD] = 0.3 if free[_TIE_SPREAD] else 0.0
    gap = missed(x, seeds)
    best, damping = _loss(gap / error, x), 0.01
    for _ in range(rounds):
        scaled = np.zeros((len(names), len(x)))
        alone = missed(x, _SEEDS[:1])  # one seed is enough for slopes: the draws are common
        for j in np.flatnonzero(free):
            moved = x.copy()
            moved[j] += _STEP[j]
            scaled[:, j] = (missed(moved, _SEEDS[:1]) - alone) / _STEP[j] / error
        curvature = scaled.T @ scaled + np.diag(1 / _REACH**2)
        downhill = -scaled.T @ (gap / error) - x / _REACH**2
        gain = 0.0
        for _ in range(5):  # Levenberg and Marquardt: shorter steps until one helps
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), downhill)
            there = x + np.where(free, np.clip(step, -0.7, 0.7), 0.0)
            trial = missed(there, seeds)
            if (loss := _loss(trial / error, there)) < best:
                x, gap, gain, best, damping = there, trial, best - loss, loss, damping / 10
                break
            damping = max(10 * damping, 0.1)
        if gain < 0.3:
            break
    return shifted(groups, x), round(max(float(x[_TIE_SPREAD]), 0.0), 4)


def _loss(residual: Floats, x: Floats) -> float:
    return float(residual @ residual + np.square(x / _REACH).sum())
