"""What several studies share: labels that may be wrong, a logistic regression, and who is put in the right order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import rankdata

from farm.base.arrays import Bools, Floats


def drawn_taste(length: float, dimensions: int, draws: np.random.Generator) -> Floats:
    """Weights of this length in a direction that is drawn, [d]."""
    direction = draws.normal(size=dimensions)
    return np.asarray(length * direction / np.linalg.norm(direction))


def drawn_labels(logit: Floats, flips: Floats | float, draws: np.random.Generator) -> tuple[Floats, Bools]:
    """Labels that are 1 with probability sigma(logit) and else -1, a share of them turned round, and which were."""
    honest, flipped = draws.random(logit.shape) < expit(logit), draws.random(logit.shape) < flips
    return np.where(honest != flipped, 1.0, -1.0), flipped


def fit(
    x: Floats,
    signs: Floats,
    weights: Floats | float = 1.0,
    ridge: float = 1.0,
    prior: Floats | float = 0.0,
    steps: int = 25,
    lead: Floats | float = 0.0,
    start: Floats | None = None,
) -> Floats:
    """argmin of sum of weights x losses + ridge / 2 |v - prior|^2 by Newton's method, [d].

    Args:
        x: differences of features, [n, d].
        signs: labels of 1 or -1, [n].
        lead: taken off x . v of each pair, [n].
        start: near enough for Newton's steps to converge; the prior where omitted.
    """
    v = np.zeros(x.shape[1]) + (prior if start is None else start)
    for _ in range(steps):
        p = expit(signs * (x @ v - lead))
        slope = -(weights * signs * (1 - p)) @ x + ridge * (v - prior)
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(v))
        v = v - np.linalg.solve(curvature, slope)
    return v


def losses(signs: Floats, logit: Floats) -> Floats:
    """-log P of each label, in the shape of the labels."""
    return np.logaddexp(0, -signs * logit)


def auroc(suspicion: Floats, flipped: Bools) -> float:
    """P(a flipped label is more suspect than another), ties one half."""
    ranks, n = rankdata(suspicion), int(flipped.sum())
    return float((ranks[flipped].sum() - n * (n + 1) / 2) / (n * (len(flipped) - n)))


def agrees(first: Floats, second: Floats | float) -> Floats:
    """1 where two differences have one sign, 0 where they have opposite ones, 1/2 where one of them is 0."""
    return np.asarray(0.5 + 0.5 * np.sign(first) * np.sign(second))


def best(candidates: Floats, v: Floats) -> Floats:
    """Of each instruction's candidates [m, n, d] the one with the highest v . phi, [m, d]."""
    return candidates[np.arange(len(candidates)), (candidates @ v).argmax(1)]


def drawn_names(what: str, n: int, seed: int) -> list[str]:
    """Names of n things that were drawn for this seed, [n]: another seed's are others, and no name stands in both, so
    that intervals do not take them as crossed with the seeds."""
    return [f"{what} {k} of seed {seed}" for k in range(n)]


def by_method(found: Mapping[str, Floats], column: str, instructions: Sequence[str]) -> pd.DataFrame:
    """``method``, ``instruction`` and a number of both, from those of each method in the order of the instructions."""
    parts = [pd.DataFrame({"method": m, "instruction": instructions, column: value}) for m, value in found.items()]
    return pd.concat(parts, ignore_index=True)
