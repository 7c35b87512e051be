"""How uncertain strengths are: the sandwich over rows or clusters, and the bootstrap.

    V = H^-1 B H^-1,    B = C/(C-1) sum_c g_c g_c'

over clusters c (rows without any), g the summed scores. The bootstrap draws battles, or whole clusters, again and
refits from the estimate with one factorised Hessian; full Newton where that does not settle.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from eval.ratings.strengths import davidson_derivatives, fit_davidson, fit_half, half_derivatives
from eval.ratings.win_matrix import Counts, components
from farm.base import rng
from farm.base.arrays import Floats, Ints
from farm.base.errors import UserError
from farm.statistics.uncertainty import codes


def _inverse(theta: Floats, nu: float, counts: Counts, prior: float, ties: str) -> tuple[Floats, Floats]:
    """The inverse Hessian in the gauge of mean zero (theta's part and the rest), and what rows' scores need."""
    m = len(theta)
    wins = counts.win_matrix()
    if ties == "davidson":
        tied = counts.ties + counts.ties.T
        _, hessian, (win, tie) = davidson_derivatives(theta, float(np.log(nu)), wins - tied / 2, tied, prior)
        hessian[:m, :m] += 1.0 / m
        return _inv(hessian), np.stack([win, tie])
    _, hessian, p = half_derivatives(theta, wins, wins + wins.T, prior)
    return _inv(hessian + 1.0 / m), p[None]


def _inv(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def sandwich(
    theta: Floats,
    nu: float,
    counts: Counts,
    first: Ints,
    second: Ints,
    score: Floats,
    clusters: list[tuple[Ints, int]],
    prior: float,
    ties: str,
) -> tuple[Floats, int]:
    """The covariance [M, M] of theta in the gauge of mean zero, and of how many independent units it is.

    Args:
        first, second, score: of the battles, [n]; ``counts`` are these counted.
        clusters: labels [n] and their number, of none to two ways.
    """
    m = len(theta)
    inverse, p = _inverse(theta, nu, counts, prior, ties)
    if not clusters:
        meat, units = _meat_of_rows(counts, p, ties), score.size
        meat = meat * units / max(units - 1, 1)
    elif len(clusters) == 1:
        meat, units = _meat(first, second, score, p, ties, m, *clusters[0]), clusters[0][1]
    else:
        (a, ca), (b, cb) = clusters
        both, cab = codes(a * cb + b)
        one, two = _meat(first, second, score, p, ties, m, a, ca), _meat(first, second, score, p, ties, m, b, cb)
        meat, units = one + two - _meat(first, second, score, p, ties, m, both, cab), min(ca, cb)
        # In small samples the difference need not be a covariance; its negative part is cut off.
        w, v = np.linalg.eigh(meat)
        meat = (v * np.maximum(w, 0)) @ v.T
    full = inverse @ meat @ inverse
    centre = np.eye(m) - 1.0 / m
    return np.asarray(centre @ full[:m, :m] @ centre), units


def _row_scores(first: Ints, second: Ints, score: Floats, p: Floats, ties: str) -> tuple[Floats, Floats | None]:
    """Each row's score for theta_first (that of theta_second is its negative), and for log nu."""
    if ties != "davidson":
        return score - p[0][first, second], None
    win, tie = p
    return (2 * score - 1 - win[first, second] + win[second, first]) / 2, (score == 0.5) - tie[first, second]


def _meat(first: Ints, second: Ints, score: Floats, p: Floats, ties: str, m: int, code: Ints, number: int) -> Floats:
    r, r_nu = _row_scores(first, second, score, p, ties)
    rows, columns, values = [code, code], [first, second], [r, -r]
    width = m
    if r_nu is not None:
        rows, columns, values, width = [*rows, code], [*columns, np.full_like(first, m)], [*values, r_nu], m + 1
    g = csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(number, width))
    return np.asarray((g.T @ g).toarray()) * number / max(number - 1, 1)


def _meat_of_rows(counts: Counts, p: Floats, ties: str) -> Floats:
    """The same with every row a cluster of its own, from the counts alone: no pass over the rows."""
    m = len(counts.games)
    if ties != "davidson":
        squares = counts.squares - 2 * p[0] * counts.wins + p[0] ** 2 * counts.games
        both = squares + squares.T
        return np.diag(both.sum(axis=1)) - both
    win, tie = p
    out = np.zeros((m + 1, m + 1))
    decided = counts.wins - counts.ties / 2
    lost = counts.games - decided - counts.ties
    for number, s, is_tie in ((decided, 1.0, 0.0), (counts.ties, 0.5, 1.0), (lost, 0.0, 0.0)):
        r = (2 * s - 1 - win + win.T) / 2
        r_nu = is_tie - tie
        both = number * r * r
        both = both + both.T
        out[:m, :m] += np.diag(both.sum(axis=1)) - both
        cross = number * r * r_nu
        side = cross.sum(axis=1) - cross.sum(axis=0)
        out[:m, m] += side
        out[m, :m] += side
        out[m, m] += (number * r_nu * r_nu).sum()
    return out


def bootstrap(
    theta: Floats,
    counts: Counts,
    first: Ints,
    second: Ints,
    score: Floats,
    cluster: tuple[Ints, int] | None,
    prior: float,
    ties: str,
    rounds: int,
    seed: int,
) -> tuple[Floats, int]:
    """Bootstrap thetas [B, M] (missing where a round has no finite maximum), and how many are missing."""
    m = len(theta)
    generator = rng.generator(seed, "bradley-terry bootstrap", len(score))
    outcome = (score * 2).astype(np.int64)
    if not (outcome == score * 2).all():
        raise UserError("the bootstrap of ratings needs wins and ties, not probabilities")
    outcome = np.where(first > second, 2 - outcome, outcome)  # whoever stands first, a battle is the same to draw
    cell = (np.minimum(first, second) * m + np.maximum(first, second)) * 3 + outcome
    if cluster is None:
        table = np.bincount(cell, minlength=3 * m * m)
        present = np.flatnonzero(table)
        share = table[present] / table.sum()
    else:
        code, number = cluster
        joint, times = np.unique(code * (3 * m * m) + cell, return_counts=True)
        member, where = joint // (3 * m * m), joint % (3 * m * m)
    inverse, _ = _inverse(theta, 1.0, counts, prior, "half")
    out = np.full((rounds, m), np.nan)
    for b in range(rounds):
        if cluster is None:
            flat = np.zeros(3 * m * m)
            flat[present] = generator.multinomial(score.size, share)
        else:
            drawn = generator.multinomial(number, np.full(number, 1 / number))
            flat = np.asarray(np.bincount(where, weights=drawn[member] * times, minlength=3 * m * m), np.float64)
        lost, tied, won = flat.reshape(m, m, 3).transpose(2, 0, 1)
        first_wins = won + tied / 2
        wins = first_wins + (lost + tied / 2).T
        try:
            if ties == "davidson":
                sym = tied + tied.T
                out[b] = fit_davidson(wins - sym / 2, sym, prior=prior, tolerance=1e-6)[0]
            else:
                out[b] = _chord(theta, wins, inverse, prior)
        except (FloatingPointError, np.linalg.LinAlgError):
            continue
    return out, int(np.isnan(out[:, 0]).sum())


def _chord(theta: Floats, wins: Floats, inverse: Floats, prior: float) -> Floats:
    """Newton from the estimate with its own factorised Hessian; full Newton where that does not settle."""
    games = wins + wins.T
    at = theta.copy()
    previous = np.inf
    for _ in range(30):
        p = expit(at[:, None] - at[None, :])
        gradient = (wins - games * p).sum(axis=1) + (prior * (0.5 - expit(at)) if prior else 0.0)
        step = inverse @ gradient
        largest = float(np.abs(step).max())
        at = at + step
        if largest < 1e-6:
            return np.asarray(at - at.mean())
        if largest > 2 * previous or largest > 5:
            break
        previous = largest
    if not prior and components(wins)[0] > 1:
        raise FloatingPointError("the resampled graph is not connected")
    return fit_half(wins, prior=prior, start=None, tolerance=1e-8)
