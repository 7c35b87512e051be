"""Bradley-Terry ratings by Newton on the win matrix, with errors one can trust.

logit P(i beats j) = theta_i - theta_j. One counting pass turns n battles into an M x M matrix; after that nothing
depends on n. Ties count half a win to each (quasi-likelihood), are dropped, or are modelled (Davidson 1970):

    P(i wins) : P(j wins) : P(tie) = e^{d/2} : e^{-d/2} : nu,     d = theta_i - theta_j

Errors: the sandwich V = H^-1 B H^-1 with B = C/(C-1) sum_c g_c g_c' over clusters c (rows without any), g the summed
scores; the inverse Hessian alone assumes that the model is right and rows are independent, and both are usually wrong.
The bootstrap draws battles (or whole clusters) again and refits from the estimate with one factorised Hessian.

Ratings are 1000 + 400/ln(10) * theta with the mean of theta at zero, or an anchor model at its value; an anchor has no
error by construction, so judge differences (:meth:`BradleyTerry.difference`) rather than two separate intervals.

A finite maximum exists only when the graph of wins is strongly connected (Ford 1957); otherwise the fit is refused,
naming who never lost or won, unless a prior of virtual games against an average opponent is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from eval.battles import Battles
from eval.multiple import all_differences, max_t
from eval.ranking import ranks_from_separation
from farm import rng
from farm.errors import UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import Estimate, codes, critical, interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ties = Literal["half", "drop", "davidson"]

SCALE = 400 / np.log(10)


@dataclass(frozen=True)
class Counts:
    """What the counting pass keeps of ordered pairs (i first, j second): all arrays have shape [M, M]."""

    games: Floats
    wins: Floats
    """summed score of the first"""
    squares: Floats
    """summed squared score of the first"""
    ties: Floats

    def win_matrix(self) -> Floats:
        """[M, M]: how much i won from j, in both orders."""
        return self.wins + (self.games - self.wins).T


def count(first: Ints, second: Ints, score: Floats, models: int) -> Counts:
    """The counting pass: one bincount over (pair, result) for results 0, 1/2, 1; three for soft ones."""
    cells = models * models
    table = _tally(first, second, score, models) if cells * 3 < 4 * max(len(score), 250_000) else None
    if table is not None:
        lost, tied, won = table[..., 0], table[..., 1], table[..., 2]
        return Counts(lost + tied + won, won + tied / 2, won + tied / 4, tied)
    pair = first * models + second

    def summed(weights: Floats) -> Floats:
        return np.asarray(np.bincount(pair, weights=weights, minlength=cells), np.float64).reshape(models, models)

    games = np.bincount(pair, minlength=cells).astype(np.float64).reshape(models, models)
    return Counts(games, summed(score), summed(score * score), summed((score == 0.5).astype(np.float64)))


_BLOCK = 1 << 15
"""rows counted at a time, so that what is made on the way stays in the processor's cache"""


def _tally(first: Ints, second: Ints, score: Floats, models: int) -> Floats | None:
    """Games by (first, second, twice the score), [M, M, 3]; None where some score is not 0, 1/2 or 1."""
    cells = 3 * models * models
    block = max(_BLOCK, 2 * cells)
    table = np.zeros(cells, np.int64)
    for start in range(0, len(score), block):
        rows = slice(start, start + block)
        doubled = score[rows] * 2
        outcome = doubled.astype(np.int64)
        if not np.array_equal(outcome, doubled):
            return None
        cell = first[rows] * models
        cell += second[rows]
        cell *= 3
        cell += outcome
        table += np.bincount(cell, minlength=cells)
    return table.reshape(models, models, 3).astype(np.float64)


def components(wins: Floats) -> tuple[int, Ints]:
    """Strongly connected components of the graph "i has won something from j": their number and a label a model."""
    number, labels = connected_components(csr_array(wins > 0), directed=True, connection="strong")
    return int(number), labels.astype(np.int64)


def _reaches_all(edges: NDArray[np.bool_]) -> bool:
    """Whether every model can be reached from the first: both ways, that is strong connection, and takes no library."""
    reached = edges[0].copy()
    reached[0] = True
    found = 1
    while (number := int(reached.sum())) > found:
        found = number
        reached |= edges[reached].any(axis=0)
    return found == len(edges)


def _refuse_unconnected(wins: Floats, models: Sequence[str]) -> None:
    if _reaches_all(wins > 0) and _reaches_all(wins.T > 0):
        return
    number, labels = components(wins)
    if number == 1:
        return
    games = wins + wins.T
    islands, _ = connected_components(csr_array(games > 0), directed=False)
    never_won = [m for m, w in zip(models, wins.sum(1), strict=True) if w == 0]
    never_lost = [m for m, w in zip(models, wins.sum(0), strict=True) if w == 0]
    if islands > 1:
        why = f"the models fall into {islands} groups that never met"
    elif never_won:
        why = f"`{never_won[0]}` never won" + (f" (and {len(never_won) - 1} more)" if len(never_won) > 1 else "")
    elif never_lost:
        why = f"`{never_lost[0]}` never lost" + (f" (and {len(never_lost) - 1} more)" if len(never_lost) > 1 else "")
    else:
        smallest = np.flatnonzero(labels == np.bincount(labels).argmin())
        why = f"no win leads from or into the group of `{models[int(smallest[0])]}` ({smallest.size} models)"
    raise UserError(
        f"no finite Bradley-Terry ratings: {why}; leave these models out, or ask for a prior (--prior 1 is one virtual "
        "game of each model against an average opponent)"
    )


def _derivatives(theta: Floats, wins: Floats, games: Floats, prior: float) -> tuple[Floats, Floats, Floats]:
    p = expit(theta[:, None] - theta[None, :])
    gradient = (wins - games * p).sum(axis=1) + prior * (0.5 - expit(theta))
    v = games * p * (1 - p)
    hessian = -v
    q = expit(theta)
    hessian[np.diag_indices_from(hessian)] = v.sum(axis=1) - np.diag(v) + prior * q * (1 - q)
    return gradient, hessian, p


def fit_half(wins: Floats, *, prior: float = 0.0, start: Floats | None = None, tolerance: float = 1e-10) -> Floats:
    """theta [M] with mean zero from a win matrix [M, M] (fractions allowed), by Newton; 5 to 8 iterations.

    ``tolerance`` bounds the largest step; ``prior`` is the number of virtual games (half won) against strength 0.
    """
    m = len(wins)
    games = wins + wins.T
    theta = np.zeros(m) if start is None else start.copy()
    gauge = 0.0 if prior else 1.0 / m
    for _ in range(200):
        gradient, hessian, _ = _derivatives(theta, wins, games, prior)
        step = np.linalg.solve(hessian + gauge, gradient)
        largest = np.abs(step).max()
        # A logistic likelihood descends surely while no logit moves by more than about one.
        theta = theta + step * min(1.0, 1.5 / largest) if largest > 0 else theta
        if not np.isfinite(theta).all() or np.abs(theta).max() > 50:
            raise FloatingPointError("the ratings diverge")
        if largest < tolerance:
            break
    else:
        raise FloatingPointError("Newton did not converge")
    return np.asarray(theta - theta.mean())


def fit_davidson(
    decided: Floats, ties: Floats, *, prior: float = 0.0, tolerance: float = 1e-10
) -> tuple[Floats, float]:
    """theta [M] and nu from decided wins [M, M] and ties (symmetric, both orders summed) [M, M]."""
    m = len(decided)
    theta, eta = np.zeros(m), float(np.log(max(ties.sum(), 1.0) / max(decided.sum(), 1.0)))
    for _ in range(200):
        gradient, hessian, _ = davidson_derivatives(theta, eta, decided, ties, prior)
        hessian[:m, :m] += 0.0 if prior else 1.0 / m
        step = np.linalg.solve(hessian, gradient)
        largest = np.abs(step).max()
        step = step * min(1.0, 1.0 / largest) if largest > 0 else step
        theta, eta = theta + step[:m], eta + float(step[m])
        if not np.isfinite(theta).all() or np.abs(theta).max() > 50:
            raise FloatingPointError("the ratings diverge")
        if largest < tolerance:
            break
    else:
        raise FloatingPointError("Newton did not converge")
    return np.asarray(theta - theta.mean()), float(np.exp(eta))


def davidson_derivatives(
    theta: Floats, eta: float, decided: Floats, ties: Floats, prior: float
) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    """Gradient [M + 1], negative Hessian [M + 1, M + 1] and (P(win), P(tie)) [M, M] at (theta, log nu)."""
    d = theta[:, None] - theta[None, :]
    up, nu = np.exp(d / 2), np.exp(eta)
    total = up + 1 / up + nu
    win, tie = up / total, nu / total
    lose = win.T
    games = decided + decided.T + ties
    np.fill_diagonal(games, 0)
    m = len(theta)
    q = expit(theta)
    gradient = np.empty(m + 1)
    gradient[:m] = ((decided - decided.T) / 2 - games * (win - lose) / 2).sum(axis=1) + prior * (0.5 - q)
    gradient[m] = (ties.sum() - (games * tie).sum()) / 2
    curvature = games * ((win + lose) - (win - lose) ** 2) / 4
    cross = games * tie * (win - lose) / 2
    hessian = np.zeros((m + 1, m + 1))
    hessian[:m, :m] = -curvature
    hessian[np.arange(m), np.arange(m)] = curvature.sum(axis=1) - np.diag(curvature) + prior * q * (1 - q)
    hessian[:m, m] = hessian[m, :m] = -cross.sum(axis=1)
    hessian[m, m] = (games * tie * (1 - tie)).sum() / 2
    return gradient, hessian, (win, tie)


@dataclass(frozen=True)
class BradleyTerry(Result):
    """Ratings with their covariance; theta has mean zero."""

    models: tuple[str, ...]
    theta: Floats
    covariance: Floats
    """[M, M] of theta in the gauge of mean zero"""
    games: Floats
    wins: Floats
    tied: Floats
    ties: str
    nu: float
    """Davidson's tie parameter; missing where ties are not modelled"""
    n: int
    missing: int
    clustered_by: tuple[str, ...]
    clusters: int
    errors: str
    prior: float
    anchor: str
    anchor_rating: float
    confidence: float
    draws: Floats | None = None
    """[B, M] bootstrap ratings, where asked for"""
    degenerate: int = 0
    """bootstrap rounds without finite ratings"""
    seed: int = 0

    @property
    def ratings(self) -> Floats:
        """[M] on the Elo scale."""
        return self.anchor_rating + SCALE * (self.theta - self._origin())

    def _origin(self) -> float:
        return float(self.theta[self.models.index(self.anchor)]) if self.anchor else 0.0

    def _rating_covariance(self) -> Floats:
        v = self.covariance
        if not self.anchor:
            return SCALE**2 * v
        a = self.models.index(self.anchor)
        return np.asarray(SCALE**2 * (v - v[:, [a]] - v[[a], :] + v[a, a]))

    def difference(self, first: str, second: str) -> Estimate:
        """The rating of one model minus another's, in Elo points, with its interval."""
        i, j = self.models.index(first), self.models.index(second)
        v = self.covariance
        error = float(SCALE * np.sqrt(max(v[i, i] + v[j, j] - 2 * v[i, j], 0)))
        return interval(float(SCALE * (self.theta[i] - self.theta[j])), error, self.n, self.clusters, self.confidence)

    def separation(self) -> NDArray[np.bool_]:
        """[M, M]: which pairs differ, all claims together at the confidence (max-t over all differences)."""
        contrasts = all_differences(len(self.models))
        _, p = max_t(
            self.covariance,
            contrasts,
            estimates=self.theta,
            degrees=max(self.clusters - 1, 1),
            confidence=self.confidence,
            seed=self.seed,
        )
        first, second = np.triu_indices(len(self.models), 1)
        out = np.zeros((len(self.models),) * 2, dtype=bool)
        out[first, second] = out[second, first] = p < 1 - self.confidence
        return out

    def table(self) -> pd.DataFrame:
        """One row a model, best first: rating with its interval, and a rank interval from max-t separation."""
        order = np.argsort(-self.theta, kind="stable")
        error = np.sqrt(np.maximum(np.diag(self._rating_covariance()), 0))
        half = critical(self.confidence, max(self.clusters - 1, 1)) * error
        low, high = ranks_from_separation(self.theta, self.separation())
        frame = pd.DataFrame(
            {
                "rank": np.arange(1, len(order) + 1),
                "rank_low": low[order],
                "rank_high": high[order],
                "model": [self.models[k] for k in order],
                "rating": self.ratings[order],
                "standard_error": error[order],
                "rating_low": (self.ratings - half)[order],
                "rating_high": (self.ratings + half)[order],
                "games": self.games[order].astype(int),
                "win_rate": 100 * self.wins[order] / self.games[order],
                "n_draws": self.tied[order].astype(int),
            }
        )
        if self.draws is not None:
            tail = (1 - self.confidence) / 2
            bounds = np.nanquantile(self.draws, [tail, 1 - tail], axis=0)[:, order]
            frame["bootstrap_low"], frame["bootstrap_high"] = bounds
        return frame

    def settings(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "battles": self.n,
            "without a result": self.missing,
            "ties": self.ties,
            "errors": f"{self.errors}, {self.clusters} units"
            + (f" ({', '.join(self.clustered_by)})" if self.clustered_by else ""),
            "gauge": f"{self.anchor} = {self.anchor_rating:g}" if self.anchor else f"mean = {self.anchor_rating:g}",
            "ranks": "simultaneous, max-t over all differences",
            "confidence": self.confidence,
        }
        if self.ties == "davidson":
            said["nu"] = round(self.nu, 4)
        if self.prior:
            said["prior"] = f"{self.prior:g} virtual games a model"
        if self.draws is not None:
            said["bootstrap"] = f"{len(self.draws)} rounds, {self.degenerate} degenerate, seed {self.seed}"
        if self.clustered_by and self.clusters < 30:
            said["caution"] = f"only {self.clusters} clusters: the error itself is uncertain"
        return said


def bradley_terry(
    battles: Battles,
    *,
    ties: Ties = "half",
    clusters: Sequence[str] = (),
    prior: float = 0.0,
    anchor: str = "",
    anchor_rating: float = 1000.0,
    bootstrap: int = 0,
    seed: int = 0,
    confidence: float = 0.95,
) -> BradleyTerry:
    """Ratings of all models of some battles.

    Args:
        clusters: none (rows are independent), one or two columns of the battles' table.
        bootstrap: rounds of the bootstrap (of rows, or of the first cluster column); 0 for none.

    Raises:
        UserError: when no finite ratings exist, or a column or the anchor is unknown.
    """
    m = len(battles.models)
    if anchor and anchor not in battles.models:
        raise UserError(f"the anchor `{anchor}` is not among the {m} models")
    if len(clusters) > 2:
        raise UserError("cluster in at most two ways")
    for column in clusters:
        if column not in battles.table:
            raise UserError(f"the battles have no column `{column}`; there are: {', '.join(battles.table.columns)}")
    kept = battles.score != 0.5 if ties == "drop" else slice(None)
    first, second, score = battles.first, battles.second, battles.score
    if ties == "drop":
        first, second, score = first[kept], second[kept], score[kept]
    if ties == "davidson" and not np.isin(score, (0.0, 0.5, 1.0)).all():
        raise UserError("Davidson's tie model needs wins and ties, not probabilities; use --ties half")
    if not score.size:
        raise UserError("no battle is left without its ties")
    counts = count(first, second, score, m)
    wins = counts.win_matrix()
    nu = float("nan")
    if not prior:
        _refuse_unconnected(wins, battles.models)
    if ties == "davidson":
        tied = counts.ties + counts.ties.T
        if not tied.any():
            raise UserError("there is no tie to fit Davidson's model to; use --ties half")
        decided = wins - tied / 2
        theta, nu = fit_davidson(decided, tied, prior=prior)
    else:
        theta = fit_half(wins, prior=prior)
    cluster_codes = [codes(battles.table[c].to_numpy()[kept]) for c in clusters]
    covariance, units = _sandwich(theta, nu, counts, first, second, score, cluster_codes, prior, ties)
    draws, degenerate = None, 0
    if bootstrap:
        code = cluster_codes[0] if cluster_codes else None
        thetas, degenerate = _bootstrap(theta, counts, first, second, score, code, prior, ties, bootstrap, seed)
        origin = thetas[:, [battles.models.index(anchor)]] if anchor else 0.0
        draws = anchor_rating + SCALE * (thetas - origin)
    every = count(battles.first, battles.second, battles.score, m) if ties == "drop" else counts
    games = every.games.sum(0) + every.games.sum(1)
    return BradleyTerry(
        models=battles.models,
        theta=theta,
        covariance=covariance,
        games=games,
        wins=every.win_matrix().sum(1),
        tied=every.ties.sum(0) + every.ties.sum(1),
        ties=ties,
        nu=nu,
        n=len(score),
        missing=battles.missing,
        clustered_by=tuple(clusters),
        clusters=units,
        errors="cluster sandwich" if clusters else "row sandwich",
        prior=prior,
        anchor=anchor,
        anchor_rating=anchor_rating,
        confidence=confidence,
        draws=draws,
        degenerate=degenerate,
        seed=seed,
    )


def _inverse(theta: Floats, nu: float, counts: Counts, prior: float, ties: str) -> tuple[Floats, Floats]:
    """The inverse Hessian in the gauge of mean zero (theta's part and the rest), and what rows' scores need."""
    m = len(theta)
    wins = counts.win_matrix()
    if ties == "davidson":
        tied = counts.ties + counts.ties.T
        _, hessian, (win, tie) = davidson_derivatives(theta, float(np.log(nu)), wins - tied / 2, tied, prior)
        hessian[:m, :m] += 1.0 / m
        return _inv(hessian), np.stack([win, tie])
    _, hessian, p = _derivatives(theta, wins, wins + wins.T, prior)
    return _inv(hessian + 1.0 / m), p[None]


def _inv(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _sandwich(
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


def _bootstrap(
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
    cell = (first * m + second) * 3 + outcome
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


@dataclass(frozen=True)
class FirstAdvantage(Result):
    """What being shown first is worth, in log-odds, next to the ratings."""

    log_odds: float
    standard_error: float
    low: float
    high: float
    share: float
    """the win rate of the first between equals: sigmoid(log_odds)"""
    raw_share: float
    """the plain win rate of the first"""
    n: int
    confidence: float = 0.95


def first_advantage(battles: Battles, *, prior: float = 0.0, confidence: float = 0.95) -> FirstAdvantage:
    """The position intercept of logit P(first wins) = beta + theta_first - theta_second, with a row sandwich."""
    m = len(battles.models)
    counts = count(battles.first, battles.second, battles.score, m)
    if not prior:
        _refuse_unconnected(counts.win_matrix(), battles.models)
    theta, beta = fit_half(counts.win_matrix(), prior=prior), 0.0
    games, wins = counts.games, counts.wins
    hessian = np.eye(m + 1)
    p = np.full((m, m), 0.5)
    for _ in range(100):
        p = expit(beta + theta[:, None] - theta[None, :])
        residual = wins - games * p
        gradient = np.r_[residual.sum(1) - residual.sum(0) + prior * (0.5 - expit(theta)), residual.sum()]
        v = games * p * (1 - p)
        both = v + v.T
        hessian = np.zeros((m + 1, m + 1))
        hessian[:m, :m] = np.diag(both.sum(1)) - both + 1.0 / m
        hessian[:m, :m] += np.diag(prior * expit(theta) * (1 - expit(theta)))
        hessian[:m, m] = hessian[m, :m] = v.sum(1) - v.sum(0)
        hessian[m, m] = v.sum()
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 1.5 / max(float(np.abs(step).max()), 1e-300))
        theta, beta = theta + step[:m], beta + float(step[m])
        if np.abs(step).max() < 1e-10:
            break
    squares = counts.squares - 2 * p * wins + p * p * games
    both = squares + squares.T
    meat = np.zeros((m + 1, m + 1))
    meat[:m, :m] = np.diag(both.sum(1)) - both
    meat[:m, m] = meat[m, :m] = squares.sum(1) - squares.sum(0)
    meat[m, m] = squares.sum()
    inverse = np.linalg.inv(hessian)
    error = float(np.sqrt((inverse @ meat @ inverse)[m, m]))
    half = critical(confidence) * error
    share = float(battles.score.mean())
    return FirstAdvantage(beta, error, beta - half, beta + half, float(expit(beta)), share, len(battles), confidence)


def elo(battles: Battles, *, k: float = 4.0, start: float = 1000.0) -> pd.Series:
    """Elo ratings after one pass in the given order, by model. Depends on the order: for streams, not leaderboards."""
    rating = [start] * len(battles.models)
    for i, j, s in zip(battles.first.tolist(), battles.second.tolist(), battles.score.tolist(), strict=True):
        expected = 1 / (1 + 10 ** ((rating[j] - rating[i]) / 400))
        change = k * (s - expected)
        rating[i] += change
        rating[j] -= change
    return pd.Series(rating, index=list(battles.models), name="elo").sort_values(ascending=False)
