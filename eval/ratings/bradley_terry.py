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

With styles the ratings are those at equal style (:mod:`eval.ratings.style`). A tier holds the models that cannot be
told apart from its best one, all claims together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.ranks.ranking import ranks_from_separation, tiers
from eval.rates.multiple import all_differences, max_t
from eval.ratings import style as styles_of
from eval.ratings.battles import Battles
from eval.ratings.strength_errors import bootstrap as draw_again
from eval.ratings.strength_errors import sandwich
from eval.ratings.strengths import fit_davidson, fit_half
from eval.ratings.win_matrix import Counts, count, refuse_unconnected
from farm.base.arrays import Floats
from farm.base.errors import OptionError, UserError
from farm.statistics import terminal
from farm.statistics.result import Result
from farm.statistics.uncertainty import Estimate, codes, critical, interval
from farm.tables.formats import require_labels

Ties = Literal["half", "drop", "davidson"]

SCALE = 400 / np.log(10)


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
    style: pd.DataFrame | None = None
    """style, log_odds, low, high: what a usual difference in it is worth, where styles are controlled for"""
    together: str = ""
    """which battles err together though no cluster says so"""

    def __str__(self) -> str:
        body = super().__str__()
        if self.style is None:
            return body
        said = "at equal style; what a usual difference (root mean square) of each is worth"
        return f"{body}\n\n{said}:\n{terminal.shown(self.style)}"

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
        separated = self.separation()
        low, high = ranks_from_separation(self.theta, separated)
        frame = pd.DataFrame(
            {
                "rank": np.arange(1, len(order) + 1),
                "rank_low": low[order],
                "rank_high": high[order],
                "tier": tiers(self.theta, separated)[order],
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
        if self.style is not None:
            said["style"] = ", ".join(self.style["style"])
        if self.prior:
            said["prior"] = f"{self.prior:g} virtual games a model"
        if self.draws is not None:
            said["bootstrap"] = f"{len(self.draws)} rounds, {self.degenerate} degenerate, seed {self.seed}"
        if self.clustered_by and self.clusters < 30:
            said["caution"] = f"only {self.clusters} clusters: the error itself is uncertain"
        if self.together:
            said["caution"] = self.together
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
    style: Sequence[str] = (),
) -> BradleyTerry:
    """Ratings of all models of some battles.

    Args:
        clusters: none (rows are independent), one or two columns of the battles' table.
        style: what answers may differ in without it counting for their models, see :mod:`eval.ratings.style`; without
            a bootstrap, and ties count half or are dropped.
        bootstrap: rounds of the bootstrap (of rows, or of the first cluster column); 0 for none.

    Raises:
        UserError: when no finite ratings exist, or a column or the anchor is unknown.
    """
    m = len(battles.models)
    _check(battles, clusters, anchor)
    kept = battles.score != 0.5 if ties == "drop" else slice(None)
    first, second, score = battles.first[kept], battles.second[kept], battles.score[kept]
    if ties == "davidson" and not np.isin(score, (0.0, 0.5, 1.0)).all():
        raise OptionError("Davidson's tie model needs wins and ties, not probabilities; use `ties` half")
    if not score.size:
        raise UserError("no battle is left without its ties")
    if style and ties == "davidson":
        raise OptionError("`style` goes with ties as half a win or dropped, not with Davidson's model; change `ties`")
    counts = count(first, second, score, m)
    if not prior:
        refuse_unconnected(counts.win_matrix(), battles.models)
    cluster_codes = [codes(battles.table[c].to_numpy()[kept]) for c in clusters]
    nu, worth = float("nan"), None
    if style:
        theta, covariance, units, worth = styles_of.rated(
            first, second, score, battles.table[kept], style, m, prior, cluster_codes, confidence
        )
    else:
        theta, nu = _strengths(counts, ties, prior)
        covariance, units = sandwich(theta, nu, counts, first, second, score, cluster_codes, prior, ties)
    draws, degenerate = None, 0
    if bootstrap and not style:
        code = cluster_codes[0] if cluster_codes else None
        thetas, degenerate = draw_again(theta, counts, first, second, score, code, prior, ties, bootstrap, seed)
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
        style=worth,
        together="" if clusters else _together(battles.table),
    )


ASKED = ("prompt", "instruction", "question", "instruction_id", "question_id")
"""columns that name what was answered in a battle"""


def _together(table: pd.DataFrame) -> str:
    """A caution where several battles are about one prompt, which as rows of their own make errors too small."""
    name = next((c for c in ASKED if c in table.columns), None)
    if name is None:
        return ""
    prompts = table[name].where(table[name].notna(), "").astype(str).str.strip()
    unknown = prompts == ""  # of these nothing is known
    different = prompts[~unknown].nunique() + int(unknown.sum())
    if different == len(table):
        return ""
    return f"{len(table):,} battles about {different:,} prompts, taken as independent: cluster by {name}"


def _check(battles: Battles, clusters: Sequence[str], anchor: str) -> None:
    if anchor and anchor not in battles.models:
        raise UserError(f"the anchor `{anchor}` is not among the {len(battles.models)} models")
    if len(clusters) > 2:
        raise UserError("cluster in at most two ways")
    for column in clusters:
        if column not in battles.table:
            raise UserError(f"the battles have no column `{column}`; there are: {', '.join(battles.table.columns)}")
        require_labels(battles.table, column, "the battles")


def _strengths(counts: Counts, ties: Ties, prior: float) -> tuple[Floats, float]:
    """theta [M], and Davidson's nu, missing where ties are not modelled."""
    wins = counts.win_matrix()
    if ties != "davidson":
        return fit_half(wins, prior=prior), float("nan")
    tied = counts.ties + counts.ties.T
    if not tied.any():
        raise OptionError("there is no tie to fit Davidson's model to; use `ties` half")
    return fit_davidson(wins - tied / 2, tied, prior=prior)
