"""Would the two leaderboards agree without sampling error? The posterior of the rank correlation of true scores.

The scores of M methods under two measures are estimates, d = z + e with e ~ N(0, S) from the instructions. A bootstrap
adds the error a second time, so its correlations lie below the estimate, which already lies below the truth: a
percentile interval is off centre twice. Here the errors are taken out instead. A method's true pair of scores is one of
a population, z_m ~ N(mu, T), and one draws (mu, T, z) given d by Gibbs sampling:

    z | mu, T, d :  z' + (I x T) (I x T + S)^-1 (d - z' - e'),  z' ~ N(mu, I x T), e' ~ N(0, S)     (Matheron's rule)
    mu | z, T    :  N(mean z, T / M)
    T | z        :  inverse Wishart; prior of Huang and Wand (2013): arcsine on the correlation, half-t scales

and correlates the true scores of every draw. The interval is for these methods, on all instructions of the kind; it
covers on average over methods like these (``tests/eval/test_coverage.py`` states how often).
"""

from __future__ import annotations

import numpy as np

from eval.ranks import ranking
from farm.base import rng
from farm.base.arrays import Floats
from farm.statistics.uncertainty import JointMeans

CHAINS = 100
WARM_UP = 20
_DEGREES = 1.0
"""of the prior of T: the correlation has density (1 - r^2)^(degrees/2 - 1). At 2, uniform, strong correlations of few
methods were covered too seldom (92 %)."""
_SPREAD = 5.0
"""scale of the half-t prior of the true spread, in observed standard deviations: wide"""


def correlation_intervals(
    first: Floats, second: Floats, covariance: Floats, *, rounds: int, seed: int, confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """The interval of Spearman's and Kendall's correlation of the true scores [M].

    Missing below three methods, and where the error of a score is unknown (missing in the covariance).
    """
    if len(first) < 3 or np.isnan(covariance).any():
        return dict.fromkeys(("spearman", "kendall"), (float("nan"), float("nan")))
    drawn = true_scores(first, second, covariance, rounds, seed)
    return {
        name: ranking.percentile_interval(function(drawn[:, 0], drawn[:, 1]), confidence)
        for name, function in (("spearman", ranking.spearman), ("kendall", ranking.kendall))
    }


def joint_covariance(first: JointMeans, second: JointMeans) -> Floats:
    """[2M, 2M] of the sampling errors of two measures of the same methods.

    Measures over as many instructions are over the same ones, in the same order; their errors are paired. Otherwise
    they are taken as independent.
    """
    parts = [_influence(j) for j in (first, second)]
    m = len(first.means)
    out = np.zeros((2 * m, 2 * m))
    out[:m, :m], out[m:, m:] = (p.T @ p for p in parts)
    if len(parts[0]) == len(parts[1]):
        out[:m, m:] = parts[0].T @ parts[1]
        out[m:, :m] = out[:m, m:].T
    return out


def _influence(means: JointMeans) -> Floats:
    return scaled_influence(means.sums, means.counts, means.means)


def scaled_influence(sums: Floats, counts: Floats, means: Floats) -> Floats:
    """What each cluster moves each mean by [C, M], scaled by sqrt(C/(C-1)): G'G is the clustered covariance.

    Missing for a mean of a single cluster.
    """
    units = (counts > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        influence = (sums - means * counts) / counts.sum(axis=0)
    return np.asarray(influence * np.sqrt(np.where(units > 1, units / np.maximum(units - 1, 1), np.nan)))


def true_scores(first: Floats, second: Floats, covariance: Floats, rounds: int, seed: int) -> Floats:
    """Draws [B, 2, M] of the true scores under both measures.

    Args:
        first, second: estimated scores [M], at least three methods.
        covariance: [2M, 2M] of their sampling errors, the first measure's M before the second's.
        rounds: B, rounded up to a multiple of the number of chains.
    """
    m = len(first)
    scale = np.array([s if (s := float(v.std())) > 0 else 1.0 for v in (first, second)])
    centre = np.array([first.mean(), second.mean()])
    data = np.stack([(first - centre[0]) / scale[0], (second - centre[1]) / scale[1]])  # [2, M]
    each = np.repeat(1 / scale, m)
    error = covariance * each[:, None] * each[None, :]
    values, vectors = np.linalg.eigh((error + error.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0))
    noise = root @ root.T
    chains = CHAINS if m <= 60 else CHAINS // 5
    kept = -(-rounds // chains)
    generator = rng.generator(seed, "true scores", m)
    spread = np.tile(np.eye(2), (chains, 1, 1))  # T
    mean = np.zeros((chains, 2))
    out = np.empty((kept, chains, 2, m))
    identity = np.eye(m)
    for step in range(-WARM_UP, kept):
        prior = np.einsum("cij,mn->cimjn", spread, identity).reshape(chains, 2 * m, 2 * m)
        half = np.linalg.cholesky(spread)
        imagined = mean[:, :, None] + half @ generator.standard_normal((chains, 2, m))
        blurred = imagined.reshape(chains, -1) + generator.standard_normal((chains, 2 * m)) @ root.T
        solved = _solved(prior + noise, (data.reshape(-1) - blurred)[..., None])
        z = imagined + (prior @ solved)[..., 0].reshape(chains, 2, m)
        mean = z.mean(axis=2) + (half @ generator.standard_normal((chains, 2, 1)))[..., 0] / np.sqrt(m)
        residual = z - mean[:, :, None]
        diagonal = np.diagonal(np.linalg.inv(spread), axis1=1, axis2=2)
        auxiliary = (_DEGREES * diagonal + 1 / _SPREAD**2) / generator.gamma((_DEGREES + 2) / 2, size=(chains, 2))
        total = residual @ residual.transpose(0, 2, 1)
        total[:, [0, 1], [0, 1]] += 2 * _DEGREES / auxiliary
        spread = _inverse_wishart(total, _DEGREES + 1 + m, generator)
        if step >= 0:
            out[step] = z
    return (out * scale[:, None] + centre[:, None]).reshape(-1, 2, m)


def _solved(matrices: Floats, vectors: Floats) -> Floats:
    """The products [C, n, 1] of the inverses of symmetric matrices [C, n, n] with vectors. Methods that do the same on
    each instruction have the same errors, and where their true scores are drawn close together nothing but rounding is
    left of their differences: these are not solved for then."""
    try:
        return np.asarray(np.linalg.solve(matrices, vectors))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.pinv(matrices, hermitian=True) @ vectors)


def _inverse_wishart(scale: Floats, degrees: float, generator: np.random.Generator) -> Floats:
    """One draw [C, 2, 2] a chain from IW(degrees, scale [C, 2, 2]), by Bartlett's decomposition of the inverse."""
    chains = len(scale)
    lower = np.zeros((chains, 2, 2))
    lower[:, 0, 0] = np.sqrt(generator.chisquare(degrees, chains))
    lower[:, 1, 1] = np.sqrt(generator.chisquare(degrees - 1, chains))
    lower[:, 1, 0] = generator.standard_normal(chains)
    half = np.linalg.cholesky(np.linalg.inv(scale)) @ lower
    return np.asarray(np.linalg.inv(half @ half.transpose(0, 2, 1)))
