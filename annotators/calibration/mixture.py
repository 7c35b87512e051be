"""The crowd's model fitted to votes: margins of pairs, and groups of people with habits of their own, by EM.

    m_i ~ N(0, 1)                                                      margin of pair i
    z_a ~ Categorical(π)                                               group of annotator a
    ℓ = σ_z (m_i + c_z length + d_z list + e_z utility + b_z position) logit of a vote of a on i
    P(first) = σ(ℓ - η_z),  P(second) = σ(-ℓ - η_z),  tie otherwise    (Rao and Kupper), then flips with probability ε_z

With one group the marginal likelihood is maximised directly, the margins integrated out on a grid of ``_NODES``. With
several, margins and groups depend on each other through the votes; the variational EM with q(m) q(z) alternates

    q(m_i) ∝ N(m_i; 0, 1) Π exp Σ_z q(z_a = z) log P_z(vote),   q(z_a = z) ∝ π_z exp Σ E_q(m) log P_z(vote)

with gradient steps on the parameters. The number of groups is that of the best BIC (of the bound, for several). Weak
normal priors on the parameters keep what the votes do not tell near "nothing".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from annotators.calibration.ballots import SECOND, TERMS, TIE, Ballots
from annotators.people.crowd import Group
from farm.base.arrays import Floats

_NODES = np.linspace(-3.5, 3.5, 36)
_LOG_WEIGHTS = -0.5 * _NODES**2 - logsumexp(-0.5 * _NODES**2)
_PRIOR_MEAN = np.array([0.5, 0.0, 0.0, 0.0, 0.0, -1.0, -4.0])
_PRIOR_SPREAD = np.array([1.5, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5])
"""of log σ, c, d, e, b, log η and the log-odds of ε"""
_TERMS, _WIDTH, _FLIP = slice(1, 5), 5, 6


@dataclass(frozen=True)
class Mixture:
    """A fitted crowd."""

    parameters: Floats
    """[groups, 7]"""
    share: Floats
    """[groups], of the votes"""
    belongs: Floats
    """[annotators, groups]: the probability that an annotator is of a group"""
    bound: float
    """log-likelihood, or its variational bound"""
    bic: float

    def groups(self, ties: bool) -> list[Group]:
        """The groups, the largest first."""
        order = [k for k in np.argsort(-self.share, kind="stable") if self.share[k] >= 1e-3]
        found = []
        for k in order:
            spread, weights, width, flip = _unpacked(self.parameters[k])
            length, lists, utility, position = (float(spread * w) for w in weights)
            found.append(
                Group(
                    share=round(float(self.share[k]), 4), spread=round(spread, 4), utility=round(utility, 4),
                    position_bias=round(position, 4), length_bias=round(length, 4), list_bias=round(lists, 4),
                    tie_width=round(width, 4) if ties else 0.0, flip=round(flip, 4),
                )
            )  # fmt: skip
        return found


def fit(given: Ballots, groups: int, *, rounds: int = 40) -> Mixture:
    """The mixture with this many groups."""
    free = _free(given)
    theta = np.where(free, _PRIOR_MEAN, np.array([0.0, 0, 0, 0, 0, -12.0, -12.0]))
    found = minimize(_marginal, theta[free], args=(given, theta, free), jac=True, method="L-BFGS-B")
    theta[free] = found.x
    weight = np.bincount(given.annotator, minlength=len(given.names)).astype(np.float64)
    votes = len(given.item)
    if groups == 1:
        belongs = np.ones((len(given.names), 1))
        bound = -float(found.fun)
        return Mixture(theta[None], np.ones(1), belongs, bound, -2 * bound + free.sum() * np.log(votes))
    parameters, share = _start(theta, groups, free), np.full(groups, 1 / groups)
    margins, _ = _margins(given, np.ones((len(given.names), 1)), theta[None])
    belongs = np.full((len(given.names), groups), 1 / groups)
    before = bound = -np.inf
    for _ in range(rounds):
        belongs = _belongs(given, margins, parameters, share)
        share = belongs.mean(axis=0)
        margins, evidence = _margins(given, belongs, parameters)
        entropy = -float(np.sum(belongs * np.log(np.maximum(belongs, 1e-300))))
        prior = sum(_penalty(p, free)[0] for p in parameters)
        bound = evidence + entropy + float(np.sum(belongs @ np.log(np.maximum(share, 1e-12)))) - prior
        if bound - before < 1e-5 * abs(bound):
            break
        before = bound
        for k in range(groups):
            parameters[k] = _improved(given, margins, belongs[:, k], parameters[k], free)
    count = groups * free.sum() + groups - 1
    return Mixture(parameters, weight @ belongs / votes, belongs, bound, float(-2 * bound + count * np.log(votes)))


def best(given: Ballots, most: int = 3) -> Mixture:
    """The mixture whose number of groups has the smallest BIC; one group where annotators cannot be distinguished."""
    enough = np.bincount(given.annotator) >= 5
    most = most if enough.sum() >= 2 else 1
    chosen = fit(given, 1)
    for groups in range(2, most + 1):
        found = fit(given, groups)
        if found.bic >= chosen.bic:
            break
        chosen = found
    return chosen


def _free(given: Ballots) -> NDArray[np.bool_]:
    """Which parameters the votes can tell anything about."""
    ties = bool((given.answer == TIE).any())
    several = int(np.bincount(given.item).max()) > 2  # two votes a pair do not tell flips from small margins
    return np.array([True, *(name in given.known for name in TERMS), ties, several])


def _unpacked(theta: Floats) -> tuple[float, Floats, float, float]:
    return float(np.exp(theta[0])), theta[_TERMS], float(np.exp(theta[_WIDTH])), float(expit(theta[_FLIP]))


def _start(theta: Floats, groups: int, free: NDArray[np.bool_]) -> Floats:
    """Groups to begin with: people like all, careless ones, hesitant ones, ones who mean the opposite."""
    shifts = np.zeros((4, len(theta)))
    shifts[0, [0, _WIDTH]] = 0.3, -0.5
    shifts[1, [0, _WIDTH]] = -1.2, -0.3
    shifts[2, _WIDTH] = 1.0
    shifts[3, _FLIP] = 5.0
    return theta + shifts[:groups] * free


def _penalty(theta: Floats, free: NDArray[np.bool_]) -> tuple[float, Floats]:
    off = np.where(free, (theta - _PRIOR_MEAN) / _PRIOR_SPREAD, 0.0)
    return 0.5 * float(off @ off), off / _PRIOR_SPREAD


def _chances(given: Ballots, theta: Floats, rows: NDArray[np.int64] | slice) -> tuple[Floats, list[Floats]]:
    """P(vote | margin) at the nodes [V, Q], and its derivatives in the logit, in η and in ε."""
    spread, weights, width, flip = _unpacked(theta)
    logit = spread * ((given.terms[rows] @ weights)[:, None] + _NODES[None, :])
    answer = given.answer[rows]
    sign = np.where(answer == SECOND, -1.0, 1.0)[:, None]  # a second vote is a first vote of the mirrored pair
    right, wrong = expit(sign * logit - width), expit(-sign * logit - width)
    slope, mirrored = right * (1 - right), wrong * (1 - wrong)
    tie = (answer == TIE)[:, None]
    chance = np.where(tie, 1 - right - wrong, (1 - flip) * right + flip * wrong)
    in_logit = np.where(tie, mirrored - slope, sign * ((1 - flip) * slope - flip * mirrored))
    in_width = np.where(tie, slope + mirrored, -(1 - flip) * slope - flip * mirrored)
    in_flip = np.where(tie, 0.0, wrong - right)
    return np.maximum(chance, 1e-12), [in_logit, in_width, in_flip]


def _gradient(given: Ballots, theta: Floats, rows: NDArray[np.int64] | slice, chance: Floats, slopes: list[Floats],
              weight: Floats) -> Floats:  # fmt: skip
    """Gradient in theta of Σ weight log P, all [V, Q]."""
    spread, weights, width, flip = _unpacked(theta)
    scaled = weight / chance
    in_logit = scaled * slopes[0]
    by_vote = in_logit.sum(axis=1)
    terms = given.terms[rows]
    return np.concatenate([
        [spread * float(np.sum(in_logit @ _NODES) + by_vote @ (terms @ weights))],
        spread * (terms.T @ by_vote),
        [width * float(np.sum(scaled * slopes[1])), flip * (1 - flip) * float(np.sum(scaled * slopes[2]))],
    ])  # fmt: skip


def _by_item(given: Ballots, values: Floats) -> Floats:
    """Sums over the votes of each pair; votes are sorted by pair."""
    starts = np.flatnonzero(np.r_[True, np.diff(given.item) > 0])
    return np.add.reduceat(values, starts, axis=0)


def _marginal(free_theta: Floats, given: Ballots, fixed: Floats, free: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Minus the penalised marginal log-likelihood of one group, and its gradient."""
    theta = fixed.copy()
    theta[free] = free_theta
    chance, slopes = _chances(given, theta, slice(None))
    joint = _by_item(given, np.log(chance)) + _LOG_WEIGHTS
    evidence = logsumexp(joint, axis=1)
    posterior = np.exp(joint - evidence[:, None])
    penalty, pull = _penalty(theta, free)
    gradient = _gradient(given, theta, slice(None), chance, slopes, posterior[given.item]) - pull
    return penalty - float(evidence.sum()), -gradient[free]


def _margins(given: Ballots, belongs: Floats, parameters: Floats) -> tuple[Floats, float]:
    """q(m) at the nodes [I, Q], and the sum of its normalisers."""
    votes = np.zeros((len(given.item), len(_NODES)))
    for k, theta in enumerate(parameters):
        votes += belongs[given.annotator, k][:, None] * np.log(_chances(given, theta, slice(None))[0])
    joint = _by_item(given, votes) + _LOG_WEIGHTS
    evidence = logsumexp(joint, axis=1)
    return np.exp(joint - evidence[:, None]), float(evidence.sum())


def _belongs(given: Ballots, margins: Floats, parameters: Floats, share: Floats) -> Floats:
    """q(z) [A, groups]."""
    said = np.empty((len(given.names), len(parameters)))
    for k, theta in enumerate(parameters):
        expected = np.sum(margins[given.item] * np.log(_chances(given, theta, slice(None))[0]), axis=1)
        said[:, k] = np.bincount(given.annotator, expected, len(given.names))
    return np.asarray(softmax(said + np.log(np.maximum(share, 1e-12)), axis=1))


def _improved(given: Ballots, margins: Floats, weight: Floats, theta: Floats, free: NDArray[np.bool_]) -> Floats:
    """The parameters of one group after a few gradient steps on their expected log-likelihood."""
    rows = np.flatnonzero(weight[given.annotator] > 1e-3)
    weights = weight[given.annotator[rows]][:, None] * margins[given.item[rows]]

    def loss(x: Floats) -> tuple[float, Floats]:
        at = theta.copy()
        at[free] = x
        chance, slopes = _chances(given, at, rows)
        penalty, pull = _penalty(at, free)
        gradient = _gradient(given, at, rows, chance, slopes, weights) - pull
        return penalty - float(np.sum(weights * np.log(chance))), -gradient[free]

    out = theta.copy()
    out[free] = minimize(loss, theta[free], jac=True, method="L-BFGS-B", options={"maxiter": 4}).x
    return out
